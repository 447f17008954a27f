/* verify/breaker.c: see breaker.h. */
#include "verify/breaker.h"

static const struct backoff backoffs[BREAKER_STATES] = {
    [BREAKER_SUSPECT] = {1, 30}, /* mostly greylisting: over soon, and for each recipient anew */
    [BREAKER_DOWN] = {5, 300},
    [BREAKER_REFUSES_US] = {5, 300}, /* whoever mends it wants to see that it works */
    [BREAKER_LOOP] = {5, 300},
};

const char *breaker_name(enum breaker_state s)
{
    static const char *const names[BREAKER_STATES] = {
        [BREAKER_UP] = "up",     [BREAKER_SUSPECT] = "suspect",
        [BREAKER_DOWN] = "down", [BREAKER_REFUSES_US] = "refuses-us",
        [BREAKER_LOOP] = "loop",
    };
    return s >= 0 && s < BREAKER_STATES ? names[s] : "unknown";
}

enum breaker_leave breaker_leave(const struct breaker *b, uint64_t now_ms)
{
    if (b->state == BREAKER_UP)
        return BREAKER_GO;
    if (b->on_trial)
        return BREAKER_ON_TRIAL;
    return now_ms >= b->retry_at_ms ? BREAKER_TRY : BREAKER_WAIT;
}

void breaker_begin_trial(struct breaker *b)
{
    b->on_trial = true;
}

void breaker_end_trial(struct breaker *b)
{
    b->on_trial = false;
}

static bool enter(struct breaker *b, enum breaker_state s, uint64_t now_ms)
{
    bool is_new = b->state != s;
    b->state = s;
    b->on_trial = false;
    if (is_new)
        b->since_ms = now_ms;
    return is_new;
}

static bool leave_alone(struct breaker *b, enum breaker_state s, uint64_t now_ms, uint64_t random)
{
    if (b->state == s && !b->on_trial && now_ms < b->retry_at_ms)
        return false; /* one of several that were on their way: counted once */
    bool is_new = b->state != s;
    b->failures = is_new ? 1 : b->failures + (b->failures < UINT32_MAX);
    b->retry_at_ms = now_ms + backoff_ms(b->failures, backoffs[s], random);
    b->later_count = b->refused_count = 0;
    return enter(b, s, now_ms);
}

bool breaker_answered(struct breaker *b, uint64_t now_ms)
{
    b->later_count = b->refused_count = b->failures = 0;
    b->retry_at_ms = 0;
    return enter(b, BREAKER_UP, now_ms);
}

bool breaker_later(struct breaker *b, uint64_t now_ms, uint64_t random)
{
    if (b->state != BREAKER_UP && !b->on_trial)
        return false; /* was on its way already */
    if (b->state == BREAKER_SUSPECT)
        return leave_alone(b, BREAKER_SUSPECT, now_ms, random);
    b->refused_count = 0;
    if (++b->later_count >= BREAKER_LATER_MAX)
        return leave_alone(b, BREAKER_SUSPECT, now_ms, random);
    return enter(b, BREAKER_UP, now_ms); /* it speaks to us, and takes RCPT seriously */
}

bool breaker_failed(struct breaker *b, uint64_t now_ms, uint64_t random)
{
    return leave_alone(b, BREAKER_DOWN, now_ms, random);
}

bool breaker_refused(struct breaker *b, bool at_rcpt, uint64_t now_ms, uint64_t random)
{
    b->later_count = 0;
    if (at_rcpt && b->state != BREAKER_REFUSES_US && ++b->refused_count < BREAKER_REFUSED_MAX)
        return b->on_trial && enter(b, BREAKER_UP, now_ms);
    return leave_alone(b, BREAKER_REFUSES_US, now_ms, random);
}

bool breaker_looped(struct breaker *b, uint64_t now_ms, uint64_t random)
{
    return leave_alone(b, BREAKER_LOOP, now_ms, random);
}
