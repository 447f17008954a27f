/* relay/destination.c: destinations by key: made, kept up with the policy, given jobs, forgotten. */
#include "core/rng.h"
#include "relay/dest_priv.h"

#define DNS_CONNECTIONS_MAX 20 /* to a domain without a route of its own, per worker */
#define SWEEP_MS            30000
#define DEST_ARENA_MAX      ((size_t)256 << 10)

struct options { /* what may change under the same key */
    enum tls_level tls;
    uint32_t connections_max;
};

static struct options route_options(const struct route *route)
{
    if (route->kind == ROUTE_HOSTS)
        return (struct options){route->hosts->tls, route->hosts->connections_max};
    return (struct options){TLS_MAY, DNS_CONNECTIONS_MAX};
}

static bool copy_route(struct dest *d, const struct route *route)
{
    d->protocol = route->kind == ROUTE_HOSTS ? route->hosts->protocol : ROUTE_SMTP;
    d->key = arena_str(&d->arena, route->key);
    return target_copy(&d->target, route, &d->arena) && !d->arena.overflow;
}

void dest_free(struct dest *d)
{
    must(!d->users && !d->resolving && list_empty(&d->conns) && list_empty(&d->ready));
    struct relay *r = d->relay;
    if (link_in_list(&d->idle_link))
        r->idle_count--;
    list_remove(&d->idle_link);
    list_remove(&d->dirty_link);
    list_remove(&d->pressed_link);
    if (d->gate.down)
        dest_stats_down(d->stats, -1);
    if (d->key.p)
        smap_remove(&r->destinations, d->key);
    note_put(d->note);
    candidates_free(&d->candidates);
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
    arena_init(&d->arena, DEST_ARENA_MAX);
    struct options o = route_options(route);
    d->tls = o.tls;
    gate_init(&d->gate, o.connections_max);
    d->policy_generation = r->policy_generation;
    if (!copy_route(d, route) || smap_put(&r->destinations, d->key, d)) {
        d->key = STR_NONE; /* not in the map */
        dest_free(d);
        return NULL;
    }
    d->stats = dest_stats_get(d->key);
    return d;
}

/* The key stands for hosts, ports and protocol; the rest follows the newest policy. */
static void follow_policy(struct dest *d, const struct route *route)
{
    struct options o = route_options(route);
    d->policy_generation = d->relay->policy_generation;
    gate_set_window_max(&d->gate, o.connections_max);
    if (d->tls != o.tls) {
        d->tls = o.tls;
        d->options_generation++;
    }
}

struct dest *dest_get(struct relay *r, const struct route *route)
{
    struct dest *d = smap_get(&r->destinations, route->key);
    if (!d)
        return dest_new(r, route);
    if (d->policy_generation != r->policy_generation)
        follow_policy(d, route);
    if (link_in_list(&d->idle_link)) {
        list_remove(&d->idle_link);
        r->idle_count--;
    }
    return d;
}

void dest_mark_dirty(struct dest *d)
{
    if (!link_in_list(&d->dirty_link))
        list_push_back(&d->relay->dirty, &d->dirty_link);
    relay_kick(d->relay);
}

/* To the end of the back-off, or, when that is over and the trial has jobs enough waiting for it, a while
 * later. Spread, so that they do not all come back in one tick. */
void dest_defer_job(struct dest *d, struct job *j)
{
    uint64_t now = loop_now_ms(d->relay->loop);
    uint64_t wait_ms = d->gate.retry_at_ms > now ? d->gate.retry_at_ms - now
                                                 : (uint64_t)d->relay->settings.retry.first_s * 250;
    wait_ms += rng_below(MIN(wait_ms / 10, 30000) + 1);
    uint64_t due_ms = wall_ms() + wait_ms;
    struct message *msg = j->msg;
    msg->retry_due_ms = msg->retry_due_ms ? MIN(msg->retry_due_ms, due_ms) : due_ms;
    struct answer a = d->last.a;
    if (!a.text.p)
        a.text = STR("the destination is down");
    job_fail(j, RES_DEFERRED, &a, NULL);
}

void dest_add_job(struct dest *d, struct job *j)
{
    uint64_t now = loop_now_ms(d->relay->loop);
    d->job_count++;
    if (d->relay->draining) {
        job_cancel(j);
    } else if (d->refused_until_ms > now) {
        job_fail(j, RES_BOUNCED, &d->refused.a, &(struct hop){STR_NONE, STR_NONE});
    } else if (d->gate.down && (now < d->gate.retry_at_ms || d->ready_count >= RELAY_TRIAL_JOBS_MAX)) {
        dest_defer_job(d, j);
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
    dest_check_idle(d);
}

void dest_check_idle(struct dest *d)
{
    struct relay *r = d->relay;
    if (d->users || d->resolving || !list_empty(&d->conns) || link_in_list(&d->idle_link))
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
