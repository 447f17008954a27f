/* core/log_writer.c: the thread that writes log lines.
 *
 *                 nothing found            nothing found
 *      AWAKE  ------------------>  NAP  ------------------>  SLEEP
 *        ^        after a pass      |   after NAP_MS           |
 *        +--------------------------+--------------------------+
 *          NAP: time is up, or a ring is half full     SLEEP: any line
 *
 * The nap keeps producers from paying a system call for every line at a middling rate, and makes writes
 * larger. */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log_priv.h"

#define NAP_MS          5
#define STOP_WAIT_S     2 /* for a reader that may never read */
#define WAKE_USED_BYTES (LOG_RING_BYTES / 2)

enum { AWAKE, NAP, SLEEP };

static struct {
    atomic_int state; /* also the futex */
    atomic_bool stopping;
    int fd; /* the caller's */
    pthread_t thread;
    uint64_t reported_dropped_count;
    bool is_torn; /* a write failed half-way: the next line must not be glued to its piece */
} writer;

static void futex_wait(atomic_int *word, int value, const struct timespec *timeout)
{
    /* Every reason to return, an error included, is a reason to look again. */
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout, NULL, 0);
}

static void wake(void)
{
    if (atomic_exchange(&writer.state, AWAKE) != AWAKE)
        syscall(SYS_futex, &writer.state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* The writer stores its state and then looks into the rings; a producer stores its line and then looks at the
 * state. All four are sequentially consistent, so one of the two sees the other. */
void log_writer_notify(size_t used_bytes)
{
    int state = atomic_load(&writer.state);
    if (state == SLEEP || (state == NAP && used_bytes >= WAKE_USED_BYTES))
        wake();
}

/* Moves the piece list on by n bytes. */
static void skip(struct iovec **pieces, int *piece_count, size_t n)
{
    for (; *piece_count > 0 && n >= (*pieces)->iov_len; (*pieces)++, (*piece_count)--)
        n -= (*pieces)->iov_len;
    if (*piece_count > 0) {
        (*pieces)->iov_base = (char *)(*pieces)->iov_base + n;
        (*pieces)->iov_len -= n;
    }
}

err_t log_write_all(int fd, struct iovec **pieces, int *piece_count)
{
    while (*piece_count > 0) {
        ssize_t n = writev(fd, *pieces, *piece_count);
        if (n >= 0) {
            skip(pieces, piece_count, (size_t)n);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            /* Somebody shares the file description and made it non-blocking. */
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            poll(&p, 1, -1);
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

static size_t count_bytes(const struct iovec *pieces, int piece_count)
{
    size_t bytes = 0;
    for (int i = 0; i < piece_count; i++)
        bytes += pieces[i].iov_len;
    return bytes;
}

static size_t count_lines(const struct iovec *pieces, int piece_count)
{
    size_t lines = 0;
    for (int i = 0; i < piece_count; i++) {
        const char *at = pieces[i].iov_base, *end = at + pieces[i].iov_len;
        while (at < end && (at = memchr(at, '\n', (size_t)(end - at))) != NULL)
            lines++, at++;
    }
    return lines;
}

/* At most two pieces, which are used up. *lost_count: lines not written; 0 without an error. */
static err_t write_lines(struct iovec *pieces, int piece_count, size_t *lost_count)
{
    err_t err = 0;
    *lost_count = 0;
    if (writer.is_torn) {
        char newline = '\n';
        struct iovec piece = {&newline, 1}, *left = &piece;
        int left_count = 1;
        err = log_write_all(writer.fd, &left, &left_count);
        writer.is_torn = err != 0;
    }
    if (!err) {
        size_t bytes = count_bytes(pieces, piece_count);
        err = log_write_all(writer.fd, &pieces, &piece_count);
        writer.is_torn = err && count_bytes(pieces, piece_count) < bytes;
    }
    if (err)
        *lost_count = count_lines(pieces, piece_count);
    return err;
}

static void report_dropped(void)
{
    uint64_t dropped = log_dropped_count();
    if (dropped == writer.reported_dropped_count)
        return;
    char line[LOG_LINE_BYTES_MAX];
    const struct log_field fields[] = {LF_U64("count", dropped - writer.reported_dropped_count)};
    size_t n = log_line(log_current_format(), clock_wall_ns(), log_event_level(EV_log_dropped),
                        log_event_name(EV_log_dropped), fields, COUNT_OF(fields), line);
    struct iovec piece = {line, n};
    size_t lost_count; /* the report itself: it is made again */
    if (write_lines(&piece, 1, &lost_count) == 0)
        writer.reported_dropped_count = dropped;
}

/* Writes what is in the rings now; true if there was anything. */
static bool write_rings(void)
{
    bool found = false, ok = true;
    for (struct log_ring *r = log_ring_first(); r; r = r->next) {
        struct iovec pieces[2];
        int piece_count;
        size_t n = log_ring_peek(r, pieces, &piece_count);
        if (!n)
            continue;
        found = true;
        size_t lost_count;
        if (write_lines(pieces, piece_count, &lost_count)) {
            log_count_dropped(lost_count); /* a full disk, or a reader that has gone: the gateway goes on */
            ok = false;
        }
        log_ring_consume(r, n);
    }
    if (ok)
        report_dropped();
    return found;
}

static void *run(void *unused)
{
    const struct timespec nap = {.tv_nsec = NAP_MS * (long)NS_PER_MS};
    bool has_napped = false;
    while (!atomic_load(&writer.stopping)) {
        has_napped = !write_rings() && has_napped;
        int state = has_napped ? SLEEP : NAP;
        atomic_store(&writer.state, state);
        bool go_on = state == SLEEP && write_rings(); /* a line came before the state was to be seen */
        if (!go_on && !atomic_load(&writer.stopping))
            futex_wait(&writer.state, state, state == NAP ? &nap : NULL);
        atomic_store(&writer.state, AWAKE);
        has_napped = !go_on;
    }
    write_rings();
    return NULL;
}

err_t log_writer_start(int fd)
{
    sigset_t all, before;
    writer.fd = fd;
    atomic_store(&writer.stopping, false);
    atomic_store(&writer.state, AWAKE);
    /* Signals are for the main thread; SIGPIPE becomes EPIPE. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&writer.thread, NULL, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc)
        return -rc;
    pthread_setname_np(writer.thread, "log");
    return 0;
}

void log_writer_stop(void)
{
    struct timespec until;
    atomic_store(&writer.stopping, true);
    wake();
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_WAIT_S;
    (void)pthread_timedjoin_np(writer.thread, NULL, &until);
}
