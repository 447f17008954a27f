/* queue/queue_priv.h: one ring in memory. All on the ring's own thread.
 *
 * The files: batch.c builds and writes batches in the memory of blocks.c; writer.c puts messages in; reader.c
 * gets them out; index.c knows which live and which segments they need; progress.c keeps their states;
 * reclaim.c moves the living away from the tail; keep*.c lets full segments stay behind it; space.c knows how
 * far one may write; scrub.c looks for rot; resize.c gives the ring another size;
 * super.c makes the tail durable; recovery*.c rebuild all this from the disk. */
#ifndef QUEUE_QUEUE_PRIV_H
#define QUEUE_QUEUE_PRIV_H

#include <pthread.h>

#include "core/map.h"
#include "core/pool.h"
#include "queue/format_priv.h"
#include "queue/fsio.h"
#include "queue/queue.h"

#define QUNIT_BYTES_MAX                                                                                      \
    (UINT32_C(1) << 20) /* no batch crosses a multiple of it: one unit of memory, one sequential read */
#define QCOMMIT_BYTES_MAX  (UINT32_C(900) << 10) /* payload of a commit record */
#define QSEGMENT_COUNT_MIN 8u
#define QSEGMENT_COUNT_MAX (1u << 20)
#define QSPACE_SPARE_SEGMENTS                                                                                \
    6u /* that mail never takes: the reserve, the one being written, and one for what padding wastes */
#define QSEGMENT_BYTES_MIN (UINT32_C(64) << 10)
#define QRING_BYTES_MIN    (UINT64_C(16) << 20)
#define QID_STEP           (UINT64_C(1) << 20) /* ids are reserved on disk this many at a time */
#define QSTAGE_BYTES       4096u /* smaller appends are collected, so that a body has no confetti of chunks */
#define QPATH_BYTES        4096

enum qmsg_flags {
    QMSG_LIVE = 1,     /* durable, and the owner knows it */
    QMSG_REMOVED = 2,  /* out of the index; waits for its remove record, its pins, its move */
    QMSG_MOVING = 4,   /* its new commit record is on the way to the disk */
    QMSG_RELINK = 8,   /* moved while pinned: the old segment is kept until the last pin goes */
    QMSG_LOST = 16,    /* its commit record could not be read when its segment had to go */
    QMSG_COUNTED = 32, /* in its segment's figures */
    QMSG_NAMED = 64,   /* removed, and a keep record names it: its segment waits for the remove record */
};

_Static_assert(sizeof(struct qmsg) + 3 * 16 <= 256, "an index entry with its share of the map");

/* ---- memory of the log's newest part ---- */

struct qblock {
    uint64_t unit;       /* holds the ring positions unit * unit_bytes ... */
    uint32_t valid_from; /* ... from this offset on: what stood before it was written by an earlier process */
    uint32_t pins;       /* slices; changed by qblock_pin() and qblock_unpin() */
    uint32_t unwritten;  /* batches in it that are not durable */
    uint8_t *p;
    struct link link; /* in q->blocks_free or q->blocks_used (oldest first) */
};

struct qblock *qblock_take(struct queue *q, uint64_t position); /* NULL: all are pinned or unwritten */
/* The record at `position` in memory, or NULL. */
const struct disk_record *qblock_find(const struct queue *q, uint64_t position, struct qblock **block);
void qblock_pin(struct queue *q, struct qblock *b);
void qblock_unpin(struct queue *q, struct qblock *b);
/* May a slice pin it, for as long as a slow receiver likes? */
bool qblock_may_pin(const struct queue *q, const struct qblock *b);
err_t qblocks_init(struct queue *q);
void qblocks_free(struct queue *q);

/* Aligned buffers for reading, in a few sizes, kept for reuse. */
void *qbuffer_get(struct queue *q, size_t bytes); /* NULL: no memory */
void qbuffer_put(struct queue *q, void *p, size_t bytes);
void qbuffers_free(struct queue *q);

/* ---- batches ---- */

/* One durable write: open (the newest), then sealed, then being written. */
struct qbatch {
    struct link link; /* q->sealed, oldest first */
    uint64_t at;
    uint32_t bytes, count;
    uint64_t sequence; /* once sealed */
    struct qblock *block;
    struct list commits; /* struct qcommit */
    struct list moves;   /* struct qmove */
    struct list keeps;   /* struct qsegment, by pending_link */
    uint32_t commit_count;
    bool has_progress;
};

