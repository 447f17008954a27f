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
#define FREE_COUNT_WANTED 7u  /* segments, before mail has to wait; or a part of what is not needed */
#define GARBAGE_SEGMENTS  2u  /* less is not worth a lap */
#define SCAN_COUNT_MAX    64u /* messages looked at for one that can be moved */

void qreclaim_init(struct queue *q)
{
    q->reclaim.budget_bytes = q->data_bytes;
    q->reclaim.tail_moved = QSEGMENT_NONE;
}

/* ---- is it worth it ---- */

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static uint64_t needed_bytes(const struct queue *q)
{
    return q->live_bytes + qkeep_waste(q);
}

/* After one whole lap of moving there is nothing left to squeeze out, until a segment's worth of new garbage
 * has come. */
static bool tail_can_gain(const struct queue *q)
{
    const struct qreclaim *rc = &q->reclaim;
    if (qresize_wants_moves(q))
        return true;
    if (less(qspace_used(q), needed_bytes(q)) < GARBAGE_SEGMENTS * q->segment_bytes)
        return false;
    return rc->budget_bytes > 0 || rc->earned_bytes >= q->segment_bytes;
}

static bool dissolving_is_wanted(const struct queue *q)
{
    return qkeep_wants_dissolving(q) && qspace_room(q, QSPACE_PROGRESS) > 0;
}

bool qreclaim_can_gain(const struct queue *q)
{
    return !q->reclaim.space_short && (tail_can_gain(q) || dissolving_is_wanted(q));
}

/* It works in spurts: what is moved then lies together, with little between it that leaves soon, so that its
 * segments are dense enough to be kept the next time. */
static bool tail_is_wanted(struct queue *q)
{
    if (qresize_wants_moves(q))
        return true;
    /* A share of what can be free at all: a share of the ring would leave nothing for garbage to gather in,
     * and each segment would be moved nearly whole. */
    uint64_t share = less(q->data_bytes, needed_bytes(q)) / q->segment_bytes / 4;
    uint64_t low = MAX(FREE_COUNT_WANTED, share), high = low + MAX(share, UINT64_C(1));
    uint64_t count = qspace_free_segments(q) + qspace_coming(q);
    q->reclaim.in_spurt = count < (q->reclaim.in_spurt ? high : low);
    return q->reclaim.in_spurt;
}

static bool is_wanted(struct queue *q)
{
    return tail_is_wanted(q) || dissolving_is_wanted(q);
}

void qreclaim_kick(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    bool is_reading = rc->reading || (rc->unit && rc->unit->reading);
    if (!q->loop || q->closing || q->error || is_reading || rc->space_short || timer_armed(&rc->pause))
        return;
    if (rc->m || rc->w || q->keeping.segment != QSEGMENT_NONE || (is_wanted(q) && qreclaim_can_gain(q)))
        loop_at_tick_end(q->loop, &rc->hook);
}

void qreclaim_retry(struct queue *q)
{
    q->reclaim.space_short = false;
    qreclaim_kick(q);
}

void qreclaim_count(struct queue *q, uint32_t bytes)
{
    struct qreclaim *rc = &q->reclaim;
    q->reappended_bytes += bytes;
    metric_add(M_queue_reappended, bytes);
    rc->budget_bytes -= MIN(rc->budget_bytes, (uint64_t)bytes);
}

/* ---- moving records ---- */

/* Messages that were moved are to become durable now: their segment waits for it. */
static void flush_moved(struct queue *q)
{
    if (q->urgent || !q->open || (list_empty(&q->open->moves) && list_empty(&q->open->keeps)))
        return;
    q->urgent = true;
    qbatch_request(q);
}

/* Room for a record. ERR_PENDING: when memory comes back; ERR_FULL: not before messages leave. Records are
 * collected: each in a write of its own would be padded to a sector, and fill more segments than it frees. */
static err_t reserve(struct queue *q, uint32_t bytes, struct qplace *place)
{
    err_t err = qbatch_reserve(q, q->reclaim.space, bytes, place);
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
    err_t err = qreclaim_fetch(q, e->position, qrecord_bytes(e->bytes), RECORD_BODY, id, &r, &block, &raw);
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
    qreclaim_fetch_end(q, block);
    qreclaim_count(q, qrecord_bytes(e->bytes));
    e->position = place.at;
    return damaged ? ERR_CORRUPT : 0;
}

