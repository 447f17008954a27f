/* queue/writer.c: a message comes in: chunks of body as they arrive, then the commit record that makes it
 * exist.
 *
 * A chunk that ends the open batch grows in place while nothing else is put behind it. What comes in pieces
 * smaller than QSTAGE_BYTES is collected first, so that a hostile sender cannot make a record of every byte.
 */
#include <errno.h>

#include "core/log.h"
#include "core/metrics.h"
#include "queue/queue_priv.h"

/* ---- extents ---- */

static struct disk_extent *extent_push(struct queue_writer *w)
{
    struct qextent_block *b = w->last;
    if (!b || b->count == COUNT_OF(b->e)) {
        b = pool_get(&w->q->extent_pool);
        if (!b)
            return NULL;
        if (w->last)
            w->last->next = b;
        else
            w->first = b;
        w->last = b;
    }
    w->extent_count++;
    return &b->e[b->count++];
}

struct disk_extent *qextent_at(const struct queue_writer *w, uint32_t index)
{
    must(index < w->extent_count);
    struct qextent_block *b = w->first;
    for (; index >= COUNT_OF(b->e); index -= (uint32_t)COUNT_OF(b->e))
        b = b->next;
    return &b->e[index];
}

void qwriter_relink(struct queue_writer *w)
{
    uint64_t lowest = UINT64_MAX;
    for (struct qextent_block *b = w->first; b; b = b->next)
        for (uint32_t i = 0; i < b->count; i++)
            lowest = MIN(lowest, b->e[i].position / w->q->segment_bytes);
    list_remove(&w->segment_link);
    w->lowest_segment = lowest;
    if (lowest != UINT64_MAX)
        list_push_back(&qsegment_of(w->q, lowest)->writers, &w->segment_link);
}

/* Gives back all but the writer itself; its chunks in the ring become garbage unless a message took them
 * over. */
static void writer_release(struct queue_writer *w)
{
    struct queue *q = w->q;
    if (q->growing == w)
        qwriter_end_growing(q);
    qreclaim_forget_writer(q, w);
    list_remove(&w->wait_link);
    list_remove(&w->open_link);
    list_remove(&w->segment_link);
    q->live_bytes -= w->ring_bytes;
    q->reclaim.earned_bytes += w->ring_bytes;
    w->ring_bytes = 0;
    while (w->first) {
        struct qextent_block *b = w->first;
        w->first = b->next;
        pool_put(&q->extent_pool, b);
    }
    w->last = NULL;
    pool_put(&q->stage_pool, w->staged);
    w->staged = NULL;
    free(w->commit.payload);
    w->commit.payload = NULL;
}

/* ---- begin, abort ---- */

uint64_t queue_new_id(struct queue *q)
{
    if (q->next_id >= q->super.now.id_limit) /* the superblock could not be written for a million messages */
        return 0;
    uint64_t id = q->next_id++;
    if (q->next_id + QID_STEP / 2 > q->super.now.id_limit)
        qsuper_request(q);
    return id;
}

bool queue_may_take_id(const struct queue *q, uint64_t id)
{
    bool is_ours_to_come = id >> 38 == q->next_id >> 38 && id >= q->next_id;
    return id && !map64_get(&q->index, id) && !is_ours_to_come;
}

err_t queue_begin_as(struct queue *q, uint64_t id, struct queue_writer **out)
{
    if (q->error)
        return q->error;
    if (id == 0 && (id = queue_new_id(q)) == 0)
        return ERR_FULL;
    struct queue_writer *w = pool_get(&q->writer_pool);
    if (!w)
        return -ENOMEM;
    w->q = q;
    w->id = id;
    list_push_back(&q->writers, &w->open_link);
    *out = w;
    return 0;
}

err_t queue_begin(struct queue *q, struct queue_writer **out)
{
    return queue_begin_as(q, 0, out);
}

err_t queue_begin_report(struct queue *q, struct queue_writer **out)
{
    err_t err = queue_begin_as(q, 0, out);
    if (!err)
        (*out)->is_report = true;
    return err;
}

