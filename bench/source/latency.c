/* bench/source/latency.c: logarithmic buckets, each power of two cut into 32. */
#include "bench/source/latency.h"

static unsigned bucket_of(uint64_t us)
{
    if (us < 1u << LATENCY_SUB_BITS)
        return (unsigned)us;
    unsigned shift = 63u - (unsigned)__builtin_clzll(us) - LATENCY_SUB_BITS;
    unsigned bucket = (shift << LATENCY_SUB_BITS) + (unsigned)(us >> shift);
    return MIN(bucket, LATENCY_BUCKETS - 1u);
}

static uint64_t upper_us(unsigned bucket)
{
    if (bucket < 1u << LATENCY_SUB_BITS)
        return bucket + 1;
    unsigned shift = (bucket >> LATENCY_SUB_BITS) - 1;
    return ((uint64_t)(bucket - (shift << LATENCY_SUB_BITS)) + 1) << shift;
}

void latency_add(struct latency *l, uint64_t ns)
{
    uint64_t us = ns / 1000;
    l->count++;
    l->sum_us += us;
    l->max_us = MAX(l->max_us, us);
    l->buckets[bucket_of(us)]++;
}

void latency_merge(struct latency *sum, const struct latency *l)
{
    sum->count += l->count;
    sum->sum_us += l->sum_us;
    sum->max_us = MAX(sum->max_us, l->max_us);
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
        sum->buckets[i] += l->buckets[i];
}

double latency_quantile_ms(const struct latency *l, double q)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        seen += l->buckets[i];
        if (l->buckets[i] && (double)seen >= q * (double)l->count)
            return (double)MIN(upper_us(i), l->max_us + 1) / 1000.0;
    }
    return 0;
}
