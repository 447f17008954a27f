/* smtp/server/harvest.c: see harvest_priv.h. */
#include "smtp/server/harvest_priv.h"

static size_t set_of(uint64_t key)
{
    return (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) % HARVEST_SETS;
}

/* A clock that went back forgets nothing. */
static uint32_t score_now(const struct harvest_entry *e, const struct config *c, uint32_t now_s)
{
    uint32_t passed_s = now_s > e->counted_s ? now_s - e->counted_s : 0;
    uint32_t forgotten = passed_s / c->harvest.forget_s;
    return e->score > forgotten ? e->score - forgotten : 0;
}

enum harvest_level harvest_level(const struct harvest *h, uint64_t key, const struct config *c,
                                 uint32_t now_s)
{
    const struct harvest_entry *set = h->sets[set_of(key)];
    uint32_t score = 0;

    for (size_t i = 0; i < HARVEST_WAYS; i++)
        if (set[i].score && set[i].key == key)
            score = score_now(&set[i], c, now_s);
    if (c->harvest.disconnect_after && score >= c->harvest.disconnect_after)
        return HARVEST_DISCONNECT;
    if (c->harvest.defer_after && score >= c->harvest.defer_after)
        return HARVEST_DEFER;
    return c->harvest.tarpit_after && score >= c->harvest.tarpit_after ? HARVEST_TARPIT : HARVEST_NONE;
}

void harvest_count(struct harvest *h, uint64_t key, const struct config *c, uint32_t now_s)
{
    struct harvest_entry *set = h->sets[set_of(key)], *e = &set[0];

    for (size_t i = 0; i < HARVEST_WAYS; i++) {
        if (set[i].score && set[i].key == key) {
            e = &set[i];
            break;
        }
        if (score_now(&set[i], c, now_s) < score_now(e, c, now_s))
            e = &set[i];
    }
    uint32_t before = e->score && e->key == key ? score_now(e, c, now_s) : 0;
    *e = (struct harvest_entry){.key = key, .score = before + 1, .counted_s = now_s};
}
