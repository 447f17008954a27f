/* verify/key.c: the form in which addresses are remembered. */
#include <unicase.h>
#include <uninorm.h>

#include "verify/verdict.h"

/* Canonically equivalent spellings become one. libunistring takes memory for itself while it works; local
 * parts that are not ASCII are rare enough. False: no memory, or longer than `cap`. */
static bool normalise(str_t local, bool fold_case, char *out, size_t cap, size_t *n)
{
    uint8_t *made;
    size_t length = cap;
    if (fold_case)
        made = u8_casefold((const uint8_t *)local.p, local.n, NULL, UNINORM_NFC, (uint8_t *)out, &length);
    else
        made = u8_normalize(UNINORM_NFC, (const uint8_t *)local.p, local.n, (uint8_t *)out, &length);
    if (made && made != (uint8_t *)out) { /* it did not fit */
        free(made);
        return false;
    }
    *n = length;
    return made != NULL;
}

static void lower(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] >= 'A' && p[i] <= 'Z')
            p[i] = (char)(p[i] | 0x20);
    }
}

/* Without its tag; a local part that would be nothing but tag keeps it. */
static size_t length_without_tag(str_t local, char separator)
{
    if (!separator || local.p[0] == '"')
        return local.n;
    ptrdiff_t at = str_find(local, separator);
    return at > 0 ? (size_t)at : local.n;
}

str_t verdict_key(const struct address *a, const struct verdict_key_rules *r, struct sbuf *buf)
{
    char canonical_text[2 * VERIFY_KEY_MAX], local_text[VERIFY_KEY_MAX];
    struct sbuf canonical_buf = SBUF_ON(canonical_text);
    size_t from = buf->n, local_length = 0;
    if (a->is_null || !a->domain.n)
        return STR_NONE;
    str_t canonical = address_canonical(a, &canonical_buf);
    ptrdiff_t at = str_rfind(canonical, '@');
    if (at <= 0)
        return STR_NONE;
    str_t local = str_sub(canonical, 0, (size_t)at);
    if (!str_is_ascii(local)) {
        if (!normalise(local, r->fold_case, local_text, sizeof local_text, &local_length))
            return STR_NONE;
        local = str_of(local_text, local_length);
    }
    sbuf_put(buf, local.p, length_without_tag(local, r->separator));
    if (r->fold_case && !buf->overflow)
        lower(buf->p + from, buf->n - from);
    sbuf_str(buf, str_sub(canonical, (size_t)at, canonical.n));
    if (buf->overflow || buf->n - from > VERIFY_KEY_MAX)
        return STR_NONE;
    return str_of(buf->p + from, buf->n - from);
}