/* How deep into the free space one may go. What needs no new room in the long run may go further. */
enum qspace { QSPACE_MAIL, QSPACE_RECLAIM, QSPACE_PROGRESS };

struct qplace {
    uint64_t at;      /* the record's position */
    uint8_t *payload; /* where the caller puts it */
};

/* Room for a record in the open batch. ERR_PENDING: no memory until a write ends or pins go; ERR_FULL: no
 * space in the ring for this purpose at the moment. */
err_t qbatch_reserve(struct queue *q, enum qspace space, uint32_t bytes, struct qplace *out) WARN_UNUSED;
/* Completes the record just reserved, whose payload is in place. */
void qbatch_finish(struct queue *q, const struct qplace *place, const struct disk_record *r);
/* Bytes of payload that fit into the open batch's unit; 0: a new unit is needed. */
uint32_t qbatch_room(const struct queue *q);
void qbatch_seal(struct queue *q);
void qbatch_request(struct queue *q); /* look at the end of this tick whether to write */
void qbatch_start_loop(struct queue *q);
void qbatch_stop_loop(struct queue *q);
err_t qbatch_write_blocking(struct queue *q) WARN_UNUSED; /* boot: everything that is sealed or open */
uint64_t qbatch_head(const struct queue *q);              /* where the log ends, open batch included */
uint64_t qbatch_unwritten(const struct queue *q);         /* where the first byte lies that is not durable */
void qbatches_free(struct queue *q);

void qring_failed(struct queue *q, err_t err); /* a write failed: refuse mail, try again later */
void qring_works(struct queue *q);             /* one worked: if they had failed, the rest is tried now */

/* ---- putting in ---- */

struct qextent_block {
    struct qextent_block *next; /* owned */
    uint32_t count, reserved;
    struct disk_extent e[63];
};

/* From queue_commit until its callback. */
struct qcommit {
    struct link link;
    struct qmsg *m;   /* in the index, not yet live */
    uint64_t at;      /* the record's */
    uint8_t *payload; /* owned (malloc): the record while it waits for its place; else NULL */
    uint32_t bytes;
    err_t err;
    void (*done)(void *ctx, err_t err, struct qmsg *m);
    void *ctx;
};

struct queue_writer {
    struct queue *q;
    uint64_t id;
    struct qextent_block *first, *last; /* owned */
    struct disk_extent *growing;        /* the chunk at the end of the open batch, when it is ours */
    uint32_t extent_count;
    uint32_t staged_bytes;
    uint8_t *staged; /* owned; QSTAGE_BYTES */
    uint64_t body_bytes, ring_bytes;
    uint64_t lowest_segment;
    bool is_report;
    err_t err; /* what queue_commit will say; appends are swallowed from then on */
    void (*writable)(void *ctx);
    void *ctx;
    struct link wait_link, segment_link, open_link;
    struct qcommit commit; /* here, so that a commit needs no memory to fail */
};

void qwriter_end_growing(struct queue *q);
void qwriter_durable(struct queue *q, struct list *commits);      /* their batch is on the disk */
void qwriter_fail(struct queue *q, struct qcommit *c, err_t err); /* its callback runs at the tick's end */
void qwriter_fail_all_waiting(struct queue *q, err_t err);
void qwriter_run_failed(struct queue *q);
void qwriter_pump(struct queue *q); /* everybody who waits for memory or space tries again */
struct disk_extent *qextent_at(const struct queue_writer *w, uint32_t index);
void qwriter_relink(struct queue_writer *w); /* after its extents changed */

/* ---- the index ---- */

/* How far one may write, worked out when something changed. */
struct qspace_cache {
    uint64_t used_to, tail, durable_tail, version; /* what it was worked out for */
    uint32_t free_count, coming_count;
    uint64_t limit[3]; /* by enum qspace: position */
};

#define QSEGMENT_NONE UINT64_MAX

/* A slot of the file, and the segment that is in it. */
struct qsegment {
    /* Whose lowest segment it is: messages that lie in it from end to end; others; those that are still
     * coming in. */
    struct list messages, spread, writers;
    uint64_t live_bytes; /* of `messages` */
    uint32_t live_count, rcpt_count;

