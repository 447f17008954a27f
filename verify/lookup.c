/* verify/lookup.c: the asking side: one lookup for all sessions of this worker that wait for the same
 * address. */
#include "core/log.h"
#include "core/metrics.h"
#include "core/rng.h"
#include "verify/verifier_priv.h"

static str_t key_of(const struct lookup *l)
{
    return str_of(l->request.key, l->request.key_n);
}

static str_t text_of(const struct lookup *l)
{
    return str_of(l->request.text, l->request.text_n);
}

/* A sender such as verifying servers have: none, or a probe's. *token: another gateway's. */
static bool is_callback(const struct verify_query *q, const struct cfg_verify *s, bool *token)
{
    struct address a;
    *token = false;
    if (!q->sender.n)
        return true;
    if (address_parse_mailbox(q->sender, &a))
        return false;
    *token = token_has_form(a.local);
    return *token || (s->sender.kind == SENDER_ADDRESS && str_ieq(q->sender, s->sender.address));
}

bool lookup_is_suspicious(const struct verify_query *q, const struct cfg_verify *s)
{
    bool token;
    return is_callback(q, s, &token);
}

struct lookup *lookup_new(struct verifier *v, enum request_kind kind, const struct verify_query *q, str_t key,
                          bool in_map)
{
    struct lookup *l =
        key.n <= VERIFY_KEY_MAX && q->text.n <= PROBE_ADDRESS_MAX ? pool_get(&v->lookup_pool) : NULL;
    if (!l)
        return NULL;
    struct request *r = &l->request;
    const struct cfg_verify *s = policy_verify(q->policy, q->address);
    bool token;
    l->verifier = v;
    list_init(&l->asks);
    l->started_ms = loop_now_ms(v->loop);
    qid_format(rng_u64(), l->reference);
    r->from = v;
    r->kind = kind;
    r->client = q->client;
    r->is_callback = is_callback(q, s, &token);
    if (token && q->sender.n <= PROBE_ADDRESS_MAX) {
        memcpy(r->sender, q->sender.p, q->sender.n);
        r->sender_n = (uint16_t)q->sender.n;
    }
    memcpy(r->key, key.p, key.n);
    r->key_n = (uint16_t)key.n;
    memcpy(r->text, q->text.p, q->text.n);
    r->text_n = (uint16_t)q->text.n;
    if (in_map && smap_put(&v->lookups, key_of(l), l) == 0)
        l->in_map = true;
    return l;
}

void lookup_send(struct lookup *l, const struct route *route)
{
    struct verifier *v = l->verifier;
    struct verify_shared *s = v->shared;
    struct sbuf b = {l->backend, 0, sizeof l->backend - 1, false};
    sbuf_str(&b, str_sub(route->key, 0, sizeof l->backend - 1));
    l->backend[b.n] = '\0';
    list_push_back(&v->lookups_out, &l->link);
    l->request.to = s->workers[str_ihash(route->key) % s->worker_count];
    l->request.mail.deliver = request_arrived;
    loop_post(l->request.to->loop, &l->request.mail);
}

void verifier_enforce(const struct cfg_verify *s, struct verify_answer *out)
{
    if (s->enforce || out->reply == R_rcpt_ok)
        return;
    out->shadow = true;
    out->reply = R_rcpt_ok;
}

void verifier_conclude(const struct cfg_verify *s, enum finding f, const struct verdict_record *record,
                       const char *reference, struct verify_answer *out)
{
    *out = (struct verify_answer){0};
    out->reply = out->would = answer_for(s, f, record, wall_s(), &out->source);
    if (out->reply == R_rcpt_ok)
        return;
    memcpy(out->reference, reference, sizeof out->reference);
    verifier_enforce(s, out);
}

/* A refusal that is remembered is named by its verdict, so that every later reply out of the cache leads
 * here, too; anything else by its lookup. */
static void reference_of(const struct found *f, str_t key, const char *lookup, char out[14])
{
    if (f->finding == FINDING_KNOWN && f->record.state > VERDICT_GOOD)
        verdict_reference(key, &f->record, out);
    else
        memcpy(out, lookup ? lookup : "", lookup ? 14 : 1);
}

