/* verify/canary.c: now and then a backend is asked for an address that cannot exist, and for one that is
 * known to be good, while nobody waits. */
#include "core/log.h"
#include "core/metrics.h"
#include "core/rng.h"
#include "verify/probeconn_priv.h"

#define BUSY_MS 30000 /* not in parallel with a burst: looked at again after this */
#define SOON_MS 1000

static const struct cfg_verify *settings_of(const struct backend *b, const struct domain_watch *d)
{
    struct address a = {.local = STR("postern-canary"), .domain = str_cstr(d->domain)};
    return policy_verify(b->verifier->policy, &a);
}

static void arm(struct backend *b, uint64_t due_ms)
{
    uint64_t now = loop_now_ms(b->verifier->loop);
    uint64_t wait_ms = due_ms > now + SOON_MS ? due_ms - now : SOON_MS;
    if (!timer_armed(&b->canary_timer) || b->canary_due_ms > now + wait_ms) {
        b->canary_due_ms = now + wait_ms;
        timer_arm(b->verifier->loop, &b->canary_timer, wait_ms);
    }
}

/* Where nobody was taken yet there is nothing to find out: what takes everything takes the first one. */
void canary_check(struct backend *b, struct domain_watch *d, const struct cfg_verify *s)
{
    uint64_t now = loop_now_ms(b->verifier->loop);
    d->used_ms = now;
    watch_used(&d->watch, s->canary_s, now, rng_u64());
    if (s->canary_s && !d->watch.is_out && d->watch.due_ms && d->watch.good_at_ms)
        arm(b, d->watch.due_ms);
}

static void write_canary(const struct domain_watch *d, struct sbuf *out)
{
    char id[14];
    uint64_t random;
    rng_bytes(&random, sizeof random);
    qid_format(random, id);
    for (char *c = id; *c; c++)
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
    sbuf_printf(out, "postern-canary-%s@%s", id, d->domain);
}

/* The good one, if it is long since one was taken: an ordinary question that nobody waits for. */
static void ask_good(struct backend *b, struct domain_watch *d, const struct cfg_verify *s)
{
    uint64_t now = loop_now_ms(b->verifier->loop);
    char bytes[VERIFY_KEY_MAX];
    struct sbuf kb = SBUF_ON(bytes);
    struct address a;
    struct verdict_key_rules rules = verify_key_rules(s);
    str_t text = str_cstr(d->good);
    if (!text.n || now - d->watch.good_at_ms < (uint64_t)s->canary_s * 500 || address_parse_mailbox(text, &a))
        return;
    str_t key = verdict_key(&a, &rules, &kb);
    if (!key.n || smap_get(&b->questions, key))
        return;
    struct question *q = question_new(b, d, key, text, RANK_BACKGROUND);
    if (q)
        question_enqueue(q, false);
}

static void fly(struct backend *b, struct domain_watch *d, const struct cfg_verify *s)
{
    char bytes[PROBE_ADDRESS_MAX];
    struct sbuf text = SBUF_ON(bytes);
    write_canary(d, &text);
    struct question *q = question_new(b, d, STR_NONE, sbuf_view(&text), RANK_BACKGROUND);
    if (!q)
        return;
    q->is_canary = true;
    d->watch.is_out = b->canary_out = true;
    question_enqueue(q, false);
    ask_good(b, d, s);
}

void canary_timer(struct timer *t)
{
    struct backend *b = container_of(t, struct backend, canary_timer);
    uint64_t now = loop_now_ms(b->verifier->loop), next_ms = UINT64_MAX;
    bool is_busy = b->queued_count || backend_state(b) != BREAKER_UP;
    struct domain_watch *first = NULL; /* due for the longest time */
    if (b->canary_out)                 /* its answer arms again */
        return;
    LIST_EACH(&b->watches, k)
    {
        struct domain_watch *d = container_of(k, struct domain_watch, link);
        const struct cfg_verify *s = settings_of(b, d);
        bool in_use = d->used_ms + (uint64_t)s->canary_s * 1000 >= now;
        if (!in_use || !d->watch.good_at_ms || !s->canary_s) /* the next use arms again */
            continue;
        if (!watch_due(&d->watch, s->canary_s, now))
            next_ms = MIN(next_ms, d->watch.due_ms);
        else if (is_busy)
            next_ms = MIN(next_ms, now + BUSY_MS);
        else if (!first || d->watch.due_ms < first->watch.due_ms)
            first = d;
    }
    if (first)
        fly(b, first, settings_of(b, first));
    if (next_ms != UINT64_MAX)
        arm(b, next_ms);
}

void canary_say(struct backend *b, struct domain_watch *d, enum watch_state was)
{
    enum watch_state is = d->watch.state;
    bool was_blind = was >= WATCH_ACCEPTS_ALL;
    if (watch_is_blind(&d->watch) != was_blind)
        metric_add(M_domains_blind, was_blind ? -1 : 1);
    if (was_blind || watch_is_blind(&d->watch))
        LOG(verify_canary, LF_STR("dest", b->key), LF_CSTR("domain", d->domain),
            LF_CSTR("state", watch_name(is)), LF_CSTR("was", watch_name(was)));
}

void canary_answered(struct question *q, enum triage t)
{
    struct backend *b = q->backend;
    struct domain_watch *d = q->domain;
    const struct cfg_verify *s = settings_of(b, d);
    enum watch_state was = d->watch.state;
    uint64_t now = loop_now_ms(b->verifier->loop);
    if (t == TRIAGE_GOOD) {
        metric_inc(M_canary_taken);
        watch_taken(&d->watch, s->canary_s, now, rng_u64());
    } else if (t == TRIAGE_UNKNOWN || t == TRIAGE_DISABLED) {
        metric_inc(M_canary_refused);
        watch_refused(&d->watch, s->canary_s, now, rng_u64());
    } else {
        metric_inc(M_canary_unsettled);
        watch_unsettled(&d->watch, now);
    }
    if (d->watch.state != was)
        canary_say(b, d, was);
    b->canary_out = false;
    if (!b->verifier->draining)
        arm(b, now); /* for the next one that is due */
}
