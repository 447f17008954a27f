/* verify/cache.h: the verdict cache: one table for all workers, of fixed size, in memory.
 *
 * Set-associative, sharded by set: a lookup takes no lock (a sequence counter per set tells it to look
 * again), changes to a set are made one after the other. An address stands there as a keyed 128-bit hash; its
 * text is in the store only. Any thread may call anything but create and destroy.
 *
 * Room. There are never more than `capacity` entries, counted exactly over all threads. The table has twice
 * as many places, so that a set seldom is full before that (one entry in a thousand, when all come in). A new
 * entry beyond either bound drops another one of its set, or, when nothing there may go, of a set nearby:
 * first what nobody can use any more (VERDICT_DEAD_S), then the coldest refusal, then the coldest good one;
 * never a pin. All told it is under 80 bytes per entry of `capacity` (a test measures). */
#ifndef VERIFY_CACHE_H
#define VERIFY_CACHE_H

#include "core/err.h"
#include "verify/verdict.h"

#define VERDICT_CACHE_MAX      UINT32_C(100000000) /* of `capacity`: 7 GiB */
#define VERDICT_GOOD_DEAD_S    (31 * 86400U) /* the defaults of good_keep, unknown_keep: only the order of */
#define VERDICT_UNKNOWN_DEAD_S 86400U        /* eviction depends on them, so they need not be exact */

struct verdict_cache;

/* All memory is taken here. capacity: 1..VERDICT_CACHE_MAX. */
err_t verdict_cache_create(struct verdict_cache **out, uint32_t capacity) WARN_UNUSED;
void verdict_cache_destroy(struct verdict_cache *c); /* NULL is fine */

/* True: *out is what is known. Marks the entry as used at now_s. */
bool verdict_cache_get(struct verdict_cache *c, str_t key, uint32_t now_s, struct verdict_record *out);
/* The same, and leaves no trace: for those who only look. */
bool verdict_cache_peek(struct verdict_cache *c, str_t key, struct verdict_record *out);
/* Applies `change` to the entry (or to an empty record) under the set's turn and keeps what it returns; a
 * result with state NONE and no pin removes the entry. *out (may be NULL) gets the result. False: nothing
 * changed, because it is the same as before, or because there is no room that is not pinned (counted as
 * refused). `change` must be quick: others wait. */
bool verdict_cache_update(struct verdict_cache *c, str_t key, uint32_t now_s,
                          struct verdict_record (*change)(void *ctx, struct verdict_record old), void *ctx,
                          struct verdict_record *out);
/* At boot: puts a record in, if there is room without dropping something that is younger. An entry that is
 * there already stays. */
void verdict_cache_load(struct verdict_cache *c, str_t key, const struct verdict_record *r, uint32_t now_s);

/* --- for operators: walks over the whole table, which keep no worker waiting --- */

#define VERDICT_DOMAIN_MAX UINT32_C(0xFFFFFF)
/* Stands for a domain in the table: a keyed hash, so that two may share it, one pair in sixteen millions. */
uint32_t verdict_domain(str_t domain);
struct verdict_entry {
    struct verdict_record record;
    uint32_t used_s, domain;
};
/* Of all sets, or of about `sample_sets` that are spread over the table. `each` has a copy and all the time
 * it wants. */
void verdict_cache_each(const struct verdict_cache *c, size_t sample_sets,
                        void (*each)(void *ctx, const struct verdict_entry *e), void *ctx);
/* Forgets the verdicts for which `goes` says so; pins stay. `goes` is asked under the set's turn, at times
 * twice: it must be quick and pure. Returns how many were forgotten. */
uint64_t verdict_cache_forget(struct verdict_cache *c, bool (*goes)(void *ctx, const struct verdict_entry *e),
                              void *ctx);

struct verdict_cache_stats {
    uint64_t capacity, entries, good, unknown, pinned; /* unknown: disabled ones too. A pin counts as both */
    uint64_t evictions, refused, bytes;
};
void verdict_cache_stats(const struct verdict_cache *c, struct verdict_cache_stats *out);

#endif
