/* queue/reclaim.c: the living leave the tail. What the tail segment holds of a message, or of one that is
 * still coming in, is appended again at the head; when nobody needs the segment the tail moves on and its
 * space is free.
 *
 * Only the pieces that lie in the tail are copied, so that one segment's worth of free space is enough to
 * free a segment, however long the message. It works while free space is short and garbage is worth it, a
 * bounded amount per tick, one read at a time. */
#include <errno.h>

#include "core/metrics.h"
#include "queue/queue_priv.h"

#define BYTES_PER_TICK    (256u << 10) /* of one run; the loop may run it a few times in a tick */
#define STEPS_PER_TICK    256u
#define FREE_COUNT_WANTED 6u  /* segments, before mail has to wait; or a quarter of what is not alive */
#define GARBAGE_SEGMENTS  2u  /* less is not worth a lap */
#define SCAN_COUNT_MAX    64u /* messages looked at for one that can be moved */
/* A disk that cannot be read now may be read later: three minutes of tries before it counts as damage. */
#define READ_TRIES          12u
#define READ_PAUSE_FIRST_MS 500u
#define READ_PAUSE_LAST_MS  30000u

void qreclaim_init(struct queue *q)
{
    q->reclaim.budget_bytes = q->data_bytes;
}

/* ---- is it worth it ---- */

static uint64_t garbage_bytes(const struct queue *q)
{
    uint64_t used = qbatch_head(q) - q->tail_segment * q->segment_bytes;
    return used > q->live_bytes ? used - q->live_bytes : 0;
}

/* After one whole lap of moving there is nothing left to squeeze out, until a segment's worth of new garbage
 * has come. */
bool qreclaim_can_gain(const struct queue *q)
{
    const struct qreclaim *rc = &q->reclaim;
    if (qresize_wants_moves(q) && !rc->space_short)
        return true;
    if (rc->space_short || garbage_bytes(q) < GARBAGE_SEGMENTS * q->segment_bytes)
        return false;
    return rc->budget_bytes > 0 || rc->earned_bytes >= q->segment_bytes;
}

static bool is_wanted(const struct queue *q)
{
    if (qresize_wants_moves(q))
        return true;
    uint32_t pending =
        (uint32_t)(q->tail_segment - q->durable_tail); /* free as soon as the superblock says so */
    /* A share of what can be free at all: a share of the ring would leave nothing for garbage to gather in,
     * and each segment would be moved nearly whole. */
    uint64_t idle_bytes = q->data_bytes > q->live_bytes ? q->data_bytes - q->live_bytes : 0;
    uint32_t wanted = MAX(FREE_COUNT_WANTED, (uint32_t)(idle_bytes / q->segment_bytes / 4));
    return qspace_free_segments(q) + pending < wanted;
}

void qreclaim_kick(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    bool is_reading = rc->reading || (rc->unit && rc->unit->reading);
    if (!q->loop || q->closing || q->error || is_reading || rc->space_short || timer_armed(&rc->pause))
        return;
    if (rc->m || rc->w || (is_wanted(q) && qreclaim_can_gain(q)))
        loop_at_tick_end(q->loop, &rc->hook);
}

void qreclaim_retry(struct queue *q)
{
    q->reclaim.space_short = false;
    qreclaim_kick(q);
}

static void count_moved(struct queue *q, uint32_t bytes)
{
    struct qreclaim *rc = &q->reclaim;
    q->reappended_bytes += bytes;
    metric_add(M_queue_reappended, bytes);
    rc->budget_bytes -= MIN(rc->budget_bytes, (uint64_t)bytes);
}

/* ---- reading what is to be moved ---- */

static void read_arrived(void *ctx, struct qread *r, err_t err)
{
    struct queue *q = ctx;
    q->reclaim.reading = NULL;
    q->reclaim.arrived = r;
    q->reclaim.arrived_err = err;
    qreclaim_kick(q);
}

static void arrived_free(struct qreclaim *rc)
{
    qread_forget(rc->arrived);
    rc->arrived = NULL;
}