void found_log(const struct found *f, str_t key, str_t text, str_t backend, const char *lookup,
               uint32_t waiting, uint64_t ms)
{
    char code[32], reference[14];
    struct sbuf cb = SBUF_ON(code);
    struct answer a = {.code = f->code, .status = {f->status[0], f->status[1], f->status[2]}};
    bool is_verdict = f->finding == FINDING_KNOWN;
    reference_of(f, key, lookup, reference);
    LOG(verify, LF_CSTR("ref", reference[0] ? reference : NULL), LF_STR("to", text), LF_STR("dest", backend),
        LF_CSTR("relay", f->relay[0] ? f->relay : NULL), LF_CSTR("result", finding_name(f->finding)),
        LF_CSTR("verdict", is_verdict ? verdict_name((enum verdict)f->record.state) : NULL),
        LF_CSTR("stage", f->code || f->text[0] ? smtpc_stage_name(f->at) : NULL),
        LF_STR("reply", answer_code(&a, &cb)), LF_CSTR("text", f->text[0] ? f->text : NULL),
        LF_CSTR("why", f->why), LF_CSTR("lookup", lookup), LF_U64("waiting", waiting), LF_U64("ms", ms));
}

static void log_found(const struct lookup *l, const struct found *f)
{
    uint32_t waiting = 0;
    LIST_EACH(&l->asks, k)
    waiting++;
    found_log(f, key_of(l), text_of(l), str_cstr(l->backend), l->reference, waiting,
              loop_now_ms(l->verifier->loop) - l->started_ms);
}

static void answer(struct lookup *l, struct verify_ask *a, const struct found *f)
{
    struct verify_answer out;
    struct verifier *v = l->verifier;
    struct address to;
    char reference[14];
    list_remove(&a->link);
    timer_disarm(v->loop, &a->timer);
    metric_add(M_verify_waiting, -1);
    a->lookup = NULL;
    if (address_parse_mailbox(text_of(l), &to))
        to = (struct address){0}; /* was one when it was asked for: this cannot be */
    reference_of(f, key_of(l), l->reference, reference);
    verifier_conclude(policy_verify(a->policy, &to), f->finding, &f->record, reference, &out);
    verifier_count(v, a->policy, &to, &out);
    a->done(a, &out);
}

static struct verdict_record known(const struct lookup *l)
{
    struct verdict_record r = {0};
    if (!verdict_cache_get(l->verifier->shared->known.cache, key_of(l), wall_s(), &r))
        r = (struct verdict_record){0};
    return r;
}

static void timed_out(struct timer *t)
{
    struct verify_ask *a = container_of(t, struct verify_ask, timer);
    struct lookup *l = a->lookup;
    struct found f = {.finding = FINDING_TIMEOUT, .record = known(l)};
    log_found(l, &f);
    answer(l, a, &f);
}

void lookup_join(struct lookup *l, struct verify_ask *a, const struct verify_query *q)
{
    struct verifier *v = l->verifier;
    const struct config *c = policy_config(q->policy);
    a->verifier = v;
    a->lookup = l;
    a->policy = q->policy;
    a->class = (uint8_t)q->class;
    a->link = (struct link){0};
    a->timer = (struct timer){.fire = timed_out};
    list_push_back(&l->asks, &a->link);
    timer_arm(v->loop, &a->timer,
              q->class == CLASS_EDGE ? c->timeouts.verify_edge : c->timeouts.verify_stranger);
    metric_add(M_verify_waiting, 1);
}

void verifier_cancel(struct verify_ask *a)
{
    if (!a->lookup)
        return;
    list_remove(&a->link);
    timer_disarm(a->verifier->loop, &a->timer);
    metric_add(M_verify_waiting, -1);
    a->lookup = NULL;
}

void lookup_conclude(struct lookup *l, const struct found *f)
{
    struct link *k;
    while ((k = list_first(&l->asks)))
        answer(l, container_of(k, struct verify_ask, link), f);
}

void lookup_returned(struct mail *m)
{
    struct lookup *l = container_of(m, struct lookup, request.mail);
    struct verifier *v = l->verifier;
    struct found *f = &l->request.found;
    list_remove(&l->link);
    if (l->in_map)
        smap_remove(&v->lookups, key_of(l));
    bool is_asked = l->request.kind == REQUEST_ASK || f->probed;
    if (is_asked && f->finding != FINDING_CLOSING)
        log_found(l, f);
    if (f->finding != FINDING_KNOWN)
        f->record = known(l);
    lookup_conclude(l, f);
    pool_put(&v->lookup_pool, l);
    if (v->draining)
        verifier_check_drained(v);
}
