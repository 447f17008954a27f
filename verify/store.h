/* verify/store.h: verdicts on disk (LMDB), behind the workers: a thread of its own writes, nobody waits for
 * it but an administrator who pins. The cache is what answers; the store makes it warm after a start, and
 * knows the addresses' text for lists and exports. A damaged store is set aside as NAME.damaged-DATE and an
 * empty one is used, with a note: it costs a cold cache, never a start. */
#ifndef VERIFY_STORE_H
#define VERIFY_STORE_H

#include "core/mailbox.h"
#include "net/loop.h"
#include "verify/cache.h"

struct verdict_store;

/* Boot, blocking. `directory` is made if missing (0700). Every whole record goes into `cache`. Notes for the
 * boot log, one line each. Fails only when not even an empty store can be made. */
err_t verdict_store_open(struct verdict_store **out, str_t directory, uint32_t capacity,
                         struct verdict_cache *cache, struct gbuf *notes) WARN_UNUSED;
err_t verdict_store_start(struct verdict_store *s)
    WARN_UNUSED; /* the thread; after the process forked its last */
/* Writes what is pending, joins the thread, closes. */
void verdict_store_close(struct verdict_store *s);

/* Any thread; never blocks. state NONE without pin: deletes. When more than a bounded number of writes wait,
 * this one is dropped and counted: the cache still knows it. */
void verdict_store_put(struct verdict_store *s, str_t key, const struct verdict_record *r);

/* Asks the thread; `done` comes on `loop`'s thread (NULL: on the store's own). Embedded in the asker. */
struct verdict_store_sync {
    struct mail mail; /* private */
    void (*done)(struct verdict_store_sync *y, err_t err);
    struct loop *loop;
    err_t err;
};
void verdict_store_flush(struct verdict_store *s,
                         struct verdict_store_sync *y); /* all puts before are on disk */

/* Any thread but a worker's: blocking, in a read transaction of its own. Records whose key contains a match
 * of `glob` ('*' and '?', whole key; absent: all), in key order, after `after` (absent: from the start), at
 * most `max`. Stops when `each` returns false. */
err_t verdict_store_each(struct verdict_store *s, str_t glob, str_t after, uint32_t max,
                         bool (*each)(void *ctx, str_t key, const struct verdict_record *r), void *ctx);

struct verdict_store_stats {
    uint64_t records, bytes, pending, dropped, write_errors;
};
void verdict_store_stats(struct verdict_store *s, struct verdict_store_stats *out);

#endif
