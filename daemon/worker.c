/* daemon/worker.c: see worker.h. */
#include "daemon/worker.h"

#include <errno.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "daemon/memory.h"
#include "daemon/walk.h"

#define RETIRE_CHECK_MS  1000
#define GAUGE_MS         1000
#define GAUGE_WATCHED_MS 250 /* memory may be used up in a second */

static void remember_live(void *ctx, struct qmsg *m)
{
    struct worker *w = ctx;
    if (w->recovered_count == w->recovered_cap) {
        size_t cap = w->recovered_cap ? w->recovered_cap * 2 : 1024;
        struct qmsg **p = reallocarray(w->recovered, cap, sizeof *p);
        if (!p) {
            w->recovered_overflow = true;
            return;
        }
        w->recovered = p;
        w->recovered_cap = cap;
    }
    w->recovered[w->recovered_count++] = m;
}

static err_t recovered_all(const struct worker *w, struct gbuf *notes)
{
    if (!w->recovered_overflow)
        return 0;
    gbuf_printf(notes, "ring-%02u: not enough memory for the queue's messages\n", w->index);
    return -ENOMEM;
}

err_t worker_open(struct worker *w, unsigned index, struct snapshot *s, int cpu, struct gbuf *notes)
{
    const struct config *c = policy_config(s->policy);
    struct loop_options lo = {.cpu = cpu, .name = "postern-worker"};
    struct queue_options qo = {
        .directory = c->spool_directory,
        .ring_index = index,
        .ring_bytes = c->ring_size_bytes,
        .hot_bytes = c->spool_memory_bytes,
        .commit_delay_us = c->commit_delay_us,
        .high_water_percent = c->high_water_percent,
        .scrub_period_s = c->scrub_period_s,
    };

    *w = (struct worker){.index = index, .current = snapshot_ref(s)};
    list_init(&w->tasks);
    list_init(&w->leases);
    err_t err = loop_create(&w->loop, &lo);
    if (err) {
        gbuf_printf(notes, "io_uring: %s\n", loop_create_hint(err));
        return err;
    }
    err = queue_open(&w->queue, &qo, remember_live, w, notes);
    return err ? err : recovered_all(w, notes);
}

err_t worker_adopt(struct worker *w, unsigned ring_index, struct gbuf *notes)
{
    err_t err = queue_adopt(w->queue, ring_index, remember_live, w, notes);
    return err ? err : recovered_all(w, notes);
}

/* Copies: a reload takes the configuration away, and the listeners stay. */
static err_t make_door(const struct cfg_listener *l, struct smtpd_door *door)
{
    *door = (struct smtpd_door){.tls = l->tls, .proxy_count = l->proxies.count};
    if (!l->proxies.count)
        return 0;
    struct cidr *copy = calloc(l->proxies.count, sizeof *copy);
    if (!copy) {
        door->proxy_count = 0;
        return -ENOMEM;
    }
    memcpy(copy, l->proxies.items, l->proxies.count * sizeof *copy);
    door->proxies = copy;
    return 0;
}

static void free_doors(struct worker *w)
{
    for (size_t i = 0; i < w->listener_count; i++)
        free(w->listeners[i].door.proxies);
    free(w->listeners);
}

err_t worker_listen(struct worker *w, struct ports *ports, struct gbuf *notes)
{
    const struct config *c = policy_config(w->current->policy);
    w->listeners = calloc(c->listener_count, sizeof *w->listeners);
    if (!w->listeners)
        return -ENOMEM;
    for (size_t i = 0; i < c->listener_count; i++) {
        struct worker_listener *ln = &w->listeners[i];
        *ln = (struct worker_listener){.worker = w};
        err_t err = make_door(&c->listeners[i], &ln->door);
        if (!err)
            err = listener_adopt(&ln->listener, ports_take(ports, w->index, i));
        if (err) {
            free(ln->door.proxies);
            ports_explain(&c->listeners[i].at, err, notes);
            return err;
        }
        w->listener_count++;
    }
    return 0;
}

