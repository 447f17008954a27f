/* verify/backend.c: a route's servers as somebody to ask: made, kept up with the policy, forgotten; its
 * queue; its states. */
#include <errno.h>

#include "core/log.h"
#include "core/metrics.h"
#include "core/rng.h"
#include "verify/probeconn_priv.h"

#define BACKEND_ARENA_MAX ((size_t)64 << 10)
#define WATCHES_MAX       10000 /* domains of one backend with canaries of their own */
#define WATCHES_TRIED     16    /* of those that were used longest ago, for one to forget */

static const enum metric state_metrics[BREAKER_STATES] = {
    [BREAKER_UP] = M_backend_up,     [BREAKER_SUSPECT] = M_backend_suspect,
    [BREAKER_DOWN] = M_backend_down, [BREAKER_REFUSES_US] = M_backend_refuses_us,
    [BREAKER_LOOP] = M_backend_loop,
};

static void follow_policy(struct backend *b, const struct route *route, const struct cfg_verify *s)
{
    hop_access_unref(b->access); /* connections that are open keep theirs */
    b->access = hop_access_ref(route->access);
    b->limits = (struct backend_limits){.connections = MAX(s->connections_max, 1),
                                        .batch = MIN(MAX(s->batch_max, 1), PROBE_BATCH_MAX),
                                        .rate_per_s = s->rate_per_s,
                                        .waiting = s->waiting_max};
}

/* malloc, as an exception: a backend lives for as long as its domain is in use. */
struct backend *backend_new(struct verifier *v, const struct route *route, const struct cfg_verify *s)
{
    struct backend *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->verifier = v;
    b->questions.fold_case = b->watches_by_domain.fold_case = false;
    for (int i = 0; i < RANK_COUNT; i++)
        list_init(&b->queue[i]);
    list_init(&b->conns);
    list_init(&b->watches);
    arena_init(&b->arena, BACKEND_ARENA_MAX);
    b->hook.run = backend_dispatch;
    b->rate_timer.fire = backend_rate;
    b->canary_timer.fire = canary_timer;
    b->used_ms = loop_now_ms(v->loop);
    b->batch_limit = PROBE_BATCH_MAX;
    b->protocol = route->kind == ROUTE_HOSTS ? route->hosts->protocol : ROUTE_SMTP;
    b->key = arena_str(&b->arena, route->key);
    follow_policy(b, route, s);
    b->policy_generation = v->policy_generation;
    metric_add(state_metrics[BREAKER_UP], 1);
    if (!target_copy(&b->target, route, &b->arena) || b->arena.overflow) {
        backend_free(b);
        return NULL;
    }
    return b;
}

struct backend *backend_get(struct verifier *v, const struct route *route, const struct cfg_verify *s)
{
    struct backend *b = smap_get(&v->backends, route->key);
    if (!b) {
        b = backend_new(v, route, s);
        if (b && smap_put(&v->backends, b->key, b)) {
            backend_free(b);
            b = NULL;
        }
        if (b && !timer_armed(&v->sweep_timer))
            timer_arm(v->loop, &v->sweep_timer, BACKEND_SWEEP_MS);
    } else if (b->policy_generation != v->policy_generation) {
        b->policy_generation = v->policy_generation;
        follow_policy(b, route, s);
    }
    if (b)
        b->used_ms = loop_now_ms(v->loop);
    return b;
}

static void forget_watch(struct backend *b, struct domain_watch *d)
{
    must(!d->question_count);
    if (watch_is_blind(&d->watch))
        metric_add(M_domains_blind, -1);
    list_remove(&d->link);
    smap_remove(&b->watches_by_domain, str_cstr(d->domain));
    free(d);
}

void backend_free(struct backend *b)
{
    must(!b->conn_count && !b->resolving && !b->queued_count && !b->batch_count);
    struct loop *l = b->verifier->loop;
    timer_disarm(l, &b->rate_timer);
    timer_disarm(l, &b->canary_timer);
    list_remove(&b->hook.link);
    list_remove(&b->idle_link);
    LIST_EACH(&b->watches, k)
    forget_watch(b, container_of(k, struct domain_watch, link));
    smap_free(&b->watches_by_domain);
    smap_free(&b->questions);
    metric_add(state_metrics[b->breaker.state], -1);
    candidates_free(&b->candidates);
    hop_access_unref(b->access);
    arena_free(&b->arena);
    free(b);
}

