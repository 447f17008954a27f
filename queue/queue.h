/* queue/queue.h: accepted mail on disk. One ring file per worker, owned by that worker's thread and used on
 * no other (but queue_create/queue_open at boot). Knows nothing of SMTP: a message is opaque blobs (meta,
 * trace, one per recipient), a body, and a state per recipient.
 *
 * Promise: when a commit's callback says 0 the message survives a power cut. Nothing else may say so.
 * Format: docs/on-disk-format.md. Files go through queue/fsio.h only. */
#ifndef QUEUE_QUEUE_H
#define QUEUE_QUEUE_H

#include "core/arena.h"
#include "core/list.h"
#include "net/loop.h"

struct queue;
struct queue_writer;
struct qread; /* a read in flight; private */

/* On the disk too. REPORT_DUE: delivered, and its sender waits for a report of that. */
enum rcpt_state { RCPT_PENDING, RCPT_DELIVERED, RCPT_BOUNCED, RCPT_REMOVED, RCPT_REPORT_DUE };
/* Something is still to be done for it; a message without such a recipient leaves. */
static inline bool rcpt_state_is_open(enum rcpt_state state)
{
    return state == RCPT_PENDING || state == RCPT_REPORT_DUE;
}

/* The index entry of a queued message: <= 256 bytes all told. Read by owners; changed through queue_* only.
 */
struct qmsg {
    uint64_t id;         /* unique over all rings of this spool and for ever; qid_format() prints it */
    uint64_t arrived_ms; /* wall clock */
    uint64_t body_bytes; /* content as stored (dot-stuffed, terminator not included) */
    uint64_t due_ms;     /* wall clock of the next attempt, as recorded */
    uint32_t attempts;   /* finished attempts, as recorded */
    uint32_t rcpt_count, rcpt_pending; /* pending: with rcpt_state_is_open */
    bool held;
    bool damaged; /* some of it was found unreadable or changed since the process started */
    bool warned;  /* the sender was told that it is late */

    /* The owner's (relay). The queue never reads them. */
    void *owner;
    uint32_t owner_index;
    uint32_t owner_flags;
    struct link owner_link;

    /* queue-private */
    uint64_t commit_at;    /* ring position of the current commit record */
    uint32_t commit_bytes; /* its length on disk */
    uint32_t pins;         /* loads and bodies open: the message is not freed and not moved while > 0 */
    uint8_t flags;
    uint8_t state_inline[7]; /* rcpt states when rcpt_count <= 7 */
    uint8_t *state_more;     /* else; owned */
    uint64_t lowest_segment; /* sequence of the oldest ring segment that holds a record of this message */
    uint64_t ring_bytes;     /* of the ring taken by its records */
    struct link segment_link, all_link, progress_link;
};

struct queue_options {
    str_t directory;             /* must exist; made 0700 by the daemon */
    uint32_t ring_index;         /* worker number: file "ring-00", "ring-01", … */
    uint64_t ring_bytes;         /* rounded up to segments; an existing ring keeps its size */
    uint32_t commit_delay_us;    /* 0: commit as soon as the last one is done */
    uint32_t high_water_percent; /* above: queue_check_space says ERR_FULL */
    uint64_t hot_bytes; /* memory of recent batches kept for sending without reading back; default 16 MiB, min
                           4 MiB */
    uint64_t progress_flush_ms; /* progress records wait at most this long for a commit to ride in, default
                                   200: the window in which a crash can repeat a delivery */
    uint32_t segment_bytes;  /* of a new ring: 0 = ring_bytes/64 within 1..16 MiB; else a power of two >= 64
                                KiB, and ring_bytes may be smaller than 16 MiB: for tests and tools */
    uint32_t scrub_period_s; /* see queue_set_scrub */
};

/* Boot, on any thread, blocking: creates the ring file when missing (zero-filled, synced, renamed into
 * place), else recovers it. `live` is called once for every message that is still to be delivered, oldest
 * first. Notes for the boot log go to `notes` (one line each: direct or buffered I/O and why, damage found).
 * Errors: ERR_LOCKED (another process has the ring open), ERR_VERSION, -errno; text in `notes`. */
err_t queue_open(struct queue **out, const struct queue_options *opt, void (*live)(void *ctx, struct qmsg *m),
                 void *ctx, struct gbuf *notes) WARN_UNUSED;
/* Binds to the worker's loop; on its thread, before any asynchronous call. */
void queue_start(struct queue *q, struct loop *l);
/* Rings of workers that are gone ("ring-05" when 2 workers run): copies every live message, with its id,
 * states and times, into q durably, calls `live` for each, then renames the old file to ring-05.adopted-DATE
 * and removes it. Boot, blocking, after queue_open. */
