/* queue/index.c: which messages live, and which segments they need.
 *
 * Every message stands in the list of the oldest segment that holds a record of it, so the tail may go past a
 * segment exactly when its list is empty. Open writers stand there too. */
#include <errno.h>

#include "core/metrics.h"
#include "queue/queue_priv.h"

/* ---- segments ---- */

uint32_t qslot_of(const struct queue *q, uint64_t segment)
{
    return (uint32_t)((segment - q->base_segment) % q->segment_count);
}

struct qsegment *qsegment_of(const struct queue *q, uint64_t segment)
{
    return &q->segments[qslot_of(q, segment)];
}

void qsegment_init(struct qsegment *s)
{
    list_init(&s->messages);
    list_init(&s->spread);
    list_init(&s->writers);
    list_init(&s->homes);
    s->tried_at = QSEGMENT_NONE;
    s->kept = QSEGMENT_NONE;
}

static bool tail_may_pass(const struct queue *q, uint64_t segment)
{
    const struct qsegment *s = qsegment_of(q, segment);
    if (s->kept != QSEGMENT_NONE && s->kept != segment) /* the head passed over it */
        return true;
    if (q->keeping.segment == segment || (link_in_list(&s->pending_link) && s->pending_segment == segment))
        return false; /* about to be kept */
    bool nobody_moves = list_empty(&s->messages) || s->kept == segment;
    return nobody_moves && list_empty(&s->spread) && list_empty(&s->writers) && list_empty(&s->homes);
}

void qindex_advance_tail(struct queue *q)
{
    uint64_t end = qbatch_unwritten(q) / q->segment_bytes;
    uint64_t from = q->tail_segment;
    while (q->tail_segment < end && tail_may_pass(q, q->tail_segment))
        q->tail_segment++;
    /* The disk hears of it when half of the ring is in use: one small write in a while. */
    bool on_the_way = q->super.writing && q->super.disk->tail_segment == q->tail_segment;
    if (q->tail_segment > q->durable_tail && !on_the_way && qspace_free_segments(q) <= q->segment_count / 2)
        qsuper_request(q);
    if (q->tail_segment > from) {
        q->keeping.round++;
        qreclaim_kick(q);
    }
}

/* The figures of the message's segment. */
static void count(struct queue *q, struct qmsg *m, int sign)
{
    struct qsegment *s = qsegment_of(q, m->lowest_segment);
    uint64_t bytes = sign > 0 ? m->ring_bytes : -m->ring_bytes; /* unsigned arithmetic wraps as it must */
    s->live_bytes += bytes;
    s->live_count += (uint32_t)sign;
    s->rcpt_count += sign > 0 ? m->rcpt_count : -m->rcpt_count;
    if (s->kept == m->lowest_segment)
        q->keeping.kept_live_bytes += bytes;
    m->flags ^= QMSG_COUNTED;
}

void qindex_uncount(struct queue *q, struct qmsg *m)
{
    if (m->flags & QMSG_COUNTED)
        count(q, m, -1);
}

void qindex_link(struct queue *q, struct qmsg *m, uint64_t lowest_segment)
{
    uint64_t before = m->lowest_segment;
    list_remove(&m->segment_link);
    qindex_uncount(q, m);
    m->lowest_segment = lowest_segment;
    struct qsegment *s = qsegment_of(q, lowest_segment);
    bool may_stay = m->commit_at / q->segment_bytes == lowest_segment && m->rcpt_count <= QKEEP_RCPT_MAX;
    list_push_back(may_stay ? &s->messages : &s->spread, &m->segment_link);
    if (may_stay)
        count(q, m, 1);
    qkeep_check(q, before);
}

/* ---- life of an entry ---- */

uint8_t *qindex_states(struct qmsg *m)
{
    return m->state_more ? m->state_more : m->state_inline;
}

struct qmsg *qindex_new(struct queue *q, uint64_t id, uint32_t rcpt_count)
{
    struct qmsg *m = pool_get(&q->msg_pool);
    if (!m)
        return NULL;
    m->id = id;
    m->rcpt_count = m->rcpt_pending = rcpt_count;
    /* More than seven recipients are rare enough for malloc. */
    if (rcpt_count > sizeof m->state_inline && !(m->state_more = calloc(1, rcpt_count)))
        goto no_memory;
    if (map64_put(&q->index, id, m))
        goto no_memory;
    return m;
no_memory:
    free(m->state_more);
    pool_put(&q->msg_pool, m);
    return NULL;
}

static void entry_free(struct queue *q, struct qmsg *m)
{
    list_remove(&m->segment_link);
    qindex_uncount(q, m);
    list_remove(&m->all_link);
    list_remove(&m->progress_link);
    free(m->state_more);
    pool_put(&q->msg_pool, m);
}

void qindex_set_live(struct queue *q, struct qmsg *m)
{
    m->flags |= QMSG_LIVE;
    list_push_back(&q->messages, &m->all_link);
    q->message_count++;
    q->pending_rcpt_count += m->rcpt_pending;
    metric_add(M_queue_messages, 1);
    metric_add(M_queue_recipients, m->rcpt_pending);
}

void qindex_drop(struct queue *q, struct qmsg *m)
{
    must(!(m->flags & QMSG_LIVE));
    map64_remove(&q->index, m->id);
    q->live_bytes -= m->ring_bytes;
    q->reclaim.earned_bytes += m->ring_bytes;
    uint64_t segment = m->lowest_segment;
    entry_free(q, m);
    qkeep_check(q, segment);
    qindex_advance_tail(q);
}

