/* tests/sim/sim_worker.c: see sim_worker.h. */
#include "tests/sim/sim_worker.h"

#include "core/log.h"
#include "net/listener.h"
#include "relay/relay.h"
#include "smtp/server/service.h"
#include "smtp/server/strangers.h"
#include "tests/sim/sim.h"

#define DRAIN_MS      30000
#define FULL_SEGMENTS 4 /* what the queue keeps free for moving the living, and what padding takes */

static struct worker {
    struct loop *loop;             /* owned */
    struct queue *queue;           /* owned until queue_close */
    struct relay *relay;           /* owned */
    struct smtpd_service *service; /* owned */
    struct listener *listener;     /* frees itself */
    const struct policy *policy;
    struct qmsg **recovered; /* owned until relayed */
    size_t recovered_count, recovered_cap;
    struct mail start, drain, step;
    struct timer drain_timer;
    bool up, draining, drain_now, drain_posted, step_posted, relay_draining, relay_drained;
} w;

bool worker_is_up(void)
{
    return w.up;
}

struct queue *worker_queue(void)
{
    return w.queue;
}

/* ---- boot ---- */

static void remember_live(void *ctx, struct qmsg *m)
{
    if (w.recovered_count == w.recovered_cap) {
        w.recovered_cap = w.recovered_cap ? w.recovered_cap * 2 : 64;
        w.recovered = reallocarray(w.recovered, w.recovered_cap, sizeof *w.recovered);
        must(w.recovered != NULL);
    }
    w.recovered[w.recovered_count++] = m;
}

err_t worker_open(const struct policy *p, struct gbuf *notes)
{
    const struct queue_options qo = {
        .directory = STR("/spool"),
        .ring_bytes = (uint64_t)W.traits.segment_bytes * W.traits.segment_count,
        .segment_bytes = W.traits.segment_bytes,
        .high_water_percent = policy_config(p)->high_water_percent,
        .scrub_period_s = W.traits.scrub_s,
        .hot_bytes = 1, /* the least there is */
    };
    w = (struct worker){.policy = p};
    err_t err = queue_open(&w.queue, &qo, remember_live, NULL, notes);
    if (err) {
        free(w.recovered);
        w = (struct worker){0};
    }
    return err;
}

/* ---- drain: listener, sessions, deliveries, ring ---- */

static void post_step(void)
{
    if (w.step_posted)
        return;
    w.step_posted = true;
    loop_post(w.loop, &w.step);
}

static void queue_closed(void *ctx)
{
    loop_stop(w.loop);
}

static void relay_drained(void *ctx)
{
    w.relay_drained = true;
    post_step();
}

static void close_queue(void)
{
    struct queue *q = w.queue;
    gateway_was_full(worker_is_full());
    relay_destroy(w.relay);
    smtpd_service_destroy(w.service);
    w.relay = NULL;
    w.service = NULL;
    w.queue = NULL;
    queue_close(q, queue_closed, NULL);
}

static void step_drain(struct mail *m)
{
    w.step_posted = false;
    if (!w.draining || !w.service || w.listener || smtpd_service_session_count(w.service) > 0)
        return;
    if (!w.relay_draining) {
        w.relay_draining = true;
        timer_disarm(w.loop, &w.drain_timer);
        relay_drain(w.relay, w.drain_now ? 0 : DRAIN_MS, relay_drained, NULL);
    } else if (w.relay_drained) {
        close_queue();
    }
}

static void sessions_empty(void *ctx)
{
    post_step();
}

static void drain_timed_out(struct timer *t)
{
    smtpd_service_drain(w.service, true);
    post_step();
}

static void drain_on_loop(struct mail *m)
{
    bool first = !w.draining;
    w.drain_posted = false;
    w.draining = true;
    if (!w.service)
        return; /* it came too late to hurry up the rest */
    if (first) {
        listener_close(w.listener);
        timer_arm(w.loop, &w.drain_timer, DRAIN_MS);
    }
    smtpd_service_drain(w.service, w.drain_now);
    post_step();
}

void worker_drain(bool now)
{
    if (!w.up || w.drain_posted || (w.draining && !now))
        return;
    w.drain_posted = true;
    w.drain_now = w.drain_now || now;
    loop_post(w.loop, &w.drain);
}

