/* queue/reader.c: envelopes and bodies come out: from hot memory without a copy, else from the disk,
 * verified. */
#include <errno.h>

#include "core/log.h"
#include "core/metrics.h"
#include "queue/queue_priv.h"

/* ---- records from the disk ---- */

uint64_t qfile_at(const struct queue *q, uint64_t position)
{
    return DISK_DATA_AT + qslot_of(q, position / q->segment_bytes) * q->segment_bytes +
           position % q->segment_bytes;
}

/* The aligned stretch of the file around a record. A record lies within one unit, so the stretch is in one
 * piece. */
struct stretch {
    uint64_t at; /* ring position */
    size_t bytes;
};

static struct stretch stretch_of(uint64_t position, uint32_t bytes)
{
    uint64_t from = ALIGN_DOWN(position, FSIO_ALIGN);
    return (struct stretch){from, (size_t)(ALIGN_UP(position + bytes, FSIO_ALIGN) - from)};
}

/* Positions come from the disk too. */
static bool place_is_possible(const struct queue *q, uint64_t position, uint32_t bytes)
{
    return position % 8 == 0 && bytes <= q->unit_bytes - position % q->unit_bytes;
}

const struct disk_record *qread_check(const struct queue *q, const uint8_t *p, uint64_t position,
                                      uint32_t bytes, enum record_type type, uint64_t id)
{
    if (!qrecord_is_valid(q, p, bytes, position))
        return NULL;
    const struct disk_record *r = (const struct disk_record *)(const void *)p;
    bool same = r->type == type && r->id == id && qrecord_bytes(r->bytes) == bytes;
    return same && !(r->flags & RECORD_DAMAGED) ? r : NULL;
}

static const struct disk_record *record_check(const struct queue *q, const uint8_t *buffer, uint64_t position,
                                              uint32_t bytes, enum record_type type, uint64_t id)
{
    return qread_check(q, buffer + position % FSIO_ALIGN, position, bytes, type, id);
}

static void read_done(struct fsio_io *io, err_t err)
{
    struct qread *r = container_of(io, struct qread, io);
    struct queue *q = r->q;
    q->reads_inflight--;
    r->running = false;
    if (err)
        metric_inc(M_queue_errors);
    else if (!record_check(q, r->buffer, r->position, r->bytes, r->type, r->id))
        err = ERR_CORRUPT;
    if (r->done)
        r->done(r->ctx, r, err); /* owns r now */
    else
        qread_forget(r);
    qclose_step(q);
}

struct qread *qread_start(struct queue *q, uint64_t position, uint32_t bytes, enum record_type type,
                          uint64_t id, void (*done)(void *ctx, struct qread *r, err_t err), void *ctx)
{
    struct stretch s = stretch_of(position, bytes);
    struct qread *r = pool_get(&q->read_pool);
    if (!r)
        return NULL;
    r->buffer = qbuffer_get(q, s.bytes);
    if (!r->buffer) {
        pool_put(&q->read_pool, r);
        return NULL;
    }
    r->q = q;
    r->buffer_bytes = s.bytes;
    r->position = position;
    r->bytes = bytes;
    r->type = type;
    r->id = id;
    r->done = done;
    r->ctx = ctx;
    r->io.done = read_done;
    r->running = true;
    q->reads_inflight++;
    fsio_read_async(&r->io, q->loop, &q->file, r->buffer, s.bytes, qfile_at(q, s.at));
    return r;
}

void qread_forget(struct qread *r)
{
    if (!r)
        return;
    r->done = NULL;
    if (r->running) /* read_done() comes back here */
        return;
    qbuffer_put(r->q, r->buffer, r->buffer_bytes);
    pool_put(&r->q->read_pool, r);
}

const struct disk_record *qread_record(const struct qread *r)
{
    return (const struct disk_record *)(const void *)(r->buffer + r->position % FSIO_ALIGN);
}

