/* bench/source/pace.c: which message is next, and when.
 *
 * Without a rate a session takes the next message as soon as it is free: the load is what the server lets
 * through. With a rate message n is due at start + n / rate, whether a session is free or not, and its
 * latency counts from then: a server that stalls is charged for all that would have come meanwhile. */
#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "bench/source/source_priv.h"
#include "core/clock.h"

#define TICK_MIN_NS (NS_PER_MS / 5)

struct message_number { /* waits in pace.again */
    struct link link;
    uint64_t number;
};

struct pace {
    struct source_thread *t;
    uint64_t first, count, begun;
    struct list again;   /* struct message_number, owned; under way when a connection broke: first */
    struct list waiting; /* struct pace_waiter of idle sessions, least recently used first */
    uint64_t start_ns;
    double gap_ns; /* between this thread's messages; 0: no rate */
    int timer_fd;
    struct op tick_op;
    uint64_t expirations;
    struct iovec iov;
};

err_t pace_create(struct pace **out, struct source_thread *t, uint64_t first, uint64_t count)
{
    struct pace *p = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    *p = (struct pace){.t = t, .first = first, .count = count, .timer_fd = -1};
    if (t->opt->rate > 0)
        p->gap_ns = (double)NS_PER_S * t->opt->thread_count / t->opt->rate;
    list_init(&p->again);
    list_init(&p->waiting);
    *out = p;
    return 0;
}

static uint64_t due_at(const struct pace *p, uint64_t local)
{
    return p->start_ns +
           (uint64_t)(((double)local + (double)p->t->index / p->t->opt->thread_count) * p->gap_ns);
}

static bool is_due(const struct pace *p)
{
    return p->begun < p->count && (p->gap_ns == 0 || due_at(p, p->begun) <= clock_mono_ns());
}

static void read_tick(struct pace *p)
{
    op_readv(p->t->loop, &p->tick_op, p->timer_fd, &p->iov, 1, 0);
}

static void on_tick(struct op *op, int32_t res, uint32_t cqe_flags, bool more)
{
    struct pace *p = container_of(op, struct pace, tick_op);
    (void)res, (void)cqe_flags, (void)more;
    while (is_due(p) && !list_empty(&p->waiting)) {
        struct pace_waiter *w = container_of(list_pop_front(&p->waiting), struct pace_waiter, link);
        w->due(w);
    }
    if (p->begun < p->count) {
        read_tick(p);
        return;
    }
    while (!list_empty(&p->waiting)) { /* nothing will come for them any more */
        struct pace_waiter *w = container_of(list_pop_front(&p->waiting), struct pace_waiter, link);
        w->due(w);
    }
}

void pace_start(struct pace *p, uint64_t start_ns)
{
    p->start_ns = start_ns;
    if (p->gap_ns == 0)
        return;
    uint64_t tick_ns = MAX((uint64_t)p->gap_ns, TICK_MIN_NS);
    struct timespec tick = {.tv_sec = (time_t)(tick_ns / NS_PER_S), .tv_nsec = (long)(tick_ns % NS_PER_S)};
    struct itimerspec its = {.it_interval = tick, .it_value = tick};
    p->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    must(p->timer_fd >= 0 && timerfd_settime(p->timer_fd, 0, &its, NULL) == 0);
    p->iov = (struct iovec){&p->expirations, sizeof p->expirations};
    p->tick_op.done = on_tick;
    read_tick(p);
}

enum pace_answer pace_next(struct pace *p, struct pace_waiter *w, uint64_t *number, uint64_t *due_ns)
{
    struct link *k = list_pop_front(&p->again);
    *due_ns = 0;
    if (k) {
        struct message_number *m = container_of(k, struct message_number, link);
        *number = m->number;
        free(m);
        return PACE_NOW;
    }
    if (p->begun == p->count)
        return PACE_NONE;
    if (!is_due(p)) {
        list_push_back(&p->waiting, &w->link);
        return PACE_LATER;
    }
    if (p->gap_ns > 0)
        *due_ns = due_at(p, p->begun);
    *number = p->first + p->begun++;
    return PACE_NOW;
}

void pace_hand_back(struct pace *p, uint64_t number)
{
    struct message_number *m = calloc(1, sizeof *m);
    must(m);
    m->number = number;
    list_push_back(&p->again, &m->link);
}

bool pace_more(const struct pace *p)
{
    return p->begun < p->count || !list_empty(&p->again);
}
