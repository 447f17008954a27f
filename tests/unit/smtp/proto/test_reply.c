/* tests/unit/smtp/proto/test_reply.c: tests of smtp/proto/reply.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp/proto/reply.h"

static void test_table(void **state)
{
    for (int id = 0; id < R_COUNT; id++) {
        const struct reply_def *r = reply_def((enum reply_id)id);
        char mem[600];
        struct sbuf out = SBUF_ON(mem);
        assert_in_range(r->code, 200, 599);
        assert_true(r->text.n > 0 && str_is_ascii(r->text));
        if (r->enhanced.n)
            assert_int_equal(r->enhanced.p[0] - '0', r->code / 100);
        reply_write(&out, (enum reply_id)id, STR_NONE);
        assert_false(out.overflow);
        assert_true(out.n <= 512);
        assert_true(str_ends(sbuf_view(&out), STR("\r\n")));
    }
}

static void test_write(void **state)
{
    char mem[600], big[2000];
    struct sbuf out = SBUF_ON(mem);
    reply_write(&out, R_ok, STR_NONE);
    assert_true(str_eq(sbuf_view(&out), STR("250 2.0.0 OK\r\n")));
    out.n = 0;
    reply_write(&out, R_start_input, STR_NONE);
    assert_true(str_eq(sbuf_view(&out), STR("354 End data with <CR><LF>.<CR><LF>\r\n")));
    out.n = 0;
    reply_write(&out, R_ok, STR("queued as \r\n250 x\xFF\x7F"));
    assert_true(str_eq(sbuf_view(&out), STR("250 2.0.0 OK: queued as ??250 x??\r\n")));
    out.n = 0;
    memset(big, 'x', sizeof big);
    reply_write(&out, R_ok, str_of(big, sizeof big));
    assert_int_equal(out.n, 512);
    assert_true(str_ends(sbuf_view(&out), STR("x\r\n")));
}

struct reply_case {
    str_t in;
    int code; /* 0: ERR_SYNTAX, -1: not complete */
    uint8_t enhanced[3];
    const char *text;
    uint32_t line_count;
};

static const struct reply_case reply_cases[] = {
    {STR("250 OK\r\n"), 250, {0}, "OK", 1},
    {STR("250 OK\n"), 250, {0}, "OK", 1},
    {STR("250\r\n"), 250, {0}, "", 1},
    {STR("250 \r\n"), 250, {0}, "", 1},
    {STR("550 5.1.1 No such user\r\n"), 550, {5, 1, 1}, "No such user", 1},
    {STR("550 5.1.1\r\n"), 550, {5, 1, 1}, "", 1},
    {STR("550 5.7.509 x\r\n"), 550, {5, 7, 255}, "x", 1},
    {STR("550 4.1.1 x\r\n"), 550, {0}, "4.1.1 x", 1},
    {STR("550 5.1.1.2 x\r\n"), 550, {0}, "5.1.1.2 x", 1},
    {STR("550 5.1234.1 x\r\n"), 550, {0}, "5.1234.1 x", 1},
    {STR("550 5..1 x\r\n"), 550, {0}, "5..1 x", 1},
    {STR("354 3.0.0 go\r\n"), 354, {0}, "3.0.0 go", 1},
    {STR("250-mx.example\r\n250-SIZE 100\r\n250 PIPELINING\r\n"),
     250,
     {0},
     "mx.example\nSIZE 100\nPIPELINING",
     3},
    {STR("550-5.1.1 a\r\n550-5.1.1 b\r\n550-5.1.1\r\n550 5.1.2 c\r\n"), 550, {5, 1, 1}, "a\nb\n\n5.1.2 c", 4},
    {STR("250-a\r\n250\r\n"), 250, {0}, "a\n", 2},
    {STR("250 a\0b\tc\x1B[0m\rd\r\n"), 250, {0}, "a?b?c?[0m?d", 1},
    {STR("250 \xC3\xB6k\r\n"), 250, {0}, "\xC3\xB6k", 1},
    {STR("250 \xF6k\r\n"), 250, {0}, "?k", 1},
    {STR("250 a\xC2\x9Bz\r\n"), 250, {0}, "a??z", 1},
    {STR("250-a\r\n"), -1},
    {STR("250 a"), -1},
    {STR("250-a\r\n251 b\r\n"), 0},
    {STR("25\r\n"), 0},
    {STR("\r\n"), 0},
    {STR("2x0 a\r\n"), 0},
    {STR("250x\r\n"), 0},
    {STR("2500 x\r\n"), 0},
    {STR("150 x\r\n"), 0},
    {STR("600 x\r\n"), 0},
    {STR(" 250 x\r\n"), 0},
    {STR("SSH-2.0-OpenSSH_9.2\r\n"), 0},
    {STR("\xFF\xFF\xFF\xFF\n"), 0},
};

