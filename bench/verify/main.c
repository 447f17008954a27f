/* bench/verify/main.c: what the verdict cache and its store do in a second, and in how much memory.
 *
 *      postern-bench-verdicts [ENTRIES] [DIRECTORY]
 *
 * Each figure is per core, by the CPU time of the threads counted, and the best of three rounds of about half
 * a second: what the code can do, with the least of what else the machine had to do. A key is written just
 * before it is looked up, as a session has it at hand: eight digits of hexadecimal in a text that stays, some
 * nanoseconds, which are part of the figure. */
#include <ftw.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/metrics.h"
#include "core/rng.h"
#include "verify/store.h"

#define ROUND_NS    (NS_PER_S / 2)
#define ROUNDS      3
#define THREADS_MAX 64
#define HOT_COUNT   10000
#define KEY_TEXT    "someone.########@example.com"

static uint32_t entries = 1000000, now_s;

struct job {
    struct verdict_cache *cache;
    uint64_t (*run)(struct job *j, uint64_t until_ns);
    uint32_t seed, first, among; /* keys are drawn from [first, first + among) */
    uint64_t done, cpu_ns;
};

struct key {
    char text[sizeof KEY_TEXT];
};

/* Keys from `entries` on are not in the cache. */
static str_t key(struct key *k, uint32_t i)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t x = i; /* its eight nibbles, a byte each */
    x = (x | x << 16) & UINT64_C(0x0000FFFF0000FFFF);
    x = (x | x << 8) & UINT64_C(0x00FF00FF00FF00FF);
    x = (x | x << 4) & UINT64_C(0x0F0F0F0F0F0F0F0F);
    x += ones * 'a';
    memcpy(k->text + strlen("someone."), &x, sizeof x);
    return (str_t){k->text, sizeof KEY_TEXT - 1};
}

static uint32_t next(struct job *j)
{
    j->seed = j->seed * 1664525 + 1013904223;
    return j->first + (uint32_t)((uint64_t)j->seed * j->among >> 32);
}

static uint64_t look_up(struct job *j, uint64_t until_ns)
{
    struct verdict_record r;
    struct key k = {KEY_TEXT};
    uint64_t n = 0, found = 0;
    do {
        for (int i = 0; i < 1000; i++, n++)
            found += verdict_cache_get(j->cache, key(&k, next(j)), now_s, &r);
    } while (clock_mono_ns() < until_ns);
    must(j->first ? found == 0 : found > n / 100 * 99); /* a full set has lost one here and there */
    return n;
}

static struct verdict_record again(void *ctx, struct verdict_record old)
{
    static const struct verdict_times times = {86400, 64800, 31 * 86400, 600, 86400, 60};
    (void)ctx;
    return verdict_apply(old, VERDICT_GOOD, SOURCE_PROBE, false, &times, old.checked_s + 1);
}

static uint64_t update(struct job *j, uint64_t until_ns)
{
    struct key k = {KEY_TEXT};
    uint64_t n = 0;
    do {
        for (int i = 0; i < 1000; i++, n++)
            (void)verdict_cache_update(j->cache, key(&k, next(j)), now_s, again, NULL, NULL);
    } while (clock_mono_ns() < until_ns);
    return n;
}

static void *job_thread(void *arg)
{
    struct job *j = arg;
    struct timespec used;
    (void)!metrics_thread_start();
    j->done = j->run(j, clock_mono_ns() + ROUND_NS);
    must(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) == 0);
    j->cpu_ns = (uint64_t)used.tv_sec * NS_PER_S + (uint64_t)used.tv_nsec;
    return NULL;
}

/* What each of `threads` does in a second of CPU time; the writer beside them is not counted. */
static double round_of(struct job like, unsigned threads, bool writer)
{
    struct job jobs[THREADS_MAX + 1];
    pthread_t ids[THREADS_MAX + 1];
    uint64_t done = 0, cpu_ns = 0;
    for (unsigned i = 0; i < threads + writer; i++) {
        jobs[i] = like;
        jobs[i].seed = (uint32_t)rng_u64();
        if (i == threads)
            jobs[i] =
                (struct job){.cache = like.cache, .run = update, .seed = jobs[i].seed, .among = entries};
        must(pthread_create(&ids[i], NULL, job_thread, &jobs[i]) == 0);
    }
    for (unsigned i = 0; i < threads + writer; i++) {
        pthread_join(ids[i], NULL);
        done += i < threads ? jobs[i].done : 0;
        cpu_ns += i < threads ? jobs[i].cpu_ns : 0;
    }
    return (double)done / (double)cpu_ns * (double)NS_PER_S;
}

static void measure(const char *what, struct job like, unsigned threads, bool writer)
{
    double best = 0;
    for (int round = 0; round < ROUNDS; round++)
        best = MAX(best, round_of(like, threads, writer));
    printf("%-10s %u thread%s%s %8.2f million/s a core\n", what, threads, threads > 1 ? "s" : " ",
           writer ? ", a writer" : "          ", best / 1e6);
}

static void measure_all(struct verdict_cache *c, unsigned threads, bool writer)
{
    const struct job hits = {.cache = c, .run = look_up, .among = entries},
                     hot = {.cache = c, .run = look_up, .among = MIN(entries, HOT_COUNT)},
                     misses = {.cache = c, .run = look_up, .first = entries, .among = entries},
                     updates = {.cache = c, .run = update, .among = entries};
    measure("hits", hits, threads, writer);
    measure("hot", hot, threads, writer);
    measure("misses", misses, threads, writer);
    if (!writer)
        measure("updates", updates, threads, writer);
}