    /* Kept behind the tail: see keep.c. */
    uint64_t kept;            /* the segment that stays here, or QSEGMENT_NONE */
    struct list homes;        /* kept segments, by home_link, whose keep records begin in this one */
    struct link home_link;    /* in the `homes` of the segment that has its keep records */
    struct link leaving_link; /* in keeping.leaving */
    uint64_t record_bytes;    /* of its keep records */
    uint64_t last_at;         /* no keep record stands behind it */
    uint64_t removed_batch;   /* the batch with the last remove record of its messages */
    uint32_t unlogged_count;  /* messages whose remove record is in no batch yet */
    uint64_t tried_at;        /* round in which it could not be dissolved */
    struct link pending_link; /* in the `keeps` of the batch with its new keep records */
    uint64_t pending_segment, pending_first_at, pending_bytes;
};

void qsegment_init(struct qsegment *s);
uint32_t qslot_of(const struct queue *q, uint64_t segment);
struct qsegment *qsegment_of(const struct queue *q, uint64_t segment);
struct qmsg *qindex_new(struct queue *q, uint64_t id,
                        uint32_t rcpt_count); /* in the map, in no list; NULL: no memory */
void qindex_link(struct queue *q, struct qmsg *m, uint64_t lowest_segment);
void qindex_uncount(struct queue *q, struct qmsg *m); /* out of its segment's figures, until it is linked */
void qindex_set_live(struct queue *q, struct qmsg *m);
void qindex_drop(struct queue *q, struct qmsg *m); /* never was live: frees */
void qindex_remove(struct queue *q, struct qmsg *m);
void qindex_free_if_done(struct queue *q, struct qmsg *m);
void qindex_unpin(struct queue *q, struct qmsg *m);
uint8_t *qindex_states(struct qmsg *m);
void qindex_take_states(struct qmsg *m, const uint8_t *states); /* from the disk */
/* enum disk_commit_flags, from and to the disk; bits of a later version are of no use without it. */
static inline uint32_t qindex_flags(const struct qmsg *m)
{
    return (m->held ? COMMIT_HELD : 0u) | (m->warned ? COMMIT_WARNED : 0u);
}
static inline void qindex_take_flags(struct qmsg *m, uint32_t flags)
{
    m->held = flags & COMMIT_HELD;
    m->warned = flags & COMMIT_WARNED;
}
void qindex_sort(struct queue *q); /* by age; boot only */
void qindex_free(struct queue *q);
/* The tail moves past segments that nobody needs. */
void qindex_advance_tail(struct queue *q);

uint64_t qspace_limit(const struct queue *q, enum qspace space); /* position that it must not pass */
uint32_t qspace_free_segments(const struct queue *q);
uint64_t qspace_next(const struct queue *q,
                     uint64_t position);       /* a unit's start: past segments that are kept */
uint64_t qspace_used(const struct queue *q);   /* bytes that are not free */
uint32_t qspace_coming(const struct queue *q); /* segments that are free as soon as the superblock says so */
uint64_t qspace_room(const struct queue *q, enum qspace space); /* bytes of it from the head on */
uint64_t qspace_live_max(const struct queue *q);                /* high water: when MAIL is refused */
uint64_t qspace_live_max_of(const struct queue *q, uint64_t data_bytes); /* if the ring had that size */
uint64_t qspace_live_limit(const struct queue *q); /* with more, the tail's could not be moved any longer */
bool qspace_is_hopeless(const struct queue *q);    /* no space will come but by messages leaving */

/* ---- keep.c, keep_write.c, keep_entry.c: segments full of living mail stay where they are ---- */

#define QKEEP_RCPT_MAX 900u /* messages with more recipients are moved, never kept */

/* What a keep record says of a message; its states follow. docs/on-disk-format.md has the bytes. */
struct qkeep_entry {
    uint64_t id, arrived_ms, due_ms;
    uint64_t offset;       /* of its commit record in the segment */
    uint64_t commit_bytes; /* header and padding included */
    uint64_t body_bytes;
    uint64_t ring_bytes; /* of all its records */
    uint64_t attempts, flags, rcpt_count;
};
/* `before`: the entry before, at first all zeros; becomes *e. */
uint8_t *qkeep_encode(uint8_t *to, struct qkeep_entry *before, const struct qkeep_entry *e);
/* *e: the entry before, at first all zeros. False: nothing that was written by us. */
bool qkeep_decode(const uint8_t **p, const uint8_t *end, struct qkeep_entry *e);

