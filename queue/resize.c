/* queue/resize.c: a ring gets more or fewer segments while mail flows.
 *
 * The file keeps its place and the log goes on; what changes is where the log turns back to the file's
 * beginning. A segment lies in slot (segment - base) % segment_count, so a resize is a new base and count in
 * the superblock, at a moment when all that is needed lies in the same slots by the old rule and by the new
 * one: when the log, from tail to head, lies within one lap and below both ends. Then base becomes the first
 * segment of that lap. Until both superblocks say so the head stays below both ends, so whichever of them a
 * recovery reads is right.
 *
 *   FILLING    growing: zeros behind the end, a step at a time
 *   MOVING     reclaim works without a pause until the log lies in one lap; shrinking may begin the next lap
 *              early
 *   SWITCHING  both superblocks are being written
 *   CUTTING    a thread gives the file's end back
 *
 * A crash before the superblock leaves the old ring, and perhaps a file that is too long; the next start cuts
 * it. */
#include <errno.h>
#include <pthread.h>

#include "core/log.h"
#include "queue/queue_priv.h"

#define FILL_BYTES   (1u << 20) /* of one write, */
#define STEP_MS      8u         /* and the pause after it: leaves half of the disk to the mail */
#define CUT_CHECK_MS 50u
#define LAPS_MAX     3u /* of moving: then what lives is too much, or comes too fast */

static uint64_t file_bytes(const struct queue *q, uint32_t segment_count)
{
    return DISK_DATA_AT + (uint64_t)segment_count * q->segment_bytes;
}

static uint32_t common_count(const struct queue *q)
{
    return MIN(q->segment_count, q->resize.segment_count);
}

static uint64_t lap_of(const struct queue *q, uint64_t segment)
{
    return segment - qslot_of(q, segment);
}

/* The last segment in which something stands. */
static uint64_t last_segment(const struct queue *q)
{
    uint64_t head = qbatch_head(q);
    return head > q->tail_segment * q->segment_bytes ? (head - 1) / q->segment_bytes : q->tail_segment;
}

/* ---- the end ---- */

static void finish(struct queue *q, err_t err)
{
    struct qresize *rs = &q->resize;
    rs->step = RESIZE_NONE;
    rs->err = err;
    timer_disarm(q->loop, &rs->timer);
    free(rs->zeros);
    rs->zeros = NULL;
    free(rs->segments);
    rs->segments = NULL;
    LOG(queue_resize, LF_U64("ring", q->opt.ring_index), LF_U64("bytes", q->data_bytes), LF_ERR("err", err),
        LF_CSTR("text", err ? "the ring keeps its size" : "the ring has its new size"));
}

static void *cut(void *arg)
{
    struct queue *q = arg;
    q->resize.cut_err = fsio_cut(&q->file, file_bytes(q, q->segment_count));
    return NULL;
}

/* What lies behind the ring's end goes; the thread must not outlive the file. */
static void cut_start(struct queue *q, err_t result)
{
    struct qresize *rs = &q->resize;
    rs->err = result;
    if (pthread_create(&rs->thread, NULL, cut, q)) {
        finish(q, result); /* the next start does it */
        return;
    }
    rs->step = RESIZE_CUTTING;
    timer_arm(q->loop, &rs->timer, CUT_CHECK_MS);
}

static void cut_check(struct queue *q)
{
    struct qresize *rs = &q->resize;
    if (pthread_tryjoin_np(rs->thread, NULL)) {
        timer_arm(q->loop, &rs->timer, CUT_CHECK_MS);
        return;
    }
    q->file.bytes = file_bytes(q, q->segment_count);
    if (rs->cut_err)
        LOG(queue_error, LF_U64("ring", q->opt.ring_index), LF_I64("errno", -(int64_t)rs->cut_err),
            LF_ERR("err", rs->cut_err),
            LF_CSTR("text", "the end of the ring's file could not be given back"));
    finish(q, rs->err);
}

/* ---- filling ---- */

static void fill_step(struct queue *q)
{
    struct qresize *rs = &q->resize;
    uint64_t left = file_bytes(q, rs->segment_count) - rs->filled_to;
    rs->is_filling = true;
    fsio_write_durable_async(&rs->io, q->loop, &q->file, rs->zeros, (size_t)MIN(left, (uint64_t)FILL_BYTES),
                             rs->filled_to);
}

static void fill_done(struct fsio_io *io, err_t err)
{
    struct queue *q = container_of(io, struct queue, resize.io);
    struct qresize *rs = &q->resize;
    rs->is_filling = false;
    if (q->closing) {
        qclose_step(q);
        return;
    }
    if (err) {
        cut_start(q, err);
        return;
    }
    rs->filled_to += io->n;
    if (rs->filled_to == file_bytes(q, rs->segment_count)) {
        q->file.bytes = rs->filled_to;
        rs->step = RESIZE_MOVING;
    }
    timer_arm(q->loop, &rs->timer, STEP_MS);
}

