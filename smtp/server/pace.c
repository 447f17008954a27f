/* smtp/server/pace.c: see pace_priv.h. A leaky bucket told by one time (GCRA): when a client's share will be
 * whole again, in microseconds, of which the low bits are kept. They come round in two years. */
#include "smtp/server/pace_priv.h"

#include "core/clock.h"
#include "core/hash.h"

#define CROSSING_US UINT64_C(1000000)

struct request {
    uint64_t now_us, period_us, each_us;
};

/* Workers' clock reads cross: another one may have filled it a moment after our `now`. 0 for what was written
 * under a slower rate. */
static uint64_t used_us(uint64_t due_us, const void *ctx)
{
    const struct request *q = ctx;
    uint64_t left_us = (due_us - q->now_us) & CELL_MAX;
    return left_us > q->period_us + CROSSING_US ? 0 : MIN(left_us, q->period_us);
}

static uint64_t one_more(uint64_t due_us, const void *ctx)
{
    const struct request *q = ctx;
    uint64_t used = due_us ? used_us(due_us, ctx) : 0;
    if (used > q->period_us - q->each_us)
        return CELL_LEAVE;
    return MAX((q->now_us + used + q->each_us) & CELL_MAX, UINT64_C(1)); /* 0 would be nobody's */
}

bool pace_take(struct cells *p, uint64_t key, const struct cfg_rate *rate, uint64_t now_ns)
{
    static const struct cell_rules rules = {.worth = used_us, .next = one_more, .evicts = true};
    if (!rate->count)
        return true;
    uint64_t period_us = rate->period_s * NS_PER_S / 1000;
    const struct request q = {now_ns / 1000, period_us, period_us / rate->count};
    return cells_change(p, hash_u64(key), &rules, &q) == CELL_CHANGED;
}
