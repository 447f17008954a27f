/* net/loop.h: one io_uring and one timer wheel per worker. net/ring.c is the only file that includes
 * liburing.
 *
 * Thread rule: everything here belongs to the loop's own thread but loop_post() and loop_stop().
 * A `struct op` is embedded in its owner and must stay alive until its last completion (IORING_CQE_F_MORE
 * clear). Reap first, then run: callbacks never run from inside a submit function. Work per tick is bounded.
 * Flags tried at boot: SINGLE_ISSUER|DEFER_TASKRUN|COOP_TASKRUN, then without DEFER_TASKRUN, then none. */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include <sys/uio.h>

#include "core/err.h"
#include "core/ip.h"
#include "core/list.h"
#include "core/mailbox.h"

struct loop;
struct op;

/* op, timer, tick_hook: zero-initialise before the first use. */

/* res as io_uring gives it (>= 0, or -errno). `more`: further completions of this op follow (multishot). */
typedef void op_fn(struct op *op, int32_t res, uint32_t cqe_flags, bool more);

struct op {
    op_fn *done;       /* set by the owner before submitting */
    uint32_t inflight; /* loop-private: submissions without their last completion */
};

struct timer {
    void (*fire)(struct timer *t); /* set by the owner; the timer is disarmed before the call and may be
                                      re-armed in it */
    uint64_t due_ms;               /* loop-private */
    struct link link;              /* loop-private */
};

struct loop_options {
    uint32_t entries;      /* SQ size, default 1024; CQ is 4 times as large */
    uint32_t buffer_count; /* provided recv buffers, power of two, default 1024 */
    uint32_t buffer_bytes; /* default 16384 */
    int cpu;               /* pin to this core; -1 = do not */
    const char *name;      /* thread name, static */
};

/* What this kernel gave; filled by loop_create, shown at boot and in `postern status`. */
struct loop_features {
    bool single_issuer, defer_taskrun, coop_taskrun, msg_ring, multishot_accept, multishot_recv, buffer_ring,
        restricted, send_zc;
};

/* net/ring.c is the kernel's side, net/ring_tick.c the turns. Linux 5.19 is the floor (provided buffer
 * rings): an older kernel gives ERR_UNSUPPORTED. Without io_uring in the kernel (ENOSYS, EPERM by sysctl or
 * seccomp) returns the errno; the text for people comes from loop_create_hint(). May be created on another
 * thread than the one that runs it only if loop_run() is the first use of the ring (the ring starts disabled;
 * the first operation or loop_run() makes the calling thread its owner for ever). */
err_t loop_create(struct loop **out, const struct loop_options *opt) WARN_UNUSED;
const char *loop_create_hint(err_t err);
void loop_destroy(struct loop *l); /* after loop_run returned; no op may be in flight */
const struct loop_features *loop_features(const struct loop *l);

void loop_run(struct loop *l);              /* on the worker's thread, until loop_stop() and no more work */
void loop_stop(struct loop *l);             /* any thread */
struct loop *loop_current(void);            /* the loop running on this thread, or NULL */
uint64_t loop_now_ms(const struct loop *l); /* monotonic, cached per tick */
uint64_t loop_now_ns(const struct loop *l); /* monotonic, cached per tick */

/* Any thread: `m->deliver` will run on l's thread. Wakes by MSG_RING from another worker, by eventfd
 * otherwise. */
void loop_post(struct loop *l, struct mail *m);

/* Run once at the end of this tick, before the ring is entered again: the place to batch (queue commits,
 * flushes). A hook already scheduled is not scheduled twice. */
struct tick_hook {
    void (*run)(struct tick_hook *h);
    struct link link; /* loop-private */
};
void loop_at_tick_end(struct loop *l, struct tick_hook *h);

/* Timers: 8 ms granularity, never early (counted from loop_now_ms; over 50 days is cut to that). Re-arming an
 * armed timer moves it. Both O(1). */
void timer_arm(struct loop *l, struct timer *t, uint64_t after_ms);
void timer_disarm(struct loop *l, struct timer *t);
bool timer_armed(const struct timer *t);

/* Operations. They never fail at the call: a full SQ is flushed, errors come as the completion's res.
 * Buffers stay valid and untouched until the completion. */
void op_accept_multishot(struct loop *l, struct op *op, int listen_fd);
void op_connect(struct loop *l, struct op *op, int fd, const struct sockaddr *sa,
                socklen_t len);                                /* sa may go after return */
void op_recv_multishot(struct loop *l, struct op *op, int fd); /* into provided buffers, see loop_buffer */
void op_recv(struct loop *l, struct op *op, int fd, void *buf, uint32_t n);
void op_send(struct loop *l, struct op *op, int fd, const void *buf, uint32_t n, int msg_flags);
void op_sendmsg(struct loop *l, struct op *op, int fd, const struct msghdr *msg, int msg_flags);
void op_readv(struct loop *l, struct op *op, int fd, const struct iovec *iov, unsigned iov_count,
              uint64_t offset);
void op_writev(struct loop *l, struct op *op, int fd, const struct iovec *iov, unsigned iov_count,
               uint64_t offset, int rwf_flags); /* RWF_DSYNC for durable */
void op_fdatasync(struct loop *l, struct op *op, int fd);
void op_close(struct loop *l, struct op *op, int fd);
void op_shutdown(struct loop *l, struct op *op, int fd, int how);
void op_poll(struct loop *l, struct op *op, int fd, uint32_t poll_mask);
/* Asks the kernel to end `target`; target completes on its own (-ECANCELED or its result), there is no second
 * callback. */
void op_cancel(struct loop *l, struct op *target);
/* Cancels everything in flight on fd. */
void op_cancel_fd(struct loop *l, int fd);

/* A completion of op_recv_multishot with res > 0 carries a provided buffer that the receiver owns until it is
 * returned. */
struct rbuf {
    uint8_t *p;
    uint32_t n;
    uint16_t id;
};
struct rbuf loop_buffer(struct loop *l, int32_t res, uint32_t cqe_flags);
void loop_buffer_return(struct loop *l, uint16_t id);

/* Per-loop slots for other modules' per-worker state (queue, relay, sessions); index is a constant of
 * daemon/. */
void loop_set_data(struct loop *l, unsigned index, void *data);
void *loop_data(const struct loop *l, unsigned index);

#endif
