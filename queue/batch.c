/* queue/batch.c: group commit. Records are put straight into the block of memory that is written; a batch is
 * what one durable write carries. One write is in flight; everything that arrives meanwhile is the next
 * one's.
 *
 * A write that failed is repeated at the same place with the same sequence number once the disk works again:
 * nobody was told that it is durable. Its new messages were refused in the meantime, so their commit records
 * are made void first; bodies, progress and moves in it stay. */
#include <errno.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "queue/crc32c.h"
#include "queue/queue_priv.h"

#define FLUSH_BYTES                                                                                          \
    (256u << 10)          /* bodies alone are written from here on: large enough to be cheap per byte */
#define DELAY_COMMITS  4u /* that many are company enough: commit_delay_us is not waited for */
#define RETRY_FIRST_MS 500u
#define RETRY_LAST_MS  30000u
#define DELAY_US_MAX   100000u

uint64_t qbatch_head(const struct queue *q)
{
    return q->open ? q->open->at + q->open->bytes : q->head;
}

uint64_t qbatch_unwritten(const struct queue *q)
{
    if (!list_empty(&q->sealed))
        return container_of(list_first(&q->sealed), struct qbatch, link)->at;
    return q->open ? q->open->at : q->head;
}

static uint64_t unit_end(const struct queue *q, uint64_t position)
{
    return ALIGN_DOWN(position, q->unit_bytes) + q->unit_bytes;
}

/* ---- building ---- */

static err_t batch_open(struct queue *q, enum qspace space, uint32_t record_bytes)
{
    uint64_t at = q->head;
    uint64_t needed = DISK_BATCH_HEAD + record_bytes;
    if (unit_end(q, at) - at < needed)
        at = unit_end(q, at);
    at = qspace_next(q, at);
    if (at + needed > qspace_limit(q, space))
        return ERR_FULL;
    struct qblock *block = qblock_take(q, at);
    struct qbatch *b = block ? pool_get(&q->batch_pool) : NULL;
    if (!b)
        return ERR_PENDING;
    b->at = at;
    b->bytes = DISK_BATCH_HEAD;
    b->block = block;
    list_init(&b->commits);
    list_init(&b->moves);
    list_init(&b->keeps);
    block->unwritten++;
    bool new_segment = at / q->segment_bytes != q->head / q->segment_bytes || at % q->segment_bytes == 0;
    q->open = b;
    q->head = at;
    if (new_segment) {
        qindex_advance_tail(q);
        qreclaim_kick(q);
    }
    return 0;
}

err_t qbatch_reserve(struct queue *q, enum qspace space, uint32_t bytes, struct qplace *out)
{
    uint32_t needed = qrecord_bytes(bytes);
    must(DISK_BATCH_HEAD + needed <= q->unit_bytes);
    qwriter_end_growing(q);
    uint64_t at = qbatch_head(q);
    if (q->open && at + needed > unit_end(q, q->open->at)) {
        qbatch_seal(q);
        qbatch_request(q);
    }
    if (!q->open) {
        err_t err = batch_open(q, space, needed);
        if (err)
            return err;
        at = qbatch_head(q);
    } else if (at + needed > qspace_limit(q, space)) {
        return ERR_FULL;
    }
    out->at = at;
    out->payload = q->open->block->p + at % q->unit_bytes + sizeof(struct disk_record);
    return 0;
}

uint32_t qbatch_room(const struct queue *q)
{
    if (!q->open)
        return 0;
    uint64_t at = q->open->at + q->open->bytes;
    uint64_t left = unit_end(q, q->open->at) - at;
    return left > sizeof(struct disk_record) ? (uint32_t)(left - sizeof(struct disk_record)) : 0;
}

void qbatch_finish(struct queue *q, const struct qplace *place, const struct disk_record *r)
{
    struct disk_record head = *r;
    uint32_t padded = (uint32_t)ALIGN_UP(r->bytes, 8);
    memset(place->payload + r->bytes, 0, padded - r->bytes);
    head.magic = q->magic;
    head.version = RECORD_VERSION;
    head.position = place->at;
    head.crc = qrecord_crc(q, place->at, &head, place->payload);
    memcpy(place->payload - sizeof head, &head, sizeof head);
    q->open->bytes += (uint32_t)sizeof head + padded;
    q->open->count++;
}