/* ---- moving ---- */

/* A kept segment has its slot by the old rule: none may be left. */
static bool none_is_kept(const struct queue *q)
{
    if (q->keeping.kept_count > 0 || q->keeping.segment != QSEGMENT_NONE)
        return false;
    for (uint32_t i = 0; i < q->segment_count; i++)
        if (link_in_list(&q->segments[i].pending_link))
            return false;
    return true;
}

static bool can_switch(const struct queue *q)
{
    return none_is_kept(q) && last_segment(q) - lap_of(q, q->tail_segment) < common_count(q);
}

/* A batch of its own sector for the place where the log goes on: nothing else is written before it is
 * durable, so recovery never finds the remains of a write there that it does not know to be torn. */
static void put_mark(struct queue *q, uint64_t position)
{
    uint64_t head = q->head;
    struct qplace place;
    q->head = position;
    if (qbatch_reserve(q, QSPACE_RECLAIM, 0, &place)) {
        q->head = head; /* no memory or no space now */
        return;
    }
    qbatch_finish(q, &place, &(struct disk_record){.type = RECORD_VOID});
    qbatch_seal(q);
    qbatch_request(q);
}

/* The head is too far out to be reached by the new rule. When what lives fits in front of the tail the log
 * may as well turn back now: recovery looks for the next batch wherever it is. */
static void turn_back(struct queue *q)
{
    uint64_t lap = lap_of(q, q->tail_segment);
    uint64_t need = q->live_bytes / q->segment_bytes + QSPACE_SPARE_SEGMENTS;
    if (!none_is_kept(q) || lap_of(q, last_segment(q)) != lap || q->tail_segment - lap < need)
        return;
    if (q->durable_tail - MIN(q->durable_tail, lap) < need || !(q->super.now.flags & SUPER_SHRINKING)) {
        qsuper_request(q);
        return;
    }
    qbatch_seal(q);
    put_mark(q, (lap + q->segment_count) * q->segment_bytes);
}

static void move_step(struct queue *q)
{
    struct qresize *rs = &q->resize;
    if (can_switch(q)) {
        rs->base_segment = lap_of(q, q->tail_segment);
        rs->step = RESIZE_SWITCHING;
        rs->written_count = 0;
        qsuper_request(q);
        return;
    }
    if (q->reappended_bytes - rs->moved_before > LAPS_MAX * q->data_bytes) {
        if (rs->segment_count > q->segment_count)
            cut_start(q, ERR_FULL);
        else
            finish(q, ERR_FULL);
        return;
    }
    if (rs->segment_count < q->segment_count && !q->error)
        turn_back(q);
    qreclaim_retry(q);
    timer_arm(q->loop, &rs->timer, STEP_MS);
}

bool qresize_wants_moves(const struct queue *q)
{
    return q->resize.step == RESIZE_MOVING && !can_switch(q);
}

/* ---- switching ---- */

uint64_t qresize_limit(const struct queue *q)
{
    const struct qresize *rs = &q->resize;
    if (rs->step != RESIZE_SWITCHING)
        return UINT64_MAX;
    return (rs->base_segment + common_count(q)) * q->segment_bytes;
}

void qresize_fill_super(const struct queue *q, struct disk_super *d)
{
    const struct qresize *rs = &q->resize;
    if (rs->step == RESIZE_MOVING && rs->segment_count < q->segment_count)
        d->flags |= SUPER_SHRINKING;
    if (rs->step != RESIZE_SWITCHING)
        return;
    d->version = MAX(d->version, DISK_VERSION_RESIZED);
    d->segment_count = rs->segment_count;
    d->base_segment = rs->base_segment;
}

static void list_take(struct list *to, struct list *from)
{
    for (struct link *k; (k = list_pop_front(from));)
        list_push_back(to, k);
}

/* All that is in use stays in its slot. */
static void segments_replace(struct queue *q)
{
    struct qresize *rs = &q->resize;
    for (uint32_t i = 0; i < rs->segment_count; i++) {
        struct qsegment *to = &rs->segments[i];
        qsegment_init(to);
        if (i >= q->segment_count)
            continue;
        struct qsegment *from = &q->segments[i];
        must(list_empty(&from->homes) && from->kept == QSEGMENT_NONE);
        to->live_bytes = from->live_bytes;
        to->live_count = from->live_count;
        to->rcpt_count = from->rcpt_count;
        to->last_at = from->last_at;
        to->removed_batch = from->removed_batch;
        to->unlogged_count = from->unlogged_count;
        list_take(&to->messages, &from->messages);
        list_take(&to->spread, &from->spread);
        list_take(&to->writers, &from->writers);
    }
    for (uint32_t i = rs->segment_count; i < q->segment_count; i++) {
        const struct qsegment *s = &q->segments[i];
        must(list_empty(&s->messages) && list_empty(&s->spread) && list_empty(&s->writers));
    }
    free(q->segments);
    q->segments = rs->segments;
    rs->segments = NULL;
}

