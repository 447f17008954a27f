/* core/rng_below.c: bounded random numbers over whichever rng_u64() is linked. */
#include "core/rng.h"

/* Lemire 2019: the high half of a product is uniform once the few low halves that would bias it are refused.
 */
uint64_t rng_below(uint64_t bound)
{
    must(bound > 0);
    uint64_t refuse_below = (0 - bound) % bound;
    for (;;) {
        unsigned __int128 product = (unsigned __int128)rng_u64() * bound;
        if ((uint64_t)product >= refuse_below)
            return (uint64_t)(product >> 64);
    }
}
