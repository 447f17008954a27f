/* core/arena.h: regions freed all at once. One owner, one thread. */
#ifndef CORE_ARENA_H
#define CORE_ARENA_H

#include "core/str.h"

struct arena_chunk;

/* `bytes_max` is a hard cap; past it arena_alloc returns NULL and `overflow` stays set until reset. */
struct arena {
    struct arena_chunk *chunks; /* owned */
    char *at, *end;
    size_t bytes_used, bytes_max;
    bool overflow;
};

void arena_init(struct arena *a, size_t bytes_max);
void *arena_alloc(struct arena *a, size_t n); /* 16-byte aligned, uninitialised; NULL when over the cap */
void *arena_zalloc(struct arena *a, size_t n);
str_t arena_str(struct arena *a, str_t s); /* copy, NUL-terminated behind; STR_NONE on overflow */
str_t arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
void arena_reset(struct arena *a); /* keeps one chunk for reuse */
void arena_free(struct arena *a);  /* gives everything back; the arena can be used again */

#endif
