/* relay/budget.c: how many reports a domain gets in a minute: RFC 3464 says nothing of it, backscatter does.
 * A spammer's forged senders must not make a bomb of us. */
#include "relay/message_priv.h"

#define MINUTE_MS          60000
#define BUDGET_DOMAINS_MAX 10000 /* in one minute; what comes behind them is a storm, and gets nothing */

void budget_free(struct budget *b)
{
    map64_free(&b->counts);
}

bool budget_take(struct budget *b, str_t domain, uint32_t rate, uint64_t now_ms)
{
    if (!rate)
        return true;
    uint64_t minute = now_ms / MINUTE_MS;
    if (minute != b->minute) {
        map64_free(&b->counts);
        b->minute = minute;
    }
    uint64_t key = str_ihash(domain); /* domains that share it share their budget */
    uintptr_t count = (uintptr_t)map64_get(&b->counts, key);
    if (count >= rate || (!count && b->counts.used_count >= BUDGET_DOMAINS_MAX))
        return false;
    return map64_put(&b->counts, key, (void *)(count + 1)) == 0;
}
