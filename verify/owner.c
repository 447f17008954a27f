/* verify/owner.c: the backends' side: requests in, findings out. */
#include "core/log.h"
#include "core/metrics.h"
#include "core/rng.h"
#include "verify/operator.h"
#include "verify/probeconn_priv.h"

static const enum metric triage_metrics[] = {
    [TRIAGE_GOOD] = M_probes_good,         [TRIAGE_UNKNOWN] = M_probes_unknown,
    [TRIAGE_DISABLED] = M_probes_disabled, [TRIAGE_FULL] = M_probes_full,
    [TRIAGE_LATER] = M_probes_later,       [TRIAGE_CROWDED] = M_probes_crowded,
    [TRIAGE_SENDER] = M_probes_sender,     [TRIAGE_REFUSES_US] = M_probes_refuses_us,
    [TRIAGE_BACKEND] = M_probes_backend,   [TRIAGE_LOOP] = M_probes_loop,
};

/* --- findings out --- */

void request_answer(struct request *r, const struct found *f)
{
    r->found = *f;
    r->mail.deliver = lookup_returned;
    loop_post(r->from->loop, &r->mail);
}

void question_end(struct question *q, const struct found *f)
{
    struct backend *b = q->backend;
    struct link *k;
    bool nobody_asked = list_empty(&q->requests);
    while ((k = list_pop_front(&q->requests)))
        request_answer(container_of(k, struct request, link), f);
    if (q->is_canary && !f->probed)
        canary_answered(q, TRIAGE_LATER);
    if (nobody_asked && f->probed && !q->is_canary) /* else the asking side tells */
        found_log(f, str_of(q->key, q->key_n), str_of(q->text, q->text_n), b->key, NULL, 0, f->ms);
    if (b->now) {
        struct probe_now *p = b->now;
        b->now = NULL;
        probe_now_ended(b, p, q, f);
    }
    question_free(q);
}

/* --- what a server's answer does --- */

struct change {
    enum verdict answer;
    enum verdict_source source;
    bool canary_passed;
    struct verdict_times times;
    uint32_t now_s;
};

static struct verdict_record change_record(void *ctx, struct verdict_record old)
{
    const struct change *c = ctx;
    return verify_apply(old, c->answer, c->source, c->canary_passed, &c->times, c->now_s);
}

static struct change change_to(const struct cfg_verify *s, enum verdict answer, enum verdict_source source,
                               bool canary_passed)
{
    return (struct change){answer, source, canary_passed, verify_times(s), wall_s()};
}

struct verdict_record verifier_learn(struct verifier *v, str_t key, const struct cfg_verify *s,
                                     enum verdict answer, enum verdict_source source, bool canary_passed)
{
    struct change c = change_to(s, answer, source, canary_passed);
    return knowledge_change(&v->shared->known, key, c.now_s, change_record, &c).after;
}

/* For an operator who wants to see both, and to change nothing if he says so. */
static struct verdict_record learn_for(struct verifier *v, str_t key, struct probe_now *p, struct change *c)
{
    p->is_answered = true;
    p->said = c->answer;
    p->before = (struct verdict_record){0};
    if (p->is_dry) {
        (void)verdict_cache_peek(v->shared->known.cache, key, &p->before);
        p->after = change_record(c, p->before);
    } else {
        struct knowledge_change done = knowledge_change(&v->shared->known, key, c->now_s, change_record, c);
        p->before = done.before;
        p->after = done.after;
    }
    return p->after;
}

static const struct cfg_verify *settings_of(const struct question *q)
{
    const struct policy *p = q->backend->verifier->policy;
    struct address a;
    if (address_parse_mailbox(str_of(q->text, q->text_n), &a))
        return &policy_config(p)->verify;
    return policy_verify(p, &a);
}

static void fill(struct found *f, enum smtpc_stage at, const struct smtp_reply *reply, str_t relay)
{
    struct sbuf b = {f->text, 0, sizeof f->text - 1, false};
    f->at = at;
    if (reply) {
        struct answer a = answer_of_reply(reply, STR_NONE);
        f->code = a.code;
        memcpy(f->status, a.status, sizeof f->status);
        sbuf_str(&b, str_sub(reply->text, 0, ANSWER_TEXT_MAX));
    }
    f->text[b.n] = '\0';
    size_t n = MIN(relay.n, sizeof f->relay - 1);
    memcpy(f->relay, relay.p ? relay.p : "", n);
    f->relay[n] = '\0';
}

void found_fill(struct found *f, enum smtpc_stage at, const struct smtp_reply *reply, str_t relay,
                const char *why)
{
    *f = (struct found){.why = why};
    fill(f, at, reply, relay);
}

