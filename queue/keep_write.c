/* queue/keep_write.c: keep records are written: one set that names all who live in a segment, and the same
 * set once more, since one of them names many messages and a damaged one must not cost them. No sector has
 * parts of both copies of a record.
 *
 * A message that leaves while the set is being written is named in a part of it; its remove record comes
 * later in the log, so it stays gone. */
#include "core/metrics.h"
#include "queue/queue_priv.h"

#define COPY_COUNT    2u
#define RECORD_MAX    (16u << 10)
#define ENTRY_TYPICAL 26u /* without states */
#define ENTRY_MAX     100u
#define FILLER_BYTES  (DISK_SECTOR - (uint32_t)sizeof(struct disk_record))

_Static_assert(sizeof(((struct qkeeping *)NULL)->buffer) == RECORD_MAX, "one record");
_Static_assert(sizeof(struct disk_keep) + ENTRY_MAX + QKEEP_RCPT_MAX <= QSEGMENT_BYTES_MIN / 8,
               "any entry fits into a record, also of the smallest ring");

uint64_t qkeep_set_bytes(const struct qsegment *s)
{
    return COPY_COUNT * (UINT64_C(256) + s->live_count * ENTRY_TYPICAL + s->rcpt_count) + 2 * DISK_SECTOR;
}

static void take_back(struct qkeeping *kp, struct qsegment *s)
{
    for (struct link *k; (k = list_pop_front(&kp->todo));)
        list_push_back(&s->messages, k);
}

static void take_all(struct qkeeping *kp, struct qsegment *s)
{
    for (struct link *k; (k = list_pop_front(&s->messages));)
        list_push_back(&kp->todo, k);
}

static bool has_space(const struct queue *q, const struct qsegment *s)
{
    uint64_t head = qbatch_head(q);
    uint64_t room = qspace_room(q, QSPACE_RECLAIM) + ALIGN_UP(head, q->segment_bytes) - head;
    return qkeep_set_bytes(s) / 8 * 9 <= room;
}

err_t qkeep_start(struct queue *q, uint64_t segment)
{
    struct qkeeping *kp = &q->keeping;
    struct qsegment *s = qsegment_of(q, segment);
    must(kp->segment == QSEGMENT_NONE && list_empty(&kp->todo) && !link_in_list(&s->pending_link));
    if (!has_space(q, s))
        return ERR_FULL;
    kp->segment = segment;
    kp->bytes = 0;
    kp->record_count = 0;
    kp->copies_left = COPY_COUNT - 1;
    take_all(kp, s);
    return 0;
}

/* One that was moved, or has gone, and is only still being read, is not named. */
static bool is_named(const struct queue *q, const struct qmsg *m)
{
    return m->flags & QMSG_LIVE && !(m->flags & (QMSG_REMOVED | QMSG_RELINK)) &&
           m->commit_at / q->segment_bytes == q->keeping.segment;
}

static struct qkeep_entry entry_of(const struct queue *q, const struct qmsg *m)
{
    return (struct qkeep_entry){.id = m->id,
                                .arrived_ms = m->arrived_ms,
                                .due_ms = m->due_ms,
                                .offset = m->commit_at % q->segment_bytes,
                                .commit_bytes = m->commit_bytes,
                                .body_bytes = m->body_bytes,
                                .ring_bytes = m->ring_bytes,
                                .attempts = m->attempts,
                                .flags = qindex_flags(m),
                                .rcpt_count = m->rcpt_count};
}

/* As many of `todo` as fit. Returns the payload's length; *done: how many of them are dealt with, those that
 * are not named included. */
static uint32_t encode(struct queue *q, uint32_t max, uint32_t *done)
{
    struct qkeeping *kp = &q->keeping;
    struct disk_keep d = {.at = kp->segment * q->segment_bytes};
    struct qkeep_entry before = {0};
    uint8_t *to = kp->buffer + sizeof d, *end = kp->buffer + max;
    *done = 0;
    LIST_EACH(&kp->todo, k)
    {
        struct qmsg *m = container_of(k, struct qmsg, segment_link);
        if (is_named(q, m)) {
            if ((size_t)(end - to) < ENTRY_MAX + m->rcpt_count)
                break;
            struct qkeep_entry e = entry_of(q, m);
            to = qkeep_encode(to, &before, &e);
            memcpy(to, qindex_states(m), m->rcpt_count);
            to += m->rcpt_count;
            d.count++;
        }
        ++*done;
    }
    memcpy(kp->buffer, &d, sizeof d);
    return d.count > 0 ? (uint32_t)(to - kp->buffer) : 0;
}