/* ---- life ---- */

static void listener_accepted(void *ctx, int fd, const struct endpoint *peer, const struct endpoint *local)
{
    smtpd_service_accept(w.service, fd, peer, local, &(struct smtpd_door){0});
}

static void listener_closed(void *ctx, struct listener *ln)
{
    w.listener = NULL;
    post_step();
}

static const struct listener_ops listener_ops = {.accepted = listener_accepted, .closed = listener_closed};

static void message_accepted(void *ctx, struct qmsg *m)
{
    relay_take(w.relay, m);
}

static void start_on_loop(struct mail *m)
{
    queue_start(w.queue, w.loop);
    for (size_t i = 0; i < w.recovered_count; i++)
        relay_take(w.relay, w.recovered[i]);
    free(w.recovered);
    w.recovered = NULL;
    listener_start(w.listener, w.loop, &listener_ops, NULL);
}

void worker_run(void)
{
    const struct loop_options lo = {0};
    must(loop_create(&w.loop, &lo) == 0);
    struct dns *dns;
    must(dns_start(&dns, policy_config(w.policy), NULL) == 0);
    struct cells *budget = cells_new(BUDGET_DOMAINS);
    struct strangers *strangers = strangers_new(policy_config(w.policy)->limits.sessions);
    must(budget && strangers);
    const struct relay_options ro = {
        .loop = w.loop, .queue = w.queue, .dns = dns, .policy = w.policy, .budget = budget};
    const struct smtpd_service_options so = {.loop = w.loop,
                                             .queue = w.queue,
                                             .policy = w.policy,
                                             .strangers = strangers,
                                             .worker_count = 1,
                                             .accepted = message_accepted,
                                             .empty = sessions_empty};
    must(relay_create(&w.relay, &ro) == 0 && smtpd_service_create(&w.service, &so) == 0);
    must(listener_open(&w.listener, &policy_config(w.policy)->listeners[0].at) == 0);
    w.start.deliver = start_on_loop;
    w.drain.deliver = drain_on_loop;
    w.step.deliver = step_drain;
    w.drain_timer.fire = drain_timed_out;
    loop_post(w.loop, &w.start);
    w.up = true;
    loop_run(w.loop);
    loop_destroy(w.loop);
    cells_free(budget);
    strangers_free(strangers);
    w = (struct worker){0};
}

void worker_reload(const struct policy *p)
{
    if (!w.service || w.draining)
        return;
    w.policy = p;
    smtpd_service_set_policy(w.service, p, NULL);
    relay_set_policy(w.relay, p);
}

void worker_resize(uint64_t ring_bytes)
{
    if (!w.service || w.draining)
        return;
    err_t err = queue_resize(w.queue, ring_bytes);
    trace("resize to %llu: %s", (unsigned long long)ring_bytes, err_text(err));
}

/* ---- what is in it ---- */

static bool is_held(void *ctx, struct qmsg *m)
{
    *(bool *)ctx = m->held;
    return m->held;
}

bool worker_is_idle(void)
{
    bool all_held = true;
    if (!w.up || !w.queue || w.draining || w.recovered)
        return false;
    queue_each(w.queue, is_held, &all_held);
    return all_held;
}

uint32_t worker_kept_count(void)
{
    struct queue_stats qs = {0};
    if (w.queue)
        queue_stats(w.queue, &qs);
    return qs.kept_segment_count;
}

bool worker_is_full(void)
{
    struct queue_stats qs;
    if (!w.queue)
        return false;
    queue_stats(w.queue, &qs);
    return qs.used_bytes > qs.ring_bytes - FULL_SEGMENTS * (uint64_t)W.traits.segment_bytes;
}

static bool print_message(void *ctx, struct qmsg *m)
{
    struct relay_message_info i;
    char id[16];
    relay_message_info(w.relay, m, &i);
    qid_format(m->id, id);
    trace("queued: %s %s, %u attempts, %u of %u pending: " STR_FMT, id, i.state, i.attempts, i.rcpt_pending,
          i.rcpt_count, STR_ARG(i.last_text));
    return true;
}

void worker_print_queue(void)
{
    if (w.relay)
        queue_each(w.queue, print_message, NULL);
}
