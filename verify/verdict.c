/* verify/verdict.c: how long a verdict counts and what a new answer makes of it. */
#include "verify/verdict.h"

#include "core/log.h"

const char *verdict_name(enum verdict v)
{
    static const char *const names[] = {"none", "good", "unknown", "disabled"};
    return names[v];
}

const char *verdict_source_name(enum verdict_source s)
{
    static const char *const names[] = {"probe", "delivery", "sender"};
    return names[s];
}

const char *verdict_pin_name(enum verdict_pin p)
{
    static const char *const names[] = {"none", "good", "unknown"};
    return names[p];
}

/* The clock may have gone back. */
static uint32_t seconds_since(uint32_t then_s, uint32_t now_s)
{
    return now_s > then_s ? now_s - then_s : 0;
}

static enum verdict_age age_of_good(const struct verdict_record *r, const struct verdict_times *t,
                                    uint32_t now_s)
{
    uint32_t age = seconds_since(r->checked_s, now_s);
    if (age >= t->good_keep)
        return AGE_NONE;
    if (r->suspect && seconds_since(r->refused_s, now_s) < t->confirm)
        return AGE_FRESH;
    if (age >= t->good_fresh)
        return AGE_STALE;
    return age >= t->good_refresh || r->suspect || r->source == SOURCE_SENDER ? AGE_REFRESH : AGE_FRESH;
}

/* As if there were no pin. */
static enum verdict_age age_of_state(const struct verdict_record *r, const struct verdict_times *t,
                                     uint32_t now_s)
{
    if (r->state == VERDICT_NONE)
        return AGE_NONE;
    if (r->state == VERDICT_GOOD)
        return age_of_good(r, t, now_s);
    uint32_t age = seconds_since(r->checked_s, now_s);
    if (age >= t->unknown_keep)
        return AGE_NONE;
    return age >= t->unknown_fresh ? AGE_STALE : AGE_FRESH;
}

enum verdict_age verdict_age(const struct verdict_record *r, const struct verdict_times *t, uint32_t now_s)
{
    return r->pin ? AGE_FRESH : age_of_state(r, t, now_s);
}

/* May one more refusal make an end of what is good? */
static bool may_fall(const struct verdict_record *r, bool canary_passed, const struct verdict_times *t,
                     uint32_t now_s)
{
    if (canary_passed || r->source == SOURCE_SENDER)
        return true;
    return r->suspect && seconds_since(r->refused_s, now_s) >= t->confirm;
}

struct verdict_record verdict_apply(struct verdict_record old, enum verdict answer,
                                    enum verdict_source source, bool canary_passed,
                                    const struct verdict_times *t, uint32_t now_s)
{
    bool kept = age_of_state(&old, t, now_s) != AGE_NONE;
    bool hint = source == SOURCE_SENDER;
    if (answer == VERDICT_NONE || (hint && (kept || answer != VERDICT_GOOD)))
        return old;
    if (answer != VERDICT_GOOD && kept && old.state == VERDICT_GOOD &&
        !may_fall(&old, canary_passed, t, now_s)) {
        /* the first refusal is the one that counts, unless the clock went back behind it */
        if (!old.suspect || old.refused_s > now_s)
            old.refused_s = now_s;
        old.suspect = true;
        return old;
    }
    return (struct verdict_record){
        .state = (uint8_t)answer, .source = (uint8_t)source, .pin = old.pin, .checked_s = now_s};
}

bool verdict_record_eq(const struct verdict_record *a, const struct verdict_record *b)
{
    return a->state == b->state && a->source == b->source && a->pin == b->pin && a->suspect == b->suspect &&
           a->checked_s == b->checked_s && a->refused_s == b->refused_s;
}

/* FNV-1a, then mixed: str_hash is another one in every process. Nothing is guarded by it. */
void verdict_reference(str_t key, const struct verdict_record *r, char out[14])
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < key.n; i++)
        h = (h ^ (unsigned char)key.p[i]) * UINT64_C(0x100000001b3);
    h ^= r->checked_s;
    h = (h ^ h >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ h >> 27) * UINT64_C(0x94d049bb133111eb);
    qid_format(h ^ h >> 31, out);
}
