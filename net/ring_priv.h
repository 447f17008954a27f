/* net/ring_priv.h: the inside of a loop, shared by ring.c (the kernel's side: setup, operations,
 * completions), ring_tick.c (the turns) and conn*.c. Private to net/. */
#ifndef NET_RING_PRIV_H
#define NET_RING_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "net/loop.h"
#include "net/timer.h"

#define LOOP_DATA_COUNT 32
#define RING_FOREVER    UINT64_MAX

struct conn_loop; /* net/conn_priv.h */

/* A copied completion: the kernel's ring is given back before any callback runs. */
struct completion {
    uint64_t user_data;
    int32_t res;
    uint32_t flags;
};

struct loop {
    uint64_t now_ns, now_ms;
    bool claimed;                     /* a thread made the ring its own */
    bool mail_waiting;                /* do not wait in the kernel: the mailbox has something */
    bool stopping;                    /* loop_run is on its way out */
    pthread_t owner;                  /* valid once claimed */
    struct list hooks, running_hooks; /* tick_hook */
    struct mailbox *mailbox;          /* owned */
    struct conn_loop *conns;          /* owned */

    /* Completions copied and not yet run: [batch_at, batch_count). */
    struct completion *batch; /* mmap, owned */
    uint32_t batch_at, batch_count;

    uint64_t ops_inflight;
    uint64_t sqe_count, cqe_count, nobufs_count, tick_count; /* since the last report to the metrics */
    uint64_t submit_seq;  /* grows whenever the kernel has taken all that was queued: scratch may be reused */
    uint32_t buffers_out; /* provided buffers in the hands of receivers */
    uint32_t buffer_count;
    struct tick_hook *starved; /* scheduled when a buffer comes back; NULL when nobody waits */

    int event_fd; /* wakes from threads that are not loops */
    uint64_t event_count;
    struct op event_op;
    atomic_bool stopped;

    struct loop_features features;
    int cpu;
    const char *name;
    void *data[LOOP_DATA_COUNT]; /* owned by whoever set them */
    struct wheel wheel;
};

/* ring.c, for ring_tick.c. */
void ring_claim(struct loop *l);  /* makes the calling thread the ring's only issuer */
void ring_attach(struct loop *l); /* loop_run begins */
void ring_detach(struct loop *l);
void ring_enter(struct loop *l, uint64_t wait_ns); /* submits; waits for one completion; 0 = does not wait */
void ring_reap(struct loop *l, uint32_t count_max);
void ring_run(struct loop *l, uint32_t count_max);
bool ring_completions_left(const struct loop *l);
void ring_read_event(struct loop *l);               /* arms event_op */
void ring_wake(struct loop *from, struct loop *to); /* MSG_RING; falls back to the eventfd by itself */

/* ring_tick.c, for ring.c. */
err_t loop_mail_create(struct loop *l) WARN_UNUSED;
void loop_wake_by_event(struct loop *l); /* any thread */

/* conn.c: the per-loop state of connections. */
err_t conn_loop_create(struct conn_loop **out, struct loop *l) WARN_UNUSED;
void conn_loop_destroy(struct conn_loop *cl);

static inline bool ring_has_buffers(const struct loop *l)
{
    return l->buffers_out < l->buffer_count;
}

#endif
