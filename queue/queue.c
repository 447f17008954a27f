/* queue/queue.c: a ring from open to close. */
#include "queue/queue.h"

#include <errno.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "queue/crc32c.h"
#include "queue/queue_priv.h"

#define HOT_BYTES_DEFAULT         (UINT64_C(16) << 20)
#define HOT_BYTES_MIN             (UINT64_C(4) << 20)
#define PROGRESS_FLUSH_MS_DEFAULT 200u
#define HIGH_WATER_DEFAULT        90u
#define CHUNKS_PER_UNIT                                                                                      \
    8u /* that many largest chunks fill a unit: a chunk that does not fit wastes an eighth */

/* ---- memory ---- */

static void lists_init(struct queue *q)
{
    struct list *const lists[] = {&q->sealed,          &q->blocks_free,     &q->blocks_used,    &q->writers,
                                  &q->writers_waiting, &q->commits_waiting, &q->commits_failed, &q->messages,
                                  &q->cursors,         &q->dirty,           &q->syncs};
    for (size_t i = 0; i < COUNT_OF(lists); i++)
        list_init(lists[i]);
}

static void pools_init(struct queue *q)
{
    pool_init(&q->msg_pool, "queue_message", sizeof(struct qmsg), 0);
    pool_init(&q->writer_pool, "queue_writer", sizeof(struct queue_writer), 0);
    pool_init(&q->stage_pool, "queue_stage", QSTAGE_BYTES, 0);
    pool_init(&q->extent_pool, "queue_extents", sizeof(struct qextent_block), 0);
    pool_init(&q->batch_pool, "queue_batch", sizeof(struct qbatch), 0);
    pool_init(&q->move_pool, "queue_move", sizeof(struct qmove), 0);
    pool_init(&q->slice_pool, "queue_slice", sizeof(struct qslice), 0);
    pool_init(&q->read_pool, "queue_read", sizeof(struct qread), 0);
}

static void ring_free(struct queue *q)
{
    must(!q->writing && !q->super.writing && q->reads_inflight == 0);
    qindex_free(q);
    qbatches_free(q);
    qblocks_free(q);
    qbuffers_free(q);
    qdamage_join(q);
    qresize_free(q);
    struct pool *const pools[] = {&q->msg_pool,   &q->writer_pool, &q->stage_pool, &q->extent_pool,
                                  &q->batch_pool, &q->move_pool,   &q->slice_pool, &q->read_pool};
    for (size_t i = 0; i < COUNT_OF(pools); i++)
        pool_free(pools[i]);
    fsio_close(&q->file);
    free(q->segments);
    free(q->space);
    qreclaim_free(q);
    free(q->super.disk);
    free(q->directory);
    free(q);
}

static err_t ring_new(struct queue **out, const struct queue_options *opt)
{
    struct queue *q = calloc(1, sizeof *q);
    if (!q)
        return -ENOMEM;
    lists_init(q);
    pools_init(q);
    q->opt = *opt;
    q->file.fd = -1;
    q->delay_fd = -1;
    if (q->opt.hot_bytes == 0)
        q->opt.hot_bytes = HOT_BYTES_DEFAULT;
    q->opt.hot_bytes = MAX(q->opt.hot_bytes, HOT_BYTES_MIN);
    if (q->opt.progress_flush_ms == 0)
        q->opt.progress_flush_ms = PROGRESS_FLUSH_MS_DEFAULT;
    if (q->opt.high_water_percent == 0 || q->opt.high_water_percent > 100)
        q->opt.high_water_percent = HIGH_WATER_DEFAULT;
    q->directory = strndup(opt->directory.p, opt->directory.n);
    q->super.disk = aligned_alloc(FSIO_ALIGN, DISK_SECTOR);
    bool ok = q->directory && q->super.disk;
    q->opt.directory = str_cstr(q->directory);
    int n = ok ? snprintf(q->path, sizeof q->path, "%s/ring-%02u", q->directory, opt->ring_index) : -1;
    if (n < 0 || (size_t)n >= sizeof q->path) {
        ring_free(q);
        return ok ? -ENAMETOOLONG : -ENOMEM;
    }
    *out = q;
    return 0;
}

/* ---- open ---- */

static void choose_geometry(const struct queue_options *opt, uint64_t *segment_bytes, uint32_t *segment_count)
{
    uint64_t ring = opt->ring_bytes, segment = opt->segment_bytes;
    if (segment == 0) {
        ring = MAX(ring, QRING_BYTES_MIN);
        segment = UINT64_C(1) << 20;
        while (segment < ring / 64 && segment < UINT64_C(16) << 20)
            segment *= 2;
    }
    *segment_bytes = segment;
    *segment_count = (uint32_t)MAX((ring + segment - 1) / segment, (uint64_t)QSEGMENT_COUNT_MIN);
}