struct qkeeping {
    uint64_t kept_count, kept_live_bytes, record_bytes;
    uint64_t version;      /* changes with the set of kept segments */
    uint64_t round;        /* changes when dissolving is worth another try */
    uint64_t nothing_at;   /* the round in which nothing was found to dissolve */
    uint64_t wanted_bytes; /* that a message needs and does not get because of waste */
    uint64_t dissolving;   /* a kept segment, or QSEGMENT_NONE */
    struct list leaving;   /* kept segments in which nobody lives any more */

    /* The set of keep records that is being written. */
    uint64_t segment; /* or QSEGMENT_NONE */
    struct list todo; /* its messages that are not dealt with yet; they come back into its list */
    uint64_t first_at, last_at, last_end, bytes;
    uint32_t copies_left, record_count;
    uint8_t buffer[16u << 10];
};
void qkeep_init(struct queue *q);
bool qkeep_is_worth(const struct queue *q, uint64_t segment); /* rather than to move what lives in it */
uint64_t qkeep_waste(const struct queue *q); /* bytes in kept segments that nobody needs, and keep records */
void qkeep_want(struct queue *q, uint64_t bytes);                      /* waste may be what they wait for */
bool qkeep_is_sparse(const struct queue *q, const struct qsegment *s); /* better moved than named again */
bool qkeep_wants_dissolving(const struct queue *q);
struct qsegment *qkeep_dissolving(struct queue *q); /* NULL: nothing can be dissolved now */
void qkeep_begin(struct queue *q, struct qsegment *s, uint64_t segment);
void qkeep_end(struct queue *q, struct qsegment *s);
bool qkeep_may_name(const struct queue *q, const struct qmsg *m); /* is or will it be in a keep record? */
void qkeep_note_removed(struct queue *q, struct qmsg *m);         /* its remove record is in the open batch */
void qkeep_check(struct queue *q, uint64_t segment);              /* somebody left it */
void qkeep_watch(struct queue *q, uint64_t segment);              /* the last one may leave without a word */
bool qkeep_will_free(const struct queue *q);                      /* once records are durable */
void qkeep_sweep(struct queue *q);                                /* something became durable */
/* Recovery: a keep record of a segment behind the tail. False: it cannot be one. */
bool qkeep_found(struct queue *q, uint64_t segment, const struct disk_record *r);
void qkeep_recovered(struct queue *q);

uint64_t qkeep_set_bytes(const struct qsegment *s);               /* that its keep records take, roughly */
err_t qkeep_start(struct queue *q, uint64_t segment) WARN_UNUSED; /* ERR_FULL */
err_t qkeep_step(struct queue *q) WARN_UNUSED; /* ERR_PENDING, ERR_FULL as qbatch_reserve */
void qkeep_durable(struct queue *q, struct qsegment *s);
void qkeep_stop(struct queue *q);

/* ---- progress ---- */

void qprogress_mark(struct queue *q, struct qmsg *m);
void qprogress_append(struct queue *q); /* all that is marked, into the open batch, as far as there is room */
void qprogress_start_loop(struct queue *q);

/* ---- who waits for progress to be durable ---- */

void qsync_sealed(struct queue *q);  /* all batches were sealed; is all progress in them? */
void qsync_durable(struct queue *q); /* durable_batch moved; callbacks run: a caller's last act */
void qsync_fail_all(struct queue *q, err_t err);

/* ---- records ---- */

uint32_t qrecord_crc(const struct queue *q, uint64_t position, const struct disk_record *r,
                     const uint8_t *payload);
uint32_t qrecord_crc_seeded(uint32_t seed, uint64_t position, const struct disk_record *r,
                            const uint8_t *payload); /* without a ring */
/* Is there a whole, untouched record of this ring at p, which has n bytes? */
bool qrecord_is_valid(const struct queue *q, const uint8_t *p, size_t n, uint64_t position);
static inline uint32_t qrecord_bytes(uint32_t payload_bytes)
{
    return (uint32_t)sizeof(struct disk_record) + (uint32_t)ALIGN_UP(payload_bytes, 8);
}