static void release_shared(struct worker *w)
{
    for (size_t i = 0; i < w->retired_count; i++)
        snapshot_unref(w->retired[i]);
    snapshot_unref(w->current);
    snapshot_unref(atomic_load(&w->next));
    pauses_unref(atomic_load(&w->next_pauses));
}

void worker_discard(struct worker *w)
{
    for (size_t i = 0; i < w->listener_count; i++)
        listener_close(w->listeners[i].listener);
    free_doors(w);
    free(w->recovered);
    relay_destroy(w->relay);
    smtpd_service_destroy(w->service);
    verifier_destroy(w->verifier);
    if (w->queue)
        queue_discard(w->queue);
    loop_destroy(w->loop);
    release_shared(w);
}

/* --- on the worker's thread --- */

static void listener_accepted(void *ctx, int fd, const struct endpoint *peer, const struct endpoint *local)
{
    const struct worker_listener *ln = ctx;
    smtpd_service_accept(ln->worker->service, fd, peer, local, &ln->door);
}

static void listener_no_files(void *ctx, int fd)
{
    const struct worker_listener *ln = ctx;
    smtpd_service_turn_away(ln->worker->service, fd, &ln->door);
}

static void post_step(struct worker *w);

static void listener_closed(void *ctx, struct listener *ln)
{
    const struct worker_listener *closed = ctx;
    struct worker *w = closed->worker;
    w->listeners_open--;
    post_step(w);
}

static const struct listener_ops listener_ops = {
    .accepted = listener_accepted, .no_files = listener_no_files, .closed = listener_closed};

static void message_accepted(void *ctx, struct qmsg *m)
{
    struct worker *w = ctx;
    relay_take(w->relay, m);
}

static void sessions_empty(void *ctx)
{
    post_step(ctx);
}

static void publish_gauges(struct worker *w)
{
    struct queue_stats qs;
    queue_stats(w->queue, &qs);
    metric_set(M_queue_messages, (int64_t)qs.message_count);
    metric_set(M_queue_recipients, (int64_t)qs.pending_rcpt_count);
    metric_set(M_queue_bytes_used, (int64_t)qs.used_bytes);
    metric_set(M_queue_bytes_total, (int64_t)qs.ring_bytes);
    metric_set(M_queue_segments_free, qs.free_segment_count);
    metric_set(M_queue_segments_kept, qs.kept_segment_count);
    metric_set(M_queue_segments_total, qs.segment_count);
    struct queue_resize_state resize;
    queue_resize_state(w->queue, &resize);
    metric_set(M_queue_resizing, resize.step != NULL);
    metric_set(M_queue_resize_target, resize.step ? (int64_t)resize.target_bytes : 0);
    metric_set(M_queue_resize_filled, resize.step ? (int64_t)resize.filled_bytes : 0);
    metric_set(M_sessions_open, smtpd_service_session_count(w->service));
    atomic_store_explicit(&w->oldest_arrived_ms, relay_oldest_arrived_ms(w->relay), memory_order_relaxed);
}

/* Gauges are cheap to read and dear to keep exact on the data path. */
static void gauges_due(struct timer *t)
{
    struct worker *w = container_of(t, struct worker, gauge_timer);
    publish_gauges(w);
    smtpd_service_look(w->service);
    bool is_watched = policy_config(w->current->policy)->limits.memory > 0;
    timer_arm(w->loop, &w->gauge_timer, is_watched ? GAUGE_WATCHED_MS : GAUGE_MS);
}

static void start_on_loop(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, start);

    queue_start(w->queue, w->loop);
    for (size_t i = 0; i < w->recovered_count; i++)
        relay_take(w->relay, w->recovered[i]);
    free(w->recovered);
    w->recovered = NULL;
    w->recovered_count = w->recovered_cap = 0;

    gauges_due(&w->gauge_timer);
    w->listeners_open = w->listener_count;
    for (size_t i = 0; i < w->listener_count; i++)
        listener_start(w->listeners[i].listener, w->loop, &listener_ops, &w->listeners[i]);
}