static bool is_unused(const struct backend *b, uint64_t now_ms)
{
    return b->used_ms + BACKEND_LINGER_MS <= now_ms && !b->conn_count && !b->resolving && !b->queued_count &&
           !b->batch_count;
}

void backend_sweep(struct timer *t)
{
    struct verifier *v = container_of(t, struct verifier, sweep_timer);
    struct list unused; /* the map may not change while it is walked */
    list_init(&unused);
    size_t at = 0;
    str_t key;
    void *value;
    while (smap_next(&v->backends, &at, &key, &value)) {
        struct backend *b = value;
        if (is_unused(b, loop_now_ms(v->loop)))
            list_push_back(&unused, &b->idle_link);
    }
    LIST_EACH(&unused, k)
    {
        struct backend *b = container_of(k, struct backend, idle_link);
        smap_remove(&v->backends, b->key);
        backend_free(b);
    }
    if (v->backends.used_count)
        timer_arm(v->loop, t, BACKEND_SWEEP_MS);
}

void backend_close(struct backend *b)
{
    struct found f = {.finding = FINDING_CLOSING};
    timer_disarm(b->verifier->loop, &b->rate_timer);
    timer_disarm(b->verifier->loop, &b->canary_timer);
    backend_answer_queue(b, &f);
    LIST_EACH(&b->conns, k)
    probeconn_close(container_of(k, struct probeconn, link));
}

bool backend_is_at(const struct backend *b, const struct ip *ip)
{
    for (uint32_t i = 0; i < b->candidates.count; i++)
        if (ip_eq(&b->candidates.list[i].at.ip, ip))
            return true;
    return false;
}

/* --- domains --- */

/* Anybody can make up subdomains of a wildcard: the newest takes the place of the one used longest ago. */
static bool watches_have_room(struct backend *b)
{
    struct link *k = b->watches.head.prev;
    for (int i = 0; i < WATCHES_TRIED && b->watches_by_domain.used_count >= WATCHES_MAX; i++) {
        struct domain_watch *d = container_of(k, struct domain_watch, link);
        k = k->prev;
        if (!d->question_count)
            forget_watch(b, d);
    }
    return b->watches_by_domain.used_count < WATCHES_MAX;
}

static struct domain_watch *watch_new(struct backend *b, str_t domain)
{
    if (domain.n > ADDRESS_DOMAIN_MAX || !watches_have_room(b))
        return NULL;
    struct domain_watch *d = calloc(1, sizeof *d); /* as the backend */
    if (!d)
        return NULL;
    memcpy(d->domain, domain.p, domain.n);
    if (smap_put(&b->watches_by_domain, str_cstr(d->domain), d)) {
        free(d);
        return NULL;
    }
    list_push_front(&b->watches, &d->link);
    return d;
}

struct domain_watch *backend_domain(struct backend *b, str_t domain)
{
    struct domain_watch *d = smap_get(&b->watches_by_domain, domain);
    if (!d)
        return watch_new(b, domain);
    list_remove(&d->link);
    list_push_front(&b->watches, &d->link);
    return d;
}

/* --- questions --- */

struct question *question_new(struct backend *b, struct domain_watch *d, str_t key, str_t text,
                              enum question_rank rank)
{
    must(key.n <= VERIFY_KEY_MAX && text.n <= PROBE_ADDRESS_MAX);
    struct question *q = pool_get(&b->verifier->question_pool);
    if (!q)
        return NULL;
    q->backend = b;
    q->domain = d;
    if (d)
        d->question_count++;
    q->rank = rank;
    list_init(&q->requests);
    q->asked_ms = loop_now_ms(b->verifier->loop);
    memcpy(q->key, key.p ? key.p : "", key.n);
    q->key_n = (uint16_t)key.n;
    memcpy(q->text, text.p, text.n);
    q->text_n = (uint16_t)text.n;
    q->is_utf8 = !str_is_ascii(text);
    if (key.n && smap_put(&b->questions, str_of(q->key, q->key_n), q) == 0)
        q->in_map = true;
    return q;
}