uint64_t queue_writer_id(const struct queue_writer *w)
{
    return w->id;
}

void queue_abort(struct queue_writer *w)
{
    if (!w)
        return;
    struct queue *q = w->q;
    writer_release(w);
    qindex_advance_tail(q);
    pool_put(&q->writer_pool, w);
}

/* ---- body ---- */

void qwriter_end_growing(struct queue *q)
{
    struct queue_writer *w = q->growing;
    if (!w)
        return;
    struct disk_extent *e = w->growing;
    q->growing = NULL;
    w->growing = NULL;
    qbatch_finish(q, &q->growing_place,
                  &(struct disk_record){
                      .type = RECORD_BODY, .id = w->id, .bytes = e->bytes, .index = w->extent_count - 1});
    w->ring_bytes += qrecord_bytes(e->bytes);
    q->live_bytes += qrecord_bytes(e->bytes);
}

/* One place is full of what is not written; the other of what is. */
static err_t no_room(struct queue *q, err_t err)
{
    if (err == ERR_PENDING) {
        q->urgent = true;
        qbatch_request(q);
        return ERR_PENDING;
    }
    qreclaim_kick(q);
    return qspace_is_hopeless(q) ? ERR_FULL : ERR_PENDING;
}

static enum qspace space_of(const struct queue_writer *w)
{
    return w->is_report ? QSPACE_PROGRESS : QSPACE_MAIL;
}

static bool is_over_limit(const struct queue_writer *w, uint64_t bytes)
{
    struct queue *q = w->q;
    uint64_t limit = qspace_live_limit(q) + (w->is_report ? q->segment_bytes : 0);
    if (q->live_bytes + qkeep_waste(q) + bytes <= limit)
        return false;
    qkeep_want(q, bytes);
    return true;
}

/* Opens a chunk at the log's end for at least part of `want` bytes. ERR_PENDING: later. */
static err_t chunk_start(struct queue_writer *w, size_t want)
{
    struct queue *q = w->q;
    qwriter_end_growing(q);
    uint32_t bytes = (uint32_t)MIN(want, (size_t)q->chunk_max);
    uint32_t room = qbatch_room(q);
    if (room >= MIN(bytes, QSTAGE_BYTES)) /* rather a short chunk than a hole in the ring */
        bytes = MIN(bytes, room);
    if (is_over_limit(w, bytes))
        return ERR_FULL;
    struct qplace place;
    err_t err = qbatch_reserve(q, space_of(w), bytes, &place);
    if (err)
        return no_room(q, err);
    struct disk_extent *e = extent_push(w);
    if (!e)
        return -ENOMEM;
    *e = (struct disk_extent){.position = place.at};
    w->growing = e;
    q->growing = w;
    q->growing_place = place;
    q->growing_max = MIN(q->chunk_max, qbatch_room(q));
    if (w->extent_count == 1)
        qwriter_relink(w);
    return 0;
}

static size_t chunk_fill(struct queue_writer *w, const void *p, size_t n)
{
    struct queue *q = w->q;
    size_t take = MIN(n, (size_t)(q->growing_max - w->growing->bytes));
    memcpy(q->growing_place.payload + w->growing->bytes, p, take);
    w->growing->bytes += (uint32_t)take;
    w->body_bytes += take;
    return take;
}

static err_t stage(struct queue_writer *w, const void *p, size_t n)
{
    if (!w->staged && !(w->staged = pool_get(&w->q->stage_pool)))
        return -ENOMEM;
    memcpy(w->staged + w->staged_bytes, p, n);
    w->staged_bytes += (uint32_t)n;
    return 0;
}

/* Moves what was collected into a chunk; `more` bytes come behind it. */
static err_t unstage(struct queue_writer *w, size_t more)
{
    err_t err = chunk_start(w, w->staged_bytes + more);
    if (err)
        return err;
    size_t took = chunk_fill(w, w->staged, w->staged_bytes);
    must(took == w->staged_bytes); /* a chunk holds at least MIN(want, QSTAGE_BYTES) */
    w->staged_bytes = 0;
    return 0;
}