static void unit_arrived(struct fsio_io *io, err_t err)
{
    struct qunit *u = container_of(io, struct qunit, io);
    struct queue *q = u->q;
    u->reading = false;
    q->reads_inflight--;
    if (err) {
        metric_inc(M_queue_errors);
        u->bad_at = u->at;
        u->at = UINT64_MAX;
    }
    qreclaim_kick(q);
    qclose_step(q);
}

/* 0: it is there; ERR_PENDING: it is being read; else the record has to be read by itself. */
static err_t unit_want(struct queue *q, uint64_t position, uint32_t bytes)
{
    struct qunit *u = q->reclaim.unit;
    uint64_t at = ALIGN_DOWN(position, q->unit_bytes);
    bool is_written = at + q->unit_bytes <= qbatch_unwritten(q); /* else more may come into it */
    if (!u || at == u->bad_at || !is_written || bytes > at + q->unit_bytes - position)
        return ERR_NOT_FOUND;
    if (u->reading)
        return ERR_PENDING;
    if (at == u->at)
        return 0;
    u->at = at;
    u->reading = true;
    q->reads_inflight++;
    fsio_read_async(&u->io, q->loop, &q->file, u->p, q->unit_bytes, qfile_at(q, at));
    return ERR_PENDING;
}

static void unit_init(struct queue *q)
{
    struct qunit *u = calloc(1, sizeof *u);
    if (!u || !(u->p = aligned_alloc(FSIO_ALIGN, q->unit_bytes))) {
        free(u); /* then record by record */
        return;
    }
    u->q = q;
    u->at = u->bad_at = UINT64_MAX;
    u->io.done = unit_arrived;
    q->reclaim.unit = u;
}

/* A record where it is hot, or as it was just read. ERR_PENDING: being read. Else damaged: *raw has its bytes
 * if they could be read at all. The block is pinned: the caller unpins. */
static err_t fetch(struct queue *q, uint64_t position, uint32_t bytes, enum record_type type, uint64_t id,
                   const struct disk_record **out, struct qblock **block, const uint8_t **raw)
{
    struct qreclaim *rc = &q->reclaim;
    *block = NULL;
    *raw = NULL;
    const struct disk_record *hot = qblock_find(q, position, block);
    if (hot) {
        qblock_pin(q, *block);
        *out = hot;
        return 0;
    }
    bool is_here = rc->arrived && rc->arrived->position == position;
    err_t err = is_here ? ERR_NOT_FOUND : unit_want(q, position, bytes);
    if (err == ERR_PENDING)
        return err;
    if (!err) {
        const uint8_t *p = rc->unit->p + position % q->unit_bytes;
        *out = qread_check(q, p, position, bytes, type, id);
        *raw = p;
        return *out ? 0 : ERR_CORRUPT;
    }
    if (!is_here) {
        arrived_free(rc);
        rc->reading = qread_start(q, position, bytes, type, id, read_arrived, q);
        return ERR_PENDING; /* out of memory: the next kick tries again */
    }
    *out = qread_record(rc->arrived);
    *raw = (const uint8_t *)*out;
    if (!rc->arrived_err) {
        rc->error_count = 0;
        return 0;
    }
    if (rc->arrived_err != ERR_CORRUPT && rc->error_count < READ_TRIES) {
        arrived_free(rc);
        timer_arm(q->loop, &rc->pause, MIN(READ_PAUSE_FIRST_MS << rc->error_count, READ_PAUSE_LAST_MS));
        rc->error_count++;
        return ERR_PENDING;
    }
    if (rc->arrived_err != ERR_CORRUPT)
        *raw = NULL;
    rc->error_count = 0;
    return ERR_CORRUPT;
}

static void fetch_end(struct queue *q, struct qblock *block)
{
    if (block)
        qblock_unpin(q, block);
    arrived_free(&q->reclaim);
}

/* Messages that were moved are to become durable now: their segment waits for it. */
static void flush_moved(struct queue *q)
{
    if (q->urgent || !q->open || list_empty(&q->open->moves))
        return;
    q->urgent = true;
    qbatch_request(q);
}