/* Writes the batch's header record; again after a record in it was made void. */
static void batch_put_header(struct queue *q, struct qbatch *b)
{
    uint8_t *p = b->block->p + b->at % q->unit_bytes;
    struct disk_batch d = {.sequence = b->sequence, .bytes = b->bytes, .count = b->count};
    uint32_t offset = DISK_BATCH_HEAD;
    for (uint32_t i = 0; i < b->count; i++) {
        struct disk_record r;
        memcpy(&r, p + offset, sizeof r);
        d.records_crc = crc32c(d.records_crc, &r.crc, sizeof r.crc);
        offset += qrecord_bytes(r.bytes);
    }
    struct disk_record head = {.magic = q->magic,
                               .type = RECORD_BATCH,
                               .version = RECORD_VERSION,
                               .bytes = sizeof d,
                               .position = b->at};
    head.crc = qrecord_crc(q, b->at, &head, (const uint8_t *)&d);
    memcpy(p, &head, sizeof head);
    memcpy(p + sizeof head, &d, sizeof d);
}

static void batch_free(struct queue *q, struct qbatch *b)
{
    b->block->unwritten--;
    pool_put(&q->batch_pool, b);
}

void qbatch_seal(struct queue *q)
{
    qwriter_end_growing(q);
    struct qbatch *b = q->open;
    if (!b)
        return;
    q->open = NULL;
    if (b->count == 0) {
        batch_free(q, b);
        return;
    }
    uint32_t padded = (uint32_t)ALIGN_UP(b->bytes, DISK_SECTOR);
    memset(b->block->p + b->at % q->unit_bytes + b->bytes, 0, padded - b->bytes);
    if (b->commit_count > 0 || b->has_progress) /* not what reclaim pads itself: it would go on for ever */
        q->reclaim.earned_bytes += padded - b->bytes;
    b->bytes = padded;
    b->sequence = q->next_batch++;
    batch_put_header(q, b);
    list_push_back(&q->sealed, &b->link);
    q->head = b->at + b->bytes;
}

/* ---- the end of a write ---- */

static void batch_durable(struct queue *q, struct qbatch *b)
{
    struct list commits;
    list_init(&commits);
    list_remove(&b->link);
    q->durable_batch = b->sequence + 1;
    q->commits++;
    q->written_bytes += b->bytes;
    metric_inc(M_queue_commits);
    metric_add(M_queue_commit_bytes, b->bytes);
    for (struct link *k; (k = list_pop_front(&b->moves));)
        qreclaim_moved(q, container_of(k, struct qmove, link));
    for (struct link *k; (k = list_pop_front(&b->keeps));)
        qkeep_durable(q, container_of(k, struct qsegment, pending_link));
    qkeep_sweep(q);
    for (struct link *k; (k = list_pop_front(&b->commits));)
        list_push_back(&commits, k);
    if (b->commit_count > 0)
        metric_observe(H_queue_commit_batch, b->commit_count);
    batch_free(q, b);
    qindex_advance_tail(q);
    metric_set(M_queue_bytes_used, (int64_t)qspace_used(q));
    qwriter_durable(q, &commits); /* last: the callbacks may do anything */
    qsync_durable(q);
}

/* The commit records of messages that are refused now must not come to life when the batch is written after
 * all. */
static void batch_void_commits(struct queue *q, struct qbatch *b, err_t err)
{
    bool any = false;
    for (struct link *k; (k = list_pop_front(&b->commits));) {
        struct qcommit *c = container_of(k, struct qcommit, link);
        uint8_t *p = b->block->p + c->at % q->unit_bytes;
        struct disk_record r;
        memcpy(&r, p, sizeof r);
        must(r.type == RECORD_COMMIT && r.position == c->at);
        r.type = RECORD_VOID;
        r.crc = qrecord_crc(q, c->at, &r, p + sizeof r);
        memcpy(p, &r, sizeof r);
        qwriter_fail(q, c, err);
        any = true;
    }
    b->commit_count = 0;
    if (any && b != q->open)
        batch_put_header(q, b);
}