static void set_lists(struct worker *w)
{
    err_t err = verifier_set_lists(w->verifier, w->current->lists, w->current->list_count);
    if (err)
        LOG(internal, LF_CSTR("text", "lists of recipients"), LF_ERR("err", err));
}

static void delivery_taught(void *ctx, str_t rcpt, enum smtpc_stage at, const struct smtp_reply *reply,
                            bool accepted)
{
    const struct worker *w = ctx;
    struct address a;
    if (!address_parse_mailbox(rcpt, &a) && policy_domain_is_local(w->current->policy, a.domain))
        verifier_learn_delivery(w->verifier, &a, at, reply, accepted);
}

/* Before the thread: all belong to it once it runs. */
static err_t create_services(struct worker *w, const struct worker_shared *shared, struct pauses *pauses)
{
    const struct snapshot *s = w->current;
    struct verifier_options vo = {
        .shared = shared->verify,
        .loop = w->loop,
        .dns = w->dns,
        .policy = s->policy,
        .worker = w->index,
    };
    err_t err = verifier_create(&w->verifier, &vo);
    if (err)
        return err;
    shared->verify->workers[w->index] = w->verifier;
    set_lists(w);
    struct relay_options ro = {
        .loop = w->loop,
        .queue = w->queue,
        .dns = w->dns,
        .policy = s->policy,
        .budget = shared->budget,
        .worker = w->index,
        .learned = delivery_taught,
        .learned_ctx = w,
    };
    struct smtpd_service_options so = {
        .loop = w->loop,
        .queue = w->queue,
        .policy = s->policy,
        .verify = shared->verify,
        .verifier = w->verifier,
        .strangers = shared->strangers,
        .edge_lines = shared->edge_lines,
        .tls = s->tls_server,
        .dns = w->dns,
        .memory_used = memory_used_bytes,
        .counts_files = true,
        .worker = w->index,
        .worker_count = shared->verify->worker_count,
        .accepted = message_accepted,
        .empty = sessions_empty,
        .ctx = w,
    };
    err = relay_create(&w->relay, &ro);
    if (err)
        return err;
    relay_set_pauses(w->relay, pauses);
    return smtpd_service_create(&w->service, &so);
}

/* --- reload --- */

static void drop_unused(struct worker *w)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->retired_count; i++) {
        if (smtpd_service_policy_users(w->service, w->retired[i]->policy) > 0)
            w->retired[kept++] = w->retired[i];
        else
            snapshot_unref(w->retired[i]);
    }
    w->retired_count = kept;
}

static void take_next(struct worker *w)
{
    drop_unused(w);
    if (w->retired_count < WORKER_RETIRED_MAX) {
        struct snapshot *s = atomic_exchange(&w->next, NULL);
        if (s) {
            w->retired[w->retired_count++] = w->current;
            w->current = s;
            smtpd_service_set_policy(w->service, s->policy, s->tls_server);
            relay_set_policy(w->relay, s->policy);
            verifier_set_policy(w->verifier, s->policy);
            set_lists(w);
            queue_set_scrub(w->queue, policy_config(s->policy)->scrub_period_s);
        }
    }
    if (w->retired_count)
        timer_arm(w->loop, &w->retire_timer, RETIRE_CHECK_MS);
}

static void retire_due(struct timer *t)
{
    take_next(container_of(t, struct worker, retire_timer));
}

static void reload_on_loop(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, reload);
    if (w->state < WORKER_CLOSING_QUEUE)
        take_next(w);
}

void worker_set_snapshot(struct worker *w, struct snapshot *s)
{
    struct snapshot *untaken = atomic_exchange(&w->next, snapshot_ref(s));
    if (untaken)
        snapshot_unref(untaken); /* what made the worker look, the mail or its timer, is still on its way */
    else
        loop_post(w->loop, &w->reload);
}

static void pause_on_loop(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, pause);
    struct pauses *p = atomic_exchange(&w->next_pauses, NULL);
    if (p && w->relay)
        relay_set_pauses(w->relay, p);
    pauses_unref(p);
}