err_t qread_blocking(struct queue *q, uint64_t position, uint32_t bytes, enum record_type type, uint64_t id,
                     uint8_t **buffer, size_t *buffer_bytes, const struct disk_record **out)
{
    if (!place_is_possible(q, position, bytes))
        return ERR_CORRUPT;
    struct stretch s = stretch_of(position, bytes);
    uint8_t *p = qbuffer_get(q, s.bytes);
    if (!p)
        return -ENOMEM;
    err_t err = fsio_read(&q->file, p, s.bytes, qfile_at(q, s.at));
    *out = err ? NULL : record_check(q, p, position, bytes, type, id);
    if (!*out) {
        qbuffer_put(q, p, s.bytes);
        return err ? err : ERR_CORRUPT;
    }
    *buffer = p;
    *buffer_bytes = s.bytes;
    return 0;
}

/* ---- envelopes ---- */

/* Copies the record's payload into the arena and points into it. */
static err_t load_parse(struct qload *ld, const uint8_t *payload, uint32_t bytes)
{
    uint8_t *copy = arena_alloc(ld->arena, bytes);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, payload, bytes);
    struct qcommit_view v;
    err_t err = qcommit_parse(copy, bytes, &v);
    if (err || v.head.rcpt_count != ld->m->rcpt_count)
        return ERR_CORRUPT;
    str_t *rcpts = arena_alloc(ld->arena, v.head.rcpt_count * sizeof *rcpts);
    struct qextent *extents = arena_alloc(ld->arena, v.head.extent_count * sizeof *extents + 1);
    if (!rcpts || !extents)
        return -ENOMEM;
    const char *blob = v.blobs;
    for (uint32_t i = 0; i < v.head.rcpt_count; i++) {
        rcpts[i] = str_of(blob, qcommit_rcpt_bytes(&v, i));
        blob += rcpts[i].n;
    }
    for (uint32_t i = 0; i < v.head.extent_count; i++) {
        struct disk_extent e = qcommit_extent(&v, i);
        extents[i] = (struct qextent){.at = e.position, .bytes = e.bytes};
    }
    ld->meta = str_of(v.meta, v.head.meta_bytes);
    ld->trace = str_of(v.trace, v.head.trace_bytes);
    ld->rcpts = rcpts;
    ld->extents = extents;
    ld->extent_count = v.head.extent_count;
    return 0;
}

static err_t load_end(struct qload *ld, err_t err)
{
    ld->err = err;
    ld->m->damaged |= err == ERR_CORRUPT;
    if (err == ERR_CORRUPT)
        qdamage_report(ld->q, ld->m->commit_at, ld->m->commit_bytes, ld->m->id, false,
                       "a commit record cannot be read");
    if (err)
        queue_load_end(ld);
    return err;
}

static void load_arrived(void *ctx, struct qread *r, err_t err)
{
    struct qload *ld = ctx;
    ld->reading = NULL;
    if (!err) {
        const struct disk_record *rec = qread_record(r);
        err = load_parse(ld, (const uint8_t *)(rec + 1), rec->bytes);
    }
    qread_forget(r);
    (void)load_end(ld, err);
    ld->done(ld);
}

err_t queue_load(struct queue *q, struct qmsg *m, struct arena *arena, struct qload *ld)
{
    ld->q = q;
    ld->m = m;
    ld->arena = arena;
    ld->reading = NULL;
    ld->pinned = true;
    m->pins++;
    if (m->flags & QMSG_REMOVED)
        return load_end(ld, ERR_NOT_FOUND);
    if (m->flags & QMSG_LOST)
        return load_end(ld, ERR_CORRUPT);
    struct qblock *block;
    const struct disk_record *r = qblock_find(q, m->commit_at, &block);
    if (r)
        return load_end(ld, load_parse(ld, (const uint8_t *)(r + 1), r->bytes));
    ld->reading = qread_start(q, m->commit_at, m->commit_bytes, RECORD_COMMIT, m->id, load_arrived, ld);
    return ld->reading ? ERR_PENDING : load_end(ld, -ENOMEM);
}

void queue_load_end(struct qload *ld)
{
    qread_forget(ld->reading);
    ld->reading = NULL;
    if (!ld->pinned)
        return;
    ld->pinned = false;
    qindex_unpin(ld->q, ld->m);
}

/* ---- bodies ---- */

