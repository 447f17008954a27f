/* queue/record.c: records and the payload of commit records, taken apart and put together. */
#include "queue/crc32c.h"
#include "queue/queue_priv.h"

uint32_t qrecord_crc_seeded(uint32_t seed, uint64_t position, const struct disk_record *r,
                            const uint8_t *payload)
{
    struct disk_record head = *r;
    head.crc = 0;
    uint32_t crc = crc32c(seed, &position, sizeof position);
    crc = crc32c(crc, payload, r->bytes);
    return crc32c(crc, &head, sizeof head);
}

uint32_t qrecord_crc(const struct queue *q, uint64_t position, const struct disk_record *r,
                     const uint8_t *payload)
{
    return qrecord_crc_seeded(q->seed, position, r, payload);
}

bool qrecord_is_valid(const struct queue *q, const uint8_t *p, size_t n, uint64_t position)
{
    struct disk_record r;
    if (n < sizeof r)
        return false;
    memcpy(&r, p, sizeof r);
    if (r.magic != q->magic || r.position != position)
        return false;
    if (r.bytes > q->unit_bytes || qrecord_bytes(r.bytes) > n)
        return false;
    return r.type > 0 && r.crc == qrecord_crc(q, position, &r, p + sizeof r);
}

static bool take(const uint8_t **p, size_t *left, size_t n, const uint8_t **out)
{
    if (n > *left)
        return false;
    *out = *p;
    *p += n;
    *left -= n;
    return true;
}

static bool lengths_agree(const struct qcommit_view *v)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < v->head.rcpt_count; i++)
        sum += qcommit_rcpt_bytes(v, i);
    if (sum != v->head.blobs_bytes)
        return false;
    sum = 0;
    for (uint32_t i = 0; i < v->head.extent_count; i++)
        sum += qcommit_extent(v, i).bytes;
    return sum == v->head.body_bytes;
}

err_t qcommit_parse(const uint8_t *payload, uint32_t bytes, struct qcommit_view *out)
{
    const uint8_t *p = payload, *meta, *trace, *blobs, *tags;
    size_t left = bytes;
    if (left < sizeof out->head)
        return ERR_CORRUPT;
    memcpy(&out->head, p, sizeof out->head);
    p += sizeof out->head;
    left -= sizeof out->head;
    const struct disk_commit *h = &out->head;
    bool whole = take(&p, &left, (size_t)h->extent_count * sizeof(struct disk_extent), &out->extents) &&
                 take(&p, &left, (size_t)h->rcpt_count * sizeof(uint32_t), &out->lengths) &&
                 take(&p, &left, h->rcpt_count, &out->states) && take(&p, &left, h->meta_bytes, &meta) &&
                 take(&p, &left, h->trace_bytes, &trace) && take(&p, &left, h->blobs_bytes, &blobs) &&
                 take(&p, &left, h->tags_bytes, &tags);
    if (!whole || left > 0 || !lengths_agree(out))
        return ERR_CORRUPT;
    out->meta = (const char *)meta;
    out->trace = (const char *)trace;
    out->blobs = (const char *)blobs;
    return 0;
}

struct disk_extent qcommit_extent(const struct qcommit_view *v, uint32_t index)
{
    struct disk_extent e;
    memcpy(&e, v->extents + (size_t)index * sizeof e, sizeof e);
    return e;
}

uint32_t qcommit_rcpt_bytes(const struct qcommit_view *v, uint32_t index)
{
    uint32_t n;
    memcpy(&n, v->lengths + (size_t)index * sizeof n, sizeof n);
    return n;
}

void qcommit_patch_extent(uint8_t *payload, uint32_t index, struct disk_extent e)
{
    memcpy(payload + sizeof(struct disk_commit) + (size_t)index * sizeof e, &e, sizeof e);
}
