/* nexthop/backoff.c: see backoff.h. */
#include "nexthop/backoff.h"

uint64_t backoff_ms(uint32_t n, struct backoff b, uint64_t random)
{
    uint64_t first_ms = (uint64_t)MAX(b.first_s, 1) * 1000, max_ms = MAX((uint64_t)b.max_s * 1000, first_ms);
    uint64_t wait_ms = first_ms;
    for (uint32_t i = 1; i < n && wait_ms < max_ms; i++)
        wait_ms *= 2;
    wait_ms = MIN(wait_ms, max_ms);
    uint64_t span = wait_ms * 2 / 5; /* 40 % wide, centred */
    return wait_ms - span / 2 + random % (span + 1);
}
