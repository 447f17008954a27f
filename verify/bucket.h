/* verify/bucket.h: a rate that is kept from the first moment: a tenth of a second's worth may go at once, the
 * rest as time passes. Pure. */
#ifndef VERIFY_BUCKET_H
#define VERIFY_BUCKET_H

#include "core/base.h"

struct bucket { /* zero: full, whatever the rate */
    uint64_t spent_milli, at_ms;
};
/* How many of `wanted` may go now; rate 0: all. */
uint32_t bucket_take(struct bucket *b, uint32_t rate_per_s, uint32_t wanted, uint64_t now_ms);
/* Gives back what was taken and not used. */
void bucket_return(struct bucket *b, uint32_t count);
/* How long until one may go; 0: now. */
uint64_t bucket_wait_ms(const struct bucket *b, uint32_t rate_per_s, uint64_t now_ms);

#endif
