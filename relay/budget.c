/* relay/budget.c: RFC 3464 says nothing of how many reports are too many, backscatter does. A spammer's
 * forged senders must not make a bomb of us.
 *
 * A table of numbers, one a domain: minute, count and a tag of the domain's name. Each is changed by a
 * compare and swap. A domain's number is the first of the places that its hash says, that carries its tag
 * in this minute, or none of this minute's at all; as none of this minute's ever gets free in it, all threads
 * find the same. */
#include "relay/budget.h"

#include <stdatomic.h>
#include <stdlib.h>

#define MINUTE_MS 60000u
#define SLOTS                                                                                                \
    (1u << 14) /* domains in one minute, about; what comes behind them is a storm, and gets nothing */
#define PROBES      32u
#define COUNT_BITS  20u /* BUDGET_RATE_MAX */
#define TAG_BITS    24u
#define MINUTE_BITS 20u
#define LOW(bits)   ((UINT64_C(1) << (bits)) - 1)

_Static_assert(BUDGET_RATE_MAX <= LOW(COUNT_BITS), "a count must fit");
_Static_assert(COUNT_BITS + TAG_BITS + MINUTE_BITS == 64, "one number");

struct budget {
    atomic_uint_least64_t slots[SLOTS];
};

struct budget *budget_new(void)
{
    return calloc(1, sizeof(struct budget));
}

void budget_free(struct budget *b)
{
    free(b);
}

static uint64_t count_of(uint64_t slot)
{
    return slot & LOW(COUNT_BITS);
}

static uint64_t tag_of(uint64_t slot)
{
    return slot >> COUNT_BITS & LOW(TAG_BITS);
}

static uint64_t minute_of(uint64_t slot)
{
    return slot >> (COUNT_BITS + TAG_BITS);
}

/* Of this minute, or of the next one: a thread whose clock is a bit behind must not undo what others counted.
 * Minutes are compared in a ring, which turns in two years. */
static bool is_current(uint64_t slot, uint64_t minute)
{
    return count_of(slot) > 0 && ((minute_of(slot) - minute) & LOW(MINUTE_BITS)) <= 1;
}

bool budget_take(struct budget *b, str_t domain, uint32_t rate, uint64_t now_ms)
{
    if (!rate)
        return true;
    uint64_t hash = str_ihash(domain), minute = now_ms / MINUTE_MS & LOW(MINUTE_BITS);
    uint64_t tag = hash >> (64 - TAG_BITS); /* domains that share it, and the place, share their budget */
    uint64_t step = hash >> TAG_BITS | 1;
    for (uint32_t i = 0; i < PROBES; i++) {
        atomic_uint_least64_t *slot = &b->slots[(hash + i * step) % SLOTS];
        uint64_t old = atomic_load_explicit(slot, memory_order_relaxed), one_more;
        do {
            if (!is_current(old, minute))
                one_more = minute << (COUNT_BITS + TAG_BITS) | tag << COUNT_BITS | 1;
            else if (tag_of(old) != tag)
                break;
            else if (count_of(old) >= rate)
                return false;
            else
                one_more = old + 1;
            if (atomic_compare_exchange_weak_explicit(slot, &old, one_more, memory_order_relaxed,
                                                      memory_order_relaxed))
                return true;
        } while (true);
    }
    return false;
}