static enum metric error_gauge(err_t err)
{
    switch (err) {
    case -EIO: return M_queue_error_eio;
    case -ENOSPC:
    case -EDQUOT: return M_queue_error_enospc;
    case -EROFS: return M_queue_error_erofs;
    default: return M_queue_error_other;
    }
}

/* What the alarm and the log say: once per change, not once per try. */
static void error_changed(struct queue *q, err_t err)
{
    if (q->error == err)
        return;
    if (q->error)
        metric_set(error_gauge(q->error), 0);
    else
        q->retry_ms = RETRY_FIRST_MS;
    q->error = err;
    if (err)
        metric_set(error_gauge(err), 1);
    LOG(queue_error, LF_U64("ring", q->opt.ring_index), LF_I64("errno", -(int64_t)err), LF_ERR("err", err),
        LF_CSTR("text",
                err ? "a durable write failed; mail is refused until one works again" : "writes work again"));
}

void qring_failed(struct queue *q, err_t err)
{
    metric_inc(M_queue_errors);
    error_changed(q, err);
    LIST_EACH(&q->sealed, k)
    {
        struct qbatch *b = container_of(k, struct qbatch, link);
        if (b != q->writing) /* when it was the superblock that failed, this one may still arrive */
            batch_void_commits(q, b, err);
    }
    if (q->open)
        batch_void_commits(q, q->open, err);
    qwriter_fail_all_waiting(q, err);
    qsync_fail_all(q, err);
    if (!q->closing) {
        timer_arm(q->loop, &q->retry_timer, q->retry_ms);
        q->retry_ms = MIN(q->retry_ms * 2, (uint64_t)RETRY_LAST_MS);
    }
}

static void write_start(struct queue *q)
{
    struct qbatch *b = container_of(list_first(&q->sealed), struct qbatch, link);
    q->writing = b;
    q->write_start_ns = clock_mono_ns();
    fsio_write_durable_async(&q->write_io, q->loop, &q->file, b->block->p + b->at % q->unit_bytes, b->bytes,
                             qfile_at(q, b->at));
}

/* One write works: so may the others that wait. Mail is taken again when all of them did, or a bad sector
 * under one of them would open and shut the door for ever. */
void qring_works(struct queue *q)
{
    if (!q->error || q->super.writing || q->writing)
        return; /* the end of that one decides */
    if (q->super.again) {
        qsuper_retry(q);
    } else if (!list_empty(&q->sealed)) {
        write_start(q);
    } else {
        error_changed(q, 0);
        timer_disarm(q->loop, &q->retry_timer);
        qreclaim_kick(q);
    }
}

static void write_done(struct fsio_io *io, err_t err)
{
    struct queue *q = container_of(io, struct queue, write_io);
    struct qbatch *b = q->writing;
    q->writing = NULL;
    if (err) {
        qring_failed(q, err);
    } else {
        metric_observe(H_queue_commit_s, (double)(clock_mono_ns() - q->write_start_ns) / (double)NS_PER_S);
        list_remove(&b->link);
        qring_works(q);
        batch_durable(q, b);
    }
    qreclaim_kick(q); /* it may have waited for this memory, or for these messages to be durable */
    qbatch_request(q);
    qclose_step(q);
}

/* ---- the beginning of one ---- */

static bool write_is_due(const struct queue *q)
{
    if (q->urgent)
        return true;
    uint32_t growing = q->growing ? q->growing->growing->bytes : 0;
    return q->open && (q->open->commit_count > 0 || q->open->bytes + growing >= FLUSH_BYTES);
}

