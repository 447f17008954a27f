/* relay/relay.c: the door: creation, reload, shutdown, and what an operator may ask. */
#include "relay/relay.h"

#include <errno.h>

#include "relay/outconn_priv.h"

static void run_dirty(struct relay *r)
{
    /* What is marked meanwhile, and what was not finished, belongs to the next round. */
    struct list now;
    list_init(&now);
    struct link *k;
    while ((k = list_pop_front(&r->dirty)))
        list_push_back(&now, k);
    while ((k = list_pop_front(&now))) {
        struct dest *d = container_of(k, struct dest, dirty_link);
        if (!dest_dispatch(d))
            dest_mark_dirty(d);
    }
}

static void check_drained(struct relay *r)
{
    if (!r->draining || !r->drained || r->active_count || r->conn_count || r->resolver.pending)
        return;
    void (*drained)(void *ctx) = r->drained;
    r->drained = NULL;
    timer_disarm(r->loop, &r->wake_timer);
    timer_disarm(r->loop, &r->sweep_timer);
    timer_disarm(r->loop, &r->pressed_timer);
    timer_disarm(r->loop, &r->drain_timer);
    drained(r->drained_ctx); /* last: the relay may be destroyed in it */
}

static void run(struct tick_hook *h)
{
    struct relay *r = container_of(h, struct relay, hook);
    schedule_run(r);
    stream_run_pumps(r);
    run_dirty(r);
    crowd_run(r);
    check_drained(r);
}

void relay_kick(struct relay *r)
{
    loop_at_tick_end(r->loop, &r->hook);
}

static void drain_timeout(struct timer *t)
{
    struct relay *r = container_of(t, struct relay, drain_timer);
    LIST_EACH(&r->conns, k)
    outconn_give_up(container_of(k, struct outconn, relay_link));
    relay_kick(r);
}

err_t relay_create(struct relay **out, const struct relay_options *opt)
{
    struct relay *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r)
        return -ENOMEM;
    err_t err = settings_copy(&r->settings, policy_config(opt->policy));
    if (err) {
        free(r);
        return err;
    }
    r->loop = opt->loop;
    r->queue = opt->queue;
    r->resolver = (struct resolver){.loop = opt->loop, .dns = opt->dns, .settings = &r->settings.hop};
    r->policy = opt->policy;
    r->worker = opt->worker;
    r->learned = opt->learned;
    r->learned_ctx = opt->learned_ctx;
    r->active_max = opt->active_max ? opt->active_max : RELAY_ACTIVE_MAX;
    r->destinations.fold_case = true;
    struct list *lists[] = {&r->active, &r->spare_messages, &r->notes, &r->dirty, &r->idle,
                            &r->hungry, &r->pressed,        &r->conns, &r->pumps};
    for (size_t i = 0; i < COUNT_OF(lists); i++)
        list_init(lists[i]);
    pool_init(&r->message_pool, "relay_messages", sizeof(struct message), 0);
    pool_init(&r->conn_pool, "relay_connections", outconn_bytes(), 0);
    pool_init(&r->piece_pool, "relay_pieces", stream_piece_bytes(), 0);
    r->hook.run = run;
    r->wake_timer.fire = schedule_wake;
    r->sweep_timer.fire = dest_sweep;
    r->pressed_timer.fire = dest_pressed;
    r->drain_timer.fire = drain_timeout;
    *out = r;
    return 0;
}

static void free_destinations(struct relay *r)
{
    struct list all; /* the map may not change while it is walked */
    list_init(&all);
    size_t at = 0;
    str_t key;
    void *value;
    while (smap_next(&r->destinations, &at, &key, &value)) {
        struct dest *d = value;
        list_remove(&d->dirty_link);
        list_push_back(&all, &d->dirty_link);
    }
    LIST_EACH(&all, k)
    {
        struct dest *d = container_of(k, struct dest, dirty_link);
        crowd_drop(d);
        dest_free(d);
    }
}

void relay_destroy(struct relay *r)
{
    if (!r)
        return;
    must(!r->active_count && !r->conn_count && !r->resolver.pending);
    free_destinations(r);
    struct timer *timers[] = {&r->wake_timer, &r->sweep_timer, &r->pressed_timer, &r->drain_timer};
    for (size_t i = 0; i < COUNT_OF(timers); i++)
        timer_disarm(r->loop, timers[i]);
    list_remove(&r->hook.link); /* a kick may be on its way */
    note_put(r->held_note);
    smap_free(&r->destinations);
    LIST_EACH(&r->notes, k)
    free(container_of(k, struct note, link));
    heap_free(&r->heap);
    budget_free(&r->budget);
    message_free_spares(r);
    pool_free(&r->message_pool);
    pool_free(&r->conn_pool);
    pool_free(&r->piece_pool);
    settings_free(&r->settings);
    pauses_unref(r->pauses);
    free(r);
}

void relay_take(struct relay *r, struct qmsg *m)
{
    m->owner = NULL;
    m->owner_flags = 0;
    if (!m->held)
        schedule_put(r, m, m->due_ms);
}

