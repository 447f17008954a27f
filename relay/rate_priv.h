/* relay/rate_priv.h: so many messages in so much time, evenly spread. Pure: no clock of its own. One atomic
 * number is all the state, so that the workers share a destination's rate without a lock: when the next
 * message may go if none was ever late. (GCRA, the leaky bucket of the ATM Forum's TM 4.0, 4.4.2.) */
#ifndef RELAY_RATE_PRIV_H
#define RELAY_RATE_PRIV_H

#include <stdatomic.h>

#include "core/config.h"

/* Timers and ticks are some milliseconds coarse: what was late by up to this is caught up. */
#define RATE_SLACK_MS 100

typedef atomic_uint_least64_t rate_state; /* zero-init: nothing was sent yet */

/* 0: one message may go, and is counted; else milliseconds until one may. `now_ns`: monotonic. */
uint64_t rate_take(rate_state *s, const struct cfg_rate *r, uint64_t now_ns);
uint64_t rate_wait_ms(const rate_state *s, const struct cfg_rate *r, uint64_t now_ns); /* counts none */

#endif
