/* tests/sim/main.c: runs seeds. */
#include <getopt.h>
#include <inttypes.h>
#include <time.h>

#include "core/log.h"
#include "tests/sim/sim.h"

#define STEPS_DEFAULT 20000

struct options {
    uint64_t seed, count, steps;
    double hours;
    bool twice;
    const char *file;
};

static double seconds(void)
{
    struct timespec t;
    must(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t run(uint64_t seed, uint64_t steps, bool quiet)
{
    char text[256];
    world_begin(seed, steps);
    net_begin();
    disk_begin();
    ledger_begin();
    servers_begin();
    clients_begin();
    gateway_run();
    ledger_summary(text, sizeof text);
    clients_end();
    servers_end();
    ledger_end();
    disk_end();
    net_end();
    world_end();
    if (!quiet) {
        printf("seed %" PRIu64 ": %" PRIu64 " steps, %" PRIu64 " s, %" PRIu64 " crashes (%" PRIu64
               " power cuts, %" PRIu64 " with kept segments), %s; trace %016" PRIx64 "\n",
               seed, W.steps, W.now_ns / SIM_S, W.crash_count, W.power_cut_count, W.kept_crash_count, text,
               W.trace_hash);
        fflush(stdout);
    }
    return W.crash_count;
}

static uint64_t run_checked(const struct options *o, uint64_t seed, uint64_t steps)
{
    uint64_t crashes = run(seed, steps, false);
    uint64_t hash = W.trace_hash;
    if (!o->twice)
        return crashes;
    (void)run(seed, steps, true);
    if (W.trace_hash != hash)
        violation("seed %" PRIu64 " went another way the second time", seed);
    return crashes;
}

/* Lines: SEED STEPS what it found. */
static uint64_t run_file(const struct options *o)
{
    FILE *f = fopen(o->file, "re");
    char line[512];
    uint64_t crashes = 0;
    if (!f) {
        perror(o->file);
        exit(2);
    }
    while (fgets(line, sizeof line, f)) {
        uint64_t seed, steps;
        if (line[0] != '#' && sscanf(line, "%" SCNu64 " %" SCNu64, &seed, &steps) == 2)
            crashes += run_checked(o, seed, steps);
    }
    fclose(f);
    return crashes;
}

static void usage(void)
{
    fputs("sim [--seed N] [--seeds COUNT] [--steps M] [--hours H] [--file SEEDS] [--twice] [--trace]\n"
          "  --seeds COUNT  that many seeds from N on\n"
          "  --hours H      seeds from N on for this long\n"
          "  --file SEEDS   the seeds of a file, with their steps\n"
          "  --twice        each seed twice: both must go the same way\n"
          "  --trace        every event\n",
          stderr);
    exit(2);
}

static struct options read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"seed", required_argument, NULL, 's'},  {"seeds", required_argument, NULL, 'c'},
        {"steps", required_argument, NULL, 'm'}, {"hours", required_argument, NULL, 'h'},
        {"file", required_argument, NULL, 'f'},  {"twice", no_argument, NULL, '2'},
        {"trace", no_argument, NULL, 't'},       {0},
    };
    struct options o = {.seed = 1, .count = 1, .steps = STEPS_DEFAULT};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case 's': o.seed = strtoull(optarg, NULL, 10); break;
        case 'c': o.count = strtoull(optarg, NULL, 10); break;
        case 'm': o.steps = strtoull(optarg, NULL, 10); break;
        case 'h': o.hours = strtod(optarg, NULL); break;
        case 'f': o.file = optarg; break;
        case '2': o.twice = true; break;
        case 't': trace_to_stdout = true; break;
        default: usage();
        }
    }
    return o;
}

int main(int argc, char **argv)
{
    struct options o = read_options(argc, argv);
    trace_on_abort();
    (void)str_hash(STR("")); /* draws its per-process secret now, and not in the middle of the first run */
    double start = seconds();
    uint64_t crashes = 0;
    if (o.file)
        crashes = run_file(&o);
    for (uint64_t i = 0; !o.file && (o.hours > 0 ? seconds() - start < o.hours * 3600 : i < o.count); i++)
        crashes += run_checked(&o, o.seed + i, o.steps);
    printf("%" PRIu64 " crashes without a violation in %.1f s\n", crashes, seconds() - start);
    return 0;
}