static err_t append_some(struct queue_writer *w, const uint8_t *p, size_t n, size_t *took)
{
    struct queue *q = w->q;
    if (q->error)
        return q->error;
    if (q->growing == w && (*took = chunk_fill(w, p, n)) > 0)
        return 0;
    if (w->staged_bytes + n < QSTAGE_BYTES) {
        *took = n;
        return stage(w, p, n);
    }
    *took = 0;
    return w->staged_bytes > 0 ? unstage(w, n) : chunk_start(w, n);
}

size_t queue_append(struct queue_writer *w, const void *p, size_t n, void (*writable)(void *ctx), void *ctx)
{
    struct queue *q = w->q;
    size_t taken = 0;
    list_remove(&w->wait_link);
    while (taken < n && !w->err) {
        size_t took = 0;
        err_t err = append_some(w, (const uint8_t *)p + taken, n - taken, &took);
        if (err == ERR_PENDING)
            break;
        w->err = err;
        taken += took;
    }
    if (q->growing == w)
        qbatch_request(q); /* enough for a write of its own? */
    if (w->err || taken == n)
        return n; /* after an error the rest is swallowed; queue_commit tells */
    w->writable = writable;
    w->ctx = ctx;
    list_push_back(&q->writers_waiting, &w->wait_link);
    return taken;
}

/* ---- commit ---- */

static uint64_t commit_payload_bytes(const struct queue_commit *c, uint32_t extent_count)
{
    uint64_t n = sizeof(struct disk_commit) + (uint64_t)extent_count * sizeof(struct disk_extent) +
                 c->meta.n + c->trace.n;
    for (uint32_t i = 0; i < c->rcpt_count; i++)
        n += sizeof(uint32_t) + 1 + c->rcpts[i].n;
    return n;
}

static uint8_t *put(uint8_t *to, const void *p, size_t n)
{
    if (n > 0)
        memcpy(to, p, n);
    return to + n;
}

/* All but the extents. */
static void commit_serialise(uint8_t *to, const struct queue_writer *w, const struct queue_commit *c,
                             uint32_t extent_count)
{
    struct disk_commit head = {.arrived_ms = c->arrived_ms,
                               .due_ms = c->due_ms,
                               .body_bytes = w->body_bytes + w->staged_bytes,
                               .attempts = c->attempts,
                               .flags = (c->held ? COMMIT_HELD : 0u) | (c->warned ? COMMIT_WARNED : 0u),
                               .extent_count = extent_count,
                               .rcpt_count = c->rcpt_count,
                               .meta_bytes = (uint32_t)c->meta.n,
                               .trace_bytes = (uint32_t)c->trace.n};
    uint8_t *at = to + sizeof head + (size_t)extent_count * sizeof(struct disk_extent);
    for (uint32_t i = 0; i < c->rcpt_count; i++) {
        uint32_t n = (uint32_t)c->rcpts[i].n;
        at = put(at, &n, sizeof n);
        head.blobs_bytes += n;
    }
    if (c->states)
        memcpy(at, c->states, c->rcpt_count);
    else
        memset(at, RCPT_PENDING, c->rcpt_count);
    at = put(at + c->rcpt_count, c->meta.p, c->meta.n);
    at = put(at, c->trace.p, c->trace.n);
    for (uint32_t i = 0; i < c->rcpt_count; i++)
        at = put(at, c->rcpts[i].p, c->rcpts[i].n);
    memcpy(to, &head, sizeof head);
}

static void commit_put_extents(uint8_t *payload, const struct queue_writer *w)
{
    uint32_t index = 0;
    for (const struct qextent_block *b = w->first; b; b = b->next)
        for (uint32_t i = 0; i < b->count; i++)
            qcommit_patch_extent(payload, index++, b->e[i]);
}