err_t queue_adopt(struct queue *q, uint32_t ring_index, void (*live)(void *ctx, struct qmsg *m), void *ctx,
                  struct gbuf *notes) WARN_UNUSED;
/* Commits what is pending, writes progress, marks the ring clean; `closed` then frees everything (also each
 * qmsg). No writers or pins may be left. */
void queue_close(struct queue *q, void (*closed)(void *ctx), void *ctx);
/* For boot errors and tools, when queue_start was never called. */
void queue_discard(struct queue *q);

/* --- putting a message in --- */

/* 0, or ERR_FULL when a message of `bytes` (0 = unknown) would pass the high-water mark, or the ring's last
 * error. */
err_t queue_check_space(struct queue *q, uint64_t bytes);
/* An id for a message to come, never given out again, whether it is used or not; 0: none can be had now. */
uint64_t queue_new_id(struct queue *q);
/* May a message of another spool come in under its own id? Not when it is here, and not when we may give that
 * id to another one some day. */
bool queue_may_take_id(const struct queue *q, uint64_t id);
/* As queue_begin, for an id of queue_new_id (0: a new one), or one of another spool. */
err_t queue_begin_as(struct queue *q, uint64_t id, struct queue_writer **out) WARN_UNUSED;
err_t queue_begin(struct queue *q, struct queue_writer **out) WARN_UNUSED; /* ERR_FULL, -ENOMEM */
/* For a message that lets another one go, as a report does. It may use a segment that is kept from mail: a
 * ring full of messages that only wait for their reports would never get empty. */
err_t queue_begin_report(struct queue *q, struct queue_writer **out) WARN_UNUSED;
/* Copies into the commit buffer; returns how many bytes were taken. Fewer than n: memory is full of unwritten
 * data; `writable` is called once when there is room again. Never blocks. */
size_t queue_append(struct queue_writer *w, const void *p, size_t n, void (*writable)(void *ctx), void *ctx);
uint64_t queue_writer_id(const struct queue_writer *w); /* the id the message will have */

struct queue_commit {
    str_t meta;         /* the envelope's blob */
    str_t trace;        /* header lines in front of the body: "Received: …\r\n" */
    const str_t *rcpts; /* one blob each; total record <= 1 MiB else ERR_LIMIT */
    uint32_t rcpt_count;
    uint64_t arrived_ms;
    uint64_t due_ms; /* 0 = now */
    /* Of a message that was queued elsewhere before; all zero for a new one. */
    const uint8_t *states; /* enum rcpt_state, one a recipient, some of them open; NULL: all pending */
    uint32_t attempts;
    bool held, warned;
    /* On the loop, when the commit is durable (err 0, m is live) or failed (m NULL; nothing is kept).
     * Everything above was copied before queue_commit returned. The writer is gone by then. */
    void (*done)(void *ctx, err_t err, struct qmsg *m);
    void *ctx;
};
void queue_commit(struct queue_writer *w, const struct queue_commit *c);
void queue_abort(struct queue_writer *w); /* NULL is fine */

/* --- reading a message --- */

struct qextent {
    uint64_t at; /* private */
    uint32_t bytes;
};

/* A message's envelope, parsed into the loader's arena. Embedded in its owner. */
struct qload {
    void (*done)(struct qload *ld); /* set by the owner; called only after ERR_PENDING */
    err_t err;                      /* result: 0, ERR_CORRUPT, -EIO */
    struct qmsg *m;                 /* pinned from success until queue_load_end */
    str_t meta, trace;
    const str_t *rcpts;
    const struct qextent *extents;
    uint32_t extent_count;
    /* queue-private */
    struct queue *q;
    struct arena *arena;
    struct qread *reading;
    bool pinned;
};
/* 0: loaded now (the record was hot); ERR_PENDING: `done` follows; else failed. */
err_t queue_load(struct queue *q, struct qmsg *m, struct arena *arena, struct qload *ld) WARN_UNUSED;
void queue_load_end(
    struct qload *ld); /* unpins; also after a failure, or while pending (then `done` is not called) */

/* Streams the body, piece by piece, from hot memory or the disk; each piece's CRC is verified. Embedded in
 * its owner. */
struct qbody {
    void (*ready)(
        struct qbody *b); /* set by the owner; called only after ERR_PENDING: call queue_body_next again */
    /* queue-private */
    const struct qload *ld;
    uint32_t extent_index;
    err_t err;
    struct qread *reading;
    struct qslice *arrived;
};
/* A piece of body in memory that stays put until it is released. May outlive the qbody; a slow receiver may
 * keep it for long. */
