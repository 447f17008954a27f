/* verify/verifier.c: the door: creation, reload, shutdown, and the way of a question from what is known at
 * once to a lookup. */
#include "verify/verifier.h"

#include <errno.h>

#include "core/metrics.h"
#include "core/rng.h"
#include "verify/probeconn_priv.h"

#define QUESTIONS_MAX 200000 /* per worker, over all backends */

static void drain_step(struct tick_hook *h);

/* --- life --- */

err_t verifier_create(struct verifier **out, const struct verifier_options *opt)
{
    struct verifier *v = calloc(1, sizeof *v);
    *out = NULL;
    if (!v)
        return -ENOMEM;
    err_t err = hop_settings_copy(&v->hop, policy_config(opt->policy));
    if (err) {
        free(v);
        return err;
    }
    v->shared = opt->shared;
    v->loop = opt->loop;
    v->policy = opt->policy;
    v->worker = opt->worker;
    v->resolver = (struct resolver){.loop = opt->loop, .dns = opt->dns, .settings = &v->hop};
    list_init(&v->lookups_out);
    list_init(&v->private_backends);
    pool_init(&v->lookup_pool, "verify_lookups", sizeof(struct lookup), PROBE_LOOKUPS_MAX);
    pool_init(&v->question_pool, "verify_questions", sizeof(struct question), QUESTIONS_MAX);
    pool_init(&v->batch_pool, "verify_batches", sizeof(struct batch), 0);
    pool_init(&v->conn_pool, "verify_connections", probeconn_bytes(), 0);
    v->sweep_timer.fire = backend_sweep;
    v->drain_hook.run = drain_step;
    *out = v;
    return 0;
}

static void free_lists(struct verifier *v)
{
    for (size_t i = 0; i < v->list_count; i++) {
        free((char *)v->lists[i].path.p);
        recipient_list_unref(v->lists[i].list);
    }
    free(v->lists);
    v->lists = NULL;
    v->list_count = 0;
}

static void free_backends(struct verifier *v)
{
    struct list all; /* the map may not change while it is walked */
    list_init(&all);
    size_t at = 0;
    str_t key;
    void *value;
    while (smap_next(&v->backends, &at, &key, &value))
        list_push_back(&all, &((struct backend *)value)->idle_link);
    LIST_EACH(&all, k)
    backend_free(container_of(k, struct backend, idle_link));
    smap_free(&v->backends);
}

void verifier_destroy(struct verifier *v)
{
    if (!v)
        return;
    must(list_empty(&v->lookups_out) && !v->conn_count && !v->resolver.pending);
    must(list_empty(&v->private_backends));
    timer_disarm(v->loop, &v->sweep_timer);
    list_remove(&v->drain_hook.link);
    free_backends(v);
    free_lists(v);
    smap_free(&v->lookups);
    pool_free(&v->lookup_pool);
    pool_free(&v->question_pool);
    pool_free(&v->batch_pool);
    pool_free(&v->conn_pool);
    hop_settings_free(&v->hop);
    free(v);
}

void verifier_set_policy(struct verifier *v, const struct policy *p)
{
    struct hop_settings fresh;
    if (hop_settings_copy(&fresh, policy_config(p)) == 0) { /* out of memory: the old ones go on */
        hop_settings_free(&v->hop);
        v->hop = fresh;
    }
    v->policy = p;
    v->policy_generation++;
}

err_t verifier_set_lists(struct verifier *v, const struct verify_list *lists, size_t count)
{
    struct verify_list *fresh = calloc(MAX(count, 1), sizeof *fresh);
    if (!fresh)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        char *path = malloc(lists[i].path.n + 1);
        if (!path) {
            while (i-- > 0)
                free((char *)fresh[i].path.p);
            free(fresh);
            return -ENOMEM;
        }
        memcpy(path, lists[i].path.p, lists[i].path.n);
        fresh[i] = lists[i];
        fresh[i].path = str_of(path, lists[i].path.n);
    }
    for (size_t i = 0; i < count; i++)
        recipient_list_ref(fresh[i].list);
    free_lists(v);
    v->lists = fresh;
    v->list_count = count;
    return 0;
}

/* --- shutdown --- */

