/* relay/budget.h: how many reports a domain gets in a minute. One for all workers; any thread, no lock. */
#ifndef RELAY_BUDGET_H
#define RELAY_BUDGET_H

#include "core/cells.h"
#include "core/str.h"

/* In one minute, about; what comes behind them is a storm, and gets nothing. */
#define BUDGET_DOMAINS (1u << 14)
/* Counts one more for `domain`, if that is at most `rate` in this minute (0: no limit; at most
 * BUDGET_RATE_MAX). False: used up, nothing was counted. `now_ms`: monotonic; the threads' may differ a
 * little. */
#define BUDGET_RATE_MAX 1000000u
bool budget_take(struct cells *b, str_t domain, uint32_t rate, uint64_t now_ms);

#endif