static err_t slice_new(struct queue *q, const uint8_t *p, size_t n, struct qslice **out)
{
    struct qslice *s = pool_get(&q->slice_pool);
    if (!s)
        return -ENOMEM;
    s->p = p;
    s->n = n;
    s->q = q;
    *out = s;
    return 0;
}

static err_t slice_hot(struct queue *q, struct qblock *b, const struct disk_record *r, struct qslice **out)
{
    const uint8_t *payload = (const uint8_t *)(r + 1);
    uint8_t *copy = NULL;
    if (!qblock_may_pin(q, b)) {
        copy = qbuffer_get(q, r->bytes);
        if (!copy)
            return -ENOMEM;
        memcpy(copy, payload, r->bytes);
    }
    err_t err = slice_new(q, copy ? copy : payload, r->bytes, out);
    if (err) {
        qbuffer_put(q, copy, r->bytes);
        return err;
    }
    if (copy) {
        (*out)->buffer = copy;
        (*out)->buffer_bytes = r->bytes;
        return 0;
    }
    (*out)->block = b;
    qblock_pin(q, b);
    return 0;
}

void queue_body_open(struct qbody *b, const struct qload *ld)
{
    void (*ready)(struct qbody * b) = b->ready;
    *b = (struct qbody){.ready = ready, .ld = ld};
}

static void piece_arrived(void *ctx, struct qread *r, err_t err)
{
    struct qbody *b = ctx;
    struct queue *q = r->q;
    b->reading = NULL;
    if (!err) {
        const struct disk_record *rec = qread_record(r);
        err = slice_new(q, (const uint8_t *)(rec + 1), rec->bytes, &b->arrived);
    } else if (err == ERR_CORRUPT) {
        b->ld->m->damaged = true;
        qdamage_report(q, r->position, r->bytes, r->id, false, "a piece of a body cannot be read");
    }
    if (!err) { /* the memory goes over to the slice */
        b->arrived->buffer = r->buffer;
        b->arrived->buffer_bytes = r->buffer_bytes;
        r->buffer = NULL;
    }
    qread_forget(r);
    b->err = err;
    b->ready(b);
}

err_t queue_body_next(struct qbody *b, struct qslice **out)
{
    const struct qload *ld = b->ld;
    struct queue *q = ld->q;
    if (b->reading)
        return ERR_PENDING;
    if (b->err)
        return b->err;
    if (b->arrived) {
        *out = b->arrived;
        b->arrived = NULL;
        return 0;
    }
    if (b->extent_index == ld->extent_count)
        return ERR_EOF;
    struct qextent e = ld->extents[b->extent_index];
    uint32_t bytes = qrecord_bytes(e.bytes);
    if (e.bytes > q->unit_bytes || !place_is_possible(q, e.at, bytes))
        return b->err = ERR_CORRUPT;
    struct qblock *block;
    const struct disk_record *r = qblock_find(q, e.at, &block);
    if (r &&
        (r->type != RECORD_BODY || r->id != ld->m->id || r->bytes != e.bytes || r->flags & RECORD_DAMAGED))
        return b->err = ERR_CORRUPT;
    err_t err;
    if (r) {
        err = slice_hot(q, block, r, out);
    } else {
        b->reading = qread_start(q, e.at, bytes, RECORD_BODY, ld->m->id, piece_arrived, b);
        err = b->reading ? ERR_PENDING : -ENOMEM;
    }
    if (!err || err == ERR_PENDING)
        b->extent_index++;
    return err;
}

void queue_slice_release(struct qslice *s)
{
    struct queue *q = s->q;
    if (s->block) {
        qblock_unpin(q, s->block);
        if (!list_empty(&q->writers_waiting) || !list_empty(&q->commits_waiting))
            qbatch_request(q);
        if (q->reclaim.m || q->reclaim.w)
            qreclaim_kick(q);
    }
    qbuffer_put(q, s->buffer, s->buffer_bytes);
    pool_put(&q->slice_pool, s);
}

void queue_body_close(struct qbody *b)
{
    qread_forget(b->reading);
    b->reading = NULL;
    if (b->arrived)
        queue_slice_release(b->arrived);
    b->arrived = NULL;
}
