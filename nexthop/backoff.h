/* nexthop/backoff.h: how long to leave a server alone that failed. Pure. */
#ifndef NEXTHOP_BACKOFF_H
#define NEXTHOP_BACKOFF_H

#include "core/base.h"

struct backoff {
    uint32_t first_s, max_s;
};

/* The wait before attempt `n` + 1 (n >= 1): first, doubled up to max, +-20 % so that what failed together
 * does not return together. */
uint64_t backoff_ms(uint32_t n, struct backoff b, uint64_t random);

#endif