/* Room for a record. ERR_PENDING: when memory comes back; ERR_FULL: not before messages leave. Records are
 * collected: each in a write of its own would be padded to a sector, and fill more segments than it frees. */
static err_t reserve(struct queue *q, uint32_t bytes, struct qplace *place)
{
    err_t err = qbatch_reserve(q, QSPACE_RECLAIM, bytes, place);
    if (err)
        flush_moved(q);
    return err;
}

/* Copies a chunk from the tail to the head. A damaged one goes along, marked, so that its bytes are not lost
 * and are not sent. */
static err_t move_chunk(struct queue *q, uint64_t id, uint32_t index, struct disk_extent *e)
{
    const struct disk_record *r;
    struct qblock *block;
    const uint8_t *raw;
    err_t err = fetch(q, e->position, qrecord_bytes(e->bytes), RECORD_BODY, id, &r, &block, &raw);
    if (err == ERR_PENDING)
        return err;
    bool damaged = err != 0;
    struct qplace place;
    err = reserve(q, e->bytes, &place);
    if (err) {
        if (block)
            qblock_unpin(q, block);
        return err; /* what was read stays in rc->arrived */
    }
    if (!damaged)
        memcpy(place.payload, r + 1, e->bytes);
    else if (raw)
        memcpy(place.payload, raw + sizeof *r, e->bytes);
    else
        memset(place.payload, 0, e->bytes);
    qbatch_finish(q, &place,
                  &(struct disk_record){.type = RECORD_BODY,
                                        .flags = damaged ? RECORD_DAMAGED : 0,
                                        .id = id,
                                        .index = index,
                                        .bytes = e->bytes});
    if (damaged)
        qdamage_report(q, e->position, e->bytes, id, raw != NULL,
                       "a piece of a body is damaged; it was moved as it is");
    fetch_end(q, block);
    count_moved(q, qrecord_bytes(e->bytes));
    e->position = place.at;
    return damaged ? ERR_CORRUPT : 0;
}

static bool is_in_tail(const struct queue *q, const struct disk_extent *e)
{
    return e->position / q->segment_bytes == q->tail_segment;
}

/* ---- a message ---- */

static void message_done(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    struct qmsg *m = rc->m;
    rc->m = NULL;
    free(rc->payload);
    rc->payload = NULL;
    qindex_unpin(q, m);
}

/* Its commit record cannot be read and its segment has to go: the owner gets ERR_CORRUPT from now on. */
static void message_lost(struct queue *q, const uint8_t *raw)
{
    struct qmsg *m = q->reclaim.m;
    static const char text[] = "the commit record of a message is damaged; the message cannot be delivered";
    if (raw)
        qdamage_keep(q, m->commit_at, raw, m->commit_bytes, m->id, text);
    else
        qdamage_report(q, m->commit_at, m->commit_bytes, m->id, false, text);
    m->flags |= QMSG_LOST;
    m->damaged = true;
    list_remove(&m->segment_link);
    m->lowest_segment = UINT64_MAX;
    q->live_bytes -= m->ring_bytes;
    m->ring_bytes = 0;
    qindex_advance_tail(q);
}

static err_t message_load(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    struct qmsg *m = rc->m;
    const struct disk_record *r;
    struct qblock *block;
    const uint8_t *raw;
    struct qcommit_view v;
    err_t err = fetch(q, m->commit_at, m->commit_bytes, RECORD_COMMIT, m->id, &r, &block, &raw);
    if (err == ERR_PENDING)
        return err;
    if (!err)
        err = qcommit_parse((const uint8_t *)(r + 1), r->bytes, &v);
    if (!err && v.head.rcpt_count != m->rcpt_count)
        err = ERR_CORRUPT;
    if (!err && !(rc->payload = malloc(r->bytes)))
        err = ERR_PENDING;
    if (!err) {
        memcpy(rc->payload, r + 1, r->bytes);
        rc->payload_bytes = r->bytes;
        rc->extent_index = 0;
    } else if (err == ERR_CORRUPT) {
        message_lost(q, raw);
    }
    fetch_end(q, block);
    return err;
}