/* The message takes over what the writer put into the ring. */
static void commit_placed(struct queue_writer *w, const struct qplace *place)
{
    struct queue *q = w->q;
    struct qcommit *qc = &w->commit;
    struct qmsg *m = qc->m;
    qbatch_finish(q, place, &(struct disk_record){.type = RECORD_COMMIT, .id = w->id, .bytes = qc->bytes});
    qc->at = m->commit_at = place->at;
    m->commit_bytes = qrecord_bytes(qc->bytes);
    m->ring_bytes = w->ring_bytes + m->commit_bytes;
    q->live_bytes += m->commit_bytes;
    w->ring_bytes = 0;
    qindex_link(q, m, w->first ? w->lowest_segment : place->at / q->segment_bytes);
    writer_release(w);
    list_push_back(&q->open->commits, &qc->link);
    q->open->commit_count++;
    qbatch_request(q);
}

/* Finds a place for the last chunk and the record, which comes from `c` or waits in qc->payload. ERR_PENDING:
 * later. */
static err_t commit_place(struct queue_writer *w, const struct queue_commit *c)
{
    struct queue *q = w->q;
    struct qcommit *qc = &w->commit;
    if (w->err) /* its chunks were lost while it waited */
        return w->err;
    if (w->staged_bytes > 0) {
        err_t err = unstage(w, 0);
        if (err)
            return err;
    }
    if (is_over_limit(w, qc->bytes))
        return ERR_FULL;
    struct qplace place;
    err_t err = qbatch_reserve(q, space_of(w), qc->bytes, &place);
    if (err)
        return no_room(q, err);
    if (qc->payload)
        memcpy(place.payload, qc->payload, qc->bytes);
    else
        commit_serialise(place.payload, w, c, w->extent_count);
    commit_put_extents(place.payload, w);
    commit_placed(w, &place);
    return 0;
}

/* The caller's memory goes when queue_commit returns. */
static err_t commit_wait(struct queue_writer *w, const struct queue_commit *c, uint32_t extent_count)
{
    w->commit.payload = malloc(w->commit.bytes);
    if (!w->commit.payload)
        return -ENOMEM;
    commit_serialise(w->commit.payload, w, c, extent_count);
    list_push_back(&w->q->commits_waiting, &w->commit.link);
    return 0;
}

static err_t commit_begin(struct queue_writer *w, const struct queue_commit *c)
{
    struct queue *q = w->q;
    if (w->err || q->error)
        return w->err ? w->err : q->error;
    uint32_t extent_count = w->extent_count + (w->staged_bytes > 0);
    uint64_t bytes = commit_payload_bytes(c, extent_count);
    if (bytes > q->commit_max)
        return ERR_LIMIT;
    must(c->rcpt_count > 0);
    if (map64_get(&q->index, w->id)) /* it came in twice at the same time */
        return -EEXIST;
    struct qmsg *m = qindex_new(q, w->id, c->rcpt_count);
    if (!m)
        return -ENOMEM;
    m->arrived_ms = c->arrived_ms;
    m->due_ms = c->due_ms;
    m->attempts = c->attempts;
    m->held = c->held;
    m->warned = c->warned;
    if (c->states)
        qindex_take_states(m, c->states);
    m->body_bytes = w->body_bytes + w->staged_bytes;
    w->commit.m = m;
    w->commit.bytes = (uint32_t)bytes;
    /* Those that wait already go first. */
    err_t err = list_empty(&q->commits_waiting) ? commit_place(w, c) : ERR_PENDING;
    return err == ERR_PENDING ? commit_wait(w, c, extent_count) : err;
}

void queue_commit(struct queue_writer *w, const struct queue_commit *c)
{
    list_remove(&w->open_link);
    list_remove(&w->wait_link);
    w->commit.done = c->done;
    w->commit.ctx = c->ctx;
    err_t err = commit_begin(w, c);
    if (err)
        qwriter_fail(w->q, &w->commit, err);
}

void qwriter_fail(struct queue *q, struct qcommit *c, err_t err)
{
    struct queue_writer *w = container_of(c, struct queue_writer, commit);
    must(err != 0);
    writer_release(w);
    if (c->m)
        qindex_drop(q, c->m);
    c->m = NULL;
    c->err = err;
    list_push_back(&q->commits_failed, &c->link);
    qbatch_request(q);
}

