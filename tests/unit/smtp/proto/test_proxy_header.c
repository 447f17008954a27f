/* The PROXY header, versions 1 and 2. */
#include "../../core/unit.h"
#include "smtp/proto/proxy_header.h"

#define SIG "\r\n\r\n\0\r\nQUIT\n"
#define B(text)                                                                                              \
    {                                                                                                        \
        text, sizeof(text) - 1                                                                               \
    }

struct proxy_case {
    str_t in;
    const char *client; /* NULL: refused */
    uint16_t port;
    enum proxy_kind kind;
    size_t rest; /* bytes behind it */
};

static const struct proxy_case cases[] = {
    {B("PROXY TCP4 198.51.100.7 192.0.2.1 56324 25\r\nEHLO"), "198.51.100.7", 56324, PROXY_TCP, 4},
    {B("PROXY TCP6 2001:db8::7 2001:db8::1 1 25\r\n"), "2001:db8::7", 1, PROXY_TCP, 0},
    {B("PROXY UNKNOWN\r\n\r\n"), "", 0, PROXY_UNKNOWN, 2},
    {B("PROXY UNKNOWN ff::1 ff::2 1 2\r\n"), "", 0, PROXY_UNKNOWN, 0},
    {B(SIG "\x21\x11\0\x0c\xc6\x33\x64\x07\xc0\0\2\1\xdc\4\0\x19\x16\3"), "198.51.100.7", 56324, PROXY_TCP,
     2},
    {B(SIG "\x21\x11\0\x13\xc6\x33\x64\x07\xc0\0\2\1\xdc\4\0\x19\4\0\4abcdEHLO"), "198.51.100.7", 56324,
     PROXY_TCP, 4},
    {B(SIG "\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\7\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1\xdc\4"
           "\0\x19"),
     "2001:db8::7", 56324, PROXY_TCP, 0},
    {B(SIG "\x20\0\0\0"), "", 0, PROXY_LOCAL, 0},
    {B(SIG "\x20\x11\0\3abcX"), "", 0, PROXY_LOCAL, 1},
    {B(SIG "\x21\0\0\0"), "", 0, PROXY_UNKNOWN, 0},
    {B(SIG "\x21\x31\0\3abc"), "", 0, PROXY_UNKNOWN, 0},
    {B("EHLO c.example\r\n"), NULL},
    {B("PROXI"), NULL},
    {B("proxy TCP4 198.51.100.7 192.0.2.1 56324 25\r\n"), NULL},
    {B("PROXY TCP4 198.51.100.7 192.0.2.1 56324 25\n"), NULL},
    {B("PROXY TCP4 198.51.100.7 192.0.2.1 65536 25\r\n"), NULL},
    {B("PROXY TCP4 198.51.100.7 192.0.2.1 056 25\r\n"), NULL},
    {B("PROXY TCP4 198.51.100.7 192.0.2.1 56 25 \r\n"), NULL},
    {B("PROXY TCP4  198.51.100.7 192.0.2.1 56 25\r\n"), NULL},
    {B("PROXY TCP4 2001:db8::7 192.0.2.1 56 25\r\n"), NULL},
    {B("PROXY TCP6 198.51.100.7 192.0.2.1 56 25\r\n"), NULL},
    {B("PROXY TCP6 [2001:db8::7] ::1 56 25\r\n"), NULL},
    {B("PROXY TCP4 198.51.100.7 192.0.2.1 56324\r\n"), NULL},
    {B("PROXY\r\n"), NULL},
    {B("PROXY \r\n"), NULL},
    {B("\r\n\r\nEHLO"), NULL},
    {B(SIG "\x21\x11\0\x0b\xc6\x33\x64\x07\xc0\0\2\1\xdc\4\0"), NULL}, /* shorter than its addresses */
    {B(SIG "\x21\x12\0\x0c"), NULL},                                   /* UDP */
    {B(SIG "\x21\x51\0\x0c"), NULL},
    {B(SIG "\x31\x11\0\x0c"), NULL}, /* version 3 */
    {B(SIG "\x22\x11\0\x0c"), NULL},
    {B(SIG "\x21\x11\x10\x01"), NULL}, /* too long */
};

static void check(const struct proxy_case *c, size_t step)
{
    struct proxy_reader r = {0};
    bool done = false;
    err_t err = 0;
    size_t at = 0;
    while (at < c->in.n && !done && !err)
        at += proxy_read(&r, (const uint8_t *)c->in.p + at, MIN(step, c->in.n - at), &done, &err);
    if (!c->client) {
        assert_int_equal(err, ERR_SYNTAX);
        return;
    }
    assert_int_equal(err, 0);
    assert_true(done);
    assert_int_equal(c->in.n - at, c->rest);
    assert_int_equal(r.kind, c->kind);
    if (c->kind != PROXY_TCP)
        return;
    struct ip ip;
    assert_int_equal(ip_parse(str_cstr(c->client), &ip), 0);
    assert_true(ip_eq(&ip, &r.client.ip));
    assert_int_equal(r.client.port, c->port);
}

static void test_headers(void **state)
{
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (size_t step = 1; step < 64; step += 7)
            check(&cases[i], step);
}

static void test_endless_line(void **state)
{
    struct proxy_reader r = {0};
    bool done = false;
    err_t err = 0;
    size_t used = proxy_read(&r, (const uint8_t *)"PROXY UNKNOWN ", 14, &done, &err);
    while (!err && used < 1000)
        used += proxy_read(&r, (const uint8_t *)"x", 1, &done, &err);
    assert_int_equal(err, ERR_SYNTAX);
    assert_int_equal(used, PROXY_V1_BYTES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_headers), cmocka_unit_test(test_endless_line)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
