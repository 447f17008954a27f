/* core/log_priv.h: the parts of the log: lines (pure), rings (one producer, one reader each), the writer. */
#ifndef CORE_LOG_PRIV_H
#define CORE_LOG_PRIV_H

#include <stdatomic.h>
#include <sys/uio.h>

#include "core/limits.h"
#include "core/log.h"

/* Formats one line, newline included, into `out` (LOG_LINE_BYTES_MAX bytes); returns its length. Pure. */
size_t log_line(enum log_format format, uint64_t wall_ns, enum log_level level, const char *event,
                const struct log_field *fields, size_t field_count, char *out);

const char *log_event_name(enum log_event event);
enum log_level log_event_level(enum log_event event);

/* One thread writes, one reads. `head` and `tail` count bytes for ever; their difference is what is inside.
 * Rings are made on a thread's first line, are never freed, and serve another thread when theirs has ended.
 */
struct log_ring {
    struct log_ring *next;           /* all rings, newest first; set once */
    atomic_bool taken;               /* a thread owns the writing end */
    _Alignas(64) atomic_size_t head; /* producer's */
    _Alignas(64) atomic_size_t tail; /* writer's */
    _Alignas(64) char bytes[LOG_RING_BYTES];
};

/* This thread's ring, made or taken over if it has none yet; NULL when out of memory. */
struct log_ring *log_ring_mine(void);
/* All or nothing; false when there is no room. *used_bytes: what is inside now. Owner only. */
bool log_ring_put(struct log_ring *r, const char *line, size_t n, size_t *used_bytes);
/* What the reader may write out, as one or two pieces that end at the end of a line; returns the bytes. */
size_t log_ring_peek(struct log_ring *r, struct iovec pieces[2], int *piece_count);
void log_ring_consume(struct log_ring *r, size_t n);
struct log_ring *log_ring_first(void); /* then by ->next */

/* The writer thread. */
err_t log_writer_start(int fd) WARN_UNUSED;
/* Writes what is in the rings. A line that another thread puts in meanwhile may stay for the next writer. */
void log_writer_stop(void);
/* By a producer after log_ring_put(): wakes the writer if it sleeps. */
void log_writer_notify(size_t used_bytes);

void log_count_dropped(uint64_t lines);
enum log_format log_current_format(void);
/* To fd, all of it; waits where the reader is slow. Moves the piece list past what was written. */
err_t log_write_all(int fd, struct iovec **pieces, int *piece_count) WARN_UNUSED;

#endif
