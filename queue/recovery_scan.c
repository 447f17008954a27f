/* queue/recovery_scan.c: looking at the disk, one unit at a time. A batch never crosses a unit. */
#include <errno.h>

#include "core/metrics.h"
#include "queue/crc32c.h"
#include "queue/recovery_priv.h"

#define NO_SEGMENT UINT64_MAX

/* A unit that cannot be read in one piece is read sector by sector; the unreadable ones count as zeros, that
 * is, as damage. */
static void read_unit(struct recovery *rc, uint64_t at)
{
    struct queue *q = rc->q;
    if (fsio_read(&q->file, rc->unit, q->unit_bytes, qfile_at(q, at)) == 0)
        return;
    metric_inc(M_queue_errors);
    for (uint32_t i = 0; i < q->unit_bytes; i += DISK_SECTOR)
        if (fsio_read(&q->file, rc->unit + i, DISK_SECTOR, qfile_at(q, at + i)))
            memset(rc->unit + i, 0, DISK_SECTOR);
}

const uint8_t *recovery_unit(struct recovery *rc, uint64_t position, size_t *left)
{
    struct queue *q = rc->q;
    uint64_t at = ALIGN_DOWN(position, q->unit_bytes);
    if (at != rc->unit_at)
        read_unit(rc, at);
    rc->unit_at = at;
    *left = (size_t)(at + q->unit_bytes - position);
    return rc->unit + (position - at);
}

static bool header_parse(const struct queue *q, const uint8_t *p, size_t left, uint64_t position,
                         struct disk_batch *out)
{
    if (left < DISK_BATCH_HEAD || !qrecord_is_valid(q, p, left, position))
        return false;
    struct disk_record r;
    memcpy(&r, p, sizeof r);
    if (r.type != RECORD_BATCH || r.bytes != sizeof *out)
        return false;
    memcpy(out, p + sizeof r, sizeof *out);
    return out->bytes >= DISK_SECTOR && out->bytes % DISK_SECTOR == 0 && out->bytes <= left;
}

bool recovery_batch_at(struct recovery *rc, uint64_t position, struct disk_batch *out)
{
    size_t left;
    const uint8_t *p = recovery_unit(rc, position, &left);
    return header_parse(rc->q, p, left, position, out);
}

bool recovery_batch_is_whole(struct recovery *rc, uint64_t position, const struct disk_batch *d)
{
    size_t left;
    const uint8_t *p = recovery_unit(rc, position, &left);
    uint32_t offset = DISK_BATCH_HEAD, crc = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        if (offset >= d->bytes || !qrecord_is_valid(rc->q, p + offset, d->bytes - offset, position + offset))
            return false;
        struct disk_record r;
        memcpy(&r, p + offset, sizeof r);
        crc = crc32c(crc, &r.crc, sizeof r.crc);
        offset += qrecord_bytes(r.bytes);
    }
    return crc == d->records_crc;
}

/* The segment whose first batch header stands in a slot's first sector, of whatever lap; NO_SEGMENT: none. */
static uint64_t first_header(struct recovery *rc, uint32_t slot)
{
    struct queue *q = rc->q;
    rc->unit_at = UINT64_MAX;
    if (fsio_read(&q->file, rc->unit, DISK_SECTOR, DISK_DATA_AT + slot * q->segment_bytes))
        return NO_SEGMENT;
    struct disk_record r;
    memcpy(&r, rc->unit, sizeof r);
    struct disk_batch d;
    uint64_t segment = r.position / q->segment_bytes;
    if (r.position % q->segment_bytes != 0 || (segment >= q->base_segment && qslot_of(q, segment) != slot))
        return NO_SEGMENT;
    /* Only the header has been read: the batch may be as long as it says. */
    bool ok = qrecord_is_valid(q, rc->unit, DISK_SECTOR, r.position) &&
              header_parse(q, rc->unit, q->unit_bytes, r.position, &d);
    return ok ? segment : NO_SEGMENT;
}

/* One sector of each segment: also of a large ring that is mostly empty, where reading all would take
 * minutes. */
err_t recovery_look(struct recovery *rc)
{
    struct queue *q = rc->q;
    rc->first = calloc(q->segment_count, sizeof *rc->first);
    if (!rc->first)
        return -ENOMEM;
    for (uint32_t slot = 0; slot < q->segment_count; slot++)
        rc->first[slot] = first_header(rc, slot);
    return 0;
}

static uint64_t first_of(const struct recovery *rc, uint64_t segment)
{
    return rc->first[qslot_of(rc->q, segment)];
}

bool recovery_is_earlier_lap(const struct recovery *rc, uint64_t segment)
{
    uint64_t first = first_of(rc, segment);
    return first != NO_SEGMENT && first < segment;
}

uint64_t recovery_next(const struct recovery *rc, uint64_t position)
{
    uint64_t segment_bytes = rc->q->segment_bytes;
    bool skip = position % segment_bytes == 0 && recovery_is_earlier_lap(rc, position / segment_bytes);
    return position + (skip ? segment_bytes : DISK_SECTOR);
}

/* With the newer superblock lost the older one may name a tail that has been overwritten since. */
void recovery_raise_tail(struct recovery *rc)
{
    struct queue *q = rc->q;
    for (uint32_t slot = 0; slot < q->segment_count; slot++) {
        uint64_t segment = rc->first[slot];
        if (segment != NO_SEGMENT && segment >= q->tail_segment + q->segment_count)
            q->tail_segment = segment + 1 - q->segment_count;
    }
}

/* Position of the last valid batch in a segment that was perhaps never written. */
static uint64_t last_batch_in(struct recovery *rc, uint64_t segment)
{
    struct queue *q = rc->q;
    uint64_t from = segment * q->segment_bytes;
    for (uint64_t unit = from + q->segment_bytes; unit > from;) {
        unit -= q->unit_bytes;
        uint64_t last = UINT64_MAX;
        struct disk_batch d;
        for (uint32_t i = 0; i < q->unit_bytes; i += DISK_SECTOR)
            if (recovery_batch_at(rc, unit + i, &d))
                last = unit + i;
        if (last != UINT64_MAX)
            return last;
    }
    return UINT64_MAX;
}

/* The log goes on from segment to segment, so it ends in the last one that begins with a batch; or behind it,
 * when the first sector there is damaged: that is looked for until a segment has nothing at all. */
uint64_t recovery_last_batch(struct recovery *rc)
{
    struct queue *q = rc->q;
    uint64_t end = q->tail_segment + q->segment_count, s = end;
    while (s > q->tail_segment && first_of(rc, s - 1) != s - 1)
        s--;
    s = s > q->tail_segment ? s - 1 : q->tail_segment;
    uint64_t last = UINT64_MAX;
    for (; s < end; s++) {
        if (recovery_is_earlier_lap(rc, s))
            continue;
        uint64_t found = last_batch_in(rc, s);
        if (found == UINT64_MAX && q->super.now.flags & SUPER_SHRINKING)
            continue; /* the log may have turned back before the ring's end */
        if (found == UINT64_MAX)
            break;
        last = found;
    }
    return last;
}
