/* verify/known.c: what can be answered without asking anybody: settings, pins, lists, the cache. */
#include "verify/verifier_priv.h"

const struct verify_list *verify_list_find(const struct verify_list *lists, size_t count,
                                           const struct cfg_verify *s)
{
    for (size_t i = 0; i < count; i++) {
        const struct verify_list *l = &lists[i];
        if (str_eq(l->path, s->list) && l->rules.fold_case == s->fold_case &&
            l->rules.separator == s->separator)
            return l;
    }
    return NULL;
}

static bool say(struct verify_answer *out, enum reply_id reply, enum answer_source source)
{
    *out = (struct verify_answer){.reply = reply, .would = reply, .source = source};
    return true;
}

static bool say_known(const struct known *k, struct verify_answer *out)
{
    char reference[14] = "";
    if (!k->record.pin)
        verdict_reference(k->key, &k->record, reference);
    verifier_conclude(k->settings, FINDING_KNOWN, &k->record, reference, out);
    out->source = k->record.pin ? FROM_PIN : k->record.source == SOURCE_PROBE ? FROM_CACHE : FROM_LEARNED;
    return true;
}

static bool refuse_unlisted(const struct cfg_verify *s, const struct verify_list *l,
                            struct verify_answer *out)
{
    say(out, l && !l->is_doubtful ? R_unknown_user : R_rcpt_temp, FROM_LIST);
    verifier_enforce(s, out);
    return true;
}

/* Nobody is to be verified here. */
static bool is_exempt(const struct verify_query *q, struct known *k, struct verify_answer *out)
{
    struct sbuf b = SBUF_ON(k->key_bytes);
    const struct cfg_verify *s = k->settings = policy_verify(q->policy, q->address);
    k->record = (struct verdict_record){0};
    k->age = AGE_NONE;
    k->key = STR_NONE;
    k->list = NULL;
    k->is_listed = false;
    if (q->class == CLASS_TRUSTED)
        return say(out, R_rcpt_ok, FROM_BYPASS);
    if (s->mode == VERIFY_OFF)
        return say(out, R_rcpt_ok, FROM_OFF);
    struct verdict_key_rules rules = verify_key_rules(s);
    k->key = verdict_key(q->address, &rules, &b);
    if (!k->key.n) /* a bare postmaster */
        return say(out, R_rcpt_ok, FROM_BYPASS);
    return false;
}

/* By pin, list or verdict: k->record is what is known. */
static bool decide(const struct verifier *v, struct known *k, struct verify_answer *out)
{
    const struct cfg_verify *s = k->settings;
    if (k->record.pin)
        return say_known(k, out);
    k->list = s->list.n ? verify_list_find(v->lists, v->list_count, s) : NULL;
    k->is_listed = k->list && recipient_list_has(k->list->list, k->key);
    if (k->is_listed)
        return say(out, R_rcpt_ok, FROM_LIST);
    if (s->mode == VERIFY_LISTED)
        return refuse_unlisted(s, k->list, out);
    k->age = verify_age(s, &k->record, wall_s());
    return (k->age == AGE_FRESH || k->age == AGE_REFRESH) && say_known(k, out);
}

bool known_answer(struct verifier *v, const struct verify_query *q, struct known *k,
                  struct verify_answer *out)
{
    if (is_exempt(q, k, out))
        return true;
    verdict_cache_get(v->shared->known.cache, k->key, wall_s(), &k->record);
    return decide(v, k, out);
}

bool known_look(const struct verifier *v, const struct verify_query *q, struct known *k,
                struct verify_answer *out)
{
    if (is_exempt(q, k, out))
        return true;
    verdict_cache_peek(v->shared->known.cache, k->key, &k->record);
    return decide(v, k, out);
}

void verifier_count(struct verifier *v, const struct policy *p, const struct address *a,
                    const struct verify_answer *answer)
{
    if (v->shared->tallies)
        tally_count(v->shared->tallies[v->worker], policy_listed_domain(p, a->domain), answer->source,
                    tally_result_of(answer->reply, answer->shadow));
}
