/* queue/keep.c: segments full of living mail stay where they are when the tail comes by. Only keep records go
 * to the head (keep_write.c): which messages live on in there, and all that the index knows of them. The head
 * passes over the slot as long as anybody lives in it. So mail that is deferred for days costs some 50 bytes
 * a lap, not its whole length, and the rest of the ring turns as if it were a smaller one.
 *
 * Why a full ring cannot lock up. In a ring without kept segments, what lives in the tail segment fits into
 * one free segment, and moving it frees one; so the tail can always go round, and then all that is not alive
 * is free. Kept segments leave that as it is:
 *  1. When space is short the tail segment is never kept: it is moved. So each segment of the log that the
 *     tail passes costs at most one and frees one. A slot that the head has passed over costs nothing, and
 *     frees one when nobody lives in it any more.
 *  2. Keep records in the tail are written again, which takes no more than they took: names only leave.
 *     They are collected into large writes as moved messages are.
 *  3. To dissolve a kept segment, that is, to move what lives in it, takes room now, and gives it back when
 *     the tail comes by: so it never takes what 1 and 2 need (QSPACE_PROGRESS).
 *  4. What lies idle in kept segments, and keep records, count as if they lived wherever it is asked how
 *     much mail fits. So what turns has always room for what lives in it. When they are too much, the
 *     sparsest kept segments are dissolved.
 *  5. A dozen segments always turn.
 *
 * Why nothing comes back. A kept slot is used again only when all that its keep records name has a remove
 * record, or a new commit record, on the disk; or when none of its keep records is in the log any more. */
#include "queue/queue_priv.h"

#define TURNING_COUNT_MIN 12u
#define FREE_COUNT_MIN    5u /* with fewer free segments space is short */

void qkeep_init(struct queue *q)
{
    q->keeping.segment = q->keeping.dissolving = q->keeping.nothing_at = QSEGMENT_NONE;
    list_init(&q->keeping.todo);
    list_init(&q->keeping.leaving);
}

/* ---- is it worth it ---- */

uint64_t qkeep_waste(const struct queue *q)
{
    const struct qkeeping *kp = &q->keeping;
    return kp->kept_count * q->segment_bytes - kp->kept_live_bytes + kp->record_bytes;
}

/* What may still come in until mail is refused. */
static uint64_t slack_bytes(const struct queue *q)
{
    uint64_t max = qspace_live_max(q);
    return max > q->live_bytes ? max - q->live_bytes : 0;
}

/* What may lie idle in kept segments: not more than half of what may still come in. */
static uint64_t allowed_bytes(const struct queue *q)
{
    return MIN(slack_bytes(q) / 2, q->data_bytes / 8);
}

/* How much must live in a segment, if all that turns and lives were to lie in such segments: what may lie
 * idle is shared out evenly. */
static uint64_t dense_bytes(const struct queue *q)
{
    uint64_t allowed = allowed_bytes(q), waste = qkeep_waste(q);
    double turning = (double)(q->live_bytes - q->keeping.kept_live_bytes);
    double idle = allowed > waste ? (double)(allowed - waste) : 0;
    return (uint64_t)((double)q->segment_bytes * turning / (turning + idle + 1));
}

/* The fuller the ring, the denser a segment must be to stay. What is not dense enough is moved. */
bool qkeep_is_worth(const struct queue *q, uint64_t segment)
{
    const struct qsegment *s = qsegment_of(q, segment);
    uint64_t records = qkeep_set_bytes(s);
    uint64_t turning_min = MAX(TURNING_COUNT_MIN, q->segment_count / 8);
    if (q->resize.step != RESIZE_NONE || q->segment_count <= q->keeping.kept_count + turning_min ||
        qspace_free_segments(q) + qspace_coming(q) < FREE_COUNT_MIN || q->keeping.wanted_bytes > 0)
        return false;
    if (s->live_bytes < records + MAX(q->segment_bytes / 2, dense_bytes(q)))
        return false;
    uint64_t idle = q->segment_bytes - MIN(s->live_bytes, q->segment_bytes) + records;
    return qkeep_waste(q) + idle <= allowed_bytes(q);
}

/* ---- dissolving ---- */

bool qkeep_is_sparse(const struct queue *q, const struct qsegment *s)
{
    return s->tried_at != q->keeping.round && s->live_bytes < q->segment_bytes / 4;
}

bool qkeep_wants_dissolving(const struct queue *q)
{
    const struct qkeeping *kp = &q->keeping;
    if (kp->kept_count == 0 || kp->nothing_at == kp->round)
        return false;
    return qresize_wants_moves(q) || kp->wanted_bytes > 0 || qkeep_waste(q) > allowed_bytes(q) / 2 * 3;
}

void qkeep_want(struct queue *q, uint64_t bytes)
{
    uint64_t slack = slack_bytes(q);
    if (q->keeping.kept_count == 0 || bytes > slack)
        return;
    q->keeping.wanted_bytes = MAX(q->keeping.wanted_bytes, bytes);
    qreclaim_kick(q);
}

/* There is room, or there will be none. */
static void want_no_more(struct queue *q)
{
    struct qkeeping *kp = &q->keeping;
    uint64_t slack = slack_bytes(q);
    if (kp->kept_count == 0 || kp->wanted_bytes > slack || qkeep_waste(q) <= slack - kp->wanted_bytes)
        kp->wanted_bytes = 0;
}