/* A commit record's payload, taken apart and checked for consistency; pointers into it. */
struct qcommit_view {
    struct disk_commit head;
    const uint8_t *extents, *lengths, *states;
    const char *meta, *trace, *blobs;
};
err_t qcommit_parse(const uint8_t *payload, uint32_t bytes, struct qcommit_view *out) WARN_UNUSED;
struct disk_extent qcommit_extent(const struct qcommit_view *v, uint32_t index);
uint32_t qcommit_rcpt_bytes(const struct qcommit_view *v, uint32_t index);
/* Puts what changes during a message's life into a commit record's payload. */
void qcommit_patch(uint8_t *payload, struct qmsg *m);
void qcommit_patch_extent(uint8_t *payload, uint32_t index, struct disk_extent e);

/* ---- reading ---- */

/* A record being read into a buffer of the queue's; outlives whoever asked. */
struct qread {
    struct fsio_io io;
    struct queue *q;
    uint8_t *buffer; /* owned until taken */
    size_t buffer_bytes;
    uint64_t position;
    uint32_t bytes; /* of the record, header and padding included */
    uint8_t type;
    bool running;
    uint64_t id;
    void (*done)(void *ctx, struct qread *r, err_t err); /* NULL: nobody wants it any more */
    void *ctx;
};
struct qread *qread_start(struct queue *q, uint64_t position, uint32_t bytes, enum record_type type,
                          uint64_t id, void (*done)(void *ctx, struct qread *r, err_t err),
                          void *ctx); /* NULL: no memory */
void qread_forget(struct qread *r);   /* NULL is fine */
/* The record at p, which has `bytes`, when it is the one that is meant and whole; else NULL. */
const struct disk_record *qread_check(const struct queue *q, const uint8_t *p, uint64_t position,
                                      uint32_t bytes, enum record_type type, uint64_t id);
const struct disk_record *qread_record(const struct qread *r);
/* Blocking, for boot: reads and checks; *buffer is for qbuffer_put. */
err_t qread_blocking(struct queue *q, uint64_t position, uint32_t bytes, enum record_type type, uint64_t id,
                     uint8_t **buffer, size_t *buffer_bytes, const struct disk_record **out) WARN_UNUSED;
uint64_t qfile_at(const struct queue *q, uint64_t position); /* offset in the file */

/* ---- reclaim ---- */

/* A message's new commit record, not yet durable. */
struct qmove {
    struct link link;
    struct qmsg *m;
    uint64_t at, lowest_segment;
};

/* A unit of the log, read in one piece: its records are moved one after the other. */
struct qunit {
    struct fsio_io io;
    struct queue *q;
    uint8_t *p;      /* owned */
    uint64_t at;     /* position; UINT64_MAX: none */
    uint64_t bad_at; /* could not be read in one piece: its records are read one by one */
    bool reading;
};

struct qreclaim {
    struct tick_hook hook;
    struct qmsg *m;         /* being moved; the payload of its commit record is in `payload` */
    enum qspace space;      /* that it may use */
    uint64_t tail_moved;    /* the tail segment that was found not worth keeping */
    uint64_t from;          /* the segment that it has to leave: the tail, or a kept one */
    struct queue_writer *w; /* or this one */
    uint8_t *payload;       /* owned (malloc) */
    uint32_t payload_bytes;
    uint32_t extent_index;
    struct qread *reading;
    struct qread *arrived; /* owned */
    err_t arrived_err;
    struct qunit *unit;   /* owned; what lies around there, in one read */
    uint32_t error_count; /* reads that failed in a row; `pause` before the next one */
    struct timer pause;
    uint64_t budget_bytes; /* may still be moved */
    uint64_t earned_bytes; /* garbage that came since the budget was given */
    bool in_spurt;
    bool space_short; /* no room to move anything until qreclaim_retry() */
};
void qreclaim_init(struct queue *q);
/* reclaim_read.c. A record where it is hot, or as it was just read. ERR_PENDING: being read. Else damaged:
 * *raw has its bytes if they could be read at all. qreclaim_fetch_end unpins. */
err_t qreclaim_fetch(struct queue *q, uint64_t position, uint32_t bytes, enum record_type type, uint64_t id,
                     const struct disk_record **out, struct qblock **block, const uint8_t **raw) WARN_UNUSED;
