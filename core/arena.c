/* core/arena.c: bump allocation from chunks.
 *
 * bytes_used counts what was handed out, rounded to the alignment; bytes_max caps that, and no chunk is
 * larger than what the cap still allows, so that the memory behind it is bounded too. */
#include "core/arena.h"
#include "core/sanitize.h"

#define ARENA_ALIGN       16
#define CHUNK_BYTES_FIRST ((size_t)1024) /* one idle session's share; doubles from there */
#define CHUNK_BYTES_MAX   ((size_t)64 << 10)

struct arena_chunk {
    struct arena_chunk *next; /* owned */
    size_t bytes;             /* of data */
    _Alignas(ARENA_ALIGN) char data[];
};

void arena_init(struct arena *a, size_t bytes_max)
{
    must(bytes_max > 0);
    *a = (struct arena){.bytes_max = bytes_max};
}

static void chunk_use(struct arena *a, struct arena_chunk *c)
{
    a->at = c->data;
    a->end = c->data + c->bytes;
}

static struct arena_chunk *chunk_new(size_t bytes)
{
    struct arena_chunk *c = malloc(sizeof *c + bytes);
    if (!c)
        return NULL;
    c->bytes = bytes;
    MEMORY_POISON(c->data, bytes);
    return c;
}

static void chunk_free(struct arena_chunk *c)
{
    MEMORY_UNPOISON(c->data, c->bytes);
    free(c);
}

/* A chunk with room for n bytes; NULL when out of memory. */
static void *alloc_from_new_chunk(struct arena *a, size_t n)
{
    size_t bytes = a->chunks ? MIN(a->chunks->bytes * 2, CHUNK_BYTES_MAX) : CHUNK_BYTES_FIRST;
    bytes = MIN(bytes, (size_t)ALIGN_UP(a->bytes_max - a->bytes_used, ARENA_ALIGN));
    bool is_own = n > bytes && a->chunks; /* a large object does not end the chunk that is being filled */
    struct arena_chunk *c = chunk_new(MAX(bytes, n));
    if (!c)
        return NULL;
    if (is_own) {
        c->next = a->chunks->next;
        a->chunks->next = c;
        return c->data;
    }
    c->next = a->chunks;
    a->chunks = c;
    chunk_use(a, c);
    a->at += n;
    return c->data;
}

void *arena_alloc(struct arena *a, size_t n)
{
    size_t size = (size_t)ALIGN_UP(MAX(n, (size_t)1), ARENA_ALIGN);
    size_t left = (size_t)ALIGN_DOWN(a->bytes_max, ARENA_ALIGN) - a->bytes_used;
    if (n > left || size > left) { /* n first: size may have wrapped */
        a->overflow = true;
        return NULL;
    }
    void *p;
    if ((size_t)(a->end - a->at) >= size) {
        p = a->at;
        a->at += size;
    } else {
        p = alloc_from_new_chunk(a, size);
    }
    if (!p) {
        a->overflow = true;
        return NULL;
    }
    a->bytes_used += size;
    MEMORY_UNPOISON(p, n);
    return p;
}

void *arena_zalloc(struct arena *a, size_t n)
{
    void *p = arena_alloc(a, n);
    if (p)
        memset(p, 0, n);
    return p;
}

str_t arena_str(struct arena *a, str_t s)
{
    if (!s.p)
        return STR_NONE;
    char *p = s.n < SIZE_MAX ? arena_alloc(a, s.n + 1) : NULL;
    if (!p)
        return STR_NONE;
    memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    return str_of(p, s.n);
}

str_t arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    must(n >= 0);
    char *p = arena_alloc(a, (size_t)n + 1);
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p ? str_of(p, (size_t)n) : STR_NONE;
}

/* Frees all chunks behind `keep`, or all. */
static void free_chunks(struct arena *a, struct arena_chunk *keep)
{
    struct arena_chunk *c = a->chunks;
    while (c) {
        struct arena_chunk *next = c->next;
        if (c != keep)
            chunk_free(c);
        c = next;
    }
}

void arena_reset(struct arena *a)
{
    struct arena_chunk *keep = a->chunks; /* the newest, and of the shared ones the largest */
    if (keep && keep->bytes > CHUNK_BYTES_MAX)
        keep = NULL; /* made for one large object */
    free_chunks(a, keep);
    *a = (struct arena){.chunks = keep, .bytes_max = a->bytes_max};
    if (keep) {
        keep->next = NULL;
        MEMORY_POISON(keep->data, keep->bytes);
        chunk_use(a, keep);
    }
}

void arena_free(struct arena *a)
{
    free_chunks(a, NULL);
    *a = (struct arena){.bytes_max = a->bytes_max};
}
