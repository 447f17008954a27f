/* bench/verify/main.c: what the verdict cache and its store do in a second, and in how much memory.
 *
 *      postern-bench-verdicts [ENTRIES] [DIRECTORY]
 *
 * Each figure is the best of three rounds of about half a second: what the code can do, with the least of
 * what else the machine had to do. Keys are made before the clock starts. */
#include <ftw.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/metrics.h"
#include "core/rng.h"
#include "verify/store.h"

#define ROUND_NS    (NS_PER_S / 2)
#define ROUNDS      3
#define KEY_BYTES   40
#define THREADS_MAX 2

static char (*keys)[KEY_BYTES]; /* twice `entries`: the second half is not in the cache */
static uint32_t entries = 1000000, now_s;

struct job {
    struct verdict_cache *cache;
    uint64_t (*run)(struct job *j, uint64_t until_ns);
    uint32_t seed;
    uint64_t done;
    bool misses;
};

static str_t key(uint32_t i)
{
    return str_cstr(keys[i]);
}

static uint32_t next(uint32_t *x)
{
    *x = *x * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)*x * entries >> 32);
}

static uint64_t look_up(struct job *j, uint64_t until_ns)
{
    struct verdict_record r;
    uint64_t n = 0, found = 0;
    do {
        for (int i = 0; i < 1000; i++, n++)
            found += verdict_cache_get(j->cache, key(next(&j->seed) + (j->misses ? entries : 0)), now_s, &r);
    } while (clock_mono_ns() < until_ns);
    must(j->misses ? found == 0 : found > n / 100 * 99); /* a full set has lost one here and there */
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
    uint64_t n = 0;
    do {
        for (int i = 0; i < 1000; i++, n++)
            (void)verdict_cache_update(j->cache, key(next(&j->seed)), now_s, again, NULL, NULL);
    } while (clock_mono_ns() < until_ns);
    return n;
}

static void *job_thread(void *arg)
{
    struct job *j = arg;
    (void)!metrics_thread_start();
    j->done = j->run(j, clock_mono_ns() + ROUND_NS);
    return NULL;
}

static void measure(const char *what, struct verdict_cache *c,
                    uint64_t (*run)(struct job *j, uint64_t until_ns), bool misses, unsigned threads)
{
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct job jobs[THREADS_MAX];
        pthread_t ids[THREADS_MAX];
        uint64_t started = clock_mono_ns(), done = 0;
        for (unsigned i = 0; i < threads; i++) {
            jobs[i] = (struct job){.cache = c, .run = run, .seed = (uint32_t)rng_u64(), .misses = misses};
            must(pthread_create(&ids[i], NULL, job_thread, &jobs[i]) == 0);
        }
        for (unsigned i = 0; i < threads; i++) {
            pthread_join(ids[i], NULL);
            done += jobs[i].done;
        }
        best = MAX(best, (double)done / ((double)(clock_mono_ns() - started) / (double)NS_PER_S));
    }
    printf("%-10s %u thread%s %8.2f million/s\n", what, threads, threads > 1 ? "s" : " ", best / 1e6);
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
    must(verdict_store_start(s) == 0);
    uint64_t started = clock_mono_ns();
    for (uint32_t i = 0; i < entries; i++) {
        while (!verdict_store_put(s, key(i), &r))
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
    if (argc > 1)
        entries = (uint32_t)strtoul(argv[1], NULL, 10);
    keys = entries && entries <= 50000000 ? calloc(2 * (size_t)entries, KEY_BYTES) : NULL;
    if (!keys || argc > 3) {
        fprintf(stderr, "usage: %s [ENTRIES] [DIRECTORY]\n", argv[0]);
        return 2;
    }
    now_s = (uint32_t)(clock_wall_ns() / NS_PER_S);
    for (uint32_t i = 0; i < 2 * entries; i++)
        snprintf(keys[i], KEY_BYTES, "first.last%08u@example.com",
                 (unsigned)(i * UINT64_C(48271) % 100000000));

    must(verdict_cache_create(&c, entries) == 0);
    for (uint32_t i = 0; i < entries; i++)
        verdict_cache_load(c, key(i), &r, now_s);
    verdict_cache_stats(c, &st);
    printf("%u entries, %.1f bytes each\n", entries, (double)st.bytes / entries);
    for (unsigned threads = 1; threads <= THREADS_MAX; threads++) {
        measure("hits", c, look_up, false, threads);
        measure("misses", c, look_up, true, threads);
        measure("updates", c, update, false, threads);
    }
    verdict_cache_destroy(c);

    snprintf(directory, sizeof directory, "%s/verdicts-XXXXXX", argc > 2 ? argv[2] : ".");
    if (!mkdtemp(directory)) {
        perror(directory);
        return 1;
    }
    measure_store(directory);
    nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(keys);
    return 0;
}