static void count(struct queue *q, const struct qplace *place, uint32_t bytes)
{
    struct qkeeping *kp = &q->keeping;
    if (kp->bytes == 0)
        kp->first_at = place->at;
    kp->last_at = place->at;
    kp->last_end = place->at + qrecord_bytes(bytes);
    kp->bytes += qrecord_bytes(bytes);
    qreclaim_count(q, qrecord_bytes(bytes));
}

static err_t put_record(struct queue *q)
{
    struct qkeeping *kp = &q->keeping;
    uint32_t max = MIN(RECORD_MAX, q->unit_bytes / 8), room = qbatch_room(q), done;
    if (room >= sizeof(struct disk_keep) + ENTRY_MAX + QKEEP_RCPT_MAX) /* rather than a hole in the ring */
        max = MIN(max, room);
    uint32_t bytes = encode(q, max, &done);
    if (bytes > 0) {
        struct qplace place;
        err_t err = qbatch_reserve(q, QSPACE_RECLAIM, bytes, &place);
        if (err)
            return err;
        memcpy(place.payload, kp->buffer, bytes);
        qbatch_finish(q, &place, &(struct disk_record){.type = RECORD_KEEP, .bytes = bytes});
        count(q, &place, bytes);
        kp->record_count++;
    }
    struct qsegment *s = qsegment_of(q, kp->segment);
    for (; done > 0; done--)
        list_push_back(&s->messages, list_pop_front(&kp->todo));
    return 0;
}

/* A single record and its copy would stand side by side. */
static err_t put_filler(struct queue *q)
{
    struct qkeeping *kp = &q->keeping;
    if (kp->record_count > 1 || qbatch_head(q) >= kp->last_end + DISK_SECTOR)
        return 0;
    struct qplace place;
    err_t err = qbatch_reserve(q, QSPACE_RECLAIM, FILLER_BYTES, &place);
    if (err)
        return err;
    memset(place.payload, 0, FILLER_BYTES);
    qbatch_finish(q, &place, &(struct disk_record){.type = RECORD_VOID, .bytes = FILLER_BYTES});
    qreclaim_count(q, qrecord_bytes(FILLER_BYTES));
    kp->bytes += qrecord_bytes(FILLER_BYTES);
    return 0;
}

/* Nobody is named: the records that there were are not needed any more. */
static void forget(struct queue *q, struct qsegment *s)
{
    list_remove(&s->home_link);
    q->keeping.record_bytes -= s->record_bytes;
    s->record_bytes = 0;
    qkeep_watch(q, s->kept);
    qkeep_sweep(q);
    qindex_advance_tail(q);
}

static void finish(struct queue *q)
{
    struct qkeeping *kp = &q->keeping;
    struct qsegment *s = qsegment_of(q, kp->segment);
    uint64_t segment = kp->segment;
    kp->segment = QSEGMENT_NONE;
    if (kp->bytes == 0) {
        forget(q, s);
        return;
    }
    s->pending_segment = segment;
    s->pending_first_at = kp->first_at;
    s->pending_bytes = kp->bytes;
    s->last_at = kp->last_at;
    if (q->open && q->open->count > 0)
        list_push_back(&q->open->keeps, &s->pending_link);
    else if (!list_empty(&q->sealed))
        list_push_back(&container_of(q->sealed.head.prev, struct qbatch, link)->keeps, &s->pending_link);
    else
        qkeep_durable(q, s);
}

err_t qkeep_step(struct queue *q)
{
    struct qkeeping *kp = &q->keeping;
    err_t err = 0;
    if (!list_empty(&kp->todo)) {
        err = put_record(q);
        if (err || !list_empty(&kp->todo))
            return err;
    }
    if (kp->bytes == 0 || kp->copies_left == 0) {
        finish(q);
        return 0;
    }
    err = put_filler(q);
    if (err)
        return err;
    kp->copies_left--;
    take_all(kp, qsegment_of(q, kp->segment));
    return 0;
}

/* At the end of the work: a record that is written may name somebody, so the segment must stay as it is. */
void qkeep_stop(struct queue *q)
{
    struct qkeeping *kp = &q->keeping;
    if (kp->segment != QSEGMENT_NONE)
        take_back(kp, qsegment_of(q, kp->segment));
}

void qkeep_durable(struct queue *q, struct qsegment *s)
{
    qkeep_begin(q, s, s->pending_segment);
    must(s->kept == s->pending_segment);
    q->keeping.record_bytes += s->pending_bytes - s->record_bytes; /* wraps as it must */
    s->record_bytes = s->pending_bytes;
    list_remove(&s->home_link);
    list_push_back(&qsegment_of(q, s->pending_first_at / q->segment_bytes)->homes, &s->home_link);
    qkeep_check(q, s->kept);
}
