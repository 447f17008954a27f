/* smtp/server/harvest.c: see harvest.h. A client is one word, which is replaced by compare and swap:
 *
 *     |17 tag|27 counted_s|20 score|
 *
 * The tag is of a keyed hash, so nobody can choose an address that shares another's score; by chance one in
 * 30,000 does in a table that is full. The time is the low bits of the clock: it comes round in four years.
 */
#include "smtp/server/harvest.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "core/rng.h"

#define WAYS       4
#define SETS       8192
#define SCORE_BITS 20 /* the configuration allows a million */
#define TIME_BITS  27
#define SCORE_MAX  ((UINT32_C(1) << SCORE_BITS) - 1)
#define TIME_MASK  ((UINT32_C(1) << TIME_BITS) - 1)

struct harvest {
    uint64_t secret;
    _Alignas(64) atomic_uint_fast64_t sets[SETS][WAYS]; /* score 0: free */
};

/* Where a client stands. */
struct place {
    size_t set;
    uint32_t tag;
};

struct harvest *harvest_new(void)
{
    struct harvest *h = aligned_alloc(_Alignof(struct harvest), sizeof *h);
    if (!h)
        return NULL;
    rng_bytes(&h->secret, sizeof h->secret);
    for (size_t i = 0; i < SETS; i++)
        for (size_t j = 0; j < WAYS; j++)
            atomic_init(&h->sets[i][j], 0);
    return h;
}

void harvest_free(struct harvest *h)
{
    free(h);
}

/* The finalizer of MurmurHash3: every bit depends on every other. */
static struct place place_of(const struct harvest *h, uint64_t key)
{
    uint64_t x = key ^ h->secret;
    x = (x ^ x >> 33) * UINT64_C(0xFF51AFD7ED558CCD);
    x = (x ^ x >> 33) * UINT64_C(0xC4CEB9FE1A85EC53);
    x ^= x >> 33;
    return (struct place){.set = x % SETS, .tag = (uint32_t)(x >> (SCORE_BITS + TIME_BITS))};
}

static uint64_t pack(uint32_t tag, uint32_t score, uint32_t now_s)
{
    return (uint64_t)tag << (SCORE_BITS + TIME_BITS) | (uint64_t)(now_s & TIME_MASK) << SCORE_BITS | score;
}

static bool is_of(uint64_t word, uint32_t tag)
{
    return (word & SCORE_MAX) && word >> (SCORE_BITS + TIME_BITS) == tag;
}

/* A clock that went back forgets nothing. */
static uint32_t score_now(uint64_t word, const struct config *c, uint32_t now_s)
{
    uint32_t score = (uint32_t)word & SCORE_MAX;
    uint32_t passed_s = (now_s - (uint32_t)(word >> SCORE_BITS)) & TIME_MASK;
    if (passed_s > TIME_MASK / 2)
        passed_s = 0;
    uint32_t forgotten = passed_s / c->harvest.forget_s;
    return score > forgotten ? score - forgotten : 0;
}

/* The words of a set are replaced one by one: two workers may have put the same client into two of them. */
static uint32_t score_of(const struct harvest *h, struct place p, const struct config *c, uint32_t now_s)
{
    uint32_t score = 0;
    for (size_t i = 0; i < WAYS; i++) {
        uint64_t word = atomic_load_explicit(&h->sets[p.set][i], memory_order_relaxed);
        if (is_of(word, p.tag))
            score += score_now(word, c, now_s);
    }
    return score;
}

enum harvest_level harvest_level(const struct harvest *h, uint64_t key, const struct config *c,
                                 uint32_t now_s)
{
    uint32_t score = score_of(h, place_of(h, key), c, now_s);
    if (c->harvest.disconnect_after && score >= c->harvest.disconnect_after)
        return HARVEST_DISCONNECT;
    if (c->harvest.defer_after && score >= c->harvest.defer_after)
        return HARVEST_DEFER;
    return c->harvest.tarpit_after && score >= c->harvest.tarpit_after ? HARVEST_TARPIT : HARVEST_NONE;
}

/* False: another thread was there first. */
static bool try_count(struct harvest *h, struct place p, const struct config *c, uint32_t now_s)
{
    atomic_uint_fast64_t *set = h->sets[p.set], *at = &set[0];
    uint64_t old = atomic_load_explicit(at, memory_order_relaxed);

    for (size_t i = 0; i < WAYS; i++) {
        uint64_t word = atomic_load_explicit(&set[i], memory_order_relaxed);
        if (!is_of(word, p.tag) && score_now(word, c, now_s) >= score_now(old, c, now_s))
            continue;
        at = &set[i];
        old = word;
        if (is_of(word, p.tag))
            break;
    }
    uint32_t before = is_of(old, p.tag) ? score_now(old, c, now_s) : 0;
    return atomic_compare_exchange_strong_explicit(at, &old, pack(p.tag, MIN(before + 1, SCORE_MAX), now_s),
                                                   memory_order_relaxed, memory_order_relaxed);
}

void harvest_count(struct harvest *h, uint64_t key, const struct config *c, uint32_t now_s)
{
    struct place p = place_of(h, key);
    while (!try_count(h, p, c, now_s))
        ;
}
