/* queue/super.c: the superblock: where the tail is, which ids were given out, what damage is known. Two slots
 * written in turn, so that one of them is whole at any time. */
#include <errno.h>

#include "core/clock.h"
#include "core/rng.h"
#include "queue/crc32c.h"
#include "queue/queue_priv.h"

#define SEGMENT_BYTES_MAX (UINT64_C(1) << 30)

uint32_t qsuper_crc(const struct disk_super *d)
{
    return crc32c(0, d, offsetof(struct disk_super, crc));
}

bool qsuper_geometry_is_sane(const struct disk_super *d)
{
    bool power_of_two = d->segment_bytes && (d->segment_bytes & (d->segment_bytes - 1)) == 0;
    return power_of_two && d->segment_bytes >= QSEGMENT_BYTES_MIN && d->segment_bytes <= SEGMENT_BYTES_MAX &&
           d->segment_count >= QSEGMENT_COUNT_MIN && d->segment_count <= QSEGMENT_COUNT_MAX &&
           d->known_count <= DISK_KNOWN_MAX && d->tail_segment >= d->base_segment &&
           d->tail_segment < UINT64_MAX / d->segment_bytes - QSEGMENT_COUNT_MAX;
}

/* Ids of a spool are unique for ever, also over rings that went and came back: ring number, a random tag of
 * this ring's life, and a counter with a random start. */
static uint64_t first_id(uint32_t ring_index)
{
    uint64_t random;
    rng_bytes(&random, sizeof random);
    uint64_t tag = random >> 48, counter = random & ((UINT64_C(1) << 38) - 1);
    return (uint64_t)(ring_index & 255) << 56 | tag << 40 | counter;
}

err_t qsuper_create(struct queue *q, struct fsio_file *f, uint64_t segment_bytes, uint32_t segment_count)
{
    struct disk_super *d = q->super.disk;
    memset(d, 0, sizeof *d);
    d->magic = DISK_SUPER_MAGIC;
    d->version = DISK_FORMAT_VERSION;
    rng_bytes(d->uuid, sizeof d->uuid);
    rng_bytes(&d->salt, sizeof d->salt);
    d->segment_bytes = segment_bytes;
    d->segment_count = segment_count;
    d->ring_index = q->opt.ring_index;
    d->id_limit = first_id(q->opt.ring_index);
    d->next_batch = 1;
    d->created_ms = clock_wall_ns() / NS_PER_MS;
    err_t err = 0;
    for (uint32_t slot = 0; slot < 2 && !err; slot++) {
        d->generation = slot;
        d->crc = qsuper_crc(d);
        err = fsio_write_durable(f, d, sizeof *d, (uint64_t)slot * DISK_SECTOR);
    }
    return err;
}

/* ---- known damage ---- */

bool qsuper_is_known(const struct queue *q, uint64_t from, uint64_t to)
{
    for (uint32_t i = 0; i < q->super.now.known_count; i++)
        if (q->super.now.known[i].from <= from && to <= q->super.now.known[i].to)
            return true;
    return false;
}

void qsuper_add_known(struct queue *q, uint64_t from, uint64_t to)
{
    struct disk_super *d = &q->super.now;
    if (qsuper_is_known(q, from, to))
        return;
    if (d->known_count == DISK_KNOWN_MAX) { /* the oldest is forgotten: it may be reported once more */
        memmove(d->known, d->known + 1, (DISK_KNOWN_MAX - 1) * sizeof d->known[0]);
        d->known_count--;
    }
    d->known[d->known_count++] = (struct disk_range){from, to};
}

static void drop_known_before(struct disk_super *d, uint64_t position)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < d->known_count; i++)
        if (d->known[i].to > position)
            d->known[kept++] = d->known[i];
    memset(d->known + kept, 0, (DISK_KNOWN_MAX - kept) * sizeof d->known[0]);
    d->known_count = kept;
}

/* ---- writing ---- */

/* What the disk shall know, into the buffer that is written. Returns the file offset of the slot whose turn
 * it is. */
static uint64_t fill(struct queue *q)
{
    struct disk_super *d = q->super.disk;
    *d = q->super.now;
    d->generation++;
    d->tail_segment = q->tail_segment;
    if (q->keeping.kept_count > 0)
        d->version = DISK_VERSION_KEPT;
    d->next_batch = q->next_batch;
    if (q->next_id + QID_STEP / 2 > d->id_limit)
        d->id_limit += QID_STEP;
    drop_known_before(d, d->tail_segment * d->segment_bytes);
    d->flags = q->super.closed ? SUPER_CLEAN : 0;
    d->clean_head = q->super.closed ? q->head : 0;
    qresize_fill_super(q, d);
    d->crc = qsuper_crc(d);
    return (d->generation & 1) * DISK_SECTOR;
}

static void written(struct queue *q)
{
    q->super.now = *q->super.disk;
    q->durable_tail = q->super.now.tail_segment;
    q->keeping.round++;
    qkeep_sweep(q);
    qreclaim_retry(q);
}

err_t qsuper_write_blocking(struct queue *q)
{
    uint64_t at = fill(q);
    err_t err = fsio_write_durable(&q->file, q->super.disk, DISK_SECTOR, at);
    if (!err)
        written(q);
    return err;
}

static void write_done(struct fsio_io *io, err_t err)
{
    struct queue *q = container_of(io, struct queue, super.io);
    q->super.writing = false;
    if (err) {
        q->super.again = true; /* by the retry timer */
        qring_failed(q, err);
    } else {
        written(q);
        qresize_super_written(q);
        qring_works(q);
        if (q->super.again)
            qsuper_request(q);
        qindex_advance_tail(q);
    }
    qbatch_request(q); /* somebody may have waited for this space */
    qclose_step(q);
}

static void write_start(struct queue *q)
{
    q->super.writing = true;
    q->super.again = false;
    uint64_t at = fill(q);
    fsio_write_durable_async(&q->super.io, q->loop, &q->file, q->super.disk, DISK_SECTOR, at);
}

void qsuper_start_loop(struct queue *q)
{
    q->super.io.done = write_done;
}

void qsuper_request(struct queue *q)
{
    if (!q->loop)
        return;
    if (q->super.writing || q->error)
        q->super.again = true;
    else
        write_start(q);
}

void qsuper_retry(struct queue *q)
{
    must(!q->super.writing);
    write_start(q);
}
