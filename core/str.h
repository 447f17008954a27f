/* core/str.h: pointer+length strings and bounded append buffers. No function here allocates but gbuf_*. */
#ifndef CORE_STR_H
#define CORE_STR_H

#include <stdarg.h>

#include "core/base.h"
#include "core/err.h"

/* A view of bytes owned by somebody else; not NUL-terminated. {NULL, 0} is the absent string. */
typedef struct str {
    const char *p;
    size_t n;
} str_t;

#define STR(lit)   ((str_t){"" lit, sizeof(lit) - 1})
#define STR_NONE   ((str_t){NULL, 0})
#define STR_FMT    "%.*s"
#define STR_ARG(s) (int)(s).n, (s).p

static inline str_t str_of(const char *p, size_t n)
{
    return (str_t){p, n};
}
str_t str_cstr(const char *cstr); /* NULL gives STR_NONE */
bool str_eq(str_t a, str_t b);
bool str_ieq(str_t a, str_t b); /* ASCII case folded */
bool str_starts(str_t s, str_t prefix);
bool str_istarts(str_t s, str_t prefix);
bool str_ends(str_t s, str_t suffix);
bool str_iends(str_t s, str_t suffix);
int str_cmp(str_t a, str_t b);
str_t str_trim(str_t s);                       /* blanks and tabs at both ends */
str_t str_sub(str_t s, size_t from, size_t n); /* clamped */
ptrdiff_t str_find(str_t s, char c);           /* index or -1 */
ptrdiff_t str_rfind(str_t s, char c);
bool str_cut(str_t s, char sep, str_t *head, str_t *tail); /* false: no sep, head = s, tail = none */
uint64_t str_hash(str_t s);                                /* seeded per process; not for the disk */
uint64_t str_ihash(str_t s);                               /* equal for str_ieq strings */
struct hash128 {
    uint64_t lo, hi;
};
/* Like str_hash, of a width at which different strings do not meet: it can stand for the string. */
struct hash128 str_hash128(str_t s);
err_t str_to_u64(str_t s, uint64_t *out) WARN_UNUSED; /* decimal, whole string, ERR_SYNTAX on overflow too */
bool str_is_ascii(str_t s);
bool str_is_utf8(str_t s); /* RFC 3629, no surrogates, no overlong forms */

/* Appends into memory of fixed size. What does not fit is cut and `overflow` is set, once for ever: nothing
 * is appended after that, so the content is always a true prefix. sbuf_printf() wants one byte of room more
 * than its text. */
struct sbuf {
    char *p;
    size_t n, cap;
    bool overflow;
};

#define SBUF_ON(array) ((struct sbuf){(array), 0, sizeof(array), false})

void sbuf_put(struct sbuf *b, const void *p, size_t n);
void sbuf_str(struct sbuf *b, str_t s);
void sbuf_cstr(struct sbuf *b, const char *s);
void sbuf_char(struct sbuf *b, char c);
void sbuf_u64(struct sbuf *b, uint64_t v);
void sbuf_printf(struct sbuf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline str_t sbuf_view(const struct sbuf *b)
{
    return (str_t){b->p, b->n};
}

/* Growable buffer with a hard maximum; for boot, admin and DSNs, not for the data path. Zero-init is empty.
 */
struct gbuf {
    char *p;
    size_t n, cap, max; /* max 0 = 64 MiB */
    bool overflow;      /* max reached or out of memory: content is cut */
};

void gbuf_put(struct gbuf *b, const void *p, size_t n);
void gbuf_str(struct gbuf *b, str_t s);
void gbuf_cstr(struct gbuf *b, const char *s);
void gbuf_printf(struct gbuf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void gbuf_free(struct gbuf *b);
static inline str_t gbuf_view(const struct gbuf *b)
{
    return (str_t){b->p, b->n};
}

#endif
