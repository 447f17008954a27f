/* queue/recovery_apply.c: records, in the order of the log, become messages; what is damaged is kept in
 * corrupt/. */
#include <errno.h>

#include "core/log.h"
#include "queue/recovery_priv.h"

#define KEPT_BYTES_MAX                                                                                       \
    (UINT64_C(256) << 20) /* of corrupt/, at one open: a ruined ring must not fill the disk */

/* ---- stretches that nothing may stand in ---- */

static bool grow(struct recovery *rc, void *array, size_t count, size_t *cap, size_t item_bytes)
{
    if (count < *cap)
        return true;
    size_t wanted = *cap ? *cap * 2 : 64;
    void *old, *p;
    memcpy(&old, array, sizeof old);
    p = realloc(old, wanted * item_bytes);
    if (!p) {
        rc->err = -ENOMEM;
        return false;
    }
    memcpy(array, &p, sizeof p);
    *cap = wanted;
    return true;
}

void recovery_add_bad(struct recovery *rc, uint64_t from, uint64_t to)
{
    if (rc->bad_count > 0 && rc->bad[rc->bad_count - 1].to == from)
        rc->bad[rc->bad_count - 1].to = to;
    else if (grow(rc, &rc->bad, rc->bad_count, &rc->bad_cap, sizeof *rc->bad))
        rc->bad[rc->bad_count++] = (struct disk_range){from, to};
}

static bool is_bad(const struct recovery *rc, uint64_t from, uint64_t to)
{
    size_t lo = 0, hi = rc->bad_count; /* the first range that ends behind `from` */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (rc->bad[mid].to > from)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo < rc->bad_count && rc->bad[lo].from < to;
}

/* ---- commit records ---- */

enum verdict { WHOLE, NOT_WHOLE, LEFT_BEHIND };

/* LEFT_BEHIND: the tail passed a piece of it, which it does only when the message has gone. */
static enum verdict judge(const struct recovery *rc, const struct qcommit_view *v, uint64_t position,
                          uint64_t *lowest, uint64_t *ring_bytes)
{
    const struct queue *q = rc->q;
    enum verdict verdict = WHOLE;
    *lowest = position / q->segment_bytes;
    *ring_bytes = 0;
    for (uint32_t i = 0; i < v->head.extent_count; i++) {
        struct disk_extent e = qcommit_extent(v, i);
        if (e.position < q->tail_segment * q->segment_bytes)
            return LEFT_BEHIND;
        uint64_t end = e.position + qrecord_bytes(e.bytes);
        if (e.bytes > q->unit_bytes || e.position % 8 != 0 || end > position || is_bad(rc, e.position, end))
            verdict = NOT_WHOLE;
        *lowest = MIN(*lowest, e.position / q->segment_bytes);
        *ring_bytes += qrecord_bytes(e.bytes);
    }
    return verdict;
}

static void message_forget(struct queue *q, struct qmsg *m)
{
    list_remove(&m->all_link);
    qindex_drop(q, m);
}

static void lost_forget(struct recovery *rc, uint64_t id)
{
    for (size_t i = 0; i < rc->lost_count; i++)
        if (rc->lost[i].id == id)
            rc->lost[i--] = rc->lost[--rc->lost_count];
}

static void lost_add(struct recovery *rc, const struct disk_record *r, bool quiet)
{
    lost_forget(rc, r->id);
    if (grow(rc, &rc->lost, rc->lost_count, &rc->lost_cap, sizeof *rc->lost))
        rc->lost[rc->lost_count++] = (struct recovery_lost){
            .id = r->id, .position = r->position, .bytes = qrecord_bytes(r->bytes), .quiet = quiet};
}

static void commit_take(struct recovery *rc, const struct disk_record *r, const struct qcommit_view *v,
                        uint64_t lowest, uint64_t ring_bytes)
{
    struct queue *q = rc->q;
    struct qmsg *m = map64_get(&q->index, r->id);
    if (m && m->rcpt_count != v->head.rcpt_count) {
        message_forget(q, m);
        m = NULL;
    }
    if (!m) {
        m = qindex_new(q, r->id, v->head.rcpt_count);
        if (!m) {
            rc->err = -ENOMEM;
            return;
        }
        list_push_back(&q->messages, &m->all_link);
    }
    m->arrived_ms = v->head.arrived_ms;
    m->due_ms = v->head.due_ms;
    m->body_bytes = v->head.body_bytes;
    m->attempts = v->head.attempts;
    qindex_take_flags(m, v->head.flags);
    qindex_take_states(m, v->states);
    m->commit_at = r->position;
    m->commit_bytes = qrecord_bytes(r->bytes);
    q->live_bytes -= m->ring_bytes;
    qindex_uncount(q, m);
    m->ring_bytes = ring_bytes + m->commit_bytes;
    q->live_bytes += m->ring_bytes;
    qindex_link(q, m, lowest);
    lost_forget(rc, r->id);
}

