/* smtp/server/pace.c: see pace_priv.h. A leaky bucket told by one time (GCRA). */
#include "smtp/server/pace_priv.h"

#include "core/clock.h"

static uint64_t busy_until(const struct pace_entry *e)
{
    return MAX(e->due_ns[PACE_CONNECTIONS], e->due_ns[PACE_MESSAGES]);
}

static struct pace_entry *entry_of(struct pace *p, uint64_t key)
{
    size_t set = (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) % PACE_SETS;
    struct pace_entry *e = &p->sets[set][0];
    for (size_t i = 0; i < PACE_WAYS; i++) {
        struct pace_entry *one = &p->sets[set][i];
        if (one->key == key)
            return one;
        if (busy_until(one) < busy_until(e))
            e = one;
    }
    *e = (struct pace_entry){.key = key};
    return e;
}

bool pace_take(struct pace *p, uint64_t key, enum pace_kind kind, const struct cfg_rate *rate,
               uint64_t now_ns)
{
    if (!rate->count)
        return true;
    uint64_t period_ns = rate->period_s * NS_PER_S, each_ns = period_ns / rate->count;
    struct pace_entry *e = entry_of(p, key);
    uint64_t due_ns = MAX(e->due_ns[kind], now_ns);
    if (due_ns - now_ns > period_ns - each_ns)
        return false;
    e->due_ns[kind] = due_ns + each_ns;
    return true;
}
