/* queue/reclaim_read.c: what is to be moved is found in memory or read: a unit of the log in one piece, since
 * the next records lie beside it; record by record where that cannot be read. One read at a time. */
#include <errno.h>

#include "core/metrics.h"
#include "queue/queue_priv.h"

/* A disk that cannot be read now may be read later: three minutes of tries before it counts as damage. */
#define READ_TRIES          12u
#define READ_PAUSE_FIRST_MS 500u
#define READ_PAUSE_LAST_MS  30000u

static void read_arrived(void *ctx, struct qread *r, err_t err)
{
    struct queue *q = ctx;
    q->reclaim.reading = NULL;
    q->reclaim.arrived = r;
    q->reclaim.arrived_err = err;
    qreclaim_kick(q);
}

void qreclaim_read_forget(struct qreclaim *rc)
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

void qreclaim_read_init(struct queue *q)
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

err_t qreclaim_fetch(struct queue *q, uint64_t position, uint32_t bytes, enum record_type type, uint64_t id,
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
        qreclaim_read_forget(rc);
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
        qreclaim_read_forget(rc);
        timer_arm(q->loop, &rc->pause, MIN(READ_PAUSE_FIRST_MS << rc->error_count, READ_PAUSE_LAST_MS));
        rc->error_count++;
        return ERR_PENDING;
    }
    if (rc->arrived_err != ERR_CORRUPT)
        *raw = NULL;
    rc->error_count = 0;
    return ERR_CORRUPT;
}

void qreclaim_fetch_end(struct queue *q, struct qblock *block)
{
    if (block)
        qblock_unpin(q, block);
    qreclaim_read_forget(&q->reclaim);
}

void qreclaim_free(struct queue *q)
{
    if (q->reclaim.unit)
        free(q->reclaim.unit->p);
    free(q->reclaim.unit);
}
