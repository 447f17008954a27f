/* daemon/worker.c: see worker.h. */
#include "daemon/worker.h"

#include <errno.h>

#include "core/log.h"
#include "core/metrics.h"
#include "daemon/memory.h"

#define RETIRE_CHECK_MS 1000
#define GAUGE_MS        1000

static void remember_live(void *ctx, struct qmsg *m)
{
    struct worker *w = ctx;
    if (w->recovered_count == w->recovered_cap) {
        size_t cap = w->recovered_cap ? w->recovered_cap * 2 : 1024;
        struct qmsg **p = reallocarray(w->recovered, cap, sizeof *p);
        must(p); /* boot: without memory for the queue there is nothing to run */
        w->recovered = p;
        w->recovered_cap = cap;
    }
    w->recovered[w->recovered_count++] = m;
}

err_t worker_open(struct worker *w, unsigned index, struct snapshot *s, int cpu, struct gbuf *notes)
{
    const struct config *c = policy_config(s->policy);
    struct loop_options lo = {.cpu = cpu, .name = "postern-worker"};
    struct queue_options qo = {
        .directory = c->spool_directory,
        .ring_index = index,
        .ring_bytes = c->ring_size_bytes,
        .commit_delay_us = c->commit_delay_us,
        .high_water_percent = c->high_water_percent,
    };

    *w = (struct worker){.index = index, .current = snapshot_ref(s)};
    err_t err = loop_create(&w->loop, &lo);
    if (err) {
        gbuf_printf(notes, "io_uring: %s\n", loop_create_hint(err));
        return err;
    }
    return queue_open(&w->queue, &qo, remember_live, w, notes);
}

err_t worker_adopt(struct worker *w, unsigned ring_index, struct gbuf *notes)
{
    return queue_adopt(w->queue, ring_index, remember_live, w, notes);
}

err_t worker_listen(struct worker *w, struct gbuf *notes)
{
    const struct config *c = policy_config(w->current->policy);
    w->listeners = calloc(c->listener_count, sizeof *w->listeners);
    if (!w->listeners)
        return -ENOMEM;
    for (size_t i = 0; i < c->listener_count; i++) {
        err_t err = listener_open(&w->listeners[i], &c->listeners[i].at);
        if (err) {
            char text[64];
            struct sbuf at = SBUF_ON(text);
            endpoint_format(&c->listeners[i].at, &at);
            gbuf_printf(notes, "cannot listen on " STR_FMT ": %s%s\n", STR_ARG(sbuf_view(&at)), err_text(err),
                        err == -EADDRINUSE ? "; another server is there (see ss -ltnp)"
                        : err == -EACCES   ? "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
                                           : "");
            return err;
        }
        w->listener_count++;
    }
    return 0;
}

void worker_discard(struct worker *w)
{
    for (size_t i = 0; i < w->listener_count; i++)
        listener_close(w->listeners[i]);
    free(w->listeners);
    free(w->recovered);
    if (w->queue)
        queue_discard(w->queue);
    if (w->loop)
        loop_destroy(w->loop);
    snapshot_unref(w->current);
}

/* --- on the worker's thread --- */

static void listener_accepted(void *ctx, int fd, const struct endpoint *peer, const struct endpoint *local)
{
    struct worker *w = ctx;
    smtpd_service_accept(w->service, fd, peer, local);
}

static void post_step(struct worker *w);

static void listener_closed(void *ctx, struct listener *ln)
{
    struct worker *w = ctx;
    w->listeners_open--;
    post_step(w);
}

static const struct listener_ops listener_ops = {.accepted = listener_accepted, .closed = listener_closed};

static void message_accepted(void *ctx, struct qmsg *m)
{
    struct worker *w = ctx;
    relay_take(w->relay, m);
}

static void sessions_empty(void *ctx)
{
    post_step(ctx);
}

