/* core/map.h: open-addressing hash maps, u64 -> pointer and string -> pointer. One thread (or none writing).
 */
#ifndef CORE_MAP_H
#define CORE_MAP_H

#include "core/str.h"

struct map64_slot;
struct map64 {
    struct map64_slot *slots; /* owned */
    size_t used_count, cap;
};

/* Zero-init is an empty map. Values are never NULL. Key 0 is allowed. */
void *map64_get(const struct map64 *m, uint64_t key);
err_t map64_put(struct map64 *m, uint64_t key, void *value) WARN_UNUSED; /* replaces; -ENOMEM */
void *map64_remove(struct map64 *m, uint64_t key);                       /* the old value or NULL */
void map64_free(struct map64 *m);

struct smap_slot;
struct smap {
    struct smap_slot *slots; /* owned */
    size_t used_count, cap;
    bool fold_case; /* set before the first use */
};

/* Keys are views: the caller keeps their bytes alive while they are in the map. */
void *smap_get(const struct smap *m, str_t key);
err_t smap_put(struct smap *m, str_t key, void *value) WARN_UNUSED;
void *smap_remove(struct smap *m, str_t key);
void smap_free(struct smap *m);
/* Iterate: start with *at = 0; false at the end. No change of the map meanwhile. */
bool smap_next(const struct smap *m, size_t *at, str_t *key, void **value);

#endif