void qreclaim_fetch_end(struct queue *q, struct qblock *block);
void qreclaim_read_forget(struct qreclaim *rc);
void qreclaim_read_init(struct queue *q);
void qreclaim_start_loop(struct queue *q);
void qreclaim_kick(struct queue *q);
void qreclaim_retry(struct queue *q); /* there is more space, or less to move */
bool qreclaim_can_gain(const struct queue *q);
void qreclaim_count(struct queue *q, uint32_t bytes); /* written for its purposes */
void qreclaim_forget_writer(struct queue *q, struct queue_writer *w);
void qreclaim_moved(struct queue *q, struct qmove *mv); /* durable */
void qreclaim_stop(struct queue *q);                    /* at close */
void qreclaim_free(struct queue *q);

/* ---- resize ---- */

struct qresize {
    enum { RESIZE_NONE, RESIZE_FILLING, RESIZE_MOVING, RESIZE_SWITCHING, RESIZE_CUTTING } step;
    uint32_t segment_count;    /* wanted */
    uint32_t written_count;    /* superblocks that say so */
    uint64_t base_segment;     /* from SWITCHING on */
    uint64_t filled_to;        /* the file's length */
    uint64_t moved_before;     /* reappended_bytes at the start */
    uint8_t *zeros;            /* owned */
    struct qsegment *segments; /* owned: for the new size */
    struct fsio_io io;
    bool is_filling;
    struct timer timer;
    pthread_t thread; /* in CUTTING */
    err_t cut_err;
    err_t err; /* how the last one ended */
};
void qresize_start_loop(struct queue *q);
void qresize_stop(struct queue *q);
bool qresize_is_done(const struct queue *q); /* no write of it is in flight */
void qresize_free(struct queue *q);
bool qresize_wants_moves(const struct queue *q); /* the tail shall move, whatever it gains */
uint64_t qresize_limit(const struct queue *q);   /* position that nothing may pass now */
void qresize_fill_super(const struct queue *q, struct disk_super *d);
void qresize_super_written(struct queue *q);

/* ---- scrub ---- */

struct qscrub {
    struct timer timer;
    uint64_t period_ms;  /* 0: only when asked */
    uint64_t started_ns; /* of the last lap; 0: none yet */
    uint64_t ready_ns;   /* what was read is paid for then */
    struct qmsg *next;   /* of this lap; NULL: none is left */
    struct qmsg *m;      /* being read; pinned while `reading` */
    struct qread *reading;
    uint8_t *payload; /* owned (malloc): of its commit record, which stood at commit_at */
    uint64_t commit_at;
    uint32_t payload_bytes, extent_index;
    uint32_t error_count; /* reads that failed in a row */
    bool keeping;         /* it is damaged, and read again for corrupt/, under the name of keep_at */
    bool again;           /* a new lap as soon as the read in flight ends */
    uint64_t keep_at, kept_bytes;
    struct queue_scrub_state state;
};
void qscrub_start_loop(struct queue *q);
void qscrub_stop(struct queue *q);
void qscrub_forget(struct queue *q, struct qmsg *m); /* it is about to leave the list of all messages */

/* ---- superblock ---- */

struct qsuper {
    struct disk_super *disk; /* owned, one aligned sector: being written */
    struct disk_super now;   /* what the disk has */
    struct fsio_io io;
    bool writing, again;
    bool closed; /* SUPER_CLEAN was written, or tried */
};
void qsuper_request(struct queue *q); /* make q's state durable soon */
void qsuper_retry(struct queue *q);   /* now, although the ring's last write failed */
err_t qsuper_write_blocking(struct queue *q) WARN_UNUSED;
void qsuper_start_loop(struct queue *q);
err_t qsuper_create(struct queue *q, struct fsio_file *f, uint64_t segment_bytes,
                    uint32_t segment_count) WARN_UNUSED;
uint32_t qsuper_crc(const struct disk_super *d);
bool qsuper_geometry_is_sane(const struct disk_super *d);
void qsuper_add_known(struct queue *q, uint64_t from, uint64_t to);
bool qsuper_is_known(const struct queue *q, uint64_t from, uint64_t to);

/* ---- damage found while running: kept by a thread of its own, since a worker never blocks ---- */

