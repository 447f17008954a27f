/* relay/budget.h: how many reports a domain gets in a minute. One for all workers; any thread, no lock. */
#ifndef RELAY_BUDGET_H
#define RELAY_BUDGET_H

#include "core/str.h"

struct budget;

struct budget *budget_new(void); /* NULL: no memory */
void budget_free(struct budget *b);
/* Counts one more for `domain`, if that is at most `rate` in this minute (0: no limit; at most
 * BUDGET_RATE_MAX). False: used up, nothing was counted. `now_ms`: monotonic; the threads' may differ a
 * little. */
#define BUDGET_RATE_MAX 1000000u
bool budget_take(struct budget *b, str_t domain, uint32_t rate, uint64_t now_ms);

#endif
