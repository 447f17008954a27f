/* core/buf.c: append buffers, of fixed size (sbuf) and growable up to a maximum (gbuf). */
#include "core/str.h"

#define GBUF_BYTES_MIN         256
#define GBUF_BYTES_MAX_DEFAULT ((size_t)64 << 20)

void sbuf_put(struct sbuf *b, const void *p, size_t n)
{
    if (b->overflow)
        return; /* nothing after a gap: the content stays a true prefix */
    size_t room = b->cap - b->n;
    if (n > room) {
        b->overflow = true;
        n = room;
    }
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}

void sbuf_str(struct sbuf *b, str_t s)
{
    sbuf_put(b, s.p, s.n);
}

void sbuf_cstr(struct sbuf *b, const char *s)
{
    sbuf_put(b, s, strlen(s));
}

void sbuf_char(struct sbuf *b, char c)
{
    sbuf_put(b, &c, 1);
}

void sbuf_u64(struct sbuf *b, uint64_t v)
{
    char digits[20]; /* 2^64-1 has 20 */
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    sbuf_put(b, digits + at, sizeof digits - at);
}

void sbuf_printf(struct sbuf *b, const char *fmt, ...)
{
    if (b->overflow)
        return;
    size_t room = b->cap - b->n;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(room ? b->p + b->n : NULL, room, fmt, ap);
    va_end(ap);
    must(n >= 0);
    if ((size_t)n < room) {
        b->n += (size_t)n;
    } else if (n > 0) {
        b->overflow = true;
        b->n += room ? room - 1 : 0;
    }
}

/* Makes room for `want` bytes more and returns how many of them there is room for. */
static size_t gbuf_room(struct gbuf *b, size_t want)
{
    size_t max = b->max ? b->max : GBUF_BYTES_MAX_DEFAULT;
    if (b->cap - b->n >= want)
        return want;
    if (want > max - MIN(max, b->n)) {
        b->overflow = true;
        want = max - MIN(max, b->n);
    }
    if (b->cap - b->n >= want)
        return want;
    size_t cap = MIN(max, MAX(b->n + want, MAX(b->cap * 2, (size_t)GBUF_BYTES_MIN)));
    char *p = realloc(b->p, cap);
    if (!p) {
        b->overflow = true;
        return b->cap - b->n;
    }
    b->p = p;
    b->cap = cap;
    return want;
}

void gbuf_put(struct gbuf *b, const void *p, size_t n)
{
    if (b->overflow)
        return;
    n = gbuf_room(b, n);
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}

void gbuf_str(struct gbuf *b, str_t s)
{
    gbuf_put(b, s.p, s.n);
}

void gbuf_cstr(struct gbuf *b, const char *s)
{
    gbuf_put(b, s, strlen(s));
}

void gbuf_printf(struct gbuf *b, const char *fmt, ...)
{
    if (b->overflow)
        return;
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    size_t room = b->cap - b->n;
    int n = vsnprintf(room ? b->p + b->n : NULL, room, fmt, ap);
    va_end(ap);
    must(n >= 0);
    if ((size_t)n >= room && n > 0) {
        /* One byte more than the text: vsnprintf() ends it with NUL, which is not content. */
        room = gbuf_room(b, (size_t)n + 1);
        if (room)
            vsnprintf(b->p + b->n, room, fmt, again);
        if ((size_t)n >= room) {
            b->overflow = true;
            n = room ? (int)room - 1 : 0;
        }
    }
    va_end(again);
    b->n += (size_t)n;
}

void gbuf_free(struct gbuf *b)
{
    free(b->p);
    *b = (struct gbuf){.max = b->max};
}
