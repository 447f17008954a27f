/* tests/sim/sim_world.c: time and chance of a run, its events and its history. Stands in for core/clock.c and
 * core/rng.c. */
#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

#include "core/rng.h"
#include "tests/sim/sim.h"

#define WALL_BASE_NS (UINT64_C(1790000000) * SIM_S)
#define TAIL_LINES   4000
#define TAIL_BYTES   240
#define TAIL_PRINTED 120

struct world W;
bool trace_to_stdout;

/* ---- chance ---- */

/* splitmix64: one for the world, one for the product, so that a change of one moves the other as little as
 * can be. */
static uint64_t world_state, product_state;

static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t chance_u64(void)
{
    return draw(&world_state);
}

uint64_t chance_below(uint64_t bound)
{
    return (uint64_t)((unsigned __int128)draw(&world_state) * bound >> 64);
}

bool chance_ppm(uint32_t ppm)
{
    return chance_below(1000000) < ppm;
}

/* A geometric draw over a fine grid: integers only, so that every machine draws the same. */
uint64_t chance_around(uint64_t mean)
{
    uint64_t steps = 0;
    while (steps < 100 && chance_below(10) != 0)
        steps++;
    return mean * steps / 9 + chance_below(mean / 9 + 1);
}

uint64_t rng_u64(void)
{
    return draw(&product_state);
}

void rng_bytes(void *out, size_t n)
{
    for (uint8_t *p = out; n > 0; n--)
        *p++ = (uint8_t)draw(&product_state);
}

/* ---- time ---- */

uint64_t clock_mono_ns(void)
{
    return W.now_ns;
}

uint64_t clock_wall_ns(void)
{
    return WALL_BASE_NS + W.now_ns;
}

/* ---- events: two heaps, by time and then by order of birth ---- */

struct event {
    uint64_t at_ns, order;
    event_fn *run;
    void *ctx;
    uint64_t arg;
};

struct events {
    struct event *e; /* owned */
    size_t count, cap;
};
static struct events world_events, process_events;
static uint64_t birth;

static bool before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void push(struct events *h, uint64_t after_ns, event_fn *run, void *ctx, uint64_t arg)
{
    if (h->count == h->cap) {
        h->cap = h->cap ? h->cap * 2 : 256;
        h->e = realloc(h->e, h->cap * sizeof *h->e);
        must(h->e != NULL);
    }
    struct event v = {W.now_ns + after_ns, birth++, run, ctx, arg};
    size_t i = h->count++;
    for (; i > 0 && before(&v, &h->e[(i - 1) / 2]); i = (i - 1) / 2)
        h->e[i] = h->e[(i - 1) / 2];
    h->e[i] = v;
}

static struct event pop(struct events *h)
{
    struct event first = h->e[0], last = h->e[--h->count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->count; i = child) {
        if (child + 1 < h->count && before(&h->e[child + 1], &h->e[child]))
            child++;
        if (!before(&h->e[child], &last))
            break;
        h->e[i] = h->e[child];
    }
    h->e[i] = last;
    return first;
}

void world_at(uint64_t after_ns, event_fn *run, void *ctx, uint64_t arg)
{
    push(&world_events, after_ns, run, ctx, arg);
}

void process_at(uint64_t after_ns, event_fn *run, void *ctx, uint64_t arg)
{
    push(&process_events, after_ns, run, ctx, arg);
}

bool process_events_left(void)
{
    return process_events.count > 0;
}

bool world_step(uint64_t until_ns)
{
    struct events *next = process_events.count > 0 ? &process_events : NULL;
    if (!W.dead && world_events.count > 0 && (!next || before(&world_events.e[0], &next->e[0])))
        next = &world_events;
    if (!next || next->e[0].at_ns > until_ns)
        return false;
    struct event v = pop(next);
    W.now_ns = MAX(W.now_ns, v.at_ns);
    if (!W.dead)
        W.steps++;
    v.run(v.ctx, v.arg);
    return true;
}

/* ---- history ---- */

static char tail[TAIL_LINES][TAIL_BYTES];
static uint64_t tail_count;

