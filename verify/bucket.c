/* verify/bucket.c: see bucket.h. What was spent drains at the rate; there is room while it is below the
 * depth. */
#include "verify/bucket.h"

static uint64_t depth_milli(uint32_t rate_per_s)
{
    return MAX((uint64_t)rate_per_s * 100, 1000);
}

static uint64_t spent_at(const struct bucket *b, uint32_t rate_per_s, uint64_t now_ms)
{
    uint64_t passed_ms = now_ms > b->at_ms ? now_ms - b->at_ms : 0;
    uint64_t drained = passed_ms > UINT32_MAX ? UINT64_MAX : passed_ms * rate_per_s;
    return b->spent_milli > drained ? b->spent_milli - drained : 0;
}

uint32_t bucket_take(struct bucket *b, uint32_t rate_per_s, uint32_t wanted, uint64_t now_ms)
{
    if (!rate_per_s)
        return wanted;
    uint64_t spent = spent_at(b, rate_per_s, now_ms), depth = depth_milli(rate_per_s);
    uint32_t count = spent < depth ? (uint32_t)MIN((depth - spent) / 1000, wanted) : 0;
    b->spent_milli = spent + (uint64_t)count * 1000;
    b->at_ms = now_ms;
    return count;
}

void bucket_return(struct bucket *b, uint32_t count)
{
    b->spent_milli -= MIN((uint64_t)count * 1000, b->spent_milli);
}

uint64_t bucket_wait_ms(const struct bucket *b, uint32_t rate_per_s, uint64_t now_ms)
{
    if (!rate_per_s)
        return 0;
    uint64_t spent = spent_at(b, rate_per_s, now_ms), room = depth_milli(rate_per_s) - 1000;
    return spent > room ? (spent - room + rate_per_s - 1) / rate_per_s : 0;
}
