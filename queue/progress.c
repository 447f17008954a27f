/* queue/progress.c: what becomes of recipients. In memory at once; records ride in the next commit, or are
 * flushed by a timer. */
#include "core/metrics.h"
#include "queue/queue_priv.h"

void qprogress_mark(struct queue *q, struct qmsg *m)
{
    if (link_in_list(&m->progress_link))
        return;
    list_push_back(&q->dirty, &m->progress_link);
    if (q->loop && !timer_armed(&q->progress_timer))
        timer_arm(q->loop, &q->progress_timer, q->opt.progress_flush_ms);
}

/* Such a record is garbage from its first day on: it must earn reclaim its next lap. */
static void finish(struct queue *q, const struct qplace *place, const struct disk_record *r)
{
    qbatch_finish(q, place, r);
    q->open->has_progress = true;
    q->reclaim.earned_bytes += qrecord_bytes(r->bytes);
}

static err_t append_one(struct queue *q, struct qmsg *m)
{
    struct qplace place;
    if (m->flags & QMSG_REMOVED) {
        err_t err = qbatch_reserve(q, QSPACE_PROGRESS, 0, &place);
        if (err)
            return err;
        finish(q, &place, &(struct disk_record){.type = RECORD_REMOVE, .id = m->id});
        qkeep_note_removed(q, m);
        return 0;
    }
    uint32_t bytes = (uint32_t)sizeof(struct disk_progress) + m->rcpt_count;
    err_t err = qbatch_reserve(q, QSPACE_PROGRESS, bytes, &place);
    if (err)
        return err;
    struct disk_progress d = {
        .due_ms = m->due_ms, .attempts = m->attempts, .flags = qindex_flags(m), .rcpt_count = m->rcpt_count};
    memcpy(place.payload, &d, sizeof d);
    memcpy(place.payload + sizeof d, qindex_states(m), m->rcpt_count);
    finish(q, &place, &(struct disk_record){.type = RECORD_PROGRESS, .id = m->id, .bytes = bytes});
    return 0;
}

void qprogress_append(struct queue *q)
{
    for (struct link *k; (k = list_first(&q->dirty));) {
        struct qmsg *m = container_of(k, struct qmsg, progress_link);
        if (append_one(q, m))
            break;
        list_remove(k);
        qindex_free_if_done(q, m);
    }
    if (q->loop && !list_empty(&q->dirty)) /* no room at the moment */
        timer_arm(q->loop, &q->progress_timer, q->opt.progress_flush_ms);
}

static void flush(struct timer *t)
{
    struct queue *q = container_of(t, struct queue, progress_timer);
    if (list_empty(&q->dirty)) /* they rode in a commit */
        return;
    q->urgent = true;
    qbatch_request(q);
}

void qprogress_start_loop(struct queue *q)
{
    q->progress_timer.fire = flush;
    if (!list_empty(&q->dirty))
        timer_arm(q->loop, &q->progress_timer, q->opt.progress_flush_ms);
}

void qcommit_patch(uint8_t *payload, struct qmsg *m)
{
    struct disk_commit head;
    memcpy(&head, payload, sizeof head);
    must(head.rcpt_count == m->rcpt_count);
    head.due_ms = m->due_ms;
    head.attempts = m->attempts;
    head.flags = (head.flags & ~(uint32_t)(COMMIT_HELD | COMMIT_WARNED)) | qindex_flags(m);
    memcpy(payload, &head, sizeof head);
    uint8_t *states = payload + sizeof head + (size_t)head.extent_count * sizeof(struct disk_extent) +
                      (size_t)head.rcpt_count * 4;
    memcpy(states, qindex_states(m), m->rcpt_count);
}

/* ---- the door ---- */

enum rcpt_state queue_rcpt_state(const struct qmsg *m, uint32_t index)
{
    must(index < m->rcpt_count);
    return m->state_more ? m->state_more[index] : m->state_inline[index];
}

void queue_set_rcpt(struct queue *q, struct qmsg *m, uint32_t index, enum rcpt_state state)
{
    must(index < m->rcpt_count);
    uint8_t *at = &qindex_states(m)[index];
    if (m->flags & QMSG_REMOVED || *at == state)
        return;
    int change = rcpt_state_is_open(state) - rcpt_state_is_open((enum rcpt_state) * at);
    *at = (uint8_t)state;
    m->rcpt_pending = (uint32_t)((int64_t)m->rcpt_pending + change);
    q->pending_rcpt_count = (uint64_t)((int64_t)q->pending_rcpt_count + change);
    metric_add(M_queue_recipients, change);
    if (m->rcpt_pending == 0)
        qindex_remove(q, m);
    qprogress_mark(q, m);
}

void queue_set_due(struct queue *q, struct qmsg *m, uint64_t due_ms, uint32_t attempts)
{
    if (m->flags & QMSG_REMOVED)
        return;
    m->due_ms = due_ms;
    m->attempts = attempts;
    qprogress_mark(q, m);
}

void queue_set_held(struct queue *q, struct qmsg *m, bool held)
{
    if (m->flags & QMSG_REMOVED || m->held == held)
        return;
    m->held = held;
    qprogress_mark(q, m);
}

void queue_set_warned(struct queue *q, struct qmsg *m)
{
    if (m->flags & QMSG_REMOVED || m->warned)
        return;
    m->warned = true;
    qprogress_mark(q, m);
}

void queue_remove(struct queue *q, struct qmsg *m)
{
    if (m->flags & QMSG_REMOVED)
        return;
    qindex_remove(q, m);
    qprogress_mark(q, m);
}

bool queue_is_removed(const struct qmsg *m)
{
    return m->flags & QMSG_REMOVED;
}
