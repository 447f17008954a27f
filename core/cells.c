/* core/cells.c: see cells.h. A word is |18 tag|46 value|, value 0 a free place. Eight words are a cache line,
 * and a key may stand in either of two; a new one goes into the emptier, so that lines fill evenly. While no
 * place becomes free, threads that bring the same key at the same time choose the same place: when it is no
 * longer the first free one of its line, the swap fails. */
#include "core/cells.h"

#include <stdatomic.h>

#define WAYS        8
#define PLACES      (2 * WAYS)
#define OTHER_SHIFT 23 /* the second line's number: bits that neither the first one's nor the tag has */

struct cells {
    size_t line_mask;
    atomic_uint_fast64_t lines[][WAYS];
};

struct cells *cells_new(size_t count)
{
    size_t lines = MAX(count / WAYS, (size_t)1);
    must((lines & (lines - 1)) == 0 && lines <= (size_t)1 << OTHER_SHIFT);
    struct cells *c = calloc(1, sizeof *c + lines * sizeof c->lines[0]);
    if (c)
        c->line_mask = lines - 1;
    return c;
}

void cells_free(struct cells *c)
{
    free(c);
}

static size_t line_of(const struct cells *c, uint64_t key, unsigned which)
{
    return (which ? key >> OTHER_SHIFT : key) & c->line_mask;
}

static uint64_t value_of(uint64_t word)
{
    return word & CELL_MAX;
}

static bool is_of(uint64_t word, uint64_t key)
{
    return value_of(word) && word >> CELL_BITS == key >> CELL_BITS;
}

static uint64_t worth_of(uint64_t word, const struct cell_rules *r, const void *ctx)
{
    return value_of(word) ? r->worth(value_of(word), ctx) : 0;
}

struct place {
    atomic_uint_fast64_t *at;
    uint64_t word, worth;
    bool is_own;
};

/* In one line: the key's own place, else the first of those worth least. Returns how many are worth nothing.
 */
static unsigned look(atomic_uint_fast64_t *line, uint64_t key, const struct cell_rules *r, const void *ctx,
                     struct place *best)
{
    unsigned free_count = 0;
    *best = (struct place){.worth = UINT64_MAX};
    for (size_t i = 0; i < WAYS; i++) {
        uint64_t word = atomic_load(&line[i]), worth = worth_of(word, r, ctx);
        bool is_own = is_of(word, key);
        free_count += worth == 0;
        if (is_own || !best->at || worth < best->worth)
            *best = (struct place){&line[i], word, worth, is_own};
        if (is_own)
            break;
    }
    return free_count;
}

static struct place place_of(struct cells *c, uint64_t key, const struct cell_rules *r, const void *ctx)
{
    struct place a, b;
    unsigned free_a = look(c->lines[line_of(c, key, 0)], key, r, ctx, &a);
    if (a.is_own)
        return a;
    unsigned free_b = look(c->lines[line_of(c, key, 1)], key, r, ctx, &b);
    if (b.is_own || free_b > free_a)
        return b;
    return free_a || a.worth <= b.worth ? a : b;
}

enum cell_result cells_change(struct cells *c, uint64_t key, const struct cell_rules *r, const void *ctx)
{
    for (;;) {
        struct place p = place_of(c, key, r, ctx);
        uint64_t next = r->next(p.is_own && p.worth ? value_of(p.word) : 0, ctx);
        if (next == CELL_LEAVE)
            return CELL_LEFT;
        if (!p.is_own && p.worth && !r->evicts)
            return CELL_NO_ROOM;
        must(next <= CELL_MAX);
        uint64_t word = next ? key >> CELL_BITS << CELL_BITS | next : 0;
        if (atomic_compare_exchange_strong(p.at, &p.word, word))
            return CELL_CHANGED;
    }
}

uint64_t cells_worth(const struct cells *c, uint64_t key, const struct cell_rules *r, const void *ctx)
{
    size_t a = line_of(c, key, 0), b = line_of(c, key, 1);
    uint64_t sum = 0;
    for (size_t i = 0; i < (a == b ? WAYS : PLACES); i++) {
        uint64_t word = atomic_load(&c->lines[i < WAYS ? a : b][i % WAYS]);
        if (is_of(word, key))
            sum += worth_of(word, r, ctx);
    }
    return sum;
}