static void release_retired(struct timer *t)
{
    struct worker *w = container_of(t, struct worker, retire_timer);
    size_t kept = 0;
    for (size_t i = 0; i < w->retired_count; i++) {
        if (smtpd_service_policy_users(w->service, w->retired[i]->policy) > 0)
            w->retired[kept++] = w->retired[i];
        else
            snapshot_unref(w->retired[i]);
    }
    w->retired_count = kept;
    if (kept)
        timer_arm(w->loop, &w->retire_timer, RETIRE_CHECK_MS);
}

/* Gauges are cheap to read and dear to keep exact on the data path. */
static void publish_gauges(struct timer *t)
{
    struct worker *w = container_of(t, struct worker, gauge_timer);
    struct queue_stats qs;
    if (w->state >= WORKER_CLOSING_QUEUE)
        return;
    queue_stats(w->queue, &qs);
    metric_set(M_queue_messages, (int64_t)qs.message_count);
    metric_set(M_queue_recipients, (int64_t)qs.pending_rcpt_count);
    metric_set(M_queue_bytes_used, (int64_t)qs.used_bytes);
    metric_set(M_queue_bytes_total, (int64_t)qs.ring_bytes);
    metric_set(M_sessions_open, smtpd_service_session_count(w->service));
    timer_arm(w->loop, &w->gauge_timer, GAUGE_MS);
}

static void start_on_loop(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, start);
    struct snapshot *s = w->current;

    queue_start(w->queue, w->loop);
    struct relay_options ro = {
        .loop = w->loop,
        .queue = w->queue,
        .dns = w->dns,
        .policy = s->policy,
        .tls = w->tls_client,
        .tls_verify = w->tls_client_verify,
        .worker = w->index,
    };
    struct smtpd_service_options so = {
        .loop = w->loop,
        .queue = w->queue,
        .policy = s->policy,
        .tls = s->tls_server,
        .worker = w->index,
        .accepted = message_accepted,
        .empty = sessions_empty,
        .ctx = w,
    };
    must(relay_create(&w->relay, &ro) == 0);
    must(smtpd_service_create(&w->service, &so) == 0);
    for (size_t i = 0; i < w->recovered_count; i++)
        relay_take(w->relay, w->recovered[i]);
    free(w->recovered);
    w->recovered = NULL;
    w->recovered_count = w->recovered_cap = 0;

    w->retire_timer.fire = release_retired;
    w->gauge_timer.fire = publish_gauges;
    publish_gauges(&w->gauge_timer);
    w->listeners_open = w->listener_count;
    for (size_t i = 0; i < w->listener_count; i++)
        listener_start(w->listeners[i], w->loop, &listener_ops, w);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    err_t err = metrics_thread_start();
    if (err)
        LOG(internal, LF_CSTR("text", "this worker's metrics share one block"), LF_ERR("err", err));
    memory_thread_start();
    loop_run(w->loop);
    return NULL;
}

err_t worker_launch(struct worker *w, struct dns *dns, struct tls_context *tls_client,
                    struct tls_context *tls_verify)
{
    w->dns = dns;
    w->tls_client = tls_client ? tls_context_ref(tls_client) : NULL;
    w->tls_client_verify = tls_verify ? tls_context_ref(tls_verify) : NULL;
    w->start.deliver = start_on_loop;
    loop_post(w->loop, &w->start);
    int err = pthread_create(&w->thread, NULL, worker_main, w);
    if (err)
        return -err;
    w->launched = true;
    return 0;
}

/* --- reload --- */

struct snapshot_mail {
    struct mail mail;
    struct worker *w;
    struct snapshot *s; /* counted reference, moves to the worker */
};

static void take_snapshot(struct mail *m)
{
    struct snapshot_mail *sm = container_of(m, struct snapshot_mail, mail);
    struct worker *w = sm->w;

    if (w->state != WORKER_RUNNING || w->retired_count == WORKER_RETIRED_MAX) {
        snapshot_unref(
            sm->s); /* ending anyway, or so many reloads within one transaction that the newest can wait */
        free(sm);
        return;
    }
    w->retired[w->retired_count++] = w->current;
    w->current = sm->s;
    free(sm);
    smtpd_service_set_policy(w->service, w->current->policy, w->current->tls_server);
    relay_set_policy(w->relay, w->current->policy);
    timer_arm(w->loop, &w->retire_timer, RETIRE_CHECK_MS);
}

