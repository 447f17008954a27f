/* verify/knowledge.h: what is known of recipients, cache and store as one. The store learns of changes in the
 * order in which the cache has them: both happen in the turn of the entry's set, so that what stands on disk
 * in the end is what the cache had last, whoever changed it. Any thread. */
#ifndef VERIFY_KNOWLEDGE_H
#define VERIFY_KNOWLEDGE_H

#include "verify/cache.h"
#include "verify/store.h"

struct knowledge {
    struct verdict_cache *cache;
    struct verdict_store *store; /* may be NULL: nothing is kept */
};

struct knowledge_change {
    struct verdict_record before, after;
    bool is_remembered; /* the cache has `after`; false: no room */
    bool is_stored;     /* it is on its way to the disk, or was there before */
};
/* `change` as for verdict_cache_update. */
struct knowledge_change
knowledge_change(const struct knowledge *k, str_t key, uint32_t now_s,
                 struct verdict_record (*change)(void *ctx, struct verdict_record old), void *ctx);

/* --- for operators; never a worker --- */

/* Zero-init: all. All that is given must hold. */
struct knowledge_filter {
    str_t domain;              /* of the key: lower-case A-labels */
    bool refusals, good;       /* of these states; neither: of all */
    bool pinned;               /* only what is pinned */
    uint32_t older_s, newer_s; /* checked at least, at most so long ago; 0: any */
};
bool knowledge_takes(const struct knowledge_filter *f, const struct verdict_record *r, uint32_t now_s);

/* PIN_NONE takes the pin away. */
struct knowledge_change knowledge_pin(const struct knowledge *k, str_t key, enum verdict_pin pin);
struct knowledge_change knowledge_forget(const struct knowledge *k, str_t key); /* but not its pin */
/* How many verdicts would be forgotten: of those in the cache. */
uint64_t knowledge_count(const struct knowledge *k, const struct knowledge_filter *f);
/* Forgets them in the cache, then on disk; pins stay. Blocks, for long when they are many. *count: those of
 * the cache. 0: the disk has forgotten them, too. */
err_t knowledge_forget_all(const struct knowledge *k, const struct knowledge_filter *f,
                           uint64_t *count) WARN_UNUSED;
/* Blocks until all that was changed before by this thread is on disk. ERR_NOT_FOUND: there is no store. */
err_t knowledge_sync(const struct knowledge *k) WARN_UNUSED;
/* Of the store, in the order of keys, behind `after`; `each` returns false to stop. */
err_t knowledge_each(const struct knowledge *k, const struct knowledge_filter *f, str_t after,
                     bool (*each)(void *ctx, str_t key, const struct verdict_record *r),
                     void *ctx) WARN_UNUSED;

#endif