static void take_verdict(struct question *q, enum triage t, struct found *f)
{
    struct backend *b = q->backend;
    uint64_t now = loop_now_ms(b->verifier->loop);
    const struct cfg_verify *s = settings_of(q);
    enum verdict verdict = t == TRIAGE_GOOD      ? VERDICT_GOOD
                           : t == TRIAGE_UNKNOWN ? VERDICT_UNKNOWN
                                                 : VERDICT_DISABLED;
    f->finding = FINDING_KNOWN;
    if (t == TRIAGE_GOOD && q->domain) {
        watch_good(&q->domain->watch, now);
        memcpy(q->domain->good, q->text, q->text_n);
        q->domain->good[q->text_n] = '\0';
        if (!b->now)
            canary_check(b, q->domain, s);
    }
    bool passed = q->domain && watch_passed(&q->domain->watch, s->canary_s, now);
    str_t key = str_of(q->key, q->key_n);
    struct change c = change_to(s, verdict, SOURCE_PROBE, passed);
    f->record = b->now ? learn_for(b->verifier, key, b->now, &c)
                       : knowledge_change(&b->verifier->shared->known, key, c.now_s, change_record, &c).after;
}

/* The breaker hears of it, too. False: the question went back into the queue. */
static bool judge(struct question *q, enum triage t, enum smtpc_stage at, const struct smtp_reply *reply,
                  struct found *f)
{
    struct backend *b = q->backend;
    enum breaker_state was = backend_state(b);
    uint64_t now = loop_now_ms(b->verifier->loop), random = rng_u64();
    str_t relay = str_cstr(f->relay);
    if (t != TRIAGE_GOOD && t != TRIAGE_FULL && t != TRIAGE_CROWDED && t != TRIAGE_LOOP &&
        sender_forsaken(q, q->batch))
        return false;
    switch (t) {
    case TRIAGE_GOOD:
    case TRIAGE_UNKNOWN:
    case TRIAGE_DISABLED:
        breaker_answered(&b->breaker, now);
        if (!q->is_canary)
            take_verdict(q, t, f);
        break;
    case TRIAGE_FULL:
        breaker_answered(&b->breaker, now);
        f->finding = FINDING_FULL;
        break;
    case TRIAGE_CROWDED:
        if (batch_crowded(q))
            return false;
        breaker_later(&b->breaker, now, random);
        f->finding = FINDING_LATER;
        break;
    case TRIAGE_SENDER:
        if (sender_refused(q, q->batch, reply, relay))
            return false;
        breaker_refused(&b->breaker, at == STAGE_RCPT, now, random);
        f->finding = FINDING_REFUSES_US;
        break;
    case TRIAGE_REFUSES_US:
        breaker_refused(&b->breaker, at == STAGE_RCPT, now, random);
        f->finding = FINDING_REFUSES_US;
        break;
    case TRIAGE_LOOP:
        breaker_looped(&b->breaker, now, random);
        f->finding = FINDING_LOOPS;
        break;
    case TRIAGE_LATER:
        breaker_later(&b->breaker, now, random);
        f->finding = FINDING_LATER;
        break;
    case TRIAGE_BACKEND:
        if (at == STAGE_RCPT)
            breaker_later(&b->breaker, now, random);
        else
            breaker_failed(&b->breaker, now, random);
        f->finding = at == STAGE_RCPT ? FINDING_LATER : FINDING_DOWN;
        break;
    }
    backend_moved(b, was, f);
    return true;
}

void question_answered(struct question *q, enum smtpc_stage at, const struct smtp_reply *reply, str_t relay)
{
    struct backend *b = q->backend;
    uint64_t now = loop_now_ms(b->verifier->loop);
    struct found f = {.probed = true, .ms = (uint32_t)(now - q->asked_ms)};
    enum triage t = triage_reply(at, reply, &f.why);
    fill(&f, at, reply, relay);
    metric_inc(triage_metrics[t]);
    if (t != TRIAGE_CROWDED && !q->batch->was_crowded)
        q->batch->taken_count++;
    if (!judge(q, t, at, reply, &f))
        return;
    metric_observe(H_probe_s, (double)f.ms / 1000);
    if (q->is_canary)
        canary_answered(q, t);
    q->batch = NULL;
    question_end(q, &f);
}

void question_lost(struct question *q, bool may_go_again, const struct found *why)
{
    struct backend *b = q->backend;
    const struct batch *batch = q->batch;
    q->batch = NULL;
    if (b->verifier->draining) {
        question_end(q, &(struct found){.finding = FINDING_CLOSING});
    } else if (sender_forsaken(q, batch)) {
        return;
    } else if (may_go_again && breaker_leave(&b->breaker, loop_now_ms(b->verifier->loop)) != BREAKER_WAIT) {
        question_enqueue(q, true);
    } else {
        struct found f = *why;
        f.finding = FINDING_DOWN;
        f.ms = (uint32_t)(loop_now_ms(b->verifier->loop) - q->asked_ms);
        metric_inc(M_probes_backend);
        question_end(q, &f);
    }
}

/* --- requests in --- */