void worker_set_pauses(struct worker *w, struct pauses *p)
{
    struct pauses *untaken = atomic_exchange(&w->next_pauses, pauses_ref(p));
    if (untaken)
        pauses_unref(untaken); /* its mail is still on its way */
    else
        loop_post(w->loop, &w->pause);
}

/* --- drain: listeners → sessions → deliveries → probes → ring --- */

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

static void verifier_drained(void *ctx)
{
    struct worker *w = ctx;
    w->verifier_idle = true;
    post_step(w);
}

static void close_queue(struct worker *w)
{
    publish_gauges(w); /* for the log's last line */
    w->state = WORKER_CLOSING_QUEUE;
    timer_disarm(w->loop, &w->gauge_timer);
    timer_disarm(w->loop, &w->retire_timer);
    LIST_EACH(&w->tasks, k)
    {
        struct worker_task *t = container_of(k, struct worker_task, link);
        t->cancel(t);
    }
    lease_end(w, 0);
    relay_destroy(w->relay);
    w->relay = NULL;
    smtpd_service_destroy(w->service);
    w->service = NULL;
    queue_close(w->queue, queue_closed, w);
}

static void drain_verifier(struct worker *w)
{
    w->state = WORKER_DRAINING_VERIFIER;
    verifier_drain(w->verifier, verifier_drained, w);
}

static void drain_relay(struct worker *w)
{
    w->state = WORKER_DRAINING_RELAY;
    relay_drain(w->relay, w->hurried ? 0 : UINT32_MAX, relay_drained, w);
}

/* Goes on with the drain from the loop, never from inside a callback of what it is about to destroy. */
static void step_drain(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, step);
    w->step_posted = false;
    if (w->state == WORKER_DRAINING_SESSIONS && !w->listeners_open && smtpd_service_is_empty(w->service))
        drain_relay(w);
    else if (w->state == WORKER_DRAINING_RELAY && w->relay_idle)
        drain_verifier(w);
    else if (w->state == WORKER_DRAINING_VERIFIER && w->verifier_idle)
        close_queue(w);
}

static void post_step(struct worker *w)
{
    if (w->step_posted)
        return;
    w->step_posted = true;
    loop_post(w->loop, &w->step);
}

static void drain_on_loop(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, drain);
    w->state = WORKER_DRAINING_SESSIONS;
    for (size_t i = 0; i < w->listener_count; i++)
        listener_close(w->listeners[i].listener);
    smtpd_service_drain(w->service, w->hurried);
    post_step(w);
}

static void hurry_on_loop(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, hurry);
    w->hurried = true; /* for the steps to come */
    if (w->state == WORKER_DRAINING_SESSIONS)
        smtpd_service_drain(w->service, true);
    else if (w->state == WORKER_DRAINING_RELAY)
        relay_drain(w->relay, 0, relay_drained, w);
}

void worker_drain(struct worker *w, void (*drained)(void *ctx), void *ctx)
{
    w->drained = drained;
    w->drained_ctx = ctx;
    loop_post(w->loop, &w->drain);
}

void worker_hurry(struct worker *w)
{
    loop_post(w->loop, &w->hurry);
}

/* --- the thread --- */

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

err_t worker_prepare(struct worker *w, const struct worker_shared *shared, struct pauses *pauses)
{
    w->dns = shared->dns;
    w->start.deliver = start_on_loop;
    w->reload.deliver = reload_on_loop;
    w->pause.deliver = pause_on_loop;
    w->drain.deliver = drain_on_loop;
    w->hurry.deliver = hurry_on_loop;
    w->step.deliver = step_drain;
    w->retire_timer.fire = retire_due;
    w->gauge_timer.fire = gauges_due;
    return create_services(w, shared, pauses);
}

err_t worker_launch(struct worker *w)
{
    loop_post(w->loop, &w->start);
    int rc = pthread_create(&w->thread, NULL, worker_main, w);
    if (rc)
        return -rc;
    w->launched = true;
    return 0;
}

void worker_join(struct worker *w)
{
    loop_stop(w->loop);
    pthread_join(w->thread, NULL);
    verifier_destroy(w->verifier);
    loop_destroy(w->loop);
    free_doors(w);
    release_shared(w);
}
