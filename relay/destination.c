/* relay/destination.c: destinations by key: made, kept up with the policy, given jobs, forgotten. */
#include "relay/dest_priv.h"

#define SWEEP_MS       30000
#define DEST_ARENA_MAX ((size_t)256 << 10)

struct options { /* what may change under the same key */
    uint32_t connections_max, messages_max;
    struct cfg_rate rate;
};

static struct options route_options(const struct relay *r, const struct route *route)
{
    bool is_dns = route->kind == ROUTE_DNS;
    const struct cfg_route *cfg = is_dns ? &policy_config(r->policy)->destination : route->hosts;
    return (struct options){cfg->connections_max, cfg->messages_max, cfg->rate};
}

static bool copy_route(struct dest *d, const struct route *route)
{
    d->protocol = route->kind == ROUTE_HOSTS ? route->hosts->protocol : ROUTE_SMTP;
    d->key = arena_str(&d->arena, route->key);
    return target_copy(&d->target, route, &d->arena) && !d->arena.overflow;
}

void dest_free(struct dest *d)
{
    must(!d->users && !d->aside_count && !d->resolving && list_empty(&d->conns) && list_empty(&d->ready));
    struct relay *r = d->relay;
    if (link_in_list(&d->idle_link))
        r->idle_count--;
    list_remove(&d->idle_link);
    list_remove(&d->dirty_link);
    list_remove(&d->pressed_link);
    list_remove(&d->hungry_link);
    timer_disarm(r->loop, &d->wake_timer);
    if (d->gate.down)
        dest_stats_down(d->stats, -1);
    if (d->key.p)
        smap_remove(&r->destinations, d->key);
    note_put(d->note);
    candidates_free(&d->candidates);
    hop_access_unref(d->access);
    arena_free(&d->arena);
    free(d);
}

/* malloc, as an exception: a destination lives for minutes and serves many messages. */
static struct dest *dest_new(struct relay *r, const struct route *route)
{
    struct dest *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->relay = r;
    list_init(&d->ready);
    list_init(&d->conns);
    list_init(&d->aside);
    d->wake_timer.fire = crowd_wake;
    arena_init(&d->arena, DEST_ARENA_MAX);
    struct options o = route_options(r, route);
    d->access = hop_access_ref(route->access);
    d->messages_max = o.messages_max;
    d->rate = o.rate;
    gate_init(&d->gate, o.connections_max);
    d->policy_generation = r->policy_generation;
    d->paused = pauses_include(r->pauses, route->key);
    if (!copy_route(d, route) || smap_put(&r->destinations, d->key, d)) {
        d->key = STR_NONE; /* not in the map */
        dest_free(d);
        return NULL;
    }
    d->stats = dest_stats_get(d->key, route->kind == ROUTE_HOSTS);
    d->rate_at = dest_stats_rate(d->stats);
    if (!d->rate_at)
        d->rate_at = &d->own_rate_at;
    return d;
}

/* The key stands for hosts, ports and protocol; the rest follows the newest policy. */
static void follow_policy(struct dest *d, const struct route *route)
{
    struct options o = route_options(d->relay, route);
    d->messages_max = o.messages_max;
    d->rate = o.rate;
    d->policy_generation = d->relay->policy_generation;
    gate_set_window_max(&d->gate, o.connections_max);
    if (!hop_access_same(d->access, route->access))
        d->options_generation++;
    hop_access_unref(d->access);
    d->access = hop_access_ref(route->access);
}

struct dest *dest_get(struct relay *r, const struct route *route)
{
    struct dest *d = smap_get(&r->destinations, route->key);
    if (!d)
        return dest_new(r, route);
    if (d->policy_generation != r->policy_generation)
        follow_policy(d, route);
    dest_in_use(d);
    return d;
}

void dest_in_use(struct dest *d)
{
    if (!link_in_list(&d->idle_link))
        return;
    list_remove(&d->idle_link);
    d->relay->idle_count--;
}

void dest_mark_dirty(struct dest *d)
{
    if (!link_in_list(&d->dirty_link))
        list_push_back(&d->relay->dirty, &d->dirty_link);
    relay_kick(d->relay);
}

void dest_add_job(struct dest *d, struct job *j)
{
    uint64_t now = loop_now_ms(d->relay->loop);
    d->job_count++;
    if (d->relay->draining) {
        job_cancel(j);
    } else if (d->refused_until_ms > now) {
        job_fail(j, RES_BOUNCED, &d->refused.a, &(struct hop){0});
    } else if (!crowd_takes(d, j)) {
        crowd_turn_away(d, j, j->msg->called_by == d);
    } else {
        j->ready_ms = now;
        list_push_back(&d->ready, &j->link);
        d->ready_count++;
        dest_mark_dirty(d);
    }
}

struct job *dest_take_job(struct dest *d)
{
    struct link *k = list_pop_front(&d->ready);
    if (!k)
        return NULL;
    d->ready_count--;
    return container_of(k, struct job, link);
}

bool dest_drop_job(struct dest *d, struct job *j)
{
    if (j->conn || !link_in_list(&j->link))
        return false;
    list_remove(&j->link);
    d->ready_count--;
    return true;
}

struct job *dest_take_last_job(struct dest *d)
{
    if (list_empty(&d->ready))
        return NULL;
    struct link *k = d->ready.head.prev;
    list_remove(k);
    d->ready_count--;
    return container_of(k, struct job, link);
}

void dest_put_back(struct dest *d, struct job *j)
{
    j->conn = NULL;
    list_push_front(&d->ready, &j->link);
    d->ready_count++;
    dest_mark_dirty(d);
}

void dest_job_ended(struct dest *d)
{
    must(d->job_count > 0);
    d->job_count--;
}

void dest_user_gone(struct dest *d)
{
    must(d->users > 0);
    d->users--;
    if (d->aside_count)
        crowd_look(d);
    dest_check_idle(d);
}

void dest_check_idle(struct dest *d)
{
    struct relay *r = d->relay;
    if (d->users || d->aside_count || d->resolving || !list_empty(&d->conns) || link_in_list(&d->idle_link))
        return;
    d->idle_since_ms = loop_now_ms(r->loop);
    list_push_back(&r->idle, &d->idle_link);
    r->idle_count++;
    if (!timer_armed(&r->sweep_timer))
        timer_arm(r->loop, &r->sweep_timer, SWEEP_MS);
}

/* Forgets destinations that were not used for a while. One that is down is kept for the sake of its back-off,
 * unless there are far too many. */
void dest_sweep(struct timer *t)
{
    struct relay *r = container_of(t, struct relay, sweep_timer);
    uint64_t now = loop_now_ms(r->loop);
    for (uint32_t left = r->idle_count; left > 0; left--) {
        struct dest *d = container_of(list_first(&r->idle), struct dest, idle_link);
        bool is_crowded = r->idle_count > RELAY_DEST_IDLE_MAX;
        if (!is_crowded && d->idle_since_ms + RELAY_DEST_LINGER_MS > now)
            break;
        if (!is_crowded && d->gate.down && now < d->gate.retry_at_ms + RELAY_DEST_LINGER_MS) {
            list_remove(&d->idle_link);
            list_push_back(&r->idle, &d->idle_link);
            d->idle_since_ms = now;
            continue;
        }
        dest_free(d);
    }
    if (r->idle_count)
        timer_arm(r->loop, t, SWEEP_MS);
}
