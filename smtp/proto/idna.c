/* smtp/proto/idna.c: domains in other scripts to the form that DNS and the configuration know: RFC 5890
 * U-labels to A-labels by Punycode (RFC 3492). Nothing is mapped: what is no U-label (capitals, say) comes
 * out as a name that nobody has. */
#include "smtp/proto/address.h"

#define LABEL_MAX 63

/* RFC 3492 5 */
enum { BASE = 36, TMIN = 1, TMAX = 26, SKEW = 38, DAMP = 700, INITIAL_BIAS = 72, INITIAL_N = 0x80 };

/* One code point of a label that is valid UTF-8. */
static uint32_t take_code_point(str_t s, size_t *at)
{
    unsigned char lead = (unsigned char)s.p[(*at)++];
    uint32_t cp = lead < 0x80 ? lead : lead < 0xE0 ? lead & 0x1Fu : lead < 0xF0 ? lead & 0x0Fu : lead & 0x07u;
    while (*at < s.n && ((unsigned char)s.p[*at] & 0xC0) == 0x80)
        cp = cp << 6 | ((unsigned char)s.p[(*at)++] & 0x3Fu);
    return cp;
}

static void put_lower(char ch, struct sbuf *out)
{
    sbuf_char(out, ch >= 'A' && ch <= 'Z' ? (char)(ch - 'A' + 'a') : ch);
}

static void put_digit(uint32_t digit, struct sbuf *out)
{
    sbuf_char(out, (char)(digit < 26 ? 'a' + digit : '0' + digit - 26));
}

/* RFC 3492 6.1 */
static uint32_t adapt(uint32_t delta, uint32_t count, bool first)
{
    uint32_t k = 0;
    delta = first ? delta / DAMP : delta / 2;
    delta += delta / count;
    for (; delta > (BASE - TMIN) * TMAX / 2; k += BASE)
        delta /= BASE - TMIN;
    return k + (BASE - TMIN + 1) * delta / (delta + SKEW);
}

/* RFC 3492 3.3: a number whose last digit shows by its size. */
static void put_delta(uint32_t q, uint32_t bias, struct sbuf *out)
{
    for (uint32_t k = BASE;; k += BASE) {
        uint32_t t = k <= bias ? TMIN : k >= bias + TMAX ? TMAX : k - bias;
        if (q < t)
            break;
        put_digit(t + (q - t) % (BASE - t), out);
        q = (q - t) / (BASE - t);
    }
    put_digit(q, out);
}

static uint32_t next_larger(const uint32_t *cps, uint32_t count, uint32_t n)
{
    uint32_t next = UINT32_MAX;
    for (uint32_t i = 0; i < count; i++) {
        if (cps[i] >= n)
            next = MIN(next, cps[i]);
    }
    return next;
}

/* RFC 3492 6.3. No overflow: a delta stays below 63 times the last code point. */
static void put_punycode(const uint32_t *cps, uint32_t count, struct sbuf *out)
{
    uint32_t basic = 0, delta = 0, bias = INITIAL_BIAS;
    for (uint32_t i = 0; i < count; i++) {
        if (cps[i] >= INITIAL_N)
            continue;
        put_lower((char)cps[i], out);
        basic++;
    }
    if (basic)
        sbuf_char(out, '-');
    for (uint32_t done = basic, n = INITIAL_N; done < count; delta++, n++) {
        uint32_t next = next_larger(cps, count, n);
        delta += (next - n) * (done + 1);
        n = next;
        for (uint32_t i = 0; i < count; i++) {
            delta += cps[i] < n;
            if (cps[i] != n)
                continue;
            put_delta(delta, bias, out);
            bias = adapt(delta, done + 1, done == basic);
            delta = 0;
            done++;
        }
    }
}

static bool put_label(str_t label, struct sbuf *out)
{
    uint32_t cps[LABEL_MAX], count = 0;
    size_t from = out->n;
    if (str_is_ascii(label)) {
        for (size_t i = 0; i < label.n; i++)
            put_lower(label.p[i], out);
        return true;
    }
    for (size_t at = 0; at < label.n; count++) {
        if (count == LABEL_MAX)
            return false;
        cps[count] = take_code_point(label, &at);
    }
    sbuf_cstr(out, "xn--");
    put_punycode(cps, count, out);
    return out->n - from <= LABEL_MAX;
}

bool domain_to_ascii(str_t domain, struct sbuf *out)
{
    str_t label, rest = domain;
    size_t from = out->n;
    for (bool more = true; more;) {
        more = str_cut(rest, '.', &label, &rest);
        if (!put_label(label, out))
            return false;
        if (more)
            sbuf_char(out, '.');
    }
    return !out->overflow && out->n - from <= ADDRESS_DOMAIN_MAX;
}
