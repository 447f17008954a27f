/* core/pool.h: fixed-size objects from slabs that grow up to a limit and are reused for ever. One thread. */
#ifndef CORE_POOL_H
#define CORE_POOL_H

#include "core/base.h"

struct pool_slab;

struct pool {
    const char *name; /* static text, for the metrics */
    size_t object_bytes;
    uint32_t used_count, total_count, count_max; /* count_max 0 = no limit */
    void *free_list;
    struct pool_slab *slabs; /* owned */
};

void pool_init(struct pool *p, const char *name, size_t object_bytes, uint32_t count_max);
void *pool_get(struct pool *p);              /* zeroed; NULL at count_max or out of memory */
void pool_put(struct pool *p, void *object); /* NULL is fine; poisoned under asan */
void pool_free(struct pool *p);              /* every object must have been put back, else must() fails */

#endif
