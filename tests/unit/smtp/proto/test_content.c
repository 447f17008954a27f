/* tests/unit/smtp/proto/test_content.c: tests of smtp/proto/content.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp/proto/content.h"

struct scanned {
    uint8_t content[4096];
    size_t content_n, used;
    bool done, bare_cr, bare_lf;
};

/* The rule as plainly as it can be put: content ends at the first CRLF.CRLF, or at ".CRLF" right at the
 * start. */
static void reference(const uint8_t *p, size_t n, struct scanned *out)
{
    size_t end = n;
    *out = (struct scanned){0};
    for (size_t i = 0; i + 3 <= n && !out->done; i++) {
        bool line_start = i == 0 || (i >= 2 && p[i - 2] == '\r' && p[i - 1] == '\n');
        if (line_start && memcmp(p + i, ".\r\n", 3) == 0) {
            end = i;
            out->done = true;
        }
    }
    out->used = out->done ? end + 3 : n;
    for (size_t i = 0; i < end; i++) {
        if (p[i] == '\n' && (i == 0 || p[i - 1] != '\r'))
            out->bare_lf = true;
        if (p[i] == '\r' && i + 1 < n && p[i + 1] != '\n')
            out->bare_cr = true;
    }
    memcpy(out->content, p, end);
    out->content_n = end;
}

static void feed(struct content_scan *s, const uint8_t *p, size_t n, struct scanned *out)
{
    str_t held;
    size_t content_n;
    /* a copy of the exact size, for the sanitizer */
    uint8_t *piece = malloc(n ? n : 1);
    assert_non_null(piece);
    memcpy(piece, p, n);
    out->used += content_scan(s, piece, n, &held, &content_n);
    assert_true(held.n <= 4 && content_n <= n);
    if (held.n)
        memcpy(out->content + out->content_n, held.p, held.n);
    out->content_n += held.n;
    memcpy(out->content + out->content_n, piece, content_n);
    out->content_n += content_n;
    free(piece);
}

static size_t leading_dots(const uint8_t *p, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        bool line_start = i == 0 || (i >= 2 && p[i - 2] == '\r' && p[i - 1] == '\n');
        count += line_start && p[i] == '.';
    }
    return count;
}

/* What the scan still holds back when the input just stops is no content yet. */
static void check(const struct scanned *got, const struct content_scan *s, const struct scanned *want)
{
    assert_int_equal(s->done, want->done);
    assert_int_equal(got->used, want->used);
    assert_int_equal(s->bare_cr, want->bare_cr);
    assert_int_equal(s->bare_lf, want->bare_lf);
    assert_int_equal(s->bytes, got->content_n);
    assert_int_equal(s->stuffing_bytes, leading_dots(got->content, got->content_n));
    if (want->done)
        assert_int_equal(got->content_n, want->content_n);
    else
        assert_true(got->content_n <= want->content_n && got->content_n + 2 >= want->content_n);
    assert_memory_equal(got->content, want->content, got->content_n);
}

static void check_splits(str_t in)
{
    const uint8_t *p = (const uint8_t *)in.p;
    static struct scanned got, want;
    reference(p, in.n, &want);
    for (size_t a = 0; a <= in.n; a++) {
        for (size_t b = a; b <= in.n; b++) {
            struct content_scan s = {0};
            got = (struct scanned){0};
            feed(&s, p, a, &got);
            if (!s.done)
                feed(&s, p + a, b - a, &got);
            if (!s.done)
                feed(&s, p + b, in.n - b, &got);
            check(&got, &s, &want);
        }
    }
    struct content_scan s = {0};
    got = (struct scanned){0};
    for (size_t i = 0; i < in.n && !s.done; i++)
        feed(&s, p + i, 1, &got);
    check(&got, &s, &want);
}

static const str_t tricky[] = {
    STR(""),
    STR(".\r\n"),
    STR(".\r\nMAIL"),
    STR("\r\n.\r\n"),
    STR("a\r\n.\r\nQUIT\r\n"),
    STR("a\r\n..\r\n.\r\n"),
    STR("a\r\n.b\r\n.\r\n"),
    STR("..\r\n.\r\n"),
    STR("a\r\n.\r.\r\n.\r\n"),
    STR("a\r\n.\r\r\n.\r\n"),
    STR("\r\r\n.\r\n"),
    STR("a\r\n\r\n\r\n.\r\n.\r\n"),
    STR("a line that is longer than one SSE block, by far\r\nand another one of them 0123456789\r\n.\r\nx"),
    STR("0123456789abcde\r\n.\r\n"),
    STR("0123456789abcdef\r\n.\r\n"),
    STR("0123456789abcd\r\n.\r\n0123456789abcdef"),
};