/* Where a record of `bytes` ends that is put at the log's end `at`; `open`: in a batch that is begun. */
static uint64_t placed(const struct queue *q, uint64_t at, bool open, uint32_t bytes)
{
    uint64_t end = ALIGN_UP(at, q->unit_bytes);
    uint64_t head = open ? 0 : DISK_BATCH_HEAD;
    return end - at >= head + bytes ? at + head + bytes : end + DISK_BATCH_HEAD + bytes;
}

/* Is there room for all that has to be copied? Half of it would only make garbage of the last free space.
 * Exact, since nobody else writes when space is short: one free segment takes what lives in another one. */
static bool has_space(const struct queue *q, const struct qcommit_view *v)
{
    uint64_t at = qbatch_head(q);
    bool open = q->open != NULL;
    for (uint32_t i = 0; i < v->head.extent_count; i++) {
        struct disk_extent e = qcommit_extent(v, i);
        if (!is_in_tail(q, &e))
            continue;
        at = placed(q, at, open, qrecord_bytes(e.bytes));
        open = true;
    }
    at = placed(q, at, open, q->reclaim.m->commit_bytes);
    return ALIGN_UP(at, DISK_SECTOR) <= qspace_limit(q, QSPACE_RECLAIM);
}

/* The record with the new extents and the states of this moment. */
static err_t message_commit(struct queue *q, const struct qcommit_view *v)
{
    struct qreclaim *rc = &q->reclaim;
    struct qplace place;
    struct qmove *mv = pool_get(&q->move_pool);
    if (!mv)
        return ERR_PENDING;
    err_t err = reserve(q, rc->payload_bytes, &place);
    if (err) {
        pool_put(&q->move_pool, mv);
        return err;
    }
    qcommit_patch(rc->payload, rc->m);
    memcpy(place.payload, rc->payload, rc->payload_bytes);
    qbatch_finish(q, &place,
                  &(struct disk_record){.type = RECORD_COMMIT, .id = rc->m->id, .bytes = rc->payload_bytes});
    count_moved(q, qrecord_bytes(rc->payload_bytes));
    q->reclaim.m->flags |= QMSG_MOVING;
    mv->m = rc->m;
    mv->at = place.at;
    mv->lowest_segment = place.at / q->segment_bytes;
    for (uint32_t i = 0; i < v->head.extent_count; i++)
        mv->lowest_segment = MIN(mv->lowest_segment, qcommit_extent(v, i).position / q->segment_bytes);
    list_push_back(&q->open->moves, &mv->link);
    return 0;
}

static err_t message_step(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    if (rc->m->flags & QMSG_REMOVED)
        return 0;
    struct qcommit_view v;
    if (!rc->payload) {
        err_t err = message_load(q);
        if (err)
            return err;
        must(qcommit_parse(rc->payload, rc->payload_bytes, &v) == 0);
        if (!has_space(q, &v))
            return ERR_FULL;
    }
    must(qcommit_parse(rc->payload, rc->payload_bytes, &v) == 0);
    while (rc->extent_index < v.head.extent_count) {
        struct disk_extent e = qcommit_extent(&v, rc->extent_index);
        if (is_in_tail(q, &e)) {
            err_t err = move_chunk(q, rc->m->id, rc->extent_index, &e);
            if (err && err != ERR_CORRUPT)
                return err;
            qcommit_patch_extent(rc->payload, rc->extent_index, e);
        }
        rc->extent_index++;
    }
    return message_commit(q, &v);
}

void qreclaim_moved(struct queue *q, struct qmove *mv)
{
    struct qmsg *m = mv->m;
    m->flags &= (uint8_t)~QMSG_MOVING;
    m->commit_at = mv->at;
    if (m->flags & QMSG_REMOVED) {
        qindex_free_if_done(q, m);
    } else if (m->pins > 0) { /* a reader has the old places: the old segment stays until it is done */
        m->lowest_segment = mv->lowest_segment;
        m->flags |= QMSG_RELINK;
    } else {
        qindex_link(q, m, mv->lowest_segment);
    }
    pool_put(&q->move_pool, mv);
}

/* ---- a writer: nothing of it is promised yet, so its extents change at once ---- */