/* Made under another name, so that a ring has its superblock from its first moment on. */
static err_t create_file(struct queue *q)
{
    char fresh[QPATH_BYTES];
    if (snprintf(fresh, sizeof fresh, "%s.new", q->path) >= (int)sizeof fresh)
        return -ENAMETOOLONG;
    uint64_t segment_bytes;
    uint32_t segment_count;
    choose_geometry(&q->opt, &segment_bytes, &segment_count);
    if (segment_bytes < QSEGMENT_BYTES_MIN || segment_bytes & (segment_bytes - 1))
        return -EINVAL;
    err_t err = fsio_create(fresh, DISK_DATA_AT + segment_bytes * segment_count);
    struct fsio_file f = {.fd = -1};
    if (!err)
        err = fsio_open(&f, fresh);
    if (!err)
        err = qsuper_create(q, &f, segment_bytes, segment_count);
    fsio_close(&f);
    if (!err)
        err = fsio_rename(fresh, q->path);
    if (err && fsio_remove(fresh)) /* may not exist; the first error is the one to tell */
        return err;
    return err;
}

static err_t adopt_geometry(struct queue *q)
{
    const struct disk_super *d = &q->super.now;
    q->segment_bytes = d->segment_bytes;
    q->segment_count = d->segment_count;
    q->base_segment = d->base_segment;
    q->data_bytes = d->segment_bytes * d->segment_count;
    q->unit_bytes = (uint32_t)MIN(d->segment_bytes, (uint64_t)QUNIT_BYTES_MAX);
    q->chunk_max = (uint32_t)ALIGN_DOWN((q->unit_bytes - DISK_BATCH_HEAD) / CHUNKS_PER_UNIT, 8) -
                   (uint32_t)sizeof(struct disk_record);
    q->commit_max = MIN(QCOMMIT_BYTES_MAX, q->unit_bytes - DISK_SECTOR);
    /* Both halves of the salt are needed to make a record: one is in its magic, both are in its CRC. */
    q->magic = DISK_RECORD_MAGIC ^ (uint32_t)(d->salt >> 32);
    q->seed = crc32c(0, &d->salt, sizeof d->salt);
    q->next_id = d->id_limit;
    q->tail_segment = q->durable_tail = d->tail_segment;
    q->segments = calloc(q->segment_count, sizeof *q->segments);
    q->space = calloc(1, sizeof *q->space);
    if (!q->segments || !q->space)
        return -ENOMEM;
    q->space->used_to = UINT64_MAX;
    for (uint32_t i = 0; i < q->segment_count; i++)
        qsegment_init(&q->segments[i]);
    qkeep_init(q);
    qreclaim_init(q);
    return qblocks_init(q);
}

/* The end of a file that was cut short is filled with zeros again: writes must find space that is there. */
static err_t mend_length(struct queue *q, struct gbuf *notes)
{
    uint64_t bytes = DISK_DATA_AT + q->data_bytes;
    if (q->file.bytes >= bytes)
        return 0;
    gbuf_printf(notes, "ring-%02u: the file is %llu bytes short; what stood there is lost\n",
                q->opt.ring_index, (unsigned long long)(bytes - q->file.bytes));
    return fsio_extend(&q->file, bytes);
}

/* An interrupted resize leaves more of the file than the ring needs. Only now: the older superblock, which
 * may know of a longer ring, has just been overwritten. */
static err_t cut_rest(struct queue *q, struct gbuf *notes)
{
    uint64_t bytes = DISK_DATA_AT + q->data_bytes;
    if (q->file.bytes <= bytes)
        return 0;
    gbuf_printf(notes, "ring-%02u: %llu bytes behind its end, of an interrupted resize, are given back\n",
                q->opt.ring_index, (unsigned long long)(q->file.bytes - bytes));
    err_t err = fsio_cut(&q->file, bytes);
    if (!err)
        q->file.bytes = bytes;
    return err;
}

static err_t ring_open_file(struct queue *q, bool may_create, struct gbuf *notes)
{
    err_t err = fsio_find(q->path);
    if (err == -ENOENT)
        err = may_create ? create_file(q) : ERR_NOT_FOUND;
    if (!err)
        err = fsio_open(&q->file, q->path);
    if (!err)
        err = qrecover_super(q, notes);
    if (!err)
        err = adopt_geometry(q);
    return err ? err : mend_length(q, notes);
}

static void report_open(struct queue *q, bool is_own, bool was_clean, uint64_t start_ns, struct gbuf *notes)
{
    const char *mode = q->file.direct ? "direct" : "buffered";
    unsigned ring = q->opt.ring_index;
    if (!q->file.direct)
        gbuf_printf(notes, "ring-%02u: buffered writes with fdatasync: %s\n", ring, q->file.why);
    if (!was_clean)
        gbuf_printf(notes, "ring-%02u: was not shut down cleanly; recovered\n", ring);
    if (is_own && ALIGN_UP(q->opt.ring_bytes, q->segment_bytes) != q->data_bytes)
        gbuf_printf(notes,
                    "ring-%02u: has %llu MiB, not what spool.ring_size says; `postern queue resize` gives it "
                    "that size\n",
                    ring, (unsigned long long)(q->data_bytes >> 20));
    LOG(queue_open, LF_U64("ring", q->opt.ring_index), LF_CSTR("file", q->path),
        LF_U64("bytes", q->data_bytes), LF_U64("live", q->message_count), LF_CSTR("mode", mode),
        LF_CSTR("clean", was_clean ? "yes" : "no"), LF_U64("ms", (clock_mono_ns() - start_ns) / NS_PER_MS));
}