void verifier_check_drained(struct verifier *v)
{
    if (v->draining && v->drained)
        loop_at_tick_end(v->loop, &v->drain_hook);
}

static void drain_step(struct tick_hook *h)
{
    struct verifier *v = container_of(h, struct verifier, drain_hook);
    if (!v->drained || !list_empty(&v->lookups_out) || v->conn_count || v->resolver.pending)
        return;
    while (!list_empty(&v->private_backends)) /* told already, and now without connections */
        probe_now_over(container_of(list_first(&v->private_backends), struct backend, idle_link));
    void (*drained)(void *ctx) = v->drained;
    v->drained = NULL;
    timer_disarm(v->loop, &v->sweep_timer);
    drained(v->drained_ctx); /* last: the verifier may be destroyed in it */
}

void verifier_drain(struct verifier *v, void (*drained)(void *ctx), void *ctx)
{
    must(!v->draining);
    v->draining = true;
    v->drained = drained;
    v->drained_ctx = ctx;
    struct found closing = {.finding = FINDING_CLOSING};
    LIST_EACH(&v->lookups_out, k)
    lookup_conclude(container_of(k, struct lookup, link), &closing);
    size_t at = 0;
    str_t key;
    void *value;
    while (smap_next(&v->backends, &at, &key, &value))
        backend_close(value);
    LIST_EACH(&v->private_backends, k)
    backend_close(container_of(k, struct backend, idle_link));
    verifier_check_drained(v);
}

/* --- asking --- */

static bool is_own_token(const struct verifier *v, const struct verify_query *q)
{
    struct address a;
    return q->sender.n && address_parse_mailbox(q->sender, &a) == 0 &&
           verifier_is_token(v->shared, policy_config(q->policy), &a);
}

bool verifier_is_token(const struct verify_shared *s, const struct config *c, const struct address *a)
{
    return str_ieq(a->domain, c->hostname) && token_is_ours(s->token_key, a->local, wall_s());
}

/* Something for the backend's worker that nobody here waits for. */
static void send_along(struct verifier *v, enum request_kind kind, const struct verify_query *q, str_t key)
{
    struct route route;
    if (v->draining || policy_verify_route(q->policy, q->address, &route))
        return;
    bool joins = kind == REQUEST_ASK || kind == REQUEST_REFRESH;
    if (joins && smap_get(&v->lookups, key))
        return;
    struct lookup *l = lookup_new(v, kind, q, key, joins);
    if (l)
        lookup_send(l, &route);
}

static err_t ask(struct verifier *v, const struct verify_query *q, const struct known *k,
                 struct verify_ask *a, struct verify_answer *now)
{
    struct route route;
    char reference[14];
    struct lookup *l = smap_get(&v->lookups, k->key);
    enum finding f = FINDING_OVERFLOW;
    if (v->draining)
        f = FINDING_CLOSING;
    else if (policy_verify_route(q->policy, q->address, &route))
        f = FINDING_NO_ROUTE;
    else if (l && !lookup_is_suspicious(q, k->settings)) {
        if (l->request.kind == REQUEST_REFRESH) /* which the backend may leave undone */
            l = NULL;
    } else {
        l = NULL; /* it goes to the backend's worker by itself, which knows whether it is one that asks back
                   */
    }
    if (f == FINDING_OVERFLOW && !l) {
        l = lookup_new(v, REQUEST_ASK, q, k->key, !smap_get(&v->lookups, k->key));
        if (l) {
            l->request.is_known = k->record.state != VERDICT_NONE;
            lookup_send(l, &route);
        }
    }
    if (l && f == FINDING_OVERFLOW) {
        lookup_join(l, a, q);
        return ERR_PENDING;
    }
    if (f == FINDING_OVERFLOW)
        metric_inc(M_probes_overflow);
    qid_format(rng_u64(), reference);
    verifier_conclude(k->settings, f, &k->record, reference, now);
    return 0;
}

