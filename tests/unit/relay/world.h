/* A relay with a real queue in a temporary directory, a real loop and two scripted servers: "one.example" and
 * "two.example". A test is a list of steps: `act` once, then `until` must become true before the next step.
 * Everything runs on one thread. */
#ifndef TESTS_UNIT_RELAY_WORLD_H
#define TESTS_UNIT_RELAY_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "core/clock.h"
#include "relay/relay.h"
#include "sink.h"
#include "smtp/proto/envelope.h"

#define GUARD_MS 60000 /* a step that never ends fails the test instead of hanging it */

struct world;
struct step {
    void (*act)(struct world *w);
    bool (*until)(struct world *w);
};

struct world {
    struct loop *loop;
    struct queue *queue;
    struct policy *policy;
    struct relay *relay;
    struct sink one, two;
    char directory[64];   /* given, or made by world_start */
    bool keep;            /* the directory, for another world */
    struct qmsg *live[8]; /* found in it */
    uint32_t live_count;
    const struct step *steps;
    size_t step_at;
    bool is_acting, is_over;
    uint64_t guard_ms;
    struct timer timer;
    uint32_t put_count, queued;
    uint64_t last_id;
    uint64_t arrived_ms;      /* of messages put; 0 = now */
    bool from_stranger;       /* else from a trusted client */
    bool is_delivered;        /* put as a crash leaves what is delivered and not yet reported */
    struct envelope_rcpt dsn; /* NOTIFY and ORCPT of every recipient put */
    enum dsn_ret ret;
    const char *envid;
    const char *more_config; /* lines */
    uint32_t active_max;     /* of the relay; 0 = its own */
    uint32_t left;           /* in the queue when the relay was drained */
};

static uint64_t world_wall_ms(void)
{
    return clock_wall_ns() / NS_PER_MS;
}

static size_t no_names(void *ctx, str_t name, struct ip *out, size_t max)
{
    return 0;
}

static struct policy *world_policy(const struct world *w, const char *one_options, const char *retry)
{
    char yaml[2048];
    struct sbuf b = SBUF_ON(yaml);
    sbuf_printf(
        &b,
        "hostname: gw.example.com\n"
        "listeners: [ { address: \"127.0.0.1:1\" } ]\n"
        "domains:\n"
        "  - { name: one.example, route: { hosts: [\"127.0.0.1:%u\"], tls: off%s } }\n"
        "  - { name: two.example, route: { hosts: [\"127.0.0.1:%u\"], tls: off } }\n"
        "  - { name: maybe.example, route: { hosts: [\"127.0.0.1:%u\"], tls: may } }\n"
        "  - { name: both.example, route: { hosts: [\"127.0.0.1:%u\", \"127.0.0.1:%u\"], tls: off } }\n"
        "timeouts: { connect: 5s, quit: 1s }\n"
        "postmaster: pm@two.example\n"
        "retry: { %s }\n%s",
        w->one.at.port, one_options, w->two.at.port, w->one.at.port, w->one.at.port, w->two.at.port, retry,
        w->more_config ? w->more_config : "");
    struct diag d = {.file = "test.yaml"};
    struct config *c;
    struct policy *p = NULL;
    struct policy_resolver resolver = {.resolve = no_names};
    if (config_load_text(sbuf_view(&b), "test.yaml", &c, &d) || policy_build(&p, c, &resolver, &d))
        fail_msg(STR_FMT, STR_ARG(gbuf_view(&d.text)));
    diag_free(&d);
    return p;
}

/* --- mail --- */

static void put_done(void *ctx, err_t err, struct qmsg *m)
{
    struct world *w = ctx;
    assert_int_equal(err, 0);
    w->last_id = m->id;
    w->queued++;
    for (uint32_t i = 0; w->is_delivered && i < m->rcpt_count; i++)
        queue_set_rcpt(w->queue, m, i, RCPT_REPORT_DUE);
    relay_take(w->relay, m);
}

/* `to`: addresses with commas between. The bodies of these tests fit into the queue's memory. */
static void put(struct world *w, const char *from, const char *to, str_t body)
{
    char meta_bytes[1024], rcpt_bytes[128][128];
    str_t blobs[128], rest = str_cstr(to), head;
    struct sbuf meta = SBUF_ON(meta_bytes);
    struct envelope env = {.sender = str_cstr(from),
                           .client_class = w->from_stranger ? CLASS_STRANGER : CLASS_TRUSTED,
                           .helo = STR("client.example"),
                           .ret = w->ret,
                           .envid = str_cstr(w->envid)};
    envelope_encode(&env, &meta);
    uint32_t count = 0;
    while (rest.n) {
        str_cut(rest, ',', &head, &rest);
        struct sbuf rb = SBUF_ON(rcpt_bytes[count]);
        struct envelope_rcpt r = w->dsn;
        r.address = head;
        envelope_rcpt_encode(&r, &rb);
        blobs[count++] = sbuf_view(&rb);
    }
    struct queue_writer *qw;
    assert_int_equal(queue_begin(w->queue, &qw), 0);
    assert_int_equal(queue_append(qw, body.p, body.n, NULL, NULL), body.n);
    struct queue_commit c = {.meta = sbuf_view(&meta),
                             .trace = STR("Received: from client.example by gw.example.com\r\n"),
                             .rcpts = blobs,
                             .rcpt_count = count,
                             .arrived_ms = w->arrived_ms ? w->arrived_ms : world_wall_ms(),
                             .done = put_done,
                             .ctx = w};
    w->put_count++;
    queue_commit(qw, &c);
}