struct qslice {
    const uint8_t *p;
    size_t n;
    /* queue-private */
    struct queue *q;
    void *block;  /* hot memory, pinned; else */
    void *buffer; /* what was read from the disk; owned */
    size_t buffer_bytes;
};
void queue_body_open(struct qbody *b, const struct qload *ld);
/* 0: *out is the next piece; ERR_PENDING; ERR_EOF after the last; ERR_CORRUPT, -EIO. */
err_t queue_body_next(struct qbody *b, struct qslice **out) WARN_UNUSED;
void queue_slice_release(struct qslice *s);
void queue_body_close(
    struct qbody *b); /* any time; no callback after it (a read in flight is finished inside the queue) */

/* --- progress: in memory at once, on disk with the next commit or within progress_flush_ms --- */

enum rcpt_state queue_rcpt_state(const struct qmsg *m, uint32_t index);
void queue_set_rcpt(struct queue *q, struct qmsg *m, uint32_t index, enum rcpt_state state);
void queue_set_due(struct queue *q, struct qmsg *m, uint64_t due_ms, uint32_t attempts);
void queue_set_held(struct queue *q, struct qmsg *m, bool held);
void queue_set_warned(struct queue *q, struct qmsg *m); /* for good */
/* Ends the message whatever its recipients' states; m is gone when its last pin goes. */
void queue_remove(struct queue *q, struct qmsg *m);
bool queue_is_removed(const struct qmsg *m); /* for who has a pin on it */

/* A point after which all progress made before it is on the disk. Embedded in its owner. */
struct queue_sync {
    void (*done)(struct queue_sync *s,
                 err_t err); /* set by the owner; on the loop, never from inside queue_sync */
    uint64_t batch;          /* queue-private: durable when all before this one are; 0 = not in one yet */
    struct link link;
};
void queue_sync(struct queue *q, struct queue_sync *s);
void queue_sync_cancel(struct queue_sync *s); /* `done` is not called; any time */

/* --- resize --- */

/* Gives the ring another size while it is used; rounded up to segments. 0: begun, or nothing to do;
 * ERR_LOCKED: one is under way; ERR_LIMIT: fewer than 8 or more than a million segments; ERR_FULL: what is
 * queued would not fit; or the ring's last error. How it ends: queue_resize_state. The old ring stays when it
 * fails. */
err_t queue_resize(struct queue *q, uint64_t ring_bytes) WARN_UNUSED;
struct queue_resize_state {
    const char *step; /* static; NULL: none is under way */
    uint64_t target_bytes, filled_bytes;
    err_t err; /* of the last one: ERR_FULL: what lives did not fit after all; -ENOSPC; … */
};
void queue_resize_state(const struct queue *q, struct queue_resize_state *out);

/* --- scrub: all records of live messages are read and checked --- */

struct queue_scrub_state {
    bool running, hurried;
    uint64_t started_ms, ended_ms; /* wall clock; 0: not yet */
    /* Of the lap that runs, else of the last one. */
    uint64_t message_count, read_bytes;
    uint64_t damaged_count;    /* messages; their bytes are in corrupt/ */
    uint64_t unreadable_count; /* the disk refused, several times */
};
/* In the background, so slowly that a lap takes `period_s`; 0: only when asked. */
void queue_set_scrub(struct queue *q, uint32_t period_s);
void queue_scrub(struct queue *q); /* a lap from the start, now, at 32 MiB a second at most */
void queue_scrub_state(const struct queue *q, struct queue_scrub_state *out);

struct queue_stats {
    uint64_t ring_bytes, used_bytes, live_bytes;
    uint64_t message_count, pending_rcpt_count;
    uint64_t commits, reappended_bytes, damaged_records;
    uint64_t accepted_bytes; /* of content and envelopes of new messages made durable */
    uint64_t written_bytes;  /* by durable writes, for whatever purpose */
    uint32_t segment_count, free_segment_count, kept_segment_count;
    bool direct_io, full;
    err_t error; /* the last I/O error that still stands */
};
void queue_stats(const struct queue *q, struct queue_stats *out);
struct qmsg *queue_find(const struct queue *q, uint64_t id);
/* A walk from the newest message to the oldest that may be interrupted: messages may come (they are not
 * visited) and go meanwhile. Embedded in its owner; must be ended. */
struct queue_cursor {
    struct qmsg *next; /* queue-private */
    struct link link;
};
void queue_cursor_start(struct queue *q, struct queue_cursor *c);
struct qmsg *queue_cursor_next(struct queue *q, struct queue_cursor *c); /* NULL: that was all */
void queue_cursor_end(struct queue_cursor *c);
/* Every live message, oldest first; stop when `each` returns false. No change of the queue meanwhile. */
void queue_each(const struct queue *q, bool (*each)(void *ctx, struct qmsg *m), void *ctx);

#endif
