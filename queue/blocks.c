/* queue/blocks.c: memory. Blocks hold the newest units of the log: batches are built in them, written from
 * them, and served from them until their memory is needed again, the oldest first. Buffers hold what was read
 * back from the disk. */
#include <errno.h>

#include "queue/queue_priv.h"

err_t qblocks_init(struct queue *q)
{
    q->block_count = (uint32_t)MAX(q->opt.hot_bytes / q->unit_bytes, UINT64_C(4));
    q->memory = aligned_alloc(FSIO_ALIGN, (size_t)q->block_count * q->unit_bytes);
    q->blocks = calloc(q->block_count, sizeof *q->blocks);
    if (!q->memory || !q->blocks)
        return -ENOMEM;
    for (uint32_t i = 0; i < q->block_count; i++) {
        q->blocks[i].p = q->memory + (size_t)i * q->unit_bytes;
        list_push_back(&q->blocks_free, &q->blocks[i].link);
    }
    return 0;
}

void qblocks_free(struct queue *q)
{
    for (uint32_t i = 0; q->blocks && i < q->block_count; i++)
        must(q->blocks[i].pins == 0);
    map64_free(&q->block_map);
    free(q->blocks);
    free(q->memory);
    q->blocks = NULL;
    q->memory = NULL;
}

static struct qblock *evict_oldest(struct queue *q, uint64_t head_unit)
{
    LIST_EACH(&q->blocks_used, k)
    {
        struct qblock *b = container_of(k, struct qblock, link);
        if (b->pins > 0 || b->unwritten > 0 || b->unit == head_unit)
            continue;
        map64_remove(&q->block_map, b->unit);
        list_remove(k);
        return b;
    }
    return NULL;
}

struct qblock *qblock_take(struct queue *q, uint64_t position)
{
    uint64_t unit = position / q->unit_bytes;
    struct qblock *b = map64_get(&q->block_map, unit);
    if (b)
        return b;
    struct link *k = list_pop_front(&q->blocks_free);
    b = k ? container_of(k, struct qblock, link) : evict_oldest(q, unit);
    if (!b)
        return NULL;
    if (map64_put(&q->block_map, unit, b)) {
        list_push_front(&q->blocks_free, &b->link);
        return NULL;
    }
    b->unit = unit;
    b->valid_from = (uint32_t)(position % q->unit_bytes);
    list_push_back(&q->blocks_used, &b->link);
    return b;
}

const struct disk_record *qblock_find(const struct queue *q, uint64_t position, struct qblock **block)
{
    struct qblock *b = map64_get(&q->block_map, position / q->unit_bytes);
    uint32_t offset = (uint32_t)(position % q->unit_bytes);
    /* An extent from a damaged disk may point anywhere. */
    if (!b || offset < b->valid_from || offset % 8 != 0 ||
        offset + sizeof(struct disk_record) > q->unit_bytes)
        return NULL;
    const struct disk_record *r = (const struct disk_record *)(const void *)(b->p + offset);
    if (r->magic != q->magic || r->position != position || offset + qrecord_bytes(r->bytes) > q->unit_bytes)
        return NULL;
    *block = b;
    return r;
}

void qblock_pin(struct queue *q, struct qblock *b)
{
    q->pinned_count += b->pins++ == 0;
}

void qblock_unpin(struct queue *q, struct qblock *b)
{
    must(b->pins > 0);
    q->pinned_count -= --b->pins == 0;
}

/* Half of the blocks are always left for what comes in: a handful of receivers that do not read must not stop
 * the ring. */
bool qblock_may_pin(const struct queue *q, const struct qblock *b)
{
    return b->pins > 0 || q->pinned_count < q->block_count / 2;
}

/* ---- buffers ---- */

#define KEPT_PER_CLASS 16u

/* A small message with its neighbours; a middling one; the largest body chunk. Longer ones are rare: large
 * commit records. */
static const size_t class_bytes[3] = {16384, 65536, 139264};

static size_t class_of(size_t bytes)
{
    size_t i = 0;
    while (i < COUNT_OF(class_bytes) && class_bytes[i] < bytes)
        i++;
    return i;
}

void *qbuffer_get(struct queue *q, size_t bytes)
{
    size_t i = class_of(bytes);
    if (i == COUNT_OF(class_bytes))
        return aligned_alloc(FSIO_ALIGN, ALIGN_UP(bytes, FSIO_ALIGN));
    struct qbuffer_class *c = &q->buffers[i];
    void *p = c->free_list;
    if (!p)
        return aligned_alloc(FSIO_ALIGN, class_bytes[i]);
    memcpy(&c->free_list, p, sizeof c->free_list);
    c->free_count--;
    return p;
}

void qbuffer_put(struct queue *q, void *p, size_t bytes)
{
    size_t i = class_of(bytes);
    if (!p || i == COUNT_OF(class_bytes) || q->buffers[i].free_count >= KEPT_PER_CLASS) {
        free(p);
        return;
    }
    struct qbuffer_class *c = &q->buffers[i];
    memcpy(p, &c->free_list, sizeof c->free_list);
    c->free_list = p;
    c->free_count++;
}

void qbuffers_free(struct queue *q)
{
    for (size_t i = 0; i < COUNT_OF(q->buffers); i++) {
        for (void *p; (p = q->buffers[i].free_list);) {
            memcpy(&q->buffers[i].free_list, p, sizeof(void *));
            free(p);
        }
        q->buffers[i].free_count = 0;
    }
}
