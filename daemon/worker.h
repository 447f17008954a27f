/* daemon/worker.h: one worker: a pinned thread with its loop, ring, sessions, relay and listeners. Everything
 * inside belongs to its thread once worker_launch() returned; other threads talk to it by loop_post(). */
#ifndef DAEMON_WORKER_H
#define DAEMON_WORKER_H

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/ports.h"
#include "daemon/snapshot.h"
#include "net/listener.h"
#include "relay/relay.h"
#include "smtp/server/service.h"
#include "verify/verifier.h"

enum worker_state {
    WORKER_RUNNING,
    WORKER_DRAINING_SESSIONS,
    WORKER_DRAINING_RELAY,
    WORKER_DRAINING_VERIFIER,
    WORKER_CLOSING_QUEUE,
    WORKER_DRAINED
};

/* Generations still used by open transactions; with more, the newest waits until one of them is free. */
#define WORKER_RETIRED_MAX 64

/* Something that uses the queue for a while on behalf of an admin. Embedded in its owner. */
struct worker_task {
    void (*cancel)(struct worker_task *t); /* the worker ends: end at once, and leave the list */
    struct link link;
};

struct worker_listener {
    struct worker *worker;
    struct listener *listener; /* frees itself after listener_close */
    struct smtpd_door door;    /* as it was at boot, as its address; owns the proxies */
};

struct worker {
    unsigned index;
    pthread_t thread;
    bool launched;
    enum worker_state state;

    struct loop *loop;                 /* owned */
    struct queue *queue;               /* owned until queue_close */
    struct smtpd_service *service;     /* owned */
    struct relay *relay;               /* owned */
    struct verifier *verifier;         /* owned; until all workers are drained, as they ask each other */
    struct worker_listener *listeners; /* owned */
    size_t listener_count, listeners_open;
    struct dns *dns;                      /* the process's */
    struct snapshot *current;             /* counted reference */
    _Atomic(struct snapshot *) next;      /* counted; the newest that this worker has not taken yet */
    _Atomic(struct pauses *) next_pauses; /* as well */
    struct snapshot *retired[WORKER_RETIRED_MAX];
    size_t retired_count;

    struct qmsg **recovered; /* owned until started: what the ring held at boot */
    size_t recovered_count, recovered_cap;
    bool recovered_overflow; /* no memory to remember them all */

    struct list tasks;  /* struct worker_task */
    struct list leases; /* messages that an exporter holds (walk_verbs.c) */
    struct mail start, reload, pause, drain, hurry, step;
    bool step_posted, relay_idle, verifier_idle, hurried;
    struct timer retire_timer, gauge_timer;
    atomic_uint_fast64_t
        oldest_arrived_ms;      /* of the queue's messages, wall clock; 0: none. For the metrics */
    void (*drained)(void *ctx); /* on the worker's thread */
    void *drained_ctx;
};

/* Boot, on the main thread, in this order; text for people in `notes` (one line each). */
err_t worker_open(struct worker *w, unsigned index, struct snapshot *s, int cpu,
                  struct gbuf *notes) WARN_UNUSED;
err_t worker_adopt(struct worker *w, unsigned ring_index, struct gbuf *notes) WARN_UNUSED;
err_t worker_listen(struct worker *w, struct ports *ports, struct gbuf *notes) WARN_UNUSED;
/* What all workers have together. Outlives them. */
struct worker_shared {
    struct dns *dns;
    struct verify_shared *verify;
    struct cells *budget;
    struct strangers *strangers;
    struct edge_lines *edge_lines;
};
/* All workers, before the first one is launched. */
err_t worker_prepare(struct worker *w, const struct worker_shared *shared, struct pauses *pauses) WARN_UNUSED;
err_t worker_launch(struct worker *w) WARN_UNUSED;
/* Undoes all that when boot fails before the thread was made. */
void worker_discard(struct worker *w);

/* One thread at a time. `s` is referenced by the call. */
void worker_set_snapshot(struct worker *w, struct snapshot *s);
void worker_set_pauses(struct worker *w, struct pauses *p);
/* Any thread, once. `drained` is called on the worker's thread when its sessions and deliveries ended and its
 * ring is closed; then worker_join(). It takes what time it takes until worker_hurry(), once, which ends
 * transactions with 421 and gives up deliveries. */
void worker_drain(struct worker *w, void (*drained)(void *ctx), void *ctx);
void worker_hurry(struct worker *w);
void worker_join(struct worker *w);

#endif
