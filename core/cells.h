/* core/cells.h: a number for each of many keys, in one table of fixed size for all threads. No locks: a key
 * and its number are one word, changed by compare and swap.
 *
 * Keys are hashes that nobody outside can choose (str_hash, hash_u64). By chance a key is taken for another
 * one in 16,000 times when the table is full, and more rarely before. */
#ifndef CORE_CELLS_H
#define CORE_CELLS_H

#include "core/base.h"

struct cells;

#define CELL_BITS  46
#define CELL_MAX   ((UINT64_C(1) << CELL_BITS) - 1)
#define CELL_LEAVE UINT64_MAX /* for the next value: change nothing */

/* What the numbers mean. Both are pure; `ctx` is the caller's. */
struct cell_rules {
    uint64_t (*worth)(uint64_t value, const void *ctx); /* 0: forget it */
    uint64_t (*next)(uint64_t value, const void *ctx);  /* `value` 0: the key is new, or forgotten */
    bool evicts; /* where all places are taken, who is worth least goes; else the newcomer has none */
};

enum cell_result { CELL_CHANGED, CELL_LEFT, CELL_NO_ROOM };

/* Room for `count` keys, a power of two; as good as certain for half as many. 8 bytes each, taken from the
 * system as they are used. NULL: out of memory. */
struct cells *cells_new(size_t count);
void cells_free(struct cells *c);
enum cell_result cells_change(struct cells *c, uint64_t key, const struct cell_rules *r, const void *ctx);
/* The sum: while others come and go, two threads may put a key that is new into two places. */
uint64_t cells_worth(const struct cells *c, uint64_t key, const struct cell_rules *r, const void *ctx);

#endif
