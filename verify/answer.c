/* verify/answer.c: see answer.h. */
#include "verify/answer.h"

enum answer_source finding_source(enum finding f)
{
    static const enum answer_source sources[] = {
        [FINDING_KNOWN] = FROM_PROBE,     [FINDING_FULL] = FROM_FULL,
        [FINDING_LATER] = FROM_LATER,     [FINDING_NO_SMTPUTF8] = FROM_NO_SMTPUTF8,
        [FINDING_DOWN] = FROM_DOWN,       [FINDING_REFUSES_US] = FROM_REFUSES_US,
        [FINDING_LOOPS] = FROM_LOOPS,     [FINDING_OWN_PROBE] = FROM_OWN_PROBE,
        [FINDING_BLIND] = FROM_BLIND,     [FINDING_OVERFLOW] = FROM_OVERFLOW,
        [FINDING_TIMEOUT] = FROM_TIMEOUT, [FINDING_NO_ROUTE] = FROM_NO_ROUTE,
        [FINDING_CLOSING] = FROM_CLOSING,
    };
    must(f >= 0 && f < COUNT_OF(sources));
    return sources[f];
}

const char *answer_source_name(enum answer_source s)
{
    static const char *const names[] = {
#define SOURCE(id, name, help) [FROM_##id] = name,
#include "verify/source.def"
#undef SOURCE
    };
    return s >= 0 && s < FROM_COUNT ? names[s] : "unknown";
}

const char *finding_name(enum finding f)
{
    return f == FINDING_KNOWN ? "known" : answer_source_name(finding_source(f));
}

struct verdict_times verify_times(const struct cfg_verify *s)
{
    return (struct verdict_times){.good_fresh = s->good_fresh_s,
                                  .good_refresh = s->good_refresh_s,
                                  .good_keep = s->good_keep_s,
                                  .unknown_fresh = s->unknown_fresh_s,
                                  .unknown_keep = s->unknown_keep_s,
                                  .confirm = s->confirm_s};
}

struct verdict_key_rules verify_key_rules(const struct cfg_verify *s)
{
    return (struct verdict_key_rules){.fold_case = s->fold_case, .separator = s->separator};
}

/* --- records --- */

static bool is_refusal(const struct verdict_record *r)
{
    return r->state == VERDICT_UNKNOWN || r->state == VERDICT_DISABLED;
}

static bool is_confirmed(const struct cfg_verify *s, const struct verdict_record *r)
{
    return r->refused_s && r->checked_s >= r->refused_s && r->checked_s - r->refused_s >= s->confirm_s;
}

enum verdict_age verify_age(const struct cfg_verify *s, const struct verdict_record *r, uint32_t now_s)
{
    struct verdict_times t = verify_times(s);
    enum verdict_age age = verdict_age(r, &t, now_s);
    bool second_look = s->cautious && !r->pin && is_refusal(r) && !is_confirmed(s, r) &&
                       now_s > r->refused_s && now_s - r->refused_s >= s->confirm_s;
    return age == AGE_FRESH && second_look ? AGE_STALE : age;
}

/* The same again, a moment later: a sixteenth of what good_fresh and good_refresh allow. */
static bool is_hardly_news(const struct verdict_record *old, enum verdict answer, enum verdict_source source,
                           const struct verdict_times *t, uint32_t now_s)
{
    return answer == VERDICT_GOOD && old->state == VERDICT_GOOD && !old->suspect &&
           (old->source != SOURCE_SENDER || source == SOURCE_SENDER) && now_s >= old->checked_s &&
           now_s - old->checked_s < MIN(t->good_fresh, t->good_refresh) / 16;
}

struct verdict_record verify_apply(struct verdict_record old, enum verdict answer, enum verdict_source source,
                                   bool canary_passed, const struct verdict_times *t, uint32_t now_s)
{
    if (is_hardly_news(&old, answer, source, t, now_s))
        return old;
    struct verdict_record unpinned = old;
    unpinned.pin = PIN_NONE;
    bool in_a_row = verdict_age(&unpinned, t, now_s) != AGE_NONE && (is_refusal(&old) || old.suspect);
    struct verdict_record r = verdict_apply(old, answer, source, canary_passed, t, now_s);
    if (is_refusal(&r))
        r.refused_s = in_a_row && old.refused_s ? old.refused_s : now_s;
    return r;
}

/* --- replies --- */

static enum reply_id known(const struct cfg_verify *s, const struct verdict_record *r)
{
    if (r->pin)
        return r->pin == PIN_GOOD ? R_rcpt_ok : R_unknown_user;
    if (r->state == VERDICT_GOOD)
        return R_rcpt_ok;
    if (!is_refusal(r) || (s->cautious && !is_confirmed(s, r)))
        return R_rcpt_temp;
    return r->state == VERDICT_UNKNOWN ? R_unknown_user : R_rcpt_disabled;
}

static bool serves_stale(const struct cfg_verify *s, const struct verdict_record *r, uint32_t now_s)
{
    return s->fail != FAIL_CLOSED && r->state == VERDICT_GOOD &&
           (now_s <= r->checked_s || now_s - r->checked_s <= s->stale_s);
}

/* It could not be found out: `refusal`, or what the fail mode makes of it. */
static enum reply_id fail(const struct cfg_verify *s, const struct verdict_record *r, uint32_t now_s,
                          enum reply_id refusal, enum answer_source *source)
{
    if (serves_stale(s, r, now_s)) {
        *source = FROM_STALE;
        return R_rcpt_ok;
    }
    if (s->fail == FAIL_OPEN) {
        *source = FROM_OPEN;
        return R_rcpt_ok;
    }
    return refusal;
}

enum reply_id answer_for(const struct cfg_verify *s, enum finding f, const struct verdict_record *record,
                         uint32_t now_s, enum answer_source *source)
{
    bool postfix = s->compat == COMPAT_POSTFIX;
    *source = finding_source(f);
    switch (f) {
    case FINDING_KNOWN: return known(s, record);
    case FINDING_FULL: return R_rcpt_full;
    case FINDING_NO_SMTPUTF8: return R_needs_smtputf8;
    case FINDING_LOOPS:
    case FINDING_OWN_PROBE: return R_verify_loop;
    case FINDING_BLIND: return R_rcpt_ok;
    case FINDING_LATER:
    case FINDING_TIMEOUT: return fail(s, record, now_s, R_rcpt_temp, source);
    case FINDING_DOWN: return fail(s, record, now_s, postfix ? R_rcpt_temp : R_backend_down, source);
    case FINDING_REFUSES_US: return fail(s, record, now_s, postfix ? R_rcpt_temp : R_backend_refuses, source);
    case FINDING_OVERFLOW: /* `open` would let a dictionary attack in: only what was good goes on */
        if (!serves_stale(s, record, now_s))
            return R_rcpt_temp;
        *source = FROM_STALE;
        return R_rcpt_ok;
    case FINDING_NO_ROUTE: return R_no_route_now;
    case FINDING_CLOSING: break;
    }
    return R_rcpt_temp;
}
