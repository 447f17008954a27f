/* verify/operator.c: see operator.h. */
#include "verify/operator.h"

#include "verify/verifier_priv.h"

/* --- an address --- */

static struct verifier *home_of(const struct verifier *v, str_t key)
{
    const struct verify_shared *s = v->shared;
    return s->workers[str_ihash(key) % s->worker_count];
}

bool verifier_is_at_home(const struct verifier *v, const struct address *a)
{
    struct route route;
    if (policy_verify_route(v->policy, a, &route))
        return v->worker == 0;
    return home_of(v, route.key) == v;
}

static void until(const struct cfg_verify *s, const struct verdict_record *r, struct verifier_shown *out)
{
    bool good = r->state == VERDICT_GOOD;
    if (r->state == VERDICT_NONE)
        return;
    out->fresh_until_s = r->checked_s + (good ? s->good_fresh_s : s->unknown_fresh_s);
    out->kept_until_s = r->checked_s + (good ? s->good_keep_s : s->unknown_keep_s);
}

/* What its server's state makes of it: the answer, or that it would be asked. */
static void by_backend(const struct verifier *v, const struct address *a, const struct known *k,
                       struct verifier_shown *out)
{
    struct route route;
    struct found f = {.finding = FINDING_NO_ROUTE};
    bool has_route = !policy_verify_route(v->policy, a, &route);
    const struct backend *b = has_route ? smap_get(&v->backends, route.key) : NULL;
    const struct domain_watch *d = b ? smap_get(&b->watches_by_domain, a->domain) : NULL;
    uint64_t now = loop_now_ms(v->loop);
    static const char no_reference[sizeof out->answer.reference]; /* nobody is answered */
    struct sbuf key = {out->backend, 0, sizeof out->backend - 1, false};
    if (has_route)
        sbuf_str(&key, route.key);
    out->backend[key.n] = '\0';
    out->would_ask = has_route;
    if (b) {
        out->state = backend_state(b);
        out->retry_in_ms = b->breaker.retry_at_ms > now ? b->breaker.retry_at_ms - now : 0;
    }
    if (d)
        out->watch = d->watch.state;
    if (d && watch_is_blind(&d->watch) && k->settings->canary_s)
        f.finding = FINDING_BLIND;
    else if (b && breaker_leave(&b->breaker, now) == BREAKER_WAIT)
        backend_found(b, &f);
    else if (has_route)
        return;
    out->would_ask = false;
    verifier_conclude(k->settings, f.finding, &k->record, no_reference, &out->answer);
}

err_t verifier_show(const struct verifier *v, str_t address, struct verifier_shown *out)
{
    struct address a;
    struct known k;
    *out = (struct verifier_shown){0};
    if (address_parse_mailbox(address, &a))
        return ERR_SYNTAX;
    struct verify_query q = {.address = &a, .text = address, .class = CLASS_STRANGER, .policy = v->policy};
    bool is_known = known_look(v, &q, &k, &out->answer);
    struct verify_answer at_once = out->answer;
    out->is_local = policy_domain_is_local(v->policy, a.domain);
    out->settings = k.settings;
    memcpy(out->key, k.key.p ? k.key.p : "", k.key.n);
    out->record = k.record;
    out->age = verify_age(k.settings, &k.record, wall_s());
    until(k.settings, &k.record, out);
    out->has_list = k.list != NULL;
    out->is_listed = k.is_listed;
    by_backend(v, &a, &k, out);
    if (is_known) {
        out->would_ask = false;
        out->answer = at_once;
    }
    return 0;
}

/* --- the backends --- */

static int64_t ago(uint64_t then_ms, uint64_t now_ms)
{
    return then_ms ? (int64_t)(now_ms - then_ms) : -1;
}

static size_t domains_of(const struct backend *b, struct verifier_domain_info *out, size_t max)
{
    uint64_t now = loop_now_ms(b->verifier->loop);
    size_t n = 0;
    LIST_EACH((struct list *)&b->watches, k)
    {
        const struct domain_watch *d = container_of(k, struct domain_watch, link);
        if (n == max)
            break;
        out[n++] = (struct verifier_domain_info){
            .domain = str_cstr(d->domain),
            .state = d->watch.state,
            .canary_due_ms = d->watch.due_ms ? (int64_t)(d->watch.due_ms - now) : 0,
            .refused_ago_ms = ago(d->watch.refused_at_ms, now),
            .good_ago_ms = ago(d->watch.good_at_ms, now),
        };
    }
    return n;
}