void worker_set_snapshot(struct worker *w, struct snapshot *s)
{
    struct snapshot_mail *sm = calloc(1, sizeof *sm);
    must(sm);
    *sm = (struct snapshot_mail){.mail.deliver = take_snapshot, .w = w, .s = snapshot_ref(s)};
    loop_post(w->loop, &sm->mail);
}

/* --- drain: listeners → sessions → deliveries → ring --- */

static void queue_closed(void *ctx)
{
    struct worker *w = ctx;
    w->queue = NULL;
    w->state = WORKER_DRAINED;
    w->drained(w->drained_ctx);
}

static void relay_drained(void *ctx)
{
    struct worker *w = ctx;
    w->relay_idle = true;
    post_step(w);
}

static void close_queue(struct worker *w)
{
    w->state = WORKER_CLOSING_QUEUE;
    timer_disarm(w->loop, &w->gauge_timer);
    timer_disarm(w->loop, &w->retire_timer);
    relay_destroy(w->relay);
    w->relay = NULL;
    smtpd_service_destroy(w->service);
    w->service = NULL;
    queue_close(w->queue, queue_closed, w);
}

static void drain_relay(struct worker *w)
{
    uint64_t now = loop_now_ms(w->loop);
    uint32_t left = now < w->drain_until_ms ? (uint32_t)(w->drain_until_ms - now) : 0;
    w->state = WORKER_DRAINING_RELAY;
    timer_disarm(w->loop, &w->drain_timer);
    relay_drain(w->relay, left, relay_drained, w);
}

/* Goes on with the drain from the loop, never from inside a callback of what it is about to destroy. */
static void step_drain(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, step);
    w->step_posted = false;
    if (w->state == WORKER_DRAINING_SESSIONS && !w->listeners_open &&
        !smtpd_service_session_count(w->service))
        drain_relay(w);
    else if (w->state == WORKER_DRAINING_RELAY && w->relay_idle)
        close_queue(w);
}

static void post_step(struct worker *w)
{
    if (w->step_posted)
        return;
    w->step_posted = true;
    w->step.deliver = step_drain;
    loop_post(w->loop, &w->step);
}

static void drain_timed_out(struct timer *t)
{
    struct worker *w = container_of(t, struct worker, drain_timer);
    smtpd_service_drain(w->service, true);
    post_step(w);
}

static void drain_on_loop(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, drain);
    uint32_t limit_ms = policy_config(w->current->policy)->timeouts.shutdown;

    w->state = WORKER_DRAINING_SESSIONS;
    w->drain_until_ms = loop_now_ms(w->loop) + limit_ms;
    w->drain_timer.fire = drain_timed_out;
    timer_arm(w->loop, &w->drain_timer, limit_ms);
    for (size_t i = 0; i < w->listener_count; i++)
        listener_close(w->listeners[i]);
    smtpd_service_drain(w->service, false);
    post_step(w);
}

void worker_drain(struct worker *w, void (*drained)(void *ctx), void *ctx)
{
    w->drained = drained;
    w->drained_ctx = ctx;
    w->drain.deliver = drain_on_loop;
    loop_post(w->loop, &w->drain);
}

void worker_join(struct worker *w)
{
    loop_stop(w->loop);
    pthread_join(w->thread, NULL);
    loop_destroy(w->loop);
    for (size_t i = 0; i < w->retired_count; i++)
        snapshot_unref(w->retired[i]);
    snapshot_unref(w->current);
    tls_context_unref(w->tls_client);
    tls_context_unref(w->tls_client_verify);
    free(w->listeners);
}
