/* smtp/server/edge_lines.c: see edge_lines.h. What is known of an edge is one word, which is replaced by
 * compare and swap:
 *
 *     |32 label|8 hops|8 formats|1 learned|15 count|
 */
#include "smtp/server/edge_lines.h"

#include <stdatomic.h>
#include <stdlib.h>

struct edge_lines {
    struct place {
        atomic_uint_fast64_t key; /* 0: free; once taken, for ever */
        atomic_uint_fast64_t word;
        atomic_uint_fast32_t others;
    } places[EDGE_LINES_EDGES];
};

struct known {
    uint32_t label;
    uint8_t hops, formats;
    bool learned;
    uint16_t count;
};

static uint64_t pack(const struct known *k)
{
    return (uint64_t)k->label << 32 | (uint64_t)k->hops << 24 | (uint64_t)k->formats << 16 |
           (uint64_t)k->learned << 15 | k->count;
}

static struct known unpack(uint64_t word)
{
    return (struct known){.label = (uint32_t)(word >> 32),
                          .hops = (uint8_t)(word >> 24),
                          .formats = (uint8_t)(word >> 16),
                          .learned = word >> 15 & 1,
                          .count = word & 0x7FFF};
}

struct edge_lines *edge_lines_new(void)
{
    return calloc(1, sizeof(struct edge_lines));
}

void edge_lines_free(struct edge_lines *t)
{
    free(t);
}

/* Once a place is taken it stays, so whoever looks for a key comes past all that were there before it. */
static struct place *place_of(struct edge_lines *t, uint64_t key)
{
    size_t at = (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) % EDGE_LINES_EDGES;
    for (size_t i = 0; i < EDGE_LINES_EDGES; i++) {
        struct place *p = &t->places[(at + i) % EDGE_LINES_EDGES];
        uint_fast64_t there = atomic_load_explicit(&p->key, memory_order_relaxed);
        if (there == 0 && atomic_compare_exchange_strong_explicit(&p->key, &there, key, memory_order_relaxed,
                                                                  memory_order_relaxed))
            return p;
        if (there == key) /* also when another thread took it for the same edge */
            return p;
    }
    return NULL;
}

static bool is_alike(const struct known *k, const struct edge_line *l)
{
    return l->kind == EDGE_LINE_TELLS && k->formats & l->formats && k->label == l->label;
}

static struct known begin(const struct edge_line *l)
{
    if (l->kind != EDGE_LINE_TELLS)
        return (struct known){0};
    return (struct known){.label = l->label, .hops = l->hops, .formats = l->formats, .count = 1};
}

/* Fewer hops than learned are fine: the line is nearer to the top. A deeper one may be somebody's who can
 * make the edge write a line about itself. */
static struct known once_learned(struct known k, const struct edge_line *l, enum edge_line_result *result)
{
    if (is_alike(&k, l) && l->hops <= k.hops) {
        *result = EDGE_LINE_AS_LEARNED;
        k.formats &= l->formats;
        k.count = (uint16_t)MIN(k.count + 1, EDGE_LINES_FULL);
        return k;
    }
    *result = EDGE_LINE_ANOTHER;
    k.count = (uint16_t)(k.count - MIN(k.count, EDGE_LINES_COST));
    return k.count ? k : begin(l);
}

static struct known next(struct known k, const struct edge_line *l, enum edge_line_result *result)
{
    *result = EDGE_LINE_LEARNING;
    if (l->kind == EDGE_LINE_OWN)
        return k;
    if (k.learned)
        return once_learned(k, l, result);
    if (!k.count || !is_alike(&k, l) || l->hops != k.hops)
        return begin(l);
    k.formats &= l->formats;
    k.learned = ++k.count >= EDGE_LINES_NEEDED;
    if (k.learned) {
        k.count = EDGE_LINES_FULL;
        *result = EDGE_LINE_AS_LEARNED;
    }
    return k;
}

enum edge_line_result edge_lines_see(struct edge_lines *t, const struct ip *edge,
                                     const struct edge_line *line, struct edge_lines_change *change)
{
    struct place *p = place_of(t, ip_client_key(edge));
    enum edge_line_result result = EDGE_LINE_LEARNING;
    *change = (struct edge_lines_change){0};
    if (!p)
        return result;
    uint_fast64_t old = atomic_load_explicit(&p->word, memory_order_relaxed), new;
    do {
        struct known was = unpack(old), is = next(was, line, &result);
        *change = (struct edge_lines_change){
            .any = was.learned != is.learned, .learned = is.learned, .formats = is.formats, .hops = is.hops};
        new = pack(&is);
    } while (new != old && !atomic_compare_exchange_weak_explicit(&p->word, &old, new, memory_order_relaxed,
                                                                  memory_order_relaxed));
    if (result == EDGE_LINE_ANOTHER)
        atomic_fetch_add_explicit(&p->others, 1, memory_order_relaxed);
    return result;
}

size_t edge_lines_list(const struct edge_lines *t, struct edge_lines_known *out, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < EDGE_LINES_EDGES && n < max; i++) {
        const struct place *p = &t->places[i];
        uint64_t key = atomic_load_explicit(&p->key, memory_order_relaxed);
        struct known k = unpack(atomic_load_explicit(&p->word, memory_order_relaxed));
        if (key)
            out[n++] = (struct edge_lines_known){
                .ip = ip_of_client_key(key),
                .learned = k.learned,
                .formats = k.formats,
                .hops = k.hops,
                .count = (uint8_t)k.count,
                .others = (uint32_t)atomic_load_explicit(&p->others, memory_order_relaxed)};
    }
    return n;
}

bool edge_lines_forget(struct edge_lines *t, const struct ip *ip)
{
    uint64_t wanted = ip ? ip_client_key(ip) : 0;
    bool found = !ip;
    for (size_t i = 0; i < EDGE_LINES_EDGES; i++) {
        struct place *p = &t->places[i];
        if (ip && atomic_load_explicit(&p->key, memory_order_relaxed) != wanted)
            continue;
        atomic_store_explicit(&p->word, 0, memory_order_relaxed);
        atomic_store_explicit(&p->others, 0, memory_order_relaxed);
        found = true;
    }
    return found;
}