void trace(const char *fmt, ...)
{
    char *line = tail[tail_count++ % TAIL_LINES];
    int n = snprintf(line, TAIL_BYTES, "%" PRIu64 " %" PRIu64 ".%06" PRIu64 " ", W.steps, W.now_ns / SIM_S,
                     W.now_ns / SIM_US % 1000000);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(line + n, TAIL_BYTES - (size_t)n, fmt, ap);
    va_end(ap);
    for (const char *p = line; *p; p++)
        W.trace_hash = (W.trace_hash ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
    if (trace_to_stdout)
        puts(line);
}

static void print_tail(void)
{
    uint64_t from = tail_count > TAIL_PRINTED ? tail_count - TAIL_PRINTED : 0;
    if (!trace_to_stdout)
        for (uint64_t i = from; i < tail_count; i++)
            printf("  %s\n", tail[i % TAIL_LINES]);
    printf("seed %" PRIu64 " step %" PRIu64 "; again: ./dev sim --seed %" PRIu64 " --steps %" PRIu64
           " (--trace: all of it)\n",
           W.seed, W.steps, W.seed, W.steps_max);
    fflush(stdout);
}

void violation(const char *fmt, ...)
{
    print_tail();
    printf("VIOLATION: ");
    va_list ap;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
    _exit(1);
}

static void aborted(int sig)
{
    print_tail(); /* not safe in a signal handler in general; the run is over, and this is what it was for */
    printf("VIOLATION: the process died of signal %d\n", sig);
    fflush(stdout);
    _exit(1);
}

void trace_on_abort(void)
{
    signal(SIGABRT, aborted);
    signal(SIGSEGV, aborted);
}

/* ---- a run ---- */

static uint32_t one_of(const uint32_t *values, size_t count)
{
    return values[chance_below(count)];
}
#define ONE_OF(...)                                                                                          \
    one_of((const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void draw_traits(struct sim_traits *t)
{
    t->segment_bytes = ONE_OF(64, 64, 128, 256, 1024) * 1024;
    t->segment_count = t->segment_bytes == 1024 * 1024 ? 8 : ONE_OF(8, 12, 16, 32);
    t->sector_bytes = ONE_OF(512, 4096);
    t->recv_buffer_bytes = ONE_OF(512, 4096, 16384);
    t->recv_buffer_count = ONE_OF(4, 16, 64);
    t->client_count = ONE_OF(2, 4, 8, 12);
    t->client_pause_ms = ONE_OF(50, 500, 3000);
    t->server_mood_ms = ONE_OF(3000, 15000, 200000);
    t->crash_every_ms = ONE_OF(500, 2000, 10000, 60000);
    t->crash_write_ppm = ONE_OF(0, 5000, 30000, 100000);
    t->crash_boot_ppm = ONE_OF(0, 5000, 20000);
    t->peer_trouble_ppm = ONE_OF(0, 5000, 30000, 100000);
    t->disk_fault_every_ms = ONE_OF(0, 0, 5000, 60000);
    t->rot_every_ms = ONE_OF(0, 0, 0, 0, 20000);
    t->body_bytes_max = ONE_OF(1000, 20000, 300000);
    t->lifetime_s = ONE_OF(86400, 86400, 120);
    t->flushes_all = chance_below(2);
}

/* A ring that gets full of mail for a server which is down most of the time: segments are kept. */
static void draw_backlog(struct sim_traits *t)
{
    t->has_backlog = true;
    t->segment_bytes = 64 * 1024;
    t->segment_count = ONE_OF(20, 24, 32, 48);
    t->client_count = 12;
    t->client_pause_ms = ONE_OF(5, 50);
    t->server_mood_ms = ONE_OF(5000, 15000, 60000);
    t->peer_trouble_ppm = 5000;
    t->crash_every_ms = ONE_OF(2000, 10000);
    t->crash_write_ppm = ONE_OF(0, 5000, 30000);
    t->body_bytes_max = ONE_OF(1000, 5000, 20000);
    t->lifetime_s = 86400;
}

void world_begin(uint64_t seed, uint64_t steps_max)
{
    W = (struct world){
        .seed = seed, .steps_max = steps_max, .now_ns = SIM_S, .trace_hash = UINT64_C(0xcbf29ce484222325)};
    world_state = seed;
    product_state = ~seed;
    birth = 0;
    tail_count = 0;
    draw_traits(&W.traits);
    /* Drawn by the seed's own digits, so that seeds that are known for something stay what they were. */
    W.traits.resize_every_ms = seed % 8 == 2 || seed % 8 == 6 ? 4000 : 0;
    if (seed >= SIM_BACKLOG_SEED)
        draw_backlog(&W.traits);
    W.traits.scrub_s = seed % 8 == 1 || seed % 8 == 6;
    const struct sim_traits *t = &W.traits;
    trace(
        "ring %u x %u, sector %u, buffers %u x %u, clients %u every %u ms, moods of %u ms, crash every %u "
        "ms, in writes %u, in boot %u, "
        "peers %u, disk faults every %u ms, rot every %u ms, bodies to %u, lifetime %u s, scrub every %u s, "
        "resize every %u ms",
        t->segment_count, t->segment_bytes, t->sector_bytes, t->recv_buffer_count, t->recv_buffer_bytes,
        t->client_count, t->client_pause_ms, t->server_mood_ms, t->crash_every_ms, t->crash_write_ppm,
        t->crash_boot_ppm, t->peer_trouble_ppm, t->disk_fault_every_ms, t->rot_every_ms, t->body_bytes_max,
        t->lifetime_s, t->scrub_s, t->resize_every_ms);
}

void world_end(void)
{
    free(world_events.e);
    free(process_events.e);
    world_events = process_events = (struct events){0};
}
