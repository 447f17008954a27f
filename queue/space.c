/* queue/space.c: how far one may write, and how much mail fits.
 *
 * The free segments are those between the head and a lap ahead of the durable tail, without the slots that
 * kept segments lie in: the head passes over these. */
#include "queue/queue_priv.h"

/* Segments kept free from the purposes named. Neither mail nor progress records ever take what moving the
 * tail's messages needs, or a full ring would stay full for ever: one segment, and one for each of two
 * crashes that spoil a unit before the first one is free. Progress can wait in memory: a message that is done
 * frees its segment without a record. */
static const uint32_t reserved_segments[] = {
    [QSPACE_MAIL] = 4,
    [QSPACE_PROGRESS] = 3,
    [QSPACE_RECLAIM] = 0,
};

/* From the end of the free space back to the head; segments that are kept do not count. */
static void space_work_out(const struct queue *q, struct qspace_cache *c)
{
    uint64_t end = q->durable_tail + q->segment_count;
    for (unsigned space = 0; space < COUNT_OF(c->limit); space++)
        c->limit[space] = end * q->segment_bytes;
    uint32_t seen = 0;
    c->free_count = 0;
    for (uint64_t s = end; s > 0 && (s > c->used_to || seen < reserved_segments[QSPACE_MAIL]); s--) {
        if (s > c->used_to && qsegment_of(q, s - 1)->kept != QSEGMENT_NONE)
            continue;
        seen++;
        c->free_count += s > c->used_to;
        for (unsigned space = 0; space < COUNT_OF(c->limit); space++)
            if (seen == reserved_segments[space])
                c->limit[space] = (s - 1) * q->segment_bytes;
    }
    c->coming_count = 0;
    for (uint64_t s = q->durable_tail; s < q->tail_segment; s++)
        c->coming_count += qsegment_of(q, s)->kept == QSEGMENT_NONE;
}

static const struct qspace_cache *space_of(const struct queue *q)
{
    struct qspace_cache *c = q->space;
    uint64_t used_to = ALIGN_UP(qbatch_head(q), q->segment_bytes) / q->segment_bytes;
    bool is_known = c->used_to == used_to && c->tail == q->tail_segment &&
                    c->durable_tail == q->durable_tail && c->version == q->keeping.version;
    if (is_known)
        return c;
    c->used_to = used_to;
    c->tail = q->tail_segment;
    c->durable_tail = q->durable_tail;
    c->version = q->keeping.version;
    space_work_out(q, c);
    return c;
}

uint64_t qspace_limit(const struct queue *q, enum qspace space)
{
    return MIN(space_of(q)->limit[space], qresize_limit(q));
}

uint32_t qspace_free_segments(const struct queue *q)
{
    return space_of(q)->free_count;
}

uint32_t qspace_coming(const struct queue *q)
{
    return space_of(q)->coming_count;
}

uint64_t qspace_next(const struct queue *q, uint64_t position)
{
    while (position % q->segment_bytes == 0 &&
           qsegment_of(q, position / q->segment_bytes)->kept != QSEGMENT_NONE)
        position += q->segment_bytes;
    return position;
}

uint64_t qspace_used(const struct queue *q)
{
    const struct qspace_cache *c = space_of(q);
    uint64_t free_bytes = (uint64_t)(c->free_count + c->coming_count) * q->segment_bytes;
    return q->data_bytes - free_bytes - (c->used_to * q->segment_bytes - qbatch_head(q));
}

uint64_t qspace_room(const struct queue *q, enum qspace space)
{
    uint32_t count = qspace_free_segments(q), reserved = reserved_segments[space];
    return count > reserved ? (uint64_t)(count - reserved) * q->segment_bytes : 0;
}

/* A ring that shrinks takes only what will fit. */
static uint64_t space_bytes(const struct queue *q)
{
    uint64_t wanted = q->resize.segment_count * q->segment_bytes;
    return q->resize.step == RESIZE_NONE ? q->data_bytes : MIN(q->data_bytes, wanted);
}

uint64_t qspace_live_limit(const struct queue *q)
{
    return space_bytes(q) - QSPACE_SPARE_SEGMENTS * q->segment_bytes;
}

uint64_t qspace_live_max_of(const struct queue *q, uint64_t data_bytes)
{
    uint64_t by_percent = data_bytes / 100 * q->opt.high_water_percent;
    return MIN(by_percent, data_bytes - QSPACE_SPARE_SEGMENTS * q->segment_bytes);
}

uint64_t qspace_live_max(const struct queue *q)
{
    return qspace_live_max_of(q, space_bytes(q));
}

bool qspace_is_hopeless(const struct queue *q)
{
    bool tail_moves = q->tail_segment > q->durable_tail || q->super.writing || qkeep_will_free(q);
    return !tail_moves && q->resize.step != RESIZE_SWITCHING && !qreclaim_can_gain(q);
}