static void check_case(const struct reply_case *c, size_t step)
{
    static struct reply_parser p;
    bool done = false;
    err_t err = 0;
    size_t at = 0;
    p = (struct reply_parser){0};
    while (at < c->in.n && !done && !err)
        at += reply_parse(&p, (const uint8_t *)c->in.p + at, MIN(step, c->in.n - at), &done, &err);
    if (c->code <= 0) {
        if (done || (err == ERR_SYNTAX) != (c->code == 0))
            fail_msg("\"" STR_FMT "\" by %zu: done %d, error %d", STR_ARG(c->in), step, done, err);
        return;
    }
    if (!done || err || p.reply.code != c->code || memcmp(p.reply.enhanced, c->enhanced, 3) != 0 ||
        !str_eq(p.reply.text, str_cstr(c->text)) || p.reply.line_count != c->line_count)
        fail_msg("\"" STR_FMT "\" by %zu: %d \"" STR_FMT "\"", STR_ARG(c->in), step, p.reply.code,
                 STR_ARG(p.reply.text));
    assert_int_equal(at, c->in.n);
}

static void test_parse(void **state)
{
    for (size_t i = 0; i < COUNT_OF(reply_cases); i++) {
        check_case(&reply_cases[i], 1);
        check_case(&reply_cases[i], 3);
        check_case(&reply_cases[i], SIZE_MAX);
    }
}

static void test_one_reply_at_a_time(void **state)
{
    static struct reply_parser p;
    static const char in[] = "250 a\r\n550-b\r\n550 c\r\n221";
    bool done;
    err_t err;
    size_t at = reply_parse(&p, (const uint8_t *)in, sizeof in - 1, &done, &err);
    assert_true(done && !err && at == 7 && p.reply.code == 250);
    at += reply_parse(&p, (const uint8_t *)in + at, sizeof in - 1 - at, &done, &err);
    assert_true(done && p.reply.code == 550 && p.reply.line_count == 2);
    at += reply_parse(&p, (const uint8_t *)in + at, sizeof in - 1 - at, &done, &err);
    assert_true(!done && !err && at == sizeof in - 1);
    reply_parse(&p, (const uint8_t *)"\n", 1, &done, &err);
    assert_true(done && p.reply.code == 221);
}

static void test_bounds(void **state)
{
    static struct reply_parser p;
    static char line[REPLY_LINE_MAX + 1];
    bool done;
    err_t err;
    memset(line, 'x', sizeof line);
    memcpy(line, "250 ", 4);
    line[REPLY_LINE_MAX] = '\n';
    p = (struct reply_parser){0};
    reply_parse(&p, (const uint8_t *)line, sizeof line, &done, &err);
    assert_true(done && !err);
    assert_int_equal(p.reply.text.n, REPLY_TEXT_MAX); /* cut, not refused */
    line[REPLY_LINE_MAX] = 'x';
    p = (struct reply_parser){0};
    reply_parse(&p, (const uint8_t *)line, sizeof line, &done, &err);
    assert_int_equal(err, ERR_SYNTAX);

    p = (struct reply_parser){0};
    err = 0;
    unsigned lines = 0;
    while (!err && lines <= REPLY_LINES_MAX + 1) {
        reply_parse(&p, (const uint8_t *)"250-x\r\n", 7, &done, &err);
        lines++;
    }
    assert_int_equal(lines, REPLY_LINES_MAX + 1);
}

static void test_cut_keeps_characters_whole(void **state)
{
    static struct reply_parser p;
    static char line[REPLY_LINE_MAX];
    bool done;
    err_t err;
    memcpy(line, "250 x", 5);
    for (size_t i = 5; i + 2 < sizeof line; i += 2)
        memcpy(line + i, "\xC3\xB6", 2);
    line[3005] = '\n';
    reply_parse(&p, (const uint8_t *)line, 3006, &done, &err);
    assert_true(done && !err);
    assert_int_equal(p.reply.text.n, REPLY_TEXT_MAX - 1);
    assert_true(str_is_utf8(p.reply.text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),  cmocka_unit_test(test_write),
        cmocka_unit_test(test_parse),  cmocka_unit_test(test_one_reply_at_a_time),
        cmocka_unit_test(test_bounds), cmocka_unit_test(test_cut_keeps_characters_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