static const char small_body[] = "Subject: a\r\nFrom: <s@two.example>\r\n\r\ntext\r\n";
#define SMALL_BODY str_of(small_body, sizeof small_body - 1)

static bool count_one(void *ctx, struct qmsg *m)
{
    ++*(uint32_t *)ctx;
    return true;
}

static uint32_t in_queue(const struct world *w)
{
    uint32_t n = 0;
    queue_each(w->queue, count_one, &n);
    return n;
}

/* Nothing is on its way into the queue, nor out of it. */
static bool is_empty(struct world *w)
{
    return w->queued == w->put_count && in_queue(w) == 0;
}

/* --- running --- */

static void queue_is_closed(void *ctx)
{
    struct world *w = ctx;
    w->queue = NULL;
}

static void over(struct world *w)
{
    if (!w->is_over) {
        w->is_over = true;
        sink_stop(&w->one);
        sink_stop(&w->two);
        relay_destroy(w->relay);
        w->relay = NULL;
        queue_close(w->queue, queue_is_closed, w);
    }
    bool is_quiet = !w->queue && !w->one.listener && !w->two.listener && !w->one.open && !w->two.open;
    if (is_quiet)
        loop_stop(w->loop);
    else
        timer_arm(w->loop, &w->timer, 8);
}

static void is_drained(void *ctx)
{
    struct world *w = ctx;
    w->steps = NULL;
    w->left = in_queue(w);
    timer_arm(w->loop, &w->timer, 0);
}

/* Runs steps until one has to wait; looks again at the next turn of the timer. */
static void world_turn(struct timer *t)
{
    struct world *w = container_of(t, struct world, timer);
    if (!w->steps) {
        over(w);
        return;
    }
    for (;;) {
        const struct step *s = &w->steps[w->step_at];
        if (!s->act && !s->until) {
            relay_drain(w->relay, 5000, is_drained, w);
            return;
        }
        if (!w->is_acting) {
            w->is_acting = true;
            w->guard_ms = loop_now_ms(w->loop) + GUARD_MS;
            if (s->act)
                s->act(w);
        }
        if (s->until && !s->until(w)) {
            if (loop_now_ms(w->loop) > w->guard_ms) {
                print_error("step %zu never ended\nserver one saw:\n" STR_FMT "server two saw:\n" STR_FMT,
                            w->step_at, STR_ARG(gbuf_view(&w->one.lines)), STR_ARG(gbuf_view(&w->two.lines)));
                abort();
            }
            timer_arm(w->loop, t, 1);
            return;
        }
        w->is_acting = false;
        w->step_at++;
    }
}

static void note_live(void *ctx, struct qmsg *m)
{
    struct world *w = ctx;
    assert_true(w->live_count < COUNT_OF(w->live));
    w->live[w->live_count++] = m;
}

static void world_start(struct world *w)
{
    struct loop_options lo = {
        .entries = 256, .buffer_count = 256, .buffer_bytes = 16384, .cpu = -1, .name = "test"};
    assert_int_equal(loop_create(&w->loop, &lo), 0);
    if (!w->directory[0]) {
        memcpy(w->directory, "/tmp/relay-test-XXXXXX", 23);
        assert_non_null(mkdtemp(w->directory));
    }
    struct queue_options qo = {
        .directory = str_cstr(w->directory), .ring_bytes = 16 << 20, .high_water_percent = 90};
    struct gbuf notes = {0};
    if (queue_open(&w->queue, &qo, note_live, w, &notes))
        fail_msg(STR_FMT, STR_ARG(gbuf_view(&notes)));
    gbuf_free(&notes);
    queue_start(w->queue, w->loop);
    sink_open(&w->one, w->loop);
    sink_open(&w->two, w->loop);
}

static void world_finish(struct world *w)
{
    policy_free(w->policy);
    loop_destroy(w->loop);
    sink_free(&w->one);
    sink_free(&w->two);
    if (w->keep)
        return;
    char path[128];
    snprintf(path, sizeof path, "%s/ring-00", w->directory);
    unlink(path);
    rmdir(w->directory);
}

/* one_options: more of one.example's route, ", connections: 3". */
static void world_run(struct world *w, const char *one_options, const char *retry, const struct step *steps)
{
    w->policy = world_policy(w, one_options, retry);
    struct cells *budget = cells_new(BUDGET_DOMAINS);
    assert_non_null(budget);
    struct relay_options ro = {.loop = w->loop,
                               .queue = w->queue,
                               .policy = w->policy,
                               .budget = budget,
                               .active_max = w->active_max};
    assert_int_equal(relay_create(&w->relay, &ro), 0);
    for (uint32_t i = 0; i < w->live_count; i++)
        relay_take(w->relay, w->live[i]);
    w->steps = steps;
    w->timer.fire = world_turn;
    timer_arm(w->loop, &w->timer, 0);
    loop_run(w->loop);
    world_finish(w);
    cells_free(budget);
}

#endif