/* What one access to memory costs on this machine, in a table of this size, when its address is only known
 * from the one before: a look-up at random in a large table cannot take less. */
static double memory_ns(size_t bytes)
{
    const size_t line = 64, lines = MAX(bytes / line, 2), steps = 1000000;
    struct timespec from, to;
    char *table = aligned_alloc((size_t)2 << 20, ALIGN_UP(lines * line, (size_t)2 << 20));
    uint32_t *order = calloc(lines, sizeof *order), at = 0;
    must(table && order);
    (void)madvise(table, lines * line, MADV_HUGEPAGE);
    for (uint32_t i = 0; i < lines; i++) { /* a random cycle through all of them: Sattolo's algorithm */
        uint32_t j = i ? (uint32_t)(rng_u64() % i) : 0;
        order[i] = order[j];
        order[j] = i;
    }
    for (uint32_t i = 0; i < lines; i++)
        memcpy(table + i * line, &order[i], sizeof at);
    must(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from) == 0);
    for (size_t i = 0; i < steps; i++)
        memcpy(&at, table + at * line, sizeof at);
    must(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to) == 0);
    must(at < lines); /* and so it is not optimised away */
    free(order);
    free(table);
    return ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / (double)steps;
}

/* --- the store --- */

struct waiter {
    struct verdict_store_sync sync;
    sem_t done;
};

static void sync_done(struct verdict_store_sync *y, err_t err)
{
    must(err == 0);
    sem_post(&container_of(y, struct waiter, sync)->done);
}

static void flush(struct verdict_store *s)
{
    struct waiter w = {.sync.done = sync_done};
    sem_init(&w.done, 0, 0);
    verdict_store_flush(s, &w.sync);
    while (sem_wait(&w.done) < 0)
        ;
    sem_destroy(&w.done);
}

static struct verdict_store *open_store(const char *directory, struct verdict_cache **c)
{
    struct gbuf notes = {0};
    struct verdict_store *s;
    must(verdict_cache_create(c, entries) == 0);
    err_t err = verdict_store_open(&s, str_cstr(directory), entries, *c, &notes);
    if (err) {
        fprintf(stderr, "%s: %s\n", directory, err_text(err));
        exit(1);
    }
    gbuf_free(&notes);
    return s;
}

static void measure_store(const char *directory)
{
    const struct verdict_record r = {.state = VERDICT_GOOD, .checked_s = now_s};
    struct verdict_cache *c;
    struct verdict_store *s = open_store(directory, &c);
    struct key k = {KEY_TEXT};
    must(verdict_store_start(s) == 0);
    uint64_t started = clock_mono_ns();
    for (uint32_t i = 0; i < entries; i++) {
        while (!verdict_store_put(s, key(&k, i), &r))
            flush(s);
    }
    flush(s);
    double seconds = (double)(clock_mono_ns() - started) / (double)NS_PER_S;
    struct verdict_store_stats st;
    verdict_store_stats(s, &st);
    must(st.records == entries);
    printf("store      %8.0f durable writes/s, %.1f MB on disk\n", entries / seconds, (double)st.bytes / 1e6);
    verdict_store_close(s);
    verdict_cache_destroy(c);

    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        started = clock_mono_ns();
        s = open_store(directory, &c);
        best = MIN(best, (double)(clock_mono_ns() - started) / (double)NS_PER_S);
        struct verdict_cache_stats cs;
        verdict_cache_stats(c, &cs);
        must(cs.entries > entries / 100 * 99);
        verdict_store_close(s);
        verdict_cache_destroy(c);
    }
    printf("warm start %8.2f s for %u records\n", best, entries);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    char directory[4096];
    struct verdict_cache *c;
    struct verdict_cache_stats st;
    const struct verdict_record r = {.state = VERDICT_GOOD, .checked_s = 1};
    struct key k = {KEY_TEXT};
    unsigned cores = (unsigned)MAX(1, MIN(sysconf(_SC_NPROCESSORS_ONLN), THREADS_MAX));
    if (argc > 1)
        entries = (uint32_t)strtoul(argv[1], NULL, 10);
    if (!entries || entries > 50000000 || argc > 3) {
        fprintf(stderr, "usage: %s [ENTRIES] [DIRECTORY]\n", argv[0]);
        return 2;
    }
    now_s = (uint32_t)(clock_wall_ns() / NS_PER_S);
    must(verdict_cache_create(&c, entries) == 0);
    for (uint32_t i = 0; i < entries; i++)
        verdict_cache_load(c, key(&k, i), &r, now_s);
    verdict_cache_stats(c, &st);
    printf("%u entries, %.1f bytes each\n", entries, (double)st.bytes / entries);
    printf("memory     %.0f ns an access at random in a table of that size, one after the other\n",
           memory_ns(st.bytes));
    measure_all(c, 1, false);
    measure_all(c, cores, false);
    measure_all(c, cores, true);
    verdict_cache_destroy(c);

    snprintf(directory, sizeof directory, "%s/verdicts-XXXXXX", argc > 2 ? argv[2] : ".");
    if (!mkdtemp(directory)) {
        perror(directory);
        return 1;
    }
    measure_store(directory);
    nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return 0;
}