void qresize_super_written(struct queue *q)
{
    struct qresize *rs = &q->resize;
    bool is_new = q->super.now.segment_count == rs->segment_count &&
                  q->super.now.base_segment == rs->base_segment &&
                  q->super.now.version >= DISK_VERSION_RESIZED;
    if (rs->step != RESIZE_SWITCHING || !is_new)
        return;
    if (++rs->written_count < 2) {
        q->super.again = true;
        return;
    }
    bool is_smaller = rs->segment_count < q->segment_count;
    segments_replace(q);
    q->segment_count = rs->segment_count;
    q->base_segment = rs->base_segment;
    q->data_bytes = (uint64_t)q->segment_count * q->segment_bytes;
    q->keeping.version++; /* what is known of the free space is out of date */
    qreclaim_init(q);
    if (is_smaller)
        cut_start(q, 0);
    else
        finish(q, 0);
    qreclaim_retry(q);
    qbatch_request(q);
}

/* ---- life ---- */

static void timer_fired(struct timer *t)
{
    struct queue *q = container_of(t, struct queue, resize.timer);
    switch (q->resize.step) {
    case RESIZE_FILLING: fill_step(q); break;
    case RESIZE_MOVING: move_step(q); break;
    case RESIZE_CUTTING: cut_check(q); break;
    case RESIZE_NONE:
    case RESIZE_SWITCHING: break;
    }
}

void qresize_start_loop(struct queue *q)
{
    q->resize.timer.fire = timer_fired;
    q->resize.io.done = fill_done;
}

/* What is not switched yet is forgotten; a superblock that is half way to it is no matter. */
void qresize_stop(struct queue *q)
{
    timer_disarm(q->loop, &q->resize.timer);
    if (q->resize.step == RESIZE_MOVING || q->resize.step == RESIZE_FILLING)
        q->resize.step = RESIZE_NONE;
}

bool qresize_is_done(const struct queue *q)
{
    return !q->resize.is_filling;
}

void qresize_free(struct queue *q)
{
    struct qresize *rs = &q->resize;
    if (rs->step == RESIZE_CUTTING)
        pthread_join(rs->thread, NULL);
    free(rs->zeros);
    free(rs->segments);
}

static err_t check(const struct queue *q, uint64_t segment_count)
{
    if (q->closing || q->error)
        return q->error ? q->error : ERR_CLOSED;
    if (q->resize.step != RESIZE_NONE)
        return ERR_LOCKED;
    if (segment_count < QSEGMENT_COUNT_MIN || segment_count > QSEGMENT_COUNT_MAX)
        return ERR_LIMIT;
    uint64_t bytes = segment_count * q->segment_bytes;
    return q->live_bytes > qspace_live_max_of(q, bytes) ? ERR_FULL : 0;
}

err_t queue_resize(struct queue *q, uint64_t ring_bytes)
{
    struct qresize *rs = &q->resize;
    uint64_t count = (ring_bytes + q->segment_bytes - 1) / q->segment_bytes;
    if (rs->step == RESIZE_NONE && count == q->segment_count)
        return 0;
    err_t err = check(q, count);
    if (err)
        return err;
    rs->segment_count = (uint32_t)count;
    rs->err = 0;
    rs->moved_before = q->reappended_bytes;
    rs->filled_to = file_bytes(q, q->segment_count);
    rs->segments = calloc(count, sizeof *rs->segments);
    bool grows = count > q->segment_count;
    if (grows && (rs->zeros = aligned_alloc(FSIO_ALIGN, FILL_BYTES)))
        memset(rs->zeros, 0, FILL_BYTES);
    if (!rs->segments || (grows && !rs->zeros)) {
        finish(q, -ENOMEM);
        return -ENOMEM;
    }
    rs->step = grows ? RESIZE_FILLING : RESIZE_MOVING;
    LOG(queue_resize, LF_U64("ring", q->opt.ring_index), LF_U64("bytes", q->data_bytes),
        LF_U64("target", count * q->segment_bytes), LF_CSTR("text", "the ring is being resized"));
    timer_arm(q->loop, &rs->timer, STEP_MS);
    return 0;
}

void queue_resize_state(const struct queue *q, struct queue_resize_state *out)
{
    static const char *const names[] = {[RESIZE_NONE] = NULL,
                                        [RESIZE_FILLING] = "filling",
                                        [RESIZE_MOVING] = "moving",
                                        [RESIZE_SWITCHING] = "switching",
                                        [RESIZE_CUTTING] = "cutting"};
    const struct qresize *rs = &q->resize;
    *out = (struct queue_resize_state){.step = names[rs->step],
                                       .target_bytes = rs->segment_count * q->segment_bytes,
                                       .filled_bytes = rs->filled_to ? rs->filled_to - DISK_DATA_AT : 0,
                                       .err = rs->err};
}
