/* core/rng.h: random numbers; a link-time seam like the clock. Any thread. */
#ifndef CORE_RNG_H
#define CORE_RNG_H

#include "core/base.h"

void rng_bytes(void *out, size_t n); /* from the kernel; for secrets and identities */
uint64_t rng_u64(void);              /* fast, per thread; for jitter and sampling, not for secrets */
uint64_t rng_below(uint64_t bound);  /* 0 .. bound-1 without bias; bound > 0 */

#endif
