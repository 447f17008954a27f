/* tests/unit/verify/bed.h: a verdict store, its cache and a folder of its own, for the store's tests. */
#ifndef TESTS_UNIT_VERIFY_BED_H
#define TESTS_UNIT_VERIFY_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "verify/store_priv.h"

#define CAPACITY 4000

/* A store, its cache and a folder of its own. */
struct bed {
    char root[64], directory[96], data[128];
    struct verdict_cache *cache;
    struct verdict_store *store;
    struct gbuf notes;
};

static inline uint32_t now_s(void)
{
    return (uint32_t)(clock_wall_ns() / NS_PER_S);
}

static inline err_t try_open(struct bed *b, uint32_t capacity)
{
    gbuf_free(&b->notes);
    b->notes = (struct gbuf){0};
    assert_int_equal(verdict_cache_create(&b->cache, CAPACITY), 0);
    return verdict_store_open(&b->store, str_cstr(b->directory), capacity, b->cache, &b->notes);
}

static inline void open_with(struct bed *b, uint32_t capacity)
{
    assert_int_equal(try_open(b, capacity), 0);
    assert_int_equal(verdict_store_start(b->store), 0);
}

static inline void open_bed(struct bed *b)
{
    open_with(b, CAPACITY);
}

static inline void close_bed(struct bed *b)
{
    verdict_store_close(b->store);
    verdict_cache_destroy(b->cache);
    b->store = NULL;
    b->cache = NULL;
}

static inline int set_up(void **state)
{
    struct bed *b = calloc(1, sizeof *b);
    *state = b;
    snprintf(b->root, sizeof b->root, "/tmp/postern-verdicts-XXXXXX");
    if (!b || !mkdtemp(b->root))
        return -1;
    snprintf(b->directory, sizeof b->directory, "%s/verdicts", b->root);
    snprintf(b->data, sizeof b->data, "%s/verdicts.mdb", b->directory);
    return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline int tear_down(void **state)
{
    struct bed *b = *state;
    gbuf_free(&b->notes);
    nftw(b->root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(b);
    return 0;
}

static inline str_t key_of(char *room, size_t cap, uint32_t i)
{
    return str_of(room, (size_t)snprintf(room, cap, "user%05u@example.com", i));
}

static inline struct verdict_record good(uint32_t checked_s)
{
    return (struct verdict_record){.state = VERDICT_GOOD, .source = SOURCE_PROBE, .checked_s = checked_s};
}

static inline bool put(struct bed *b, uint32_t i, struct verdict_record r)
{
    char room[64];
    return verdict_store_put(b->store, key_of(room, sizeof room, i), &r);
}

struct waiter {
    struct verdict_store_sync sync;
    sem_t done;
};

static inline void sync_done(struct verdict_store_sync *y, err_t err)
{
    struct waiter *w = container_of(y, struct waiter, sync);
    assert_int_equal(err, y->err);
    sem_post(&w->done);
}

static inline err_t flush(struct bed *b)
{
    struct waiter w = {.sync.done = sync_done};
    sem_init(&w.done, 0, 0);
    verdict_store_flush(b->store, &w.sync);
    while (sem_wait(&w.done) < 0)
        ;
    sem_destroy(&w.done);
    return w.sync.err;
}

static inline bool cached(struct bed *b, uint32_t i, struct verdict_record *out)
{
    char room[64];
    return verdict_cache_get(b->cache, key_of(room, sizeof room, i), now_s(), out);
}

static inline struct verdict_store_stats stats(struct bed *b)
{
    struct verdict_store_stats s;
    verdict_store_stats(b->store, &s);
    return s;
}

#endif
