/* verify/store.h: verdicts on disk (LMDB), behind the workers: a thread of its own writes, nobody waits for
 * it but an administrator who pins. The cache is what answers; the store makes it warm after a start, and
 * knows the addresses' text for lists and exports. A damaged store is set aside as verdicts.mdb.damaged-DATE;
 * what can still be read of it is used, with a note: it costs a cooler cache, never a start.
 *
 * What is written waits for at most about a second, goes to disk in one transaction and is durable then; a
 * crash loses that second and nothing else. The store is bounded like the cache: beyond `capacity` records a
 * new refusal is not stored, a new good one takes the place of a refusal, a pin always comes in. Records that
 * are past their keeping are removed as the thread walks over all of them, a few thousand every five seconds.
 */
#ifndef VERIFY_STORE_H
#define VERIFY_STORE_H

#include "core/mailbox.h"
#include "net/loop.h"
#include "verify/cache.h"

struct verdict_store;

/* Boot, blocking, one thread. The file is read by a child process, since a damaged one may kill its reader,
 * and written anew; after this the process must not fork to go on as the child (LMDB's locks are the
 * process's). `directory` is made if missing (0700; its parent must be there). Every whole record goes into
 * `cache`. Notes for the boot log, one line each. Fails when no new file can be written; the old one is as it
 * was then, and the cache has what is in it. */
err_t verdict_store_open(struct verdict_store **out, str_t directory, uint32_t capacity,
                         struct verdict_cache *cache, struct gbuf *notes) WARN_UNUSED;
err_t verdict_store_start(struct verdict_store *s) WARN_UNUSED; /* the thread */
/* Writes what is pending, joins the thread, closes. Nobody may use it any more. NULL is fine. */
void verdict_store_close(struct verdict_store *s);
/* The longest that any domain keeps records: 31 d and 24 h when it is not called. Any thread. */
void verdict_store_set_keep(struct verdict_store *s, uint32_t good_keep_s, uint32_t unknown_keep_s);

/* Any thread; never blocks, allocates nothing. state NONE without pin: deletes. False: too many writes wait,
 * this one was dropped and counted; the cache still knows it. */
bool verdict_store_put(struct verdict_store *s, str_t key, const struct verdict_record *r);

/* Asks the thread; `done` comes on `loop`'s thread (NULL: on the store's own). Embedded in the asker. */
struct verdict_store_sync {
    struct mail mail; /* private */
    void (*done)(struct verdict_store_sync *y, err_t err);
    struct loop *loop;
    err_t err;
    struct verdict_store *store;     /* private */
    struct verdict_store_sync *next; /* private */
};
/* All puts that this thread made before are on disk, or err says why not. The store has been started. */
void verdict_store_flush(struct verdict_store *s, struct verdict_store_sync *y);

/* Any thread but a worker's: blocking, in a read transaction of its own, of what is on disk (flush first to
 * see what was put just now). Records whose whole key matches `glob` ('*' and '?', by bytes; absent: all), in
 * key order, after `after` (absent: from the start), at most `max`. Stops when `each` returns false. */
err_t verdict_store_each(struct verdict_store *s, str_t glob, str_t after, uint32_t max,
                         bool (*each)(void *ctx, str_t key, const struct verdict_record *r),
                         void *ctx) WARN_UNUSED;

struct verdict_store_stats {
    uint64_t records, bytes, pending;
    uint64_t dropped;      /* too many waited */
    uint64_t skipped;      /* not stored: it is full */
    uint64_t removed;      /* past their keeping, or for room */
    uint64_t damaged;      /* records found unreadable */
    uint64_t write_errors; /* records lost to failed transactions */
};
void verdict_store_stats(const struct verdict_store *s, struct verdict_store_stats *out);

#endif