err_t verifier_ask(struct verifier *v, const struct verify_query *q, struct verify_ask *a,
                   struct verify_answer *now)
{
    struct known k;
    a->lookup = NULL;
    a->verifier = v;
    bool is_known = known_answer(v, q, &k, now);
    if (k.key.n && k.settings->mode == VERIFY_UNVERIFIED && is_own_token(v, q)) {
        send_along(v, REQUEST_LOOPED, q, k.key);
        *now = (struct verify_answer){R_verify_loop, false, R_verify_loop, FROM_OWN_PROBE, ""};
    } else if (!is_known && q->known_only) {
        *now = (struct verify_answer){R_no_space, false, R_no_space, FROM_SHED, ""};
    } else if (!is_known) {
        err_t err = ask(v, q, &k, a, now);
        if (err)
            return err;
    } else if (k.age == AGE_REFRESH && !q->known_only) {
        send_along(v, REQUEST_REFRESH, q, k.key);
    }
    verifier_count(v, q->policy, q->address, now);
    return 0;
}

void verifier_hint(struct verifier *v, const struct verify_query *q)
{
    struct known k;
    struct verify_answer now;
    if (!known_answer(v, q, &k, &now))
        send_along(v, REQUEST_ASK, q, k.key);
}

/* --- learning --- */

static str_t learnable(const struct verifier *v, const struct address *a, const struct cfg_verify **s,
                       struct sbuf *buf)
{
    *s = policy_verify(v->policy, a);
    if ((*s)->mode != VERIFY_UNVERIFIED)
        return STR_NONE;
    struct verdict_key_rules rules = verify_key_rules(*s);
    return verdict_key(a, &rules, buf);
}

/* Replies out of the cache will refer to this line. */
static void learn_refusal(struct verifier *v, str_t key, const struct cfg_verify *s, enum verdict verdict,
                          enum smtpc_stage at, const struct smtp_reply *reply)
{
    struct found f;
    found_fill(&f, at, reply, STR_NONE, "a delivery was refused");
    f.finding = FINDING_KNOWN;
    f.record = verifier_learn(v, key, s, verdict, SOURCE_DELIVERY, false);
    found_log(&f, key, key, STR_NONE, NULL, 0, 0);
}

void verifier_learn_delivery(struct verifier *v, const struct address *rcpt, enum smtpc_stage at,
                             const struct smtp_reply *reply, bool accepted)
{
    char bytes[VERIFY_KEY_MAX], text_bytes[PROBE_ADDRESS_MAX];
    struct sbuf b = SBUF_ON(bytes), tb = SBUF_ON(text_bytes);
    const struct cfg_verify *s;
    str_t key = learnable(v, rcpt, &s, &b);
    if (!key.n)
        return;
    enum triage t = accepted ? TRIAGE_GOOD : triage_reply(at, reply, NULL);
    if (accepted)
        verifier_learn(v, key, s, VERDICT_GOOD, SOURCE_DELIVERY, false);
    else if (t == TRIAGE_UNKNOWN || t == TRIAGE_DISABLED)
        learn_refusal(v, key, s, t == TRIAGE_UNKNOWN ? VERDICT_UNKNOWN : VERDICT_DISABLED, at, reply);
    bool at_rcpt = at == STAGE_RCPT;
    if (t != TRIAGE_UNKNOWN || (!at_rcpt && at != STAGE_DATA && at != STAGE_DOT))
        return;
    str_t text = address_canonical(rcpt, &tb);
    if (text.n) /* does its server take all there, or not any more? */
        send_along(v, at_rcpt ? REQUEST_RCPT_REFUSED : REQUEST_DATA_REFUSED,
                   &(struct verify_query){.address = rcpt, .text = text, .policy = v->policy}, key);
}

void verifier_learn_sender(struct verifier *v, const struct address *sender)
{
    char bytes[VERIFY_KEY_MAX];
    struct sbuf b = SBUF_ON(bytes);
    const struct cfg_verify *s;
    struct verdict_record known;
    if (sender->is_null || !policy_domain_is_local(v->policy, sender->domain))
        return;
    str_t key = learnable(v, sender, &s, &b);
    if (!key.n)
        return;
    if (!verdict_cache_peek(v->shared->known.cache, key, &known) ||
        verify_age(s, &known, wall_s()) == AGE_NONE)
        verifier_learn(v, key, s, VERDICT_GOOD, SOURCE_SENDER, false);
}
