/* bench/queue/main.c: postern-bench-queue: one measurement of the ring, printed as JSON. bench/bench.py runs
 * it. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "bench/queue/bench_priv.h"
#include "core/clock.h"
#include "core/log.h"

static const char usage_text[] =
    "usage: postern-bench-queue [options] commit|fill|recover|drain\n"
    "  -d, --directory DIR   where the ring files are made; required\n"
    "  -b, --ring-mib N      size of a ring (default 256)\n"
    "  -m, --messages N      fill: how many\n"
    "  -l, --size BYTES      of each body (default 1024)\n"
    "  -s, --sessions N      at once (default 50)\n"
    "  -f, --fill PERCENT    commit: live messages in the ring that is not empty (default 70)\n"
    "  -r, --rounds N        commit: of each ring (default 3)\n"
    "  -t, --round-ms N      commit: how long one is (default 2000)\n";

static void live(void *ctx, struct qmsg *m)
{
    (void)ctx;
    (void)m;
}

struct queue *bench_open(const struct bench_options *o, uint32_t ring, uint64_t *ms)
{
    const struct queue_options opt = {.directory = str_cstr(o->directory),
                                      .ring_index = ring,
                                      .ring_bytes = o->ring_bytes,
                                      .high_water_percent = 90};
    struct queue *q = NULL;
    struct gbuf notes = {.max = 1 << 20};
    uint64_t start_ns = clock_mono_ns();
    err_t err = queue_open(&q, &opt, live, NULL, &notes);
    if (err)
        fprintf(stderr, "postern-bench-queue: %s: %s\n%.*s", o->directory, err_text(err), (int)notes.n,
                notes.p);
    if (ms)
        *ms = (clock_mono_ns() - start_ns) / NS_PER_MS;
    gbuf_free(&notes);
    return q;
}

static int usage(void)
{
    fputs(usage_text, stderr);
    return EX_USAGE;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"directory", 1, 0, 'd'}, {"ring-mib", 1, 0, 'b'}, {"messages", 1, 0, 'm'},
        {"size", 1, 0, 'l'},      {"sessions", 1, 0, 's'}, {"fill", 1, 0, 'f'},
        {"rounds", 1, 0, 'r'},    {"round-ms", 1, 0, 't'}, {0}};
    static const struct {
        const char *name;
        int (*run)(struct loop *l, const struct bench_options *o);
    } verbs[] = {
        {"commit", bench_commit}, {"fill", bench_fill}, {"recover", bench_recover}, {"drain", bench_drain}};
    struct bench_options o = {.ring_bytes = 256 << 20,
                              .message_count = 1000,
                              .size_bytes = 1024,
                              .session_count = 50,
                              .fill_percent = 70,
                              .rounds = 3,
                              .round_ms = 2000};
    for (int c; (c = getopt_long(argc, argv, "d:b:m:l:s:f:r:t:", longs, NULL)) != -1;) {
        uint64_t n = optarg ? strtoull(optarg, NULL, 10) : 0;
        switch (c) {
        case 'd': o.directory = optarg; break;
        case 'b': o.ring_bytes = n << 20; break;
        case 'm': o.message_count = n; break;
        case 'l': o.size_bytes = (uint32_t)n; break;
        case 's': o.session_count = (uint32_t)n; break;
        case 'f': o.fill_percent = (uint32_t)n; break;
        case 'r': o.rounds = (uint32_t)n; break;
        case 't': o.round_ms = (uint32_t)n; break;
        default: return usage();
        }
    }
    if (optind != argc - 1 || !o.directory || !o.session_count || !o.rounds || o.fill_percent > 85)
        return usage();
    log_set(LOG_LOGFMT, LOG_WARN);
    struct loop *l;
    const struct loop_options lo = {.cpu = -1, .name = "bench-queue"};
    err_t err = loop_create(&l, &lo);
    if (err) {
        fprintf(stderr, "postern-bench-queue: %s\n", loop_create_hint(err));
        return EX_OSERR;
    }
    int result = EX_USAGE;
    for (size_t i = 0; i < COUNT_OF(verbs); i++)
        if (strcmp(argv[optind], verbs[i].name) == 0)
            result = verbs[i].run(l, &o);
    loop_destroy(l);
    return result == EX_USAGE ? usage() : result;
}