void qdamage_keep(struct queue *q, uint64_t position, const void *p, size_t n, uint64_t id, const char *text);
/* Only the bytes, without a report. False: too much at once, or no memory. */
bool qdamage_append(struct queue *q, uint64_t position, const void *p, size_t n);
bool qdamage_is_busy(struct queue *q); /* something is still being written */
void qdamage_join(struct queue *q);
void qdamage_report(struct queue *q, uint64_t position, uint64_t bytes, uint64_t id, bool kept,
                    const char *text);
err_t qdamage_path(const struct queue *q, uint64_t position, char *out, size_t n) WARN_UNUSED;
struct qdamage_job;

/* ---- boot ---- */

/* Rebuilds the index from q->file, whose superblock was read. Sets head, tail and next_batch. */
err_t qrecover(struct queue *q, struct gbuf *notes) WARN_UNUSED;
/* Reads both superblocks and decides; sets q->super.now. */
err_t qrecover_super(struct queue *q, struct gbuf *notes) WARN_UNUSED;
err_t qopen(struct queue **out, const struct queue_options *opt, bool may_create,
            struct gbuf *notes) WARN_UNUSED;

/* ---- the ring ---- */

struct queue {
    struct queue_options opt;
    char *directory; /* owned; opt.directory points to it */
    char path[QPATH_BYTES];
    struct fsio_file file;
    struct loop *loop; /* NULL before queue_start */

    uint64_t segment_bytes, data_bytes, base_segment;
    uint32_t segment_count, unit_bytes, chunk_max, commit_max;
    uint32_t magic, seed; /* of records, from the salt */

    struct qsuper super;
    struct qsegment *segments;  /* owned; by slot */
    struct qspace_cache *space; /* owned */
    uint64_t tail_segment;      /* the oldest that somebody needs, or that is not left yet */
    uint64_t durable_tail;      /* as the disk knows it */
    uint64_t next_id;

    uint64_t head; /* where the next batch starts */
    uint64_t next_batch;
    uint64_t durable_batch; /* all before this one are on the disk */
    struct qbatch *open;
    struct list sealed;
    struct qbatch *writing; /* the first of `sealed` */
    struct fsio_io write_io;
    uint64_t write_start_ns;
    struct tick_hook tick_hook;
    bool pumping;
    bool urgent; /* write what is open even if no commit waits */
    err_t error; /* of the last write, while it stands */
    struct timer retry_timer;
    uint64_t retry_ms;
    int delay_fd; /* timerfd for commit_delay_us; -1 = none */
    struct op delay_op;
    bool delay_armed, delay_over;

    uint8_t *memory;       /* owned: all blocks */
    struct qblock *blocks; /* owned */
    uint32_t block_count, pinned_count;
    struct list blocks_free, blocks_used;
    struct map64 block_map;
    struct qbuffer_class {
        void *free_list;
        uint32_t free_count;
    } buffers[3];

    struct queue_writer *growing; /* whose chunk is the unfinished last record of the open batch */
    struct qplace growing_place;
    uint32_t growing_max;
    struct list writers;         /* open ones */
    struct list writers_waiting; /* for memory or space, with a callback */
    struct list commits_waiting; /* for memory or space */
    struct list commits_failed;  /* callbacks due at the tick's end */

    struct map64 index;
    struct list messages; /* all that are live, oldest first */
    struct list cursors;  /* walks over them */
    struct list dirty;    /* progress not yet in a batch */
    struct list syncs;    /* who waits for it to be durable */
    struct timer progress_timer;
    uint64_t live_bytes, message_count, pending_rcpt_count;

    struct qreclaim reclaim;
    struct qkeeping keeping;
    struct qscrub scrub;
    struct qresize resize;

    struct pool msg_pool, writer_pool, stage_pool, extent_pool, batch_pool, move_pool, slice_pool, read_pool;
    uint32_t reads_inflight;
    struct qdamage_job *damage_jobs; /* owned */
    uint32_t damage_job_count;

    uint64_t commits, reappended_bytes, damaged_records;
    uint64_t accepted_bytes, written_bytes;
    bool full;

    bool closing, close_flushed;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

void qclose_step(
    struct queue *q); /* something ended: can the close go on? It may free q: the caller's last act */

#endif