static uint32_t in_flight(const struct backend *b)
{
    return (uint32_t)b->questions.used_count > b->queued_count
               ? (uint32_t)b->questions.used_count - b->queued_count
               : 0;
}

static void describe(const struct backend *b, const struct verifier_domain_info *domains, size_t domain_count,
                     void (*each)(void *ctx, const struct verifier_backend_info *i), void *ctx)
{
    char reply[64 + ANSWER_TEXT_MAX];
    struct sbuf rb = SBUF_ON(reply);
    uint64_t now = loop_now_ms(b->verifier->loop);
    const struct found *last = &b->last;
    if (last->code) {
        sbuf_printf(&rb, "%d", last->code);
        if (last->status[0])
            sbuf_printf(&rb, " %u.%u.%u", last->status[0], last->status[1], last->status[2]);
    }
    if (last->text[0])
        sbuf_printf(&rb, "%s%s", rb.n ? " " : "", last->text);
    each(ctx, &(struct verifier_backend_info){
                  .key = b->key,
                  .worker = b->verifier->worker,
                  .state = backend_state(b),
                  .on_trial = b->breaker.on_trial,
                  .failures = b->breaker.failures,
                  .state_for_ms = b->breaker.since_ms ? now - b->breaker.since_ms : 0,
                  .retry_in_ms = b->breaker.retry_at_ms > now ? b->breaker.retry_at_ms - now : 0,
                  .connections = b->conn_count,
                  .in_flight = in_flight(b),
                  .queued = b->queued_count,
                  .connections_max = b->limits.connections,
                  .waiting_max = b->limits.waiting,
                  .rate_per_s = b->limits.rate_per_s,
                  .batch = MIN(b->batch_limit, b->limits.batch),
                  .refusals = patience_limit(&b->patience),
                  .sender = b->refuses_empty ? "token" : "empty",
                  .relay = last->relay[0] ? str_cstr(last->relay) : STR_NONE,
                  .reply = rb.n ? sbuf_view(&rb) : STR_NONE,
                  .why = last->why,
                  .domains = domains,
                  .domain_count = domain_count,
              });
}

void verifier_each_backend(const struct verifier *v,
                           void (*each)(void *ctx, const struct verifier_backend_info *b), void *ctx)
{
    size_t at = 0;
    str_t key;
    void *value;
    while (smap_next(&v->backends, &at, &key, &value)) {
        const struct backend *b = value;
        size_t max = b->watches_by_domain.used_count;
        struct verifier_domain_info *domains = calloc(MAX(max, 1), sizeof *domains); /* an admin's call */
        if (!domains)
            continue;
        describe(b, domains, domains_of(b, domains, max), each, ctx);
        free(domains);
    }
}

/* Those that were found to take everything: perhaps they do not any more. */
static bool hurry_canaries(struct backend *b)
{
    bool some = false;
    LIST_EACH(&b->watches, k)
    {
        struct domain_watch *d = container_of(k, struct domain_watch, link);
        if (!watch_is_blind(&d->watch))
            continue;
        d->watch.due_ms = loop_now_ms(b->verifier->loop);
        struct address a = {.local = STR("postmaster"), .domain = str_cstr(d->domain)};
        canary_check(b, d, policy_verify(b->verifier->policy, &a));
        some = true;
    }
    return some;
}

void verifier_retry(struct verifier *v, str_t key, uint32_t *count, uint32_t *hurried)
{
    size_t at = 0;
    str_t k;
    void *value;
    *count = *hurried = 0;
    while (smap_next(&v->backends, &at, &k, &value)) {
        struct backend *b = value;
        if (key.n && !str_ieq(k, key))
            continue;
        ++*count;
        bool is_blind = hurry_canaries(b), is_up = backend_state(b) == BREAKER_UP;
        *hurried += is_blind || !is_up;
        if (is_up)
            continue;
        b->breaker.retry_at_ms = 0; /* the next question is the trial */
        b->open_after_ms = 0;
    }
}