/* SMTP smuggling: each of these was the end of data to some server. To us only the last CRLF.CRLF is. */
static const str_t smuggling[] = {
    STR("\n.\n"),         STR("\n.\r\n"),       STR("\r.\r"),         STR("\r.\r\n"),
    STR("\r\n.\n"),       STR("\r\n.\r"),       STR("\n.\r"),         STR("\r.\n"),
    STR("\n\n.\r\n"),     STR("\r\r.\r\r"),     STR("\n\r.\r\n"),     STR("\n.\n\r"),
    STR("\r\n\x00.\r\n"), STR("\r\n.\x00\r\n"), STR("\r\n.\r\x00\n"), STR("\r\x00\n.\r\n"),
    STR("\x00.\r\n"),     STR("\r\n .\r\n"),    STR("\r\n. \r\n"),    STR("\r\n.\t\r\n"),
    STR("\r\n.\x0B\n"),   STR("\r\n.\xC2\x85"), STR("\r\n.\r.\r\n"),  STR("\r\n\r.\r\n"),
    STR("\r\n\n.\r\n"),   STR("\x85.\x85"),
};

static void test_scan_every_split(void **state)
{
    for (size_t i = 0; i < COUNT_OF(tricky); i++)
        check_splits(tricky[i]);
}

static void test_smuggling_ends_nothing(void **state)
{
    for (size_t i = 0; i < COUNT_OF(smuggling); i++) {
        char mem[256];
        struct sbuf b = SBUF_ON(mem);
        sbuf_cstr(&b, "Subject: x\r\n\r\nbody");
        sbuf_str(&b, smuggling[i]);
        sbuf_cstr(&b, "MAIL FROM:<evil@example.com>\r\n");
        size_t inside = b.n;
        sbuf_cstr(&b, ".\r\n");
        struct content_scan s = {0};
        str_t held;
        size_t content_n, used = content_scan(&s, (const uint8_t *)b.p, b.n, &held, &content_n);
        if (used != b.n || content_n != inside || !s.done)
            fail_msg("case %zu ended data at %zu of %zu", i, used, b.n);
        check_splits(sbuf_view(&b));
    }
}

static void test_after_done_nothing_is_taken(void **state)
{
    struct content_scan s = {0};
    str_t held;
    size_t content_n;
    assert_int_equal(content_scan(&s, (const uint8_t *)".\r\n", 3, &held, &content_n), 3);
    assert_int_equal(content_scan(&s, (const uint8_t *)"x", 1, &held, &content_n), 0);
    assert_true(s.done && content_n == 0 && held.n == 0 && s.bytes == 0);
}

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static size_t random_content(uint32_t *seed, uint8_t *out, size_t max)
{
    static const uint8_t alphabet[] = "\r\n.\r\n.a\0.\r\nb";
    size_t n = next_random(seed) % (uint32_t)max;
    for (size_t i = 0; i < n; i++) {
        if (next_random(seed) % 16 == 0) { /* a run of plain text, to get into the wide path */
            size_t run = next_random(seed) % 40;
            run = MIN(n - i, run);
            memset(out + i, 'x', run);
            i += run;
        }
        if (i < n)
            out[i] = alphabet[next_random(seed) % (sizeof alphabet - 1)];
    }
    return n;
}

static void test_scan_random_splits(void **state)
{
    uint32_t seed = 1;
    for (unsigned round = 0; round < 3000; round++) {
        static struct scanned got, want;
        uint8_t in[300];
        size_t n = random_content(&seed, in, sizeof in);
        struct content_scan s = {0};
        reference(in, n, &want);
        got = (struct scanned){0};
        for (size_t at = 0; at < n && !s.done;) {
            size_t piece = next_random(&seed) % 50;
            piece = MIN(n - at, piece);
            feed(&s, in + at, piece, &got);
            at += piece;
        }
        check(&got, &s, &want);
    }
}

static size_t normalise_by(const uint8_t *p, size_t n, size_t step, uint8_t *out)
{
    uint8_t state = 0;
    size_t o = 0;
    for (size_t i = 0; i < n; i += step) {
        size_t piece = MIN(step, n - i);
        size_t got = content_normalise(&state, p + i, piece, out + o);
        assert_true(got <= 2 * piece + 2);
        o += got;
    }
    return o;
}