void relay_set_policy(struct relay *r, const struct policy *p)
{
    struct settings fresh;
    if (settings_copy(&fresh, policy_config(p)) ==
        0) { /* out of memory: the old times go on, the new routes hold */
        settings_free(&r->settings);
        r->settings = fresh;
    }
    r->policy = p;
    r->policy_generation++;
    size_t at = 0;
    str_t key;
    void *value;
    while (smap_next(&r->destinations, &at, &key, &value))
        crowd_sort_again(value);
}

void relay_set_pauses(struct relay *r, struct pauses *p)
{
    struct pauses *old = r->pauses;
    r->pauses = pauses_ref(p);
    pauses_unref(old);
    size_t at = 0;
    str_t key;
    void *value;
    while (smap_next(&r->destinations, &at, &key, &value)) {
        struct dest *d = value;
        d->paused = pauses_include(p, key);
        dest_mark_dirty(d);
        crowd_look(d);
    }
}

void relay_drain(struct relay *r, uint32_t timeout_ms, void (*drained)(void *ctx), void *ctx)
{
    timer_arm(r->loop, &r->drain_timer, timeout_ms);
    if (r->draining)
        return;
    r->draining = true;
    r->drained = drained;
    r->drained_ctx = ctx;
    size_t at = 0;
    str_t key;
    void *value;
    while (smap_next(&r->destinations, &at, &key, &value))
        dest_cancel_jobs(value);
    LIST_EACH(&r->conns, k)
    outconn_retire(container_of(k, struct outconn, relay_link));
    relay_kick(r);
}

/* --- what an operator may ask --- */

static void active_info(const struct message *msg, struct relay_message_info *out)
{
    out->state = "active";
    if (msg->note)
        out->last_text = note_text(msg->note);
    for (uint32_t i = 0; i < msg->rcpt_count; i++)
        if (msg->rcpts[i].answer.text.p)
            out->last_text = msg->rcpts[i].answer.text;
    for (const struct job *j = msg->jobs; j && !out->destination.p; j = j->next)
        for (uint32_t i = 0; i < j->rcpt_count; i++)
            if (j->rcpts[i]->result != RES_SENT)
                out->destination = j->dest->key;
}

static uint64_t retry_wall_ms(const struct relay *r, const struct dest *d)
{
    uint64_t mono = loop_now_ms(r->loop), wall = wall_ms();
    return d->gate.retry_at_ms > mono ? wall + (d->gate.retry_at_ms - mono) : wall;
}

/* What it waits for is the destination: when that is tried again it goes, in its turn. */
static void aside_info(const struct relay *r, const struct dest *d, struct relay_message_info *out)
{
    out->due_ms = d->gate.down && !d->paused ? retry_wall_ms(r, d) : 0;
    out->last_text = crowd_reason(d);
    out->destination = d->key;
}

void relay_message_info(const struct relay *r, const struct qmsg *m, struct relay_message_info *out)
{
    *out = (struct relay_message_info){.id = m->id,
                                       .arrived_ms = m->arrived_ms,
                                       .due_ms = m->due_ms,
                                       .bytes = m->body_bytes,
                                       .attempts = m->attempts,
                                       .rcpt_count = m->rcpt_count,
                                       .rcpt_pending = m->rcpt_pending,
                                       .state = m->held ? "held" : "deferred"};
    if (m->owner_flags & OWNER_ACTIVE) {
        active_info(m->owner, out);
        return;
    }
    if (m->owner_flags & OWNER_SCHEDULED)
        out->due_ms = r->heap.entries[m->owner_index].due_ms;
    if (m->owner_flags & OWNER_ASIDE) {
        aside_info(r, m->owner, out);
    } else if (m->owner) {
        const struct note *n = m->owner;
        out->last_text = note_text(n);
        out->destination = n->key_n ? note_key(n) : STR_NONE;
    }
    if (m->owner_flags & OWNER_LEASED)
        out->state = "leased";
}

void relay_each_destination(const struct relay *r,
                            void (*each)(void *ctx, const struct relay_destination_info *d), void *ctx)
{
    size_t at = 0;
    str_t key;
    void *value;
    while (smap_next(&r->destinations, &at, &key, &value)) {
        const struct dest *d = value;
        struct relay_destination_info info = {.key = d->key,
                                              .connections = d->gate.connections,
                                              .window = d->gate.window,
                                              .jobs = d->job_count,
                                              .aside = d->aside_count,
                                              .down = d->gate.down,
                                              .paused = d->paused,
                                              .last_text = d->last.a.text};
        if (d->gate.down)
            info.retry_at_ms = retry_wall_ms(r, d);
        each(ctx, &info);
    }
}

static bool take_arrival(void *ctx, struct qmsg *m)
{
    *(uint64_t *)ctx = m->arrived_ms;
    return false;
}

uint64_t relay_oldest_arrived_ms(const struct relay *r)
{
    uint64_t arrived_ms = 0;
    queue_each(r->queue, take_arrival, &arrived_ms);
    return arrived_ms;
}
