/* verify/cache.h: the verdict cache: one table for all workers, of fixed size, in memory.
 *
 * Set-associative, sharded by set: a lookup takes no lock (a sequence counter per set tells it to look
 * again), changes to a set are made one after the other. An address stands there as a keyed 128-bit hash; its
 * text is in the store only. A full set drops what has expired, then the coldest refusal, then the coldest
 * good one; never a pin. Any thread may call anything but create and destroy. At most 128 bytes per entry of
 * `capacity`, all told (a test measures). */
#ifndef VERIFY_CACHE_H
#define VERIFY_CACHE_H

#include "core/err.h"
#include "verify/verdict.h"

struct verdict_cache;

/* All memory is taken here. */
err_t verdict_cache_create(struct verdict_cache **out, uint32_t capacity) WARN_UNUSED;
void verdict_cache_destroy(struct verdict_cache *c);

/* True: *out is what is known. Marks the entry as used at now_s. */
bool verdict_cache_get(struct verdict_cache *c, str_t key, uint32_t now_s, struct verdict_record *out);
/* Applies `change` to the entry (or to an empty record) under the set's turn and keeps what it returns; a
 * result with state NONE and no pin removes the entry. *out (may be NULL) gets the result. False: nothing
 * changed. `change` must be quick: others wait. */
bool verdict_cache_update(struct verdict_cache *c, str_t key, uint32_t now_s,
                          struct verdict_record (*change)(void *ctx, struct verdict_record old), void *ctx,
                          struct verdict_record *out);
/* At boot: puts a record in, if there is room without dropping something that is younger. */
void verdict_cache_load(struct verdict_cache *c, str_t key, const struct verdict_record *r, uint32_t now_s);

struct verdict_cache_stats {
    uint64_t capacity, entries, good, unknown, pinned, evictions, bytes;
};
void verdict_cache_stats(const struct verdict_cache *c, struct verdict_cache_stats *out);

#endif