void qwriter_fail_all_waiting(struct queue *q, err_t err)
{
    for (struct link *k; (k = list_pop_front(&q->commits_waiting));)
        qwriter_fail(q, container_of(k, struct qcommit, link), err);
}

static void commit_end(struct queue *q, struct qcommit *c, err_t err)
{
    void (*done)(void *ctx, err_t err, struct qmsg *m) = c->done;
    void *ctx = c->ctx;
    struct qmsg *m = c->m;
    pool_put(&q->writer_pool, container_of(c, struct queue_writer, commit));
    done(ctx, err, m);
}

void qwriter_durable(struct queue *q, struct list *commits)
{
    for (struct link *k; (k = list_pop_front(commits));) {
        struct qcommit *c = container_of(k, struct qcommit, link);
        qindex_set_live(q, c->m);
        q->accepted_bytes += c->m->ring_bytes;
        metric_add(M_queue_accepted_bytes, (int64_t)c->m->ring_bytes);
        commit_end(q, c, 0);
    }
}

void qwriter_run_failed(struct queue *q)
{
    for (struct link *k; (k = list_pop_front(&q->commits_failed));) {
        struct qcommit *c = container_of(k, struct qcommit, link);
        commit_end(q, c, c->err);
    }
}

/* ---- those who wait ---- */

static void pump_commits(struct queue *q)
{
    for (struct link *k; (k = list_first(&q->commits_waiting));) {
        struct qcommit *c = container_of(k, struct qcommit, link);
        list_remove(k);
        err_t err = commit_place(container_of(c, struct queue_writer, commit), NULL);
        if (err == ERR_PENDING) {
            list_push_front(&q->commits_waiting, k);
            return;
        }
        if (err)
            qwriter_fail(q, c, err);
    }
}

/* Could an append take anything now? */
static err_t room_now(const struct queue_writer *w)
{
    struct queue *q = w->q;
    struct qplace unused;
    if (q->error)
        return q->error;
    err_t err = qbatch_reserve(q, space_of(w), QSTAGE_BYTES, &unused);
    return err ? no_room(q, err) : 0;
}

void qwriter_pump(struct queue *q)
{
    pump_commits(q);
    struct list waiting; /* whoever has to wait again comes back into q's list */
    list_init(&waiting);
    for (struct link *k; (k = list_pop_front(&q->writers_waiting));)
        list_push_back(&waiting, k);
    for (struct link *k; (k = list_pop_front(&waiting));) {
        struct queue_writer *w = container_of(k, struct queue_writer, wait_link);
        err_t err = room_now(w);
        if (err == ERR_PENDING) {
            list_push_back(&q->writers_waiting, k);
            continue;
        }
        if (err)
            w->err = err;
        w->writable(w->ctx);
    }
}

/* ---- is there room for one more ---- */

static void full_changed(struct queue *q, bool full)
{
    if (q->full == full)
        return;
    q->full = full;
    const struct log_field fields[] = {LF_U64("ring", q->opt.ring_index), LF_U64("used", q->live_bytes),
                                       LF_U64("size", q->data_bytes)};
    log_emit(full ? EV_queue_full : EV_queue_roomy, fields, COUNT_OF(fields));
}

err_t queue_check_space(struct queue *q, uint64_t bytes)
{
    if (q->error)
        return q->error;
    uint64_t max = qspace_live_max(q);
    uint64_t spare = q->full ? max / 32 : 0; /* once full, some room must come before mail is taken again */
    uint64_t next = qspace_next(q, ALIGN_UP(qbatch_head(q), q->unit_bytes));
    bool stuck = next + q->unit_bytes > qspace_limit(q, QSPACE_MAIL) && qspace_is_hopeless(q);
    uint64_t used = q->live_bytes + qkeep_waste(q);
    full_changed(q, stuck || used + QSTAGE_BYTES + spare > max);
    uint64_t need = QSTAGE_BYTES + bytes / 64; /* headers of records and the commit record */
    bool fits = need <= max && bytes <= max - need && used <= max - need - bytes;
    if (fits && !q->full)
        return 0;
    qkeep_want(q, need + spare + MIN(bytes, max));
    return ERR_FULL;
}