static void looped(struct backend *b, const char *why)
{
    enum breaker_state was = backend_state(b);
    struct found f;
    found_fill(&f, STAGE_RCPT, NULL, STR_NONE, why);
    sbuf_cstr(&(struct sbuf){f.text, 0, sizeof f.text - 1, false}, why);
    breaker_looped(&b->breaker, loop_now_ms(b->verifier->loop), rng_u64());
    backend_moved(b, was, &f);
}

static void join(struct question *q, struct request *r)
{
    list_push_back(&q->requests, &r->link);
    if (!q->batch && r->sender_n && !q->sender_n && !q->is_ours) {
        memcpy(q->sender, r->sender, r->sender_n);
        q->sender_n = r->sender_n;
    }
    if (!q->batch && r->kind == REQUEST_ASK && q->rank == RANK_BACKGROUND) { /* somebody waits now */
        list_remove(&q->link);
        q->rank = RANK_KNOWN;
        list_push_back(&q->backend->queue[q->rank], &q->link);
    }
}

/* It became known while the request was on its way. */
static bool is_fresh(struct verifier *v, const struct request *r, const struct cfg_verify *s,
                     struct verdict_record *out)
{
    uint32_t now_s = wall_s();
    return verdict_cache_get(v->shared->known.cache, str_of(r->key, r->key_n), now_s, out) &&
           verify_age(s, out, now_s) == AGE_FRESH;
}

static void ask(struct backend *b, struct domain_watch *d, const struct cfg_verify *s, struct request *r)
{
    uint64_t now = loop_now_ms(b->verifier->loop);
    struct found f = {0};
    struct question *q = smap_get(&b->questions, str_of(r->key, r->key_n));
    bool in_background = r->kind == REQUEST_REFRESH;
    if (q && q->batch && r->is_callback && backend_is_at(b, &r->client)) {
        looped(b, "it asked us about the recipient that we asked it about");
        f.finding = FINDING_LOOPS;
    } else if (q) {
        join(q, r);
        return;
    } else if (is_fresh(b->verifier, r, s, &f.record)) {
        f.finding = FINDING_KNOWN;
    } else if (breaker_leave(&b->breaker, now) == BREAKER_WAIT) {
        backend_found(b, &f);
    } else if (b->queued_count >= b->limits.waiting ||
               (in_background && (b->queued_count || backend_state(b) != BREAKER_UP))) {
        metric_inc(M_probes_overflow);
        f.finding = FINDING_OVERFLOW;
    } else if ((q = question_new(b, d, str_of(r->key, r->key_n), str_of(r->text, r->text_n),
                                 in_background ? RANK_BACKGROUND
                                 : r->is_known ? RANK_KNOWN
                                               : RANK_ASKED))) {
        join(q, r);
        question_enqueue(q, false);
        return;
    } else {
        f.finding = FINDING_OVERFLOW;
    }
    request_answer(r, &f);
}

static void tell(struct backend *b, struct domain_watch *d, const struct cfg_verify *s, struct request *r)
{
    if (r->kind == REQUEST_LOOPED) {
        const struct question *q = smap_get(&b->questions, str_of(r->key, r->key_n));
        if (q && q->batch)
            looped(b, "our own probe came back to us");
    } else if (d && r->kind == REQUEST_RCPT_REFUSED) {
        watch_told(&d->watch, loop_now_ms(b->verifier->loop));
        canary_check(b, d, s);
    } else if (d && watch_data_refused(&d->watch, loop_now_ms(b->verifier->loop))) {
        canary_say(b, d, WATCH_ACCEPTS_ALL);
    }
    request_answer(r, &(struct found){.finding = FINDING_LATER});
}

static void serve(struct verifier *v, struct request *r, const struct address *a)
{
    const struct cfg_verify *s = policy_verify(v->policy, a);
    struct route route;
    if (policy_verify_route(v->policy, a, &route)) {
        request_answer(r, &(struct found){.finding = FINDING_NO_ROUTE});
        return;
    }
    struct backend *b = backend_get(v, &route, s);
    if (!b) {
        request_answer(r, &(struct found){.finding = FINDING_OVERFLOW});
        return;
    }
    struct domain_watch *d = backend_domain(b, a->domain);
    if (r->kind != REQUEST_ASK && r->kind != REQUEST_REFRESH) {
        tell(b, d, s, r);
        return;
    }
    if (d)
        canary_check(b, d, s);
    if (d && watch_is_blind(&d->watch) && s->canary_s)
        request_answer(r, &(struct found){.finding = FINDING_BLIND, .why = watch_name(d->watch.state)});
    else
        ask(b, d, s, r);
}

void request_arrived(struct mail *m)
{
    struct request *r = container_of(m, struct request, mail);
    struct verifier *v = r->to;
    struct address a;
    if (v->draining)
        request_answer(r, &(struct found){.finding = FINDING_CLOSING});
    else if (address_parse_mailbox(str_of(r->text, r->text_n), &a))
        request_answer(r, &(struct found){.finding = FINDING_NO_ROUTE});
    else
        serve(v, r, &a);
}
