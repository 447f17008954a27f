/* relay/rate.c: see rate_priv.h. */
#include "relay/rate_priv.h"

#include "core/clock.h"

#define SLACK_NS (RATE_SLACK_MS * NS_PER_MS)

static uint64_t wait_ms(uint64_t due_ns, uint64_t now_ns)
{
    return due_ns <= now_ns + SLACK_NS ? 0 : (due_ns - SLACK_NS - now_ns + NS_PER_MS - 1) / NS_PER_MS;
}

uint64_t rate_wait_ms(const rate_state *s, const struct cfg_rate *r, uint64_t now_ns)
{
    return r->count ? wait_ms(atomic_load_explicit(s, memory_order_relaxed), now_ns) : 0;
}

uint64_t rate_take(rate_state *s, const struct cfg_rate *r, uint64_t now_ns)
{
    if (!r->count)
        return 0;
    uint64_t step_ns = r->period_s * NS_PER_S / r->count;
    uint64_t due_ns = atomic_load_explicit(s, memory_order_relaxed);
    for (;;) {
        /* A rate that was raised by a reload does not wait for what the old one would have. */
        uint64_t at_ns = MIN(due_ns, now_ns + SLACK_NS + step_ns);
        uint64_t wait = wait_ms(at_ns, now_ns);
        if (wait)
            return wait;
        if (atomic_compare_exchange_weak_explicit(s, &due_ns, MAX(at_ns, now_ns) + step_ns,
                                                  memory_order_relaxed, memory_order_relaxed))
            return 0;
    }
}