static err_t writer_step(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    struct queue_writer *w = rc->w;
    for (; rc->extent_index < w->extent_count; rc->extent_index++) {
        struct disk_extent *e = qextent_at(w, rc->extent_index);
        if (!is_in_tail(q, e))
            continue;
        err_t err = move_chunk(q, w->id, rc->extent_index, e);
        if (err == ERR_CORRUPT)
            w->err = err;
        else if (err)
            return err;
    }
    qwriter_relink(w);
    qindex_advance_tail(q);
    return 0;
}

void qreclaim_forget_writer(struct queue *q, struct queue_writer *w)
{
    struct qreclaim *rc = &q->reclaim;
    if (rc->w != w)
        return;
    rc->w = NULL;
    qread_forget(rc->reading);
    rc->reading = NULL;
    arrived_free(rc);
    qreclaim_kick(q);
}

/* ---- one after the other ---- */

/* The next in the tail segment that can be moved; what is looked at goes to the end of the line. */
static bool pick(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    if (q->tail_segment >= qbatch_unwritten(q) / q->segment_bytes)
        return false;
    struct qsegment *s = qsegment_of(q, q->tail_segment);
    rc->extent_index = 0;
    for (uint32_t i = 0; i < SCAN_COUNT_MAX && !list_empty(&s->messages); i++) {
        struct link *k = list_pop_front(&s->messages);
        struct qmsg *m = container_of(k, struct qmsg, segment_link);
        list_push_back(&s->messages, k);
        if (m->pins == 0 && (m->flags & (QMSG_LIVE | QMSG_MOVING | QMSG_REMOVED)) == QMSG_LIVE) {
            m->pins++;
            rc->m = m;
            return true;
        }
    }
    struct link *k = list_first(&s->writers);
    if (k)
        rc->w = container_of(k, struct queue_writer, segment_link);
    return k != NULL;
}

static bool work_is_there(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    if (rc->m || rc->w)
        return true;
    if (!is_wanted(q))
        return false;
    if (!qreclaim_can_gain(q)) {
        qbatch_request(q); /* who waits for space must know that none comes from here */
        return false;
    }
    if (rc->budget_bytes == 0) {
        rc->budget_bytes = q->data_bytes;
        rc->earned_bytes = 0;
    }
    return pick(q);
}

static void run(struct tick_hook *h)
{
    struct queue *q = container_of(h, struct queue, reclaim.hook);
    struct qreclaim *rc = &q->reclaim;
    uint64_t stop_at = q->reappended_bytes + BYTES_PER_TICK;
    for (uint32_t steps = 0; steps < STEPS_PER_TICK && q->reappended_bytes < stop_at; steps++) {
        if (rc->reading || (rc->unit && rc->unit->reading) || rc->space_short || timer_armed(&rc->pause) ||
            q->error || q->closing)
            return;
        if (!work_is_there(q)) {
            flush_moved(q);
            return;
        }
        err_t err = rc->m ? message_step(q) : writer_step(q);
        if (err == ERR_PENDING)
            return;
        if (err == ERR_FULL) { /* and let go of it: it must be able to leave */
            rc->space_short = true;
            flush_moved(q);
            qbatch_request(q);
        }
        if (rc->m)
            message_done(q);
        rc->w = NULL;
    }
    qreclaim_kick(q);
}

static void pause_over(struct timer *t)
{
    qreclaim_kick(container_of(t, struct queue, reclaim.pause));
}

void qreclaim_start_loop(struct queue *q)
{
    unit_init(q);
    q->reclaim.hook.run = run;
    q->reclaim.pause.fire = pause_over;
    qreclaim_kick(q);
}

void qreclaim_stop(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    qread_forget(rc->reading);
    rc->reading = NULL;
    arrived_free(rc);
    if (rc->m)
        message_done(q);
    rc->w = NULL;
    list_remove(&rc->hook.link);
    timer_disarm(q->loop, &rc->pause);
}

void qreclaim_free(struct queue *q)
{
    if (q->reclaim.unit)
        free(q->reclaim.unit->p);
    free(q->reclaim.unit);
}