/* True while the few that wait are to wait for company. */
static bool is_delayed(struct queue *q)
{
    if (q->delay_fd < 0 || q->urgent || q->delay_over || q->closing || !q->open)
        return false;
    if (q->open->commit_count >= DELAY_COMMITS || q->open->bytes >= FLUSH_BYTES)
        return false;
    if (q->delay_armed)
        return true;
    struct itimerspec at = {.it_value.tv_nsec = (long)q->opt.commit_delay_us * 1000};
    if (timerfd_settime(q->delay_fd, 0, &at, NULL) < 0)
        return false;
    q->delay_armed = true;
    op_poll(q->loop, &q->delay_op, q->delay_fd, POLLIN);
    return true;
}

static void delay_done(struct op *op, int32_t res, uint32_t cqe_flags, bool more)
{
    struct queue *q = container_of(op, struct queue, delay_op);
    q->delay_armed = false;
    q->delay_over = true;
    qbatch_request(q);
    qclose_step(q);
}

static void write_if_due(struct queue *q)
{
    if (list_empty(&q->sealed)) {
        if (!write_is_due(q) || is_delayed(q))
            return;
        qprogress_append(q); /* rides along */
        qbatch_seal(q);
        q->urgent = false;
        q->delay_over = false;
        qsync_sealed(q);
    }
    if (!list_empty(&q->sealed))
        write_start(q);
    else
        qsync_durable(q); /* there was nothing to write */
}

static void at_tick_end(struct tick_hook *h)
{
    struct queue *q = container_of(h, struct queue, tick_hook);
    q->pumping = true;
    qwriter_pump(q);
    q->pumping = false;
    qwriter_run_failed(q);
    if (q->full)
        (void)queue_check_space(q, 0); /* says when there is room again, though nobody asks */
    if (!q->writing && !q->error)
        write_if_due(q);
    qclose_step(q);
}

void qbatch_request(struct queue *q)
{
    if (q->loop && !q->pumping) /* we look right after the pump: asking again would spin */
        loop_at_tick_end(q->loop, &q->tick_hook);
}

static void retry(struct timer *t)
{
    struct queue *q = container_of(t, struct queue, retry_timer);
    if (q->writing || q->super.writing)
        return; /* the end of that one goes on, or arms the timer again */
    if (!list_empty(&q->sealed))
        write_start(q);
    else
        qsuper_retry(q); /* it was the superblock that failed */
}

/* ---- life ---- */

void qbatch_start_loop(struct queue *q)
{
    q->tick_hook.run = at_tick_end;
    q->write_io.done = write_done;
    q->retry_timer.fire = retry;
    q->delay_op.done = delay_done;
    if (q->opt.commit_delay_us > 0)
        q->delay_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    q->opt.commit_delay_us = MIN(q->opt.commit_delay_us, DELAY_US_MAX);
}

void qbatch_stop_loop(struct queue *q)
{
    timer_disarm(q->loop, &q->retry_timer);
    list_remove(&q->tick_hook.link);
    if (q->delay_fd >= 0)
        close(q->delay_fd);
    q->delay_fd = -1;
}

err_t qbatch_write_blocking(struct queue *q)
{
    qbatch_seal(q);
    for (struct link *k; (k = list_first(&q->sealed));) {
        struct qbatch *b = container_of(k, struct qbatch, link);
        err_t err =
            fsio_write_durable(&q->file, b->block->p + b->at % q->unit_bytes, b->bytes, qfile_at(q, b->at));
        if (err)
            return err;
        batch_durable(q, b);
    }
    return 0;
}

void qbatches_free(struct queue *q)
{
    if (q->open)
        list_push_back(&q->sealed, &q->open->link);
    q->open = NULL;
    for (struct link *k; (k = list_pop_front(&q->sealed));) {
        struct qbatch *b = container_of(k, struct qbatch, link);
        must(list_empty(&b->commits));
        for (struct link *m; (m = list_pop_front(&b->moves));)
            pool_put(&q->move_pool, container_of(m, struct qmove, link));
        while (list_pop_front(&b->keeps))
            ;
        batch_free(q, b);
    }
}
