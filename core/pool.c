/* core/pool.c: objects of one size, from slabs that are never given back before pool_free(). */
#include "core/pool.h"
#include "core/metrics.h"
#include "core/sanitize.h"

#define OBJECT_ALIGN   16
#define SLAB_COUNT_MIN 16
#define SLAB_BYTES_MAX ((size_t)256 << 10) /* slabs double up to here: a busy pool asks malloc seldom */

struct pool_slab {
    struct pool_slab *next; /* owned */
    size_t bytes;           /* of data */
    _Alignas(OBJECT_ALIGN) char data[];
};

/* What a free object holds. */
struct free_object {
    struct free_object *next;
};

static size_t stride(const struct pool *p)
{
    return (size_t)ALIGN_UP(p->object_bytes, OBJECT_ALIGN);
}

void pool_init(struct pool *p, const char *name, size_t object_bytes, uint32_t count_max)
{
    must(object_bytes > 0 && object_bytes < SIZE_MAX / 64);
    *p = (struct pool){.name = name, .object_bytes = object_bytes, .count_max = count_max};
}

static void free_list_push(struct pool *p, void *object)
{
    struct free_object *f = object;
    f->next = p->free_list;
    p->free_list = f;
    MEMORY_POISON(object, p->object_bytes);
}

static void *free_list_pop(struct pool *p)
{
    struct free_object *f = p->free_list;
    MEMORY_UNPOISON(f, p->object_bytes);
    p->free_list = f->next;
    return f;
}

static bool grow(struct pool *p)
{
    size_t count = MAX(p->total_count, (uint32_t)SLAB_COUNT_MIN);
    count = MIN(count, MAX(SLAB_BYTES_MAX / stride(p), (size_t)1));
    uint32_t count_max = p->count_max ? p->count_max : UINT32_MAX;
    count = MIN(count, (size_t)(count_max - p->total_count));
    if (count == 0)
        return false;
    struct pool_slab *slab = malloc(sizeof *slab + count * stride(p));
    if (!slab)
        return false;
    slab->bytes = count * stride(p);
    slab->next = p->slabs;
    p->slabs = slab;
    p->total_count += (uint32_t)count;
    metric_add(M_pool_idle, (int64_t)slab->bytes);
    for (size_t i = count; i-- > 0;) /* backwards: objects are handed out in the order of their addresses */
        free_list_push(p, slab->data + i * stride(p));
    return true;
}

void *pool_get(struct pool *p)
{
    if (!p->free_list && !grow(p))
        return NULL;
    void *object = free_list_pop(p);
    p->used_count++;
    metric_add(M_pool_idle, -(int64_t)stride(p));
    memset(object, 0, p->object_bytes);
    return object;
}

void pool_put(struct pool *p, void *object)
{
    if (!object)
        return;
    must(!MEMORY_POISONED(object)); /* put back twice */
    must(p->used_count > 0);
    p->used_count--;
    metric_add(M_pool_idle, (int64_t)stride(p));
    free_list_push(p, object);
}

void pool_free(struct pool *p)
{
    must(p->used_count == 0);
    while (p->slabs) {
        struct pool_slab *slab = p->slabs;
        p->slabs = slab->next;
        MEMORY_UNPOISON(slab->data, slab->bytes);
        metric_add(M_pool_idle, -(int64_t)slab->bytes);
        free(slab);
    }
    p->free_list = NULL;
    p->total_count = 0;
}
