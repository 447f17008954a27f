/* admin/cli/text.c: see text.h. */
#include "admin/cli/text.h"

#include <math.h>
#include <time.h>

#include "core/clock.h"

void text_age(struct sbuf *out, double seconds)
{
    uint64_t s = isfinite(seconds) && seconds > 0 && seconds < 1e12 ? (uint64_t)seconds : 0;
    uint64_t minutes = s / 60, hours = minutes / 60, days = hours / 24;
    if (s < 60)
        sbuf_printf(out, "%us", (unsigned)s);
    else if (minutes < 60)
        sbuf_printf(out, "%um", (unsigned)minutes);
    else if (hours < 24)
        sbuf_printf(out, "%uh%02um", (unsigned)hours, (unsigned)(minutes % 60));
    else
        sbuf_printf(out, "%ud%uh", (unsigned)days, (unsigned)(hours % 24));
}

void text_size(struct sbuf *out, uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) {
        sbuf_printf(out, "%u B", (unsigned)bytes);
        return;
    }
    double v = (double)bytes / 1024;
    size_t unit = 0;
    /* 1023.95 would be printed as 1024. */
    while (v >= 1023.95 && unit + 1 < COUNT_OF(units)) {
        v /= 1024;
        unit++;
    }
    if (v < 9.95 && v != floor(v))
        sbuf_printf(out, "%.1f %s", v, units[unit]);
    else
        sbuf_printf(out, "%.0f %s", v, units[unit]);
}

void text_until(struct sbuf *out, str_t rfc3339, uint64_t now_wall_ns)
{
    char text[20]; /* as far as the seconds: YYYY-MM-DDTHH:MM:SS */
    struct tm tm = {0};
    if (rfc3339.n < sizeof text - 1) {
        sbuf_str(out, rfc3339);
        return;
    }
    memcpy(text, rfc3339.p, sizeof text - 1);
    text[sizeof text - 1] = '\0';
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end || *end || !str_ends(rfc3339, STR("Z"))) {
        sbuf_str(out, rfc3339);
        return;
    }
    double left = (double)timegm(&tm) - (double)now_wall_ns / (double)NS_PER_S;
    if (left < 1) {
        sbuf_cstr(out, "now");
        return;
    }
    sbuf_cstr(out, "in ");
    text_age(out, left);
}

/* C1 controls (U+0080..9F), and the marks for embeddings, overrides and isolates (U+200E..F, 202A..E,
 * 2066..9). */
static size_t unsafe_sequence(str_t s)
{
    const uint8_t *p = (const uint8_t *)s.p;
    if (s.n >= 2 && p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
        return 2;
    if (s.n >= 3 && p[0] == 0xe2 && p[1] == 0x80 &&
        (p[2] == 0x8e || p[2] == 0x8f || (p[2] >= 0xa8 && p[2] <= 0xae)))
        return 3;
    if (s.n >= 3 && p[0] == 0xe2 && p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9)
        return 3;
    return 0;
}

size_t text_safe(char *out, str_t s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        size_t bad = unsafe_sequence(str_of(s.p + i, s.n - i));
        unsigned char c = (unsigned char)s.p[i];
        if (bad)
            i += bad - 1;
        out[n++] = bad || c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
    return n;
}

size_t text_width(str_t s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80; /* not a continuation byte */
    return n;
}
