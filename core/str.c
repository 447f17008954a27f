/* core/str.c: pointer+length strings. An absent string {NULL, 0} is welcome everywhere. */
#include "core/str.h"

str_t str_cstr(const char *cstr)
{
    return cstr ? str_of(cstr, strlen(cstr)) : STR_NONE;
}

static unsigned char fold(char c)
{
    unsigned char u = (unsigned char)c;
    return u >= 'A' && u <= 'Z' ? u | 0x20 : u;
}

/* memcmp() may not be given NULL, not even with length 0. */
static bool bytes_eq(const char *a, const char *b, size_t n)
{
    return n == 0 || memcmp(a, b, n) == 0;
}

/* Not strncasecmp(): that follows the locale and stops at NUL. */
static bool bytes_ieq(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fold(a[i]) != fold(b[i]))
            return false;
    return true;
}

bool str_eq(str_t a, str_t b)
{
    return a.n == b.n && bytes_eq(a.p, b.p, a.n);
}

bool str_ieq(str_t a, str_t b)
{
    return a.n == b.n && bytes_ieq(a.p, b.p, a.n);
}

bool str_starts(str_t s, str_t prefix)
{
    return s.n >= prefix.n && bytes_eq(s.p, prefix.p, prefix.n);
}

bool str_istarts(str_t s, str_t prefix)
{
    return s.n >= prefix.n && bytes_ieq(s.p, prefix.p, prefix.n);
}

bool str_ends(str_t s, str_t suffix)
{
    return s.n >= suffix.n && str_eq(str_sub(s, s.n - suffix.n, suffix.n), suffix);
}

bool str_iends(str_t s, str_t suffix)
{
    return s.n >= suffix.n && str_ieq(str_sub(s, s.n - suffix.n, suffix.n), suffix);
}

int str_cmp(str_t a, str_t b)
{
    size_t n = MIN(a.n, b.n);
    int order = n ? memcmp(a.p, b.p, n) : 0;
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

str_t str_trim(str_t s)
{
    while (s.n && is_blank(s.p[0]))
        s.p++, s.n--;
    while (s.n && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

str_t str_sub(str_t s, size_t from, size_t n)
{
    if (!s.p)
        return STR_NONE;
    from = MIN(from, s.n);
    return str_of(s.p + from, MIN(n, s.n - from));
}

ptrdiff_t str_find(str_t s, char c)
{
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;
    return at ? at - s.p : -1;
}

ptrdiff_t str_rfind(str_t s, char c)
{
    const char *at = s.n ? memrchr(s.p, c, s.n) : NULL;
    return at ? at - s.p : -1;
}

bool str_cut(str_t s, char sep, str_t *head, str_t *tail)
{
    ptrdiff_t at = str_find(s, sep);
    if (at < 0) {
        *head = s;
        *tail = STR_NONE;
        return false;
    }
    *head = str_sub(s, 0, (size_t)at);
    *tail = str_sub(s, (size_t)at + 1, s.n);
    return true;
}

err_t str_to_u64(str_t s, uint64_t *out)
{
    uint64_t v = 0;
    if (s.n == 0)
        return ERR_SYNTAX;
    for (size_t i = 0; i < s.n; i++) {
        unsigned digit = (unsigned char)s.p[i] - (unsigned)'0';
        if (digit > 9 || __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, digit, &v))
            return ERR_SYNTAX;
    }
    *out = v;
    return 0;
}

bool str_is_ascii(str_t s)
{
    uint64_t seen = 0, word;
    size_t i = 0;
    for (; s.n - i >= sizeof word; i += sizeof word) {
        memcpy(&word, s.p + i, sizeof word);
        seen |= word;
    }
    for (; i < s.n; i++)
        seen |= (unsigned char)s.p[i];
    return !(seen & UINT64_C(0x8080808080808080));
}
