/* verify/store_priv.h: what the files of the store share. */
#ifndef VERIFY_STORE_PRIV_H
#define VERIFY_STORE_PRIV_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#include "verify/store.h"

/* --- store_record.c: a record as bytes, whole or not at all --- */

#define STORE_VALUE_BYTES 20 /* version, state, source, pin, suspect, 3 zeroes, checked, refused, sum */

void store_encode(str_t key, const struct verdict_record *r, uint8_t out[STORE_VALUE_BYTES]);
/* ERR_VERSION: written by another Postern. ERR_CORRUPT: anything else that is wrong. */
err_t store_decode(str_t key, str_t value, struct verdict_record *out) WARN_UNUSED;
bool store_glob(str_t glob, str_t key);

/* --- store_ring.c: writes that wait; many producers, one consumer, no locks, fixed size --- */

#define STORE_RING_SLOTS 8192U /* 4.3 MiB: a second of 8,000 new verdicts */

struct store_put {
    atomic_uint_fast64_t turn; /* whose: position = free for it, position + 1 = filled */
    struct verdict_record record;
    uint16_t key_bytes;
    char key[VERIFY_KEY_MAX];
};

struct store_ring {
    struct store_put *slots; /* owned */
    _Alignas(64) atomic_uint_fast64_t tail;
    _Alignas(64) atomic_uint_fast64_t head; /* written by the consumer only */
};

err_t store_ring_init(struct store_ring *g) WARN_UNUSED;
void store_ring_free(struct store_ring *g);
/* Returns the position, or UINT64_MAX: full. */
uint64_t store_ring_push(struct store_ring *g, str_t key, const struct verdict_record *r);
uint64_t store_ring_tail(const struct store_ring *g);
uint64_t store_ring_head(const struct store_ring *g);
/* The consumer: the oldest, which its producer has begun (head < tail); waits the few instructions until it
 * is whole. It stays until store_ring_pop(). */
const struct store_put *store_ring_peek(struct store_ring *g);
void store_ring_pop(struct store_ring *g);

/* --- store.c, store_write.c, store_open.c --- */

struct verdict_store {
    MDB_env *env; /* owned */
    MDB_dbi dbi;
    uint64_t capacity;
    int wake_fd;
    struct mailbox *inbox; /* owned */
    pthread_t thread;
    bool started;
    atomic_bool stopping;
    struct store_ring ring;
    atomic_uint good_keep_s, unknown_keep_s;
    atomic_uint_fast64_t records, bytes, dropped, skipped, removed, damaged, write_errors;

    /* The thread's own. */
    struct verdict_store_sync *waiting; /* for the next transaction */
    err_t untold;                       /* of a transaction that failed since the last flush */
    bool failing;                       /* the last one failed, and it has been said */
    uint64_t sweep_due_ns;
    size_t swept_bytes; /* the walk goes on behind this key */
    char swept[VERIFY_KEY_MAX];
};

err_t store_err(int mdb_rc); /* as ours */
static inline str_t store_str(const MDB_val *v)
{
    return str_of(v->mv_data, v->mv_size);
}
static inline MDB_val store_val(str_t s)
{
    return (MDB_val){.mv_size = s.n, .mv_data = (void *)(uintptr_t)s.p}; /* LMDB only reads it */
}

/* Fills the cache from the old file, writes a new one, leaves env and dbi open on it. */
err_t store_open_files(struct verdict_store *s, str_t directory, struct verdict_cache *cache,
                       struct gbuf *notes) WARN_UNUSED;
/* Everything that waits now, and the walk when it is due: one transaction. */
err_t store_write(struct verdict_store *s);
void store_count_records(struct verdict_store *s);

#endif
