/* smtp/server/pace_priv.h: how fast a client may go on: so many of something in a time. One table for all
 * workers; where it is full, who has most of his share left is forgotten. Any thread, no locks. */
#ifndef SMTP_SERVER_PACE_PRIV_H
#define SMTP_SERVER_PACE_PRIV_H

#include "core/cells.h"
#include "core/config.h"

#define PACE_CLIENTS 32768

/* One more, now: false when that is too many. As many as the rate says may come at once. Clock: monotonic. */
bool pace_take(struct cells *p, uint64_t key, const struct cfg_rate *rate, uint64_t now_ns);

#endif