void question_free(struct question *q)
{
    must(list_empty(&q->requests) && !link_in_list(&q->link) && !q->batch);
    if (q->in_map)
        smap_remove(&q->backend->questions, str_of(q->key, q->key_n));
    if (q->domain)
        q->domain->question_count--;
    pool_put(&q->backend->verifier->question_pool, q);
}

void question_enqueue(struct question *q, bool in_front)
{
    struct backend *b = q->backend;
    q->batch = NULL;
    if (in_front)
        list_push_front(&b->queue[q->rank], &q->link);
    else
        list_push_back(&b->queue[q->rank], &q->link);
    b->queued_count++;
    metric_add(M_probe_queue, 1);
    backend_kick(b);
}

void backend_kick(struct backend *b)
{
    if (!b->verifier->draining)
        loop_at_tick_end(b->verifier->loop, &b->hook);
}

void backend_answer_queue(struct backend *b, const struct found *f)
{
    struct link *k;
    for (int i = 0; i < RANK_COUNT; i++)
        while ((k = list_pop_front(&b->queue[i]))) {
            b->queued_count--;
            metric_add(M_probe_queue, -1);
            question_end(container_of(k, struct question, link), f);
        }
}

/* --- states --- */

enum breaker_state backend_state(const struct backend *b)
{
    return b->breaker.state;
}

void backend_found(const struct backend *b, struct found *out)
{
    static const enum finding findings[BREAKER_STATES] = {
        [BREAKER_UP] = FINDING_LATER,        [BREAKER_SUSPECT] = FINDING_LATER,
        [BREAKER_DOWN] = FINDING_DOWN,       [BREAKER_REFUSES_US] = FINDING_REFUSES_US,
        [BREAKER_LOOP] = FINDING_REFUSES_US, /* who looped was told so; the others may come again */
    };
    *out = b->last;
    out->finding = findings[b->breaker.state];
    out->record = (struct verdict_record){0};
    out->probed = false;
    out->ms = 0;
}

static str_t reply_text(const struct found *f, struct sbuf *out)
{
    if (!f->code)
        return STR_NONE;
    sbuf_printf(out, "%d", f->code);
    if (f->status[0])
        sbuf_printf(out, " %u.%u.%u", f->status[0], f->status[1], f->status[2]);
    return sbuf_view(out);
}

static void say_moved(struct backend *b, enum breaker_state was, const struct found *why)
{
    uint64_t now = loop_now_ms(b->verifier->loop);
    char code[32];
    struct sbuf cb = SBUF_ON(code);
    enum breaker_state is = b->breaker.state;
    str_t reply = is == BREAKER_UP ? STR_NONE : reply_text(why, &cb);
    str_t text = is == BREAKER_UP ? STR_NONE : str_cstr(why->text);
    LOG(verify_backend, LF_STR("dest", b->key), LF_CSTR("state", breaker_name(is)),
        LF_CSTR("was", breaker_name(was)), LF_CSTR("relay", why->relay[0] ? why->relay : NULL),
        LF_U64("retry_s", b->breaker.retry_at_ms > now ? (b->breaker.retry_at_ms - now) / 1000 : 0),
        LF_STR("reply", reply), LF_STR("text", text));
    if (is == BREAKER_REFUSES_US || is == BREAKER_LOOP)
        LOG(verify_alarm, LF_STR("dest", b->key), LF_CSTR("state", breaker_name(is)),
            LF_CSTR("relay", why->relay[0] ? why->relay : NULL), LF_CSTR("stage", smtpc_stage_name(why->at)),
            LF_STR("reply", reply), LF_STR("text", text));
}

void backend_moved(struct backend *b, enum breaker_state was, const struct found *why)
{
    if (b->breaker.state != BREAKER_UP)
        b->last = *why;
    if (b->breaker.state != was) {
        metric_add(state_metrics[was], -1);
        metric_add(state_metrics[b->breaker.state], 1);
        if (!b->transcript) /* else who asked is shown */
            say_moved(b, was, why);
    }
    if (b->breaker.state != BREAKER_UP && !b->breaker.on_trial) {
        struct found f;
        backend_found(b, &f);
        backend_answer_queue(b, &f);
    }
    backend_kick(b);
}
