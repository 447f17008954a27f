/* net/ring_tick.c: the turns of a loop: enter the ring once, then completions, mail, timers, hooks; each
 * bounded. */
#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/metrics.h"
#include "net/ring_priv.h"

/* Bounds per turn: large enough that an entry into the kernel is paid by many, small enough that a turn stays
 * under a few milliseconds. */
#define COMPLETIONS_PER_TICK 512
#define MAIL_PER_TICK        256
#define TIMERS_PER_TICK      256
/* Hooks that schedule hooks (a commit that makes replies) still run in this turn. */
#define HOOK_ROUNDS  4
#define SAMPLE_MASK  15 /* one turn in 16 is timed */
#define MAILBOX_LOG2 10

static _Thread_local struct loop *current;

struct loop *loop_current(void)
{
    return current;
}

const struct loop_features *loop_features(const struct loop *l)
{
    return &l->features;
}

uint64_t loop_now_ms(const struct loop *l)
{
    return l->now_ms;
}

uint64_t loop_now_ns(const struct loop *l)
{
    return l->now_ns;
}

void loop_set_data(struct loop *l, unsigned index, void *data)
{
    must(index < LOOP_DATA_COUNT);
    l->data[index] = data;
}

void *loop_data(const struct loop *l, unsigned index)
{
    must(index < LOOP_DATA_COUNT);
    return l->data[index];
}

/* ---- mail and wake-ups ---- */

void loop_wake_by_event(struct loop *l)
{
    uint64_t one = 1;
    ssize_t n = write(l->event_fd, &one, sizeof one);
    must(n == (ssize_t)sizeof one); /* the counter cannot fill up: every turn reads it to 0 */
}

/* After this thread put mail into l's idle mailbox. */
static void wake(void *ctx)
{
    struct loop *l = ctx;
    if (current == l)
        l->mail_waiting = true;
    else if (current && !current->stopping && current->features.msg_ring && l->features.msg_ring)
        ring_wake(current, l);
    else
        loop_wake_by_event(l);
}

static void event_read(struct op *op, int32_t res, uint32_t cqe_flags, bool more)
{
    struct loop *l = container_of(op, struct loop, event_op);
    if (!l->stopping) /* what woke us is in the mailbox or in `stopped` */
        ring_read_event(l);
}

err_t loop_mail_create(struct loop *l)
{
    /* Blocking on purpose: io_uring waits for it by itself, and answers EAGAIN for a non-blocking one. */
    l->event_fd = eventfd(0, EFD_CLOEXEC);
    if (l->event_fd < 0)
        return -errno;
    l->event_op.done = event_read;
    return mailbox_create(&l->mailbox, MAILBOX_LOG2, wake, l);
}

void loop_post(struct loop *l, struct mail *m)
{
    mailbox_send(l->mailbox, m);
}

void loop_stop(struct loop *l)
{
    atomic_store_explicit(&l->stopped, true, memory_order_release);
    if (current != l)
        loop_wake_by_event(l);
}

/* ---- one turn ---- */

void loop_at_tick_end(struct loop *l, struct tick_hook *h)
{
    if (!link_in_list(&h->link))
        list_push_back(&l->hooks, &h->link);
}

static void run_hooks(struct loop *l)
{
    for (unsigned round = 0; round < HOOK_ROUNDS && !list_empty(&l->hooks); round++) {
        for (struct link *k;
             (k = list_pop_front(&l->hooks));) /* what they schedule belongs to the next round */
            list_push_back(&l->running_hooks, k);
        for (struct link *k; (k = list_pop_front(&l->running_hooks));) {
            struct tick_hook *h = container_of(k, struct tick_hook, link);
            h->run(h);
        }
    }
}

static void run_mail(struct loop *l)
{
    bool more = false;
    l->mail_waiting = false;
    mailbox_run(l->mailbox, MAIL_PER_TICK, &more);
    if (more)
        l->mail_waiting = true;
}

static bool work_left(const struct loop *l)
{
    return l->mail_waiting || !list_empty(&l->hooks) || ring_completions_left(l);
}

static uint64_t wait_ns(const struct loop *l)
{
    if (work_left(l) || atomic_load_explicit(&l->stopped, memory_order_acquire))
        return 0;
    uint64_t next_ms = wheel_next_ms(&l->wheel);
    if (next_ms == WHEEL_NEVER)
        return RING_FOREVER;
    uint64_t next_ns = next_ms * NS_PER_MS;
    return next_ns > l->now_ns ? next_ns - l->now_ns : 0;
}

static void read_clock(struct loop *l)
{
    l->now_ns = clock_mono_ns();
    l->now_ms = l->now_ns / NS_PER_MS;
}

static void report_counts(struct loop *l)
{
    metric_add(M_loop_ticks, (int64_t)l->tick_count);
    metric_add(M_loop_cqes, (int64_t)l->cqe_count);
    metric_add(M_loop_sqes, (int64_t)l->sqe_count);
    if (l->nobufs_count)
        metric_add(M_loop_nobufs, (int64_t)l->nobufs_count);
    l->tick_count = l->cqe_count = l->sqe_count = l->nobufs_count = 0;
}

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) / (double)NS_PER_S;
}

static void tick(struct loop *l, bool sample)
{
    uint64_t start_ns = sample ? clock_mono_ns() : 0;
    ring_enter(l, wait_ns(l));
    read_clock(l);
    ring_reap(l, COMPLETIONS_PER_TICK);
    ring_run(l, COMPLETIONS_PER_TICK);
    uint64_t completed_ns = sample ? clock_mono_ns() : 0;
    run_mail(l);
    wheel_run(&l->wheel, l->now_ms, TIMERS_PER_TICK);
    run_hooks(l);
    l->tick_count++;
    if (sample) {
        metric_observe(H_loop_kernel_s, seconds(start_ns, l->now_ns));
        metric_observe(H_loop_callbacks_s, seconds(l->now_ns, completed_ns));
        metric_observe(H_loop_tick_s, seconds(l->now_ns, clock_mono_ns()));
    }
    report_counts(l);
}

static void settle_on_thread(const struct loop *l)
{
    if (l->name)
        pthread_setname_np(pthread_self(), l->name);
    if (l->cpu < 0)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)l->cpu, &set);
    /* A core that the cgroup took away is no reason to stop: the scheduler finds another. */
    (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

void loop_run(struct loop *l)
{
    must(current == NULL);
    if (!l->claimed)
        ring_claim(l);
    must(pthread_equal(l->owner, pthread_self()));
    settle_on_thread(l);
    current = l;
    l->stopping = false;
    ring_attach(l);
    ring_read_event(l);
    read_clock(l);
    l->mail_waiting = true; /* mail of before now woke nobody */
    for (unsigned n = 0;; n++) {
        /* Read first: what was posted before loop_stop() is still delivered. */
        bool stopped = atomic_load_explicit(&l->stopped, memory_order_acquire);
        tick(l, (n & SAMPLE_MASK) == 0);
        if (stopped && !work_left(l))
            break;
    }
    l->stopping = true;
    op_cancel(l, &l->event_op);
    while (l->event_op.inflight > 0)
        tick(l, false);
    ring_detach(l);
    current = NULL;
}