/* The sparsest that was not tried in this round. */
struct qsegment *qkeep_dissolving(struct queue *q)
{
    struct qkeeping *kp = &q->keeping;
    if (kp->dissolving != QSEGMENT_NONE) {
        struct qsegment *s = qsegment_of(q, kp->dissolving);
        if (s->kept == kp->dissolving && s->tried_at != q->keeping.round)
            return s;
    }
    struct qsegment *best = NULL;
    for (uint32_t i = 0; i < q->segment_count; i++) {
        struct qsegment *s = &q->segments[i];
        bool is_candidate =
            s->kept != QSEGMENT_NONE && !list_empty(&s->messages) && s->tried_at != q->keeping.round;
        if (is_candidate && (!best || s->live_bytes < best->live_bytes))
            best = s;
    }
    kp->dissolving = best ? best->kept : QSEGMENT_NONE;
    if (!best) {
        kp->nothing_at = kp->round;
        qbatch_request(q); /* who waits for space must know */
    }
    return best;
}

/* ---- from keeping to leaving ---- */

void qkeep_begin(struct queue *q, struct qsegment *s, uint64_t segment)
{
    if (s->kept != QSEGMENT_NONE)
        return;
    s->kept = segment;
    q->keeping.kept_count++;
    q->keeping.kept_live_bytes += s->live_bytes;
    q->keeping.version++;
}

void qkeep_end(struct queue *q, struct qsegment *s)
{
    q->keeping.kept_count--;
    q->keeping.kept_live_bytes -= s->live_bytes;
    q->keeping.record_bytes -= s->record_bytes;
    q->keeping.version++;
    s->record_bytes = 0;
    s->kept = QSEGMENT_NONE;
    list_remove(&s->home_link);
    list_remove(&s->leaving_link);
}

bool qkeep_may_name(const struct queue *q, const struct qmsg *m)
{
    if (m->lowest_segment == QSEGMENT_NONE)
        return false;
    const struct qsegment *s = qsegment_of(q, m->lowest_segment);
    return s->kept == m->lowest_segment || q->keeping.segment == m->lowest_segment ||
           (link_in_list(&s->pending_link) && s->pending_segment == m->lowest_segment);
}

void qkeep_note_removed(struct queue *q, struct qmsg *m)
{
    if (!(m->flags & QMSG_NAMED))
        return;
    m->flags &= (uint8_t)~QMSG_NAMED;
    struct qsegment *s = qsegment_of(q, m->lowest_segment);
    s->unlogged_count--;
    s->removed_batch = q->next_batch; /* what the open batch will be */
}

void qkeep_watch(struct queue *q, uint64_t segment)
{
    if (segment == QSEGMENT_NONE)
        return;
    struct qsegment *s = qsegment_of(q, segment);
    if (s->kept == segment && !link_in_list(&s->leaving_link))
        list_push_back(&q->keeping.leaving, &s->leaving_link);
}

void qkeep_check(struct queue *q, uint64_t segment)
{
    if (segment == QSEGMENT_NONE || !list_empty(&qsegment_of(q, segment)->messages))
        return;
    qkeep_watch(q, segment);
    qkeep_sweep(q);
}

bool qkeep_will_free(const struct queue *q)
{
    LIST_EACH(&q->keeping.leaving, k)
    {
        const struct qsegment *s = container_of(k, struct qsegment, leaving_link);
        if (list_empty(&s->messages) && s->unlogged_count == 0)
            return true; /* once what is written is durable */
    }
    return false;
}

static bool may_be_used_again(const struct queue *q, const struct qsegment *s)
{
    if (!list_empty(&s->messages) || q->keeping.segment == s->kept || link_in_list(&s->pending_link))
        return false;
    bool is_logged = s->unlogged_count == 0 && q->durable_batch > s->removed_batch;
    bool is_forgotten = !link_in_list(&s->home_link) && s->last_at / q->segment_bytes < q->durable_tail;
    return is_logged || is_forgotten;
}

void qkeep_sweep(struct queue *q)
{
    bool any = false;
    LIST_EACH(&q->keeping.leaving, k)
    {
        struct qsegment *s = container_of(k, struct qsegment, leaving_link);
        if (!list_empty(&s->messages)) /* a reader has an old place; it will be watched again */
            continue;
        if (!may_be_used_again(q, s))
            continue;
        qkeep_end(q, s);
        any = true;
    }
    if (!any)
        return;
    want_no_more(q);
    q->keeping.round++;
    qindex_advance_tail(q);
    qreclaim_retry(q);
    qbatch_request(q);
}

/* ---- recovery ---- */

/* The oldest record is the one that the tail must not pass: a newer one may not name them all. */
bool qkeep_found(struct queue *q, uint64_t segment, const struct disk_record *r)
{
    struct qsegment *s = qsegment_of(q, segment);
    if (s->kept != QSEGMENT_NONE && s->kept != segment)
        return false;
    /* Somebody else's slot: only on a damaged disk. */
    if (s->kept == QSEGMENT_NONE && (!list_empty(&s->messages) || !list_empty(&s->spread)))
        return false;
    if (s->kept == QSEGMENT_NONE) {
        qkeep_begin(q, s, segment);
        list_push_back(&qsegment_of(q, r->position / q->segment_bytes)->homes, &s->home_link);
    }
    s->last_at = MAX(s->last_at, r->position);
    s->record_bytes += qrecord_bytes(r->bytes);
    q->keeping.record_bytes += qrecord_bytes(r->bytes);
    return true;
}

/* Who was named and has left since left nothing behind. */
void qkeep_recovered(struct queue *q)
{
    for (uint32_t i = 0; i < q->segment_count; i++)
        if (q->segments[i].kept != QSEGMENT_NONE)
            qkeep_check(q, q->segments[i].kept);
}