/* The one that stands before it in the list, or NULL. */
static struct qmsg *older(const struct queue *q, const struct qmsg *m)
{
    struct link *k = m->all_link.prev;
    return k == &q->messages.head ? NULL : container_of(k, struct qmsg, all_link);
}

void qindex_remove(struct queue *q, struct qmsg *m)
{
    must(m->flags & QMSG_LIVE && !(m->flags & QMSG_REMOVED));
    m->flags |= QMSG_REMOVED;
    LIST_EACH(&q->cursors, k)
    {
        struct queue_cursor *c = container_of(k, struct queue_cursor, link);
        if (c->next == m)
            c->next = older(q, m);
    }
    qscrub_forget(q, m);
    list_remove(&m->all_link);
    q->message_count--;
    q->pending_rcpt_count -= m->rcpt_pending;
    metric_add(M_queue_messages, -1);
    metric_add(M_queue_recipients, -(int64_t)m->rcpt_pending);
    map64_remove(&q->index, m->id);
    q->live_bytes -= m->ring_bytes;
    q->reclaim.earned_bytes += m->ring_bytes;
    qindex_uncount(q, m);
    if (qkeep_may_name(q, m)) {
        m->flags |= QMSG_NAMED;
        qsegment_of(q, m->lowest_segment)->unlogged_count++;
    }
    if (m->pins > 0) /* its records are still being read: the segment is kept until qindex_unpin() */
        return;
    list_remove(&m->segment_link);
    qkeep_check(q, m->lowest_segment);
    qindex_advance_tail(q);
    if (m->lowest_segment == q->tail_segment)
        qreclaim_retry(q);
}

void qindex_free_if_done(struct queue *q, struct qmsg *m)
{
    bool is_done = m->flags & QMSG_REMOVED && m->pins == 0 && !(m->flags & QMSG_MOVING) &&
                   !link_in_list(&m->progress_link);
    if (is_done)
        entry_free(q, m);
}

void qindex_unpin(struct queue *q, struct qmsg *m)
{
    must(m->pins > 0);
    if (--m->pins > 0)
        return;
    if (m->flags & QMSG_REMOVED) {
        list_remove(&m->segment_link);
        qkeep_check(q, m->lowest_segment);
        qkeep_sweep(q); /* it may have been moved out of a kept segment before it left */
        qindex_advance_tail(q);
        if (m->lowest_segment == q->tail_segment)
            qreclaim_retry(q);
    } else if (m->flags & QMSG_RELINK) {
        m->flags &= (uint8_t)~QMSG_RELINK;
        qindex_link(q, m, m->lowest_segment);
        qkeep_sweep(q); /* it may have been the last in a kept segment */
        qindex_advance_tail(q);
    } else if (m->lowest_segment == q->tail_segment) {
        qreclaim_kick(q);
    }
    qindex_free_if_done(q, m);
}

void qindex_take_states(struct qmsg *m, const uint8_t *states)
{
    uint8_t *to = qindex_states(m);
    m->rcpt_pending = 0;
    for (uint32_t i = 0; i < m->rcpt_count; i++) {
        to[i] =
            states[i] <= RCPT_REPORT_DUE ? states[i] : RCPT_PENDING; /* unknown: rather twice than never */
        m->rcpt_pending += rcpt_state_is_open((enum rcpt_state)to[i]);
    }
}

static int older_first(const void *a, const void *b)
{
    const struct qmsg *x = *(struct qmsg *const *)a, *y = *(struct qmsg *const *)b;
    if (x->arrived_ms != y->arrived_ms)
        return x->arrived_ms < y->arrived_ms ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

void qindex_sort(struct queue *q)
{
    struct qmsg **all = malloc((q->message_count + 1) * sizeof(struct qmsg *));
    if (!all)
        return; /* the order of the log is nearly that of age */
    size_t n = 0;
    for (struct link *k; (k = list_pop_front(&q->messages));)
        all[n++] = container_of(k, struct qmsg, all_link);
    qsort(all, n, sizeof(struct qmsg *), older_first);
    for (size_t i = 0; i < n; i++)
        list_push_back(&q->messages, &all[i]->all_link);
    free(all);
}

void qindex_free(struct queue *q)
{
    LIST_EACH(&q->dirty, k)
    { /* removed ones are in no other list */
        struct qmsg *m = container_of(k, struct qmsg, progress_link);
        list_remove(k);
        if (m->flags & QMSG_REMOVED)
            entry_free(q, m);
    }
    LIST_EACH(&q->messages, k)
    entry_free(q, container_of(k, struct qmsg, all_link));
    map64_free(&q->index);
}

/* ---- reading the index ---- */

struct qmsg *queue_find(const struct queue *q, uint64_t id)
{
    struct qmsg *m = map64_get(&q->index, id);
    return m && m->flags & QMSG_LIVE ? m : NULL;
}

void queue_each(const struct queue *q, bool (*each)(void *ctx, struct qmsg *m), void *ctx)
{
    LIST_EACH(&q->messages, k)
    if (!each(ctx, container_of(k, struct qmsg, all_link)))
        return;
}

void queue_cursor_start(struct queue *q, struct queue_cursor *c)
{
    struct link *k = q->messages.head.prev;
    c->next = k == &q->messages.head ? NULL : container_of(k, struct qmsg, all_link);
    list_push_back(&q->cursors, &c->link);
}

struct qmsg *queue_cursor_next(struct queue *q, struct queue_cursor *c)
{
    struct qmsg *m = c->next;
    if (m)
        c->next = older(q, m);
    return m;
}

void queue_cursor_end(struct queue_cursor *c)
{
    list_remove(&c->link);
}