static void test_normalise(void **state)
{
    static const struct {
        str_t in, want;
    } cases[] = {
        {STR("a\r\nb\r\n"), STR("a\r\nb\r\n")},
        {STR("..a\r\n.b\r\n"), STR("..a\r\n.b\r\n")},
        {STR("a\nb\r\n"), STR("a\r\nb\r\n")},
        {STR("a\rb\r\n"), STR("a\r\nb\r\n")},
        {STR("a\r\rb\r\n"), STR("a\r\n\r\nb\r\n")},
        {STR("a\n\rb\r\n"), STR("a\r\n\r\nb\r\n")},
        {STR("a\r\r\nb\r\n"), STR("a\r\n\r\nb\r\n")},
        /* a dot behind a bare ending was never stuffed: it is text */
        {STR("a\n.\r\n"), STR("a\r\n..\r\n")},
        {STR("a\n.\nb\r\n"), STR("a\r\n..\r\nb\r\n")},
        {STR("a\r.\r\n"), STR("a\r\n..\r\n")},
        {STR("a\n..\r\n"), STR("a\r\n...\r\n")},
        {STR("a\n.b\r\n"), STR("a\r\n..b\r\n")},
        /* a dot behind CRLF is stuffing: alone in front of a bare ending nothing is left of it */
        {STR("a\r\n.\nb\r\n"), STR("a\r\n\r\nb\r\n")},
        {STR("a\r\n.\rb\r\n"), STR("a\r\n\r\nb\r\n")},
        {STR(".\nb\r\n"), STR("\r\nb\r\n")},
        {STR("a\r\n..\nb\r\n"), STR("a\r\n..\r\nb\r\n")},
        {STR("a\0\n"), STR("a\0\r\n")},
        {STR(""), STR("")},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        for (size_t step = 1; step <= cases[i].in.n + 1; step++) {
            uint8_t out[64];
            size_t n = normalise_by((const uint8_t *)cases[i].in.p, cases[i].in.n, step, out);
            if (!str_eq(str_of((char *)out, n), cases[i].want))
                fail_msg("case %zu by %zu: \"%.*s\"", i, step, (int)n, (char *)out);
        }
    }
}

/* What is put out, closed by ".CRLF", must end there and nowhere before, to the strict and to the lax alike.
 */
static void test_normalise_properties(void **state)
{
    uint32_t seed = 7;
    for (unsigned round = 0; round < 3000; round++) {
        uint8_t in[302], out[700], again[1400];
        size_t n = random_content(&seed, in, 300);
        static struct scanned cut;
        reference(in, n, &cut); /* content as content_scan delimits it, made to end in CRLF */
        n = cut.content_n;
        memcpy(in, cut.content, n);
        in[n++] = '\r';
        in[n++] = '\n';
        size_t o = normalise_by(in, n, 1 + next_random(&seed) % 40, out);
        for (size_t i = 0; i < o; i++) {
            assert_true(out[i] != '\n' || (i > 0 && out[i - 1] == '\r'));
            assert_true(out[i] != '\r' || (i + 1 < o && out[i + 1] == '\n'));
        }
        struct content_scan s = {0};
        str_t held;
        size_t content_n;
        content_scan(&s, out, o, &held, &content_n);
        assert_false(s.done || s.bare_cr || s.bare_lf);
        assert_int_equal(content_n, o);
        assert_int_equal(normalise_by(out, o, 17, again), o); /* clean content passes unchanged */
        assert_memory_equal(out, again, o);
    }
}

static void test_stuff(void **state)
{
    static const struct {
        str_t in, want;
    } cases[] = {
        {STR(""), STR("")},
        {STR("a\r\n"), STR("a\r\n")},
        {STR(".\r\n"), STR("..\r\n")},
        {STR(".a\r\n\r\n..b\r\nc.\r\n"), STR("..a\r\n\r\n...b\r\nc.\r\n")},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint8_t out[64];
        size_t n = content_stuff((const uint8_t *)cases[i].in.p, cases[i].in.n, out);
        assert_true(str_eq(str_of((char *)out, n), cases[i].want));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scan_every_split),
        cmocka_unit_test(test_smuggling_ends_nothing),
        cmocka_unit_test(test_after_done_nothing_is_taken),
        cmocka_unit_test(test_scan_random_splits),
        cmocka_unit_test(test_normalise),
        cmocka_unit_test(test_normalise_properties),
        cmocka_unit_test(test_stuff),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
