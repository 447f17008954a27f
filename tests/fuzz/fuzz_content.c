/* Content in two pieces and in one; then normalised. The first byte says where to cut. */
#include "smtp/proto/content.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct taken {
    uint8_t *p; /* owned */
    size_t n, used;
};

static void take(struct content_scan *s, const uint8_t *p, size_t n, struct taken *t)
{
    str_t held;
    size_t content_n;
    t->used += content_scan(s, p, n, &held, &content_n);
    if (held.n)
        memcpy(t->p + t->n, held.p, held.n);
    if (content_n)
        memcpy(t->p + t->n + held.n, p, content_n);
    t->n += held.n + content_n;
}

static void check_normalised(const uint8_t *p, size_t n)
{
    struct content_scan s = {0};
    struct header_scan h = {0};
    uint8_t state = 0, *out = malloc(2 * n + 2);
    str_t held;
    size_t content_n;
    if (!out)
        return;
    size_t o = content_normalise(&state, p, n, out);
    must(o <= 2 * n + 2);
    content_scan(&s, out, o, &held, &content_n);
    must(!s.done && !s.bare_cr && !s.bare_lf);
    header_scan(&h, out, o);
    must(h.bytes <= o);
    free(out);
}

/* Octets in two pieces come out as in one, never end a message, and are there again when the dots are off. */
static void check_octets(const uint8_t *p, size_t n, size_t cut)
{
    uint8_t state = 0, state_split = 0, *a = malloc(2 * n + 1), *b = malloc(2 * n + 1);
    struct content_scan s = {0};
    str_t held;
    size_t content_n, o = 0, i = 0;
    if (a && b) {
        size_t whole = content_stuff_octets(&state, p, n, a);
        size_t split = content_stuff_octets(&state_split, p, cut, b);
        split += content_stuff_octets(&state_split, p + cut, n - cut, b + split);
        must(whole == split && state == state_split && (!n || memcmp(a, b, whole) == 0));
        content_scan(&s, a, whole, &held, &content_n);
        must(!s.done && whole == n + s.stuffing_bytes);
        for (; i < whole; i++, o++) {
            bool at_line_start = i == 0 || (i > 1 && a[i - 1] == '\n' && a[i - 2] == '\r');
            i += at_line_start && a[i] == '.';
            must(o < n && a[i] == p[o]);
        }
        must(o == n && (state == 0) == (n == 0 || (n > 1 && p[n - 1] == '\n' && p[n - 2] == '\r')));
    }
    free(a);
    free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t cut = MIN((size_t)data[0], size - 1);
    const uint8_t *p = data + 1;
    size_t n = size - 1;
    struct content_scan whole = {0}, split = {0};
    struct taken a = {malloc(n + 2), 0, 0}, b = {malloc(n + 2), 0, 0};
    if (a.p && b.p) {
        take(&whole, p, n, &a);
        take(&split, p, cut, &b);
        if (!split.done)
            take(&split, p + cut, n - cut, &b);
        must(a.n == b.n && a.used == b.used && memcmp(a.p, b.p, a.n) == 0);
        must(whole.done == split.done && whole.bare_cr == split.bare_cr && whole.bare_lf == split.bare_lf);
        must(whole.bytes == a.n && split.bytes == a.n);
        check_normalised(a.p, a.n);
    }
    check_octets(p, n, cut);
    free(a.p);
    free(b.p);
    return 0;
}