static void apply_commit(struct recovery *rc, const struct disk_record *r, bool quiet)
{
    struct qcommit_view v;
    uint64_t lowest, ring_bytes;
    if (r->version > RECORD_VERSION || qcommit_parse((const uint8_t *)(r + 1), r->bytes, &v) ||
        v.head.rcpt_count == 0) {
        lost_add(rc, r, quiet);
        return;
    }
    struct qmsg *m = map64_get(&rc->q->index, r->id);
    switch (judge(rc, &v, r->position, &lowest, &ring_bytes)) {
    case WHOLE: commit_take(rc, r, &v, lowest, ring_bytes); break;
    case NOT_WHOLE:
        /* An earlier record of the same message still stands: it was being moved. */
        if (!m)
            lost_add(rc, r, quiet);
        break;
    case LEFT_BEHIND:
        if (m)
            message_forget(rc->q, m);
        break;
    }
}

/* The slot has been used again since, or by somebody else: whoever was named has left. */
static bool keep_is_over(const struct recovery *rc, uint64_t segment)
{
    const struct queue *q = rc->q;
    uint64_t first = rc->first[qslot_of(q, segment)];
    return first != UINT64_MAX && first != segment;
}

static void keep_take(struct recovery *rc, uint64_t segment, const struct qkeep_entry *e,
                      const uint8_t *states)
{
    struct queue *q = rc->q;
    struct qmsg *m = map64_get(&q->index, e->id);
    uint64_t commit_at = segment * q->segment_bytes + e->offset;
    if (!m && segment >= q->tail_segment) /* the log itself is still there, and says that it is gone */
        return;
    if (m && m->rcpt_count != e->rcpt_count)
        return;
    if (!m) {
        m = qindex_new(q, e->id, (uint32_t)e->rcpt_count);
        if (!m) {
            rc->err = -ENOMEM;
            return;
        }
        list_push_back(&q->messages, &m->all_link);
        m->arrived_ms = e->arrived_ms;
        m->body_bytes = e->body_bytes;
        m->commit_at = commit_at;
        m->commit_bytes = (uint32_t)e->commit_bytes;
        m->ring_bytes = e->ring_bytes;
        q->live_bytes += m->ring_bytes;
        qindex_link(q, m, segment);
        lost_forget(rc, e->id);
    }
    m->due_ms = e->due_ms;
    m->attempts = (uint32_t)e->attempts;
    qindex_take_flags(m, (uint32_t)e->flags);
    qindex_take_states(m, states);
}

static void apply_keep(struct recovery *rc, const struct disk_record *r)
{
    struct queue *q = rc->q;
    struct disk_keep d;
    const uint8_t *p = (const uint8_t *)(r + 1), *end = p + r->bytes;
    if (r->version > RECORD_VERSION || r->bytes < sizeof d)
        return;
    memcpy(&d, p, sizeof d);
    p += sizeof d;
    uint64_t segment = d.at / q->segment_bytes;
    if (d.at % q->segment_bytes != 0 || d.at > r->position || segment < q->base_segment ||
        keep_is_over(rc, segment))
        return;
    if (segment < q->tail_segment && !qkeep_found(q, segment, r))
        return;
    struct qkeep_entry e = {0};
    for (uint32_t i = 0; i < d.count && !rc->err; i++) {
        bool sane = qkeep_decode(&p, end, &e) && e.rcpt_count > 0 && e.rcpt_count <= QKEEP_RCPT_MAX &&
                    e.offset % 8 == 0 && e.commit_bytes <= q->unit_bytes &&
                    e.offset <= q->segment_bytes - e.commit_bytes && e.body_bytes <= q->segment_bytes &&
                    e.ring_bytes <= q->segment_bytes;
        if (!sane)
            return;
        keep_take(rc, segment, &e, p);
        p += e.rcpt_count;
    }
}

static void apply_progress(struct recovery *rc, const struct disk_record *r)
{
    struct qmsg *m = map64_get(&rc->q->index, r->id);
    struct disk_progress d;
    if (!m || r->version > RECORD_VERSION || r->bytes < sizeof d)
        return;
    memcpy(&d, r + 1, sizeof d);
    if (d.rcpt_count != m->rcpt_count || r->bytes - sizeof d < d.rcpt_count)
        return;
    m->due_ms = d.due_ms;
    m->attempts = d.attempts;
    qindex_take_flags(m, d.flags);
    qindex_take_states(m, (const uint8_t *)(r + 1) + sizeof d);
}

