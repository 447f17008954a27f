/* verify/patience.h: how many refused recipients a server stands on one connection before it slows down or
 * hangs up. Found out by going on for as long as it answers as quickly as before: where nothing is known, a
 * connection that had its share is asked for one more, and if that comes quickly the share doubles. Pure. */
#ifndef VERIFY_PATIENCE_H
#define VERIFY_PATIENCE_H

#include "core/base.h"

#define PATIENCE_START 9 /* what everybody stands: Postfix is slow with the tenth (smtpd_soft_error_limit)   \
                          */
#define PATIENCE_MIN     5
#define PATIENCE_MAX     200
#define PATIENCE_SLOW_MS 800 /* Postfix waits for 1 s, others for longer */

struct patience {
    uint32_t limit;          /* 0: PATIENCE_START */
    uint64_t known_until_ms; /* it has said so: no more than that for a while */
};
uint32_t patience_limit(const struct patience *p);
/* After so many refusals a connection is to be left. */
bool patience_is_over(const struct patience *p, uint32_t refused_count, uint64_t now_ms);
/* How many more refusals a connection may have; at least 1. */
uint32_t patience_left(const struct patience *p, uint32_t refused_count);
/* It answered the last of so many refusals as quickly as those before. */
void patience_stood(struct patience *p, uint32_t refused_count);
/* After so many refusals it became slow, or hung up. */
void patience_slowed(struct patience *p, uint32_t refused_count, uint64_t now_ms);
void patience_hung_up(struct patience *p, uint32_t refused_count, uint64_t now_ms);
/* An answer took `waited_ms`, and none before on this connection longer than `longest_ms`. Servers that are
 * slow with everybody are not slow of refusals. */
bool patience_is_slow(uint64_t waited_ms, uint64_t longest_ms);

#endif