err_t qopen(struct queue **out, const struct queue_options *opt, bool may_create, struct gbuf *notes)
{
    uint64_t start_ns = clock_mono_ns();
    struct queue *q;
    err_t err = ring_new(&q, opt);
    if (err)
        return err;
    err = ring_open_file(q, may_create, notes);
    bool was_clean = q->super.now.flags & SUPER_CLEAN || q->super.now.generation <= 1;
    if (!err)
        err = qrecover(q, notes);
    if (!err) {
        qindex_sort(q);
        qindex_advance_tail(q);
        err = qsuper_write_blocking(q); /* no longer clean; new ids; the tail */
    }
    if (!err)
        err = cut_rest(q, notes);
    if (err) {
        if (err != ERR_NOT_FOUND)
            gbuf_printf(notes, "ring-%02u: %s: %s\n", opt->ring_index, q->path, err_text(err));
        ring_free(q);
        return err;
    }
    report_open(q, may_create, was_clean, start_ns, notes);
    *out = q;
    return 0;
}

err_t queue_open(struct queue **out, const struct queue_options *opt, void (*live)(void *ctx, struct qmsg *m),
                 void *ctx, struct gbuf *notes)
{
    err_t err = qopen(out, opt, true, notes);
    if (err)
        return err;
    LIST_EACH(&(*out)->messages, k)
    live(ctx, container_of(k, struct qmsg, all_link));
    return 0;
}

void queue_start(struct queue *q, struct loop *l)
{
    q->loop = l;
    q->durable_batch = q->next_batch;
    qbatch_start_loop(q);
    qsuper_start_loop(q);
    qprogress_start_loop(q);
    qreclaim_start_loop(q);
    qscrub_start_loop(q);
    qresize_start_loop(q);
    metric_set(M_queue_bytes_total, (int64_t)q->data_bytes);
    metric_set(M_queue_bytes_used, (int64_t)qspace_used(q));
}

/* ---- close ---- */

static void loop_leave(struct queue *q)
{
    if (!q->loop)
        return;
    qreclaim_stop(q);
    qscrub_stop(q);
    qresize_stop(q);
    qbatch_stop_loop(q);
    timer_disarm(q->loop, &q->progress_timer);
}

static void close_finish(struct queue *q)
{
    void (*closed)(void *ctx) = q->closed;
    void *ctx = q->closed_ctx;
    loop_leave(q);
    ring_free(q);
    closed(ctx);
}

/* Progress that finds no room any more is lost, as in a crash: a delivery may be repeated. */
static bool has_unwritten(struct queue *q)
{
    if (q->error)
        return false;
    if (!list_empty(&q->commits_waiting) || !list_empty(&q->sealed) || (q->open && q->open->count > 0))
        return true;
    return !list_empty(&q->dirty) && !q->close_flushed;
}

void qclose_step(struct queue *q)
{
    if (!q->closing || q->writing || q->super.writing || q->reads_inflight > 0 || q->delay_armed ||
        !qresize_is_done(q))
        return;
    if (has_unwritten(q)) {
        q->close_flushed =
            list_empty(&q->sealed); /* what is marked is appended in this round, or finds no room */
        q->urgent = true;
        qbatch_request(q);
        return;
    }
    if (!q->error && !q->super.closed) {
        qbatch_seal(q);
        q->super.closed = true;
        qsuper_request(q);
        return;
    }
    close_finish(q);
}

void queue_close(struct queue *q, void (*closed)(void *ctx), void *ctx)
{
    must(list_empty(&q->writers));
    q->closing = true;
    q->closed = closed;
    q->closed_ctx = ctx;
    if (q->loop) {
        qreclaim_stop(q);
        qscrub_stop(q);
        qresize_stop(q);
        qbatch_request(q);
        return;
    }
    qprogress_append(q);
    q->super.closed = qbatch_write_blocking(q) == 0;
    if (qsuper_write_blocking(q))
        metric_inc(M_queue_errors);
    close_finish(q);
}

void queue_discard(struct queue *q)
{
    loop_leave(q);
    ring_free(q);
}

/* ---- figures ---- */

void queue_stats(const struct queue *q, struct queue_stats *out)
{
    *out = (struct queue_stats){
        .ring_bytes = q->data_bytes,
        .used_bytes = qspace_used(q),
        .live_bytes = q->live_bytes,
        .message_count = q->message_count,
        .pending_rcpt_count = q->pending_rcpt_count,
        .commits = q->commits,
        .reappended_bytes = q->reappended_bytes,
        .damaged_records = q->damaged_records,
        .accepted_bytes = q->accepted_bytes,
        .written_bytes = q->written_bytes,
        .segment_count = q->segment_count,
        .free_segment_count = qspace_free_segments(q),
        .kept_segment_count = (uint32_t)q->keeping.kept_count,
        .direct_io = q->file.direct,
        .full = q->full,
        .error = q->error,
    };
}