static bool has_to_leave(const struct queue *q, const struct disk_extent *e)
{
    return e->position / q->segment_bytes == q->reclaim.from;
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
    uint64_t segment = m->lowest_segment;
    list_remove(&m->segment_link);
    qindex_uncount(q, m);
    m->lowest_segment = QSEGMENT_NONE;
    qkeep_check(q, segment);
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
    err_t err = qreclaim_fetch(q, m->commit_at, m->commit_bytes, RECORD_COMMIT, m->id, &r, &block, &raw);
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
    qreclaim_fetch_end(q, block);
    return err;
}

/* Where a record of `bytes` ends that is put at the log's end `at`; `open`: in a batch that is begun. */
static uint64_t placed(const struct queue *q, uint64_t at, bool open, uint32_t bytes)
{
    at = open ? at : qspace_next(q, at);
    uint64_t end = ALIGN_UP(at, q->unit_bytes);
    uint64_t head = open ? 0 : DISK_BATCH_HEAD;
    return end - at >= head + bytes ? at + head + bytes : qspace_next(q, end) + DISK_BATCH_HEAD + bytes;
}

/* Is there room for all that has to be copied? Half of it would only make garbage of the last free space.
 * Exact, since nobody else writes when space is short: one free segment takes what lives in another one. */
static bool has_space(const struct queue *q, const struct qcommit_view *v)
{
    uint64_t at = qbatch_head(q);
    bool open = q->open != NULL;
    for (uint32_t i = 0; i < v->head.extent_count; i++) {
        struct disk_extent e = qcommit_extent(v, i);
        if (!has_to_leave(q, &e))
            continue;
        at = placed(q, at, open, qrecord_bytes(e.bytes));
        open = true;
    }
    at = placed(q, at, open, q->reclaim.m->commit_bytes);
    return ALIGN_UP(at, DISK_SECTOR) <= qspace_limit(q, q->reclaim.space);
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
    qreclaim_count(q, qrecord_bytes(rc->payload_bytes));
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
        if (has_to_leave(q, &e)) {
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
        qkeep_watch(q, m->lowest_segment);
        qindex_uncount(q, m);
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
        if (!has_to_leave(q, e))
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
    qreclaim_read_forget(rc);
    qreclaim_kick(q);
}

/* ---- one after the other ---- */

enum pick { PICK_NONE, PICK_WAIT, PICK_FOUND };

static void leave(struct queue *q, uint64_t from, enum qspace space)
{
    q->reclaim.from = from;
    q->reclaim.space = space;
    q->reclaim.extent_index = 0;
}

/* The next in a list that can be moved; what is looked at goes to the end of the line. PICK_WAIT: somebody's
 * new commit record is on its way. */
static enum pick pick_message(struct queue *q, struct list *l)
{
    bool waits = false;
    for (uint32_t i = 0; i < SCAN_COUNT_MAX && !list_empty(l); i++) {
        struct link *k = list_pop_front(l);
        struct qmsg *m = container_of(k, struct qmsg, segment_link);
        list_push_back(l, k);
        waits |= (m->flags & (QMSG_MOVING | QMSG_REMOVED)) == QMSG_MOVING;
        if (m->pins == 0 && (m->flags & (QMSG_LIVE | QMSG_MOVING | QMSG_REMOVED)) == QMSG_LIVE) {
            m->pins++;
            q->reclaim.m = m;
            return PICK_FOUND;
        }
    }
    return waits ? PICK_WAIT : PICK_NONE;
}

/* A kept segment is left with what nobody else may need: see keep.c. */
static enum pick pick_dissolving(struct queue *q, struct qsegment *s)
{
    leave(q, s->kept, QSPACE_PROGRESS);
    enum pick p = pick_message(q, &s->messages);
    if (p == PICK_NONE)
        s->tried_at = q->keeping.round;
    return p;
}

/* ERR_FULL: no room for keep records. */
static err_t keep(struct queue *q, uint64_t segment)
{
    err_t err = qkeep_start(q, segment);
    if (err == ERR_FULL) {
        q->reclaim.space_short = true;
        qbatch_request(q); /* who waits for space must know */
    }
    return err;
}

/* Kept segments whose keep records stand in the tail. */
static bool pick_home(struct queue *q, struct qsegment *tail)
{
    LIST_EACH(&tail->homes, k)
    {
        struct qsegment *s = container_of(k, struct qsegment, home_link);
        if (link_in_list(&s->pending_link))
            continue;
        enum pick p = PICK_NONE;
        if (qkeep_is_sparse(q, s) && qspace_room(q, QSPACE_PROGRESS) > 0)
            p = pick_dissolving(q, s);
        if (p == PICK_FOUND || (p == PICK_NONE && keep(q, s->kept) == 0))
            return true;
    }
    return false;
}

/* What the tail segment still holds up the tail with. */
static bool pick_tail(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    uint64_t tail = q->tail_segment;
    if (tail >= qbatch_unwritten(q) / q->segment_bytes)
        return false;
    struct qsegment *s = qsegment_of(q, tail);
    if (pick_home(q, s))
        return true;
    leave(q, tail, QSPACE_RECLAIM);
    if (pick_message(q, &s->spread) == PICK_FOUND)
        return true;
    if (s->kept != tail && !link_in_list(&s->pending_link) && !list_empty(&s->messages)) {
        if (rc->tail_moved != tail && qkeep_is_worth(q, tail) && keep(q, tail) == 0)
            return true;
        rc->tail_moved = tail;
        if (pick_message(q, &s->messages) == PICK_FOUND)
            return true;
    }
    struct link *k = list_first(&s->writers);
    if (k)
        rc->w = container_of(k, struct queue_writer, segment_link);
    return k != NULL;
}

/* The tail first, unless there is so much room that dissolving does not disturb it. */
static bool pick(struct queue *q)
{
    bool dissolves = dissolving_is_wanted(q);
    bool tail_first = qspace_room(q, QSPACE_PROGRESS) < 2 * q->segment_bytes;
    bool tail_moves = tail_is_wanted(q) && tail_can_gain(q);
    if (tail_moves && (tail_first || !dissolves) && pick_tail(q))
        return true;
    while (dissolves) {
        struct qsegment *s = qkeep_dissolving(q);
        enum pick p = s ? pick_dissolving(q, s) : PICK_WAIT;
        if (p == PICK_FOUND)
            return true;
        dissolves = p == PICK_NONE;
    }
    return tail_moves && !tail_first && pick_tail(q);
}

static bool work_is_there(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    if (rc->m || rc->w || q->keeping.segment != QSEGMENT_NONE)
        return true;
    if (!is_wanted(q))
        return false;
    if (!qreclaim_can_gain(q)) {
        qbatch_request(q); /* who waits for space must know that none comes from here */
        return false;
    }
    if (rc->budget_bytes == 0 && rc->earned_bytes >= q->segment_bytes) {
        rc->budget_bytes = q->data_bytes;
        rc->earned_bytes = 0;
    }
    return pick(q);
}

/* What is kept may stay as well. */
static void is_full(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    if (rc->m && rc->space == QSPACE_PROGRESS)
        qsegment_of(q, rc->from)->tried_at = q->keeping.round;
    else
        rc->space_short = true;
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
        err_t err = rc->m ? message_step(q) : rc->w ? writer_step(q) : qkeep_step(q);
        if (err == ERR_PENDING)
            return;
        if (err == ERR_FULL) { /* and let go of it: it must be able to leave */
            is_full(q);
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
    qreclaim_read_init(q);
    q->reclaim.hook.run = run;
    q->reclaim.pause.fire = pause_over;
    qreclaim_kick(q);
}

void qreclaim_stop(struct queue *q)
{
    struct qreclaim *rc = &q->reclaim;
    qread_forget(rc->reading);
    rc->reading = NULL;
    qreclaim_read_forget(rc);
    if (rc->m)
        message_done(q);
    rc->w = NULL;
    qkeep_stop(q);
    list_remove(&rc->hook.link);
    timer_disarm(q->loop, &rc->pause);
}