static void apply_remove(struct recovery *rc, const struct disk_record *r)
{
    struct qmsg *m = map64_get(&rc->q->index, r->id);
    if (m)
        message_forget(rc->q, m);
    lost_forget(rc, r->id);
}

/* The slot belongs to this record's segment now. One that was kept in it before has been emptied. */
static void note_segment(struct recovery *rc, uint64_t segment)
{
    struct queue *q = rc->q;
    struct qsegment *s = qsegment_of(q, segment);
    rc->first[qslot_of(q, segment)] = segment;
    if (s->kept == QSEGMENT_NONE || s->kept == segment)
        return;
    LIST_EACH(&s->messages, k)
    {
        struct qmsg *m = container_of(k, struct qmsg, segment_link);
        if (m->lowest_segment == s->kept)
            message_forget(q, m);
    }
    qkeep_end(q, s);
}

void recovery_apply(struct recovery *rc, const struct disk_record *r, bool quiet)
{
    note_segment(rc, r->position / rc->q->segment_bytes);
    switch (r->type) {
    case RECORD_COMMIT: apply_commit(rc, r, quiet); break;
    case RECORD_PROGRESS: apply_progress(rc, r); break;
    case RECORD_REMOVE: apply_remove(rc, r); break;
    case RECORD_KEEP: apply_keep(rc, r); break;
    default: break; /* bodies are found through commit records; types of a later version are not ours */
    }
}

/* ---- the end ---- */

void recovery_keep(struct recovery *rc, uint64_t name, const void *p, size_t n, bool *kept)
{
    char path[QPATH_BYTES];
    *kept = rc->kept_bytes + n <= KEPT_BYTES_MAX && qdamage_path(rc->q, name, path, sizeof path) == 0 &&
            fsio_append_file(path, p, n) == 0;
    if (*kept)
        rc->kept_bytes += n;
}

/* The commit record and what can be read of the body, one after the other in one file. */
static void lost_keep(struct recovery *rc, const struct recovery_lost *l)
{
    struct queue *q = rc->q;
    size_t left;
    const uint8_t *p = recovery_unit(rc, l->position, &left);
    uint8_t *commit = malloc(l->bytes);
    bool kept = false;
    if (commit) {
        memcpy(commit, p, l->bytes);
        recovery_keep(rc, l->position, commit, l->bytes, &kept);
    }
    struct qcommit_view v;
    bool parsed = commit && qcommit_parse(commit + sizeof(struct disk_record),
                                          ((struct disk_record *)(void *)commit)->bytes, &v) == 0;
    for (uint32_t i = 0; parsed && kept && i < v.head.extent_count; i++) {
        struct disk_extent e = qcommit_extent(&v, i);
        uint8_t *buffer;
        size_t buffer_bytes;
        const struct disk_record *r;
        if (e.bytes > q->unit_bytes || qread_blocking(q, e.position, qrecord_bytes(e.bytes), RECORD_BODY,
                                                      l->id, &buffer, &buffer_bytes, &r))
            continue;
        recovery_keep(rc, l->position, r, qrecord_bytes(r->bytes), &kept);
        qbuffer_put(q, buffer, buffer_bytes);
    }
    free(commit);
    qdamage_report(q, l->position, l->bytes, l->id, kept,
                   "a message is lost: its body or its commit record is damaged");
}

static void lost_report(struct recovery *rc)
{
    for (size_t i = 0; i < rc->lost_count; i++) {
        const struct recovery_lost *l = &rc->lost[i];
        if (l->quiet || qsuper_is_known(rc->q, l->position, l->position + l->bytes))
            continue;
        lost_keep(rc, l);
        qsuper_add_known(rc->q, l->position, l->position + l->bytes);
        rc->lost_message_count++;
    }
}

void recovery_finish_messages(struct recovery *rc)
{
    struct queue *q = rc->q;
    lost_report(rc);
    struct list found;
    list_init(&found);
    for (struct link *k; (k = list_pop_front(&q->messages));)
        list_push_back(&found, k);
    for (struct link *k; (k = list_pop_front(&found));) {
        struct qmsg *m = container_of(k, struct qmsg, all_link);
        if (m->rcpt_pending > 0)
            qindex_set_live(q, m);
        else
            qindex_drop(q, m); /* done; only its remove record is missing */
    }
    qkeep_recovered(q);
}
