/* relay/budget.c: RFC 3464 says nothing of how many reports are too many, backscatter does. A spammer's
 * forged senders must not make a bomb of us. A domain's value is |20 minute|20 count|. */
#include "relay/budget.h"

#define MINUTE_MS   60000u
#define COUNT_BITS  20u /* BUDGET_RATE_MAX */
#define MINUTE_BITS 20u
#define LOW(bits)   ((UINT64_C(1) << (bits)) - 1)

_Static_assert(BUDGET_RATE_MAX <= LOW(COUNT_BITS), "a count must fit");
_Static_assert(COUNT_BITS + MINUTE_BITS <= CELL_BITS, "one number");

struct request {
    uint64_t minute;
    uint32_t rate;
};

/* Of this minute, or of the next one: a thread whose clock is a bit behind must not undo what others counted.
 * Minutes are compared in a ring, which turns in two years. */
static uint64_t count_now(uint64_t value, const void *ctx)
{
    const struct request *q = ctx;
    bool is_current = (((value >> COUNT_BITS) - q->minute) & LOW(MINUTE_BITS)) <= 1;
    return is_current ? value & LOW(COUNT_BITS) : 0;
}

static uint64_t one_more(uint64_t value, const void *ctx)
{
    const struct request *q = ctx;
    if (!value)
        return q->minute << COUNT_BITS | 1;
    return count_now(value, ctx) < q->rate ? value + 1 : CELL_LEAVE;
}

bool budget_take(struct cells *b, str_t domain, uint32_t rate, uint64_t now_ms)
{
    static const struct cell_rules rules = {.worth = count_now, .next = one_more};
    const struct request q = {now_ms / MINUTE_MS & LOW(MINUTE_BITS), rate};
    return !rate || cells_change(b, str_ihash(domain), &rules, &q) == CELL_CHANGED;
}
