/* smtp/server/harvest.c: see harvest.h. A client's value is |26 counted_s|20 score|; the time is the low bits
 * of the clock, which come round in two years. */
#include "smtp/server/harvest.h"

#include "core/hash.h"

#define SCORE_BITS 20 /* the configuration allows a million */
#define TIME_BITS  (CELL_BITS - SCORE_BITS)
#define SCORE_MAX  ((UINT32_C(1) << SCORE_BITS) - 1)
#define TIME_MASK  ((UINT32_C(1) << TIME_BITS) - 1)

struct now {
    uint32_t now_s, forget_s;
};

/* A clock that went back forgets nothing. */
static uint64_t score_now(uint64_t value, const void *ctx)
{
    const struct now *n = ctx;
    uint32_t score = (uint32_t)value & SCORE_MAX;
    uint32_t passed_s = (n->now_s - (uint32_t)(value >> SCORE_BITS)) & TIME_MASK;
    if (passed_s > TIME_MASK / 2)
        passed_s = 0;
    uint32_t forgotten = passed_s / n->forget_s;
    return score > forgotten ? score - forgotten : 0;
}

static uint64_t one_more(uint64_t value, const void *ctx)
{
    const struct now *n = ctx;
    uint64_t score = value ? score_now(value, ctx) : 0;
    return (uint64_t)(n->now_s & TIME_MASK) << SCORE_BITS | MIN(score + 1, SCORE_MAX);
}

static const struct cell_rules rules = {.worth = score_now, .next = one_more, .evicts = true};

enum harvest_level harvest_level(const struct cells *h, uint64_t key, const struct config *c, uint32_t now_s)
{
    const struct now n = {now_s, c->harvest.forget_s};
    uint64_t score = cells_worth(h, hash_u64(key), &rules, &n);
    if (c->harvest.disconnect_after && score >= c->harvest.disconnect_after)
        return HARVEST_DISCONNECT;
    if (c->harvest.defer_after && score >= c->harvest.defer_after)
        return HARVEST_DEFER;
    return c->harvest.tarpit_after && score >= c->harvest.tarpit_after ? HARVEST_TARPIT : HARVEST_NONE;
}

uint64_t harvest_room(const struct cells *h, uint64_t key, const struct config *c, uint32_t now_s)
{
    const struct now n = {now_s, c->harvest.forget_s};
    uint64_t defer = c->harvest.defer_after, end = c->harvest.disconnect_after;
    uint64_t limit = defer && end ? MIN(defer, end) : MAX(defer, end);
    uint64_t score = limit ? cells_worth(h, hash_u64(key), &rules, &n) : 0;
    return limit ? limit - MIN(limit, score) : UINT64_MAX;
}

void harvest_count(struct cells *h, uint64_t key, const struct config *c, uint32_t now_s)
{
    const struct now n = {now_s, c->harvest.forget_s};
    cells_change(h, hash_u64(key), &rules, &n);
}
