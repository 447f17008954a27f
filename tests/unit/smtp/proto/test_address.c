/* tests/unit/smtp/proto/test_address.c: tests of smtp/proto/address.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp/proto/address.h"

static void assert_str(str_t got, const char *want)
{
    str_t w = str_cstr(want);
    if (!str_eq(got, w))
        fail_msg("got \"" STR_FMT "\", want \"%s\"", STR_ARG(got), want);
}

struct path_case {
    const char *in;
    const char *local, *domain, *rest; /* local NULL: refused */
};

static const struct path_case forward_cases[] = {
    {"<a@b>", "a", "b", ""},
    {"  <a@b> X=1", "a", "b", " X=1"},
    {"<first.last+tag@mail.example.com>", "first.last+tag", "mail.example.com", ""},
    {"<!#$%&'*+-/=?^_`{|}~@example.com>", "!#$%&'*+-/=?^_`{|}~", "example.com", ""},
    {"<\"quoted local\"@example.com>", "\"quoted local\"", "example.com", ""},
    {"<\"a\\\"b\\\\c>@<d\"@example.com>", "\"a\\\"b\\\\c>@<d\"", "example.com", ""},
    {"<\"\"@example.com>", "\"\"", "example.com", ""},
    {"<u@[192.0.2.1]>", "u", "[192.0.2.1]", ""},
    {"<u@[IPv6:2001:db8::1]>", "u", "[IPv6:2001:db8::1]", ""},
    {"<u@[ipv6:::ffff:192.0.2.1]>", "u", "[ipv6:::ffff:192.0.2.1]", ""},
    {"<@a.example,@b.example:user@c.example>", "user", "c.example", ""},
    {"<@[192.0.2.7]:user@c.example>", "user", "c.example", ""},
    {"<postmaster>", "postmaster", NULL, ""},
    {"<PostMaster> X", "PostMaster", NULL, " X"},
    {"<postmaster@example.com>", "postmaster", "example.com", ""},
    {"<j\xC3\xB6rg@m\xC3\xBCnchen.example>", "j\xC3\xB6rg", "m\xC3\xBCnchen.example", ""},
    {"<\"\xC3\xB6 \"@example.com>", "\"\xC3\xB6 \"", "example.com", ""},
    {"<a@b>SIZE=1", "a", "b", "SIZE=1"},
    {"<a..b.@c>", "a..b.", "c", ""}, /* some telephone companies gave such addresses out */
    {"<.a@b>", ".a", "b", ""},
    {"<a@my_host._b>", "a", "my_host._b", ""}, /* no host name, but machines are called so */
    {"<>", NULL},
    {"", NULL},
    {"a@b", NULL},
    {"<a@b", NULL},
    {"<a>", NULL},
    {"<postmaster", NULL},
    {"<postmasters>", NULL},
    {"<\"postmaster\">", NULL},
    {"<@a.example:>", NULL},
    {"<@a.example,:u@b>", NULL},
    {"<@a.example u@b>", NULL},
    {"<@b>", NULL},
    {"<a@>", NULL},
    {"<a@.b>", NULL},
    {"<a@b.>", NULL},
    {"<a@b..c>", NULL},
    {"<a@-b>", NULL},
    {"<a@b-.c>", NULL},
    {"<a b@c>", NULL},
    {"<a@b c>", NULL},
    {"<a@b@c>", NULL},
    {"<\"a@b>", NULL},
    {"<\"a\"b@c>", NULL},
    {"<\"a\\\"@b>", NULL},
    {"<\"a\\", NULL},
    {"<\"\\\xC3\xB6\"@b>", NULL},
    {"<\"a\tb\"@c>", NULL},
    {"<\"a\\\x01\"@c>", NULL},
    {"<a\x7F@b>", NULL},
    {"<a\r\n@b>", NULL},
    {"<\"a\r\nRCPT TO:<x@y>\"@b>", NULL},
    {"<\xC3(@b>", NULL},
    {"<\xC0\xAF@b>", NULL},
    {"<\xED\xA0\x80@b>", NULL},
    {"<a\xC2\x85@b>", NULL},
    {"<a@b\xC2\x9B.c>", NULL},
    {"<u@[192.0.2.256]>", NULL},
    {"<u@[2001:db8::1]>", NULL},
    {"<u@[IPv6:192.0.2.1]>", NULL},
    {"<u@[IPv6:[::1]]>", NULL},
    {"<u@[x-tag:content]>", NULL},
    {"<u@[]>", NULL},
    {"<u@[192.0.2.1>", NULL},
    {"<u@[192.0.2.1].example>", NULL},
};

static void test_forward_path(void **state)
{
    for (size_t i = 0; i < COUNT_OF(forward_cases); i++) {
        const struct path_case *c = &forward_cases[i];
        struct address a;
        str_t rest;
        err_t err = address_parse_path(str_cstr(c->in), PATH_FORWARD, &a, &rest);
        if (!c->local) {
            if (err != ERR_SYNTAX)
                fail_msg("taken: %s", c->in);
            continue;
        }
        if (err)
            fail_msg("refused: %s", c->in);
        assert_str(a.local, c->local);
        assert_str(a.domain, c->domain ? c->domain : "");
        assert_int_equal(a.domain.p != NULL, c->domain != NULL);
        assert_str(rest, c->rest);
        assert_int_equal(a.is_literal, c->domain && c->domain[0] == '[');
        assert_int_equal(a.is_utf8, strchr(c->in, '\xC3') != NULL);
    }
}

static void test_reverse_path(void **state)
{
    struct address a;
    str_t rest;
    assert_int_equal(address_parse_path(STR("<> SIZE=1"), PATH_REVERSE, &a, &rest), 0);
    assert_true(a.is_null);
    assert_str(rest, " SIZE=1");
    assert_int_equal(address_parse_path(STR("<postmaster>"), PATH_REVERSE, &a, &rest), ERR_SYNTAX);
    assert_int_equal(address_parse_path(STR("< >"), PATH_REVERSE, &a, &rest), ERR_SYNTAX);
    assert_int_equal(address_parse_path(STR("<@a:>"), PATH_REVERSE, &a, &rest), ERR_SYNTAX);
    assert_int_equal(address_parse_path(STR("<a@b>"), PATH_REVERSE, &a, &rest), 0);
    assert_false(a.is_null);
}

static void test_nul_inside(void **state)
{
    struct address a;
    assert_int_equal(address_parse_mailbox(STR("a\0b@c"), &a), ERR_SYNTAX);
    assert_int_equal(address_parse_mailbox(STR("\"a\0b\"@c"), &a), ERR_SYNTAX);
    assert_int_equal(address_parse_mailbox(STR("\"a\\\0b\"@c"), &a), ERR_SYNTAX);
    assert_int_equal(address_parse_mailbox(STR("a@c\0"), &a), ERR_SYNTAX);
    assert_int_equal(address_parse_mailbox(STR("a@[192.0.2.1\0]"), &a), ERR_SYNTAX);
}

static void test_limits(void **state)
{
    char buf[600];
    struct address a;
    for (size_t n = 254; n <= 257; n++) {
        memset(buf, 'x', n);
        memcpy(buf + n, "@y", 2);
        assert_int_equal(address_parse_mailbox(str_of(buf, n + 2), &a),
                         n <= ADDRESS_LOCAL_MAX ? 0 : ERR_SYNTAX);
    }
    memset(buf, '.', ADDRESS_LOCAL_MAX);
    memcpy(buf + ADDRESS_LOCAL_MAX - 2, "@y", 2); /* the quotes that it will get count */
    assert_int_equal(address_parse_mailbox(str_of(buf, ADDRESS_LOCAL_MAX), &a), 0);
    memcpy(buf + ADDRESS_LOCAL_MAX - 2, ".@y", 3);
    assert_int_equal(address_parse_mailbox(str_of(buf, ADDRESS_LOCAL_MAX + 1), &a), ERR_SYNTAX);
    memset(buf, 'x', 64);
    assert_true(domain_valid(str_of(buf, 63)));
    assert_false(domain_valid(str_of(buf, 64)));
    for (size_t i = 0; i < sizeof buf; i++)
        buf[i] = i % 2 ? '.' : 'x';
    assert_true(domain_valid(str_of(buf, 255)));
    assert_false(domain_valid(str_of(buf, 257)));
    for (size_t i = 0; i + 1 < 128; i += 2)
        memcpy(buf + i, "\xC3\xB6", 2);
    assert_true(domain_valid(str_of(buf, 126))); /* 63 code points */
    assert_false(domain_valid(str_of(buf, 128)));
}

static void test_mailbox_is_the_whole_string(void **state)
{
    struct address a;
    assert_int_equal(address_parse_mailbox(STR("user@example.com"), &a), 0);
    assert_str(a.local, "user");
    assert_int_equal(address_parse_mailbox(STR("user@example.com>"), &a), ERR_SYNTAX);
    assert_int_equal(address_parse_mailbox(STR("user@example.com "), &a), ERR_SYNTAX);
    assert_int_equal(address_parse_mailbox(STR("postmaster"), &a), ERR_SYNTAX);
    assert_int_equal(address_parse_mailbox(STR(""), &a), ERR_SYNTAX);
    assert_int_equal(address_parse_mailbox(STR_NONE, &a), ERR_SYNTAX);
}

static void test_canonical(void **state)
{
    static const struct {
        const char *in, *want;
    } cases[] = {
        {"<User@EXAMPLE.Com>", "User@example.com"},
        {"<\"plain\"@b>", "plain@b"},
        {"<\"first\\.last\"@b>", "first.last@b"},
        {"<\"a\\b c\"@b>", "\"ab c\"@b"},
        {"<\"a\\\"b\"@b>", "\"a\\\"b\"@b"},
        {"<\"a\\\\b\"@b>", "\"a\\\\b\"@b"},
        {"<\"a..b\"@b>", "\"a..b\"@b"},
        {"<\"\"@b>", "\"\"@b"},
        {"<a..b@c>", "\"a..b\"@c"}, /* what the next server must take */
        {"<.a@b>", "\".a\"@b"},
        {"<a.@b>", "\"a.\"@b"},
        {"<PostMaster>", "postmaster"},
        {"<u@[IPv6:2001:DB8:0::1]>", "u@[IPv6:2001:db8::1]"},
        {"<u@[192.0.2.1]>", "u@[192.0.2.1]"},
        {"<\xC3\x96@M\xC3\xBCnchen.EXAMPLE>", "\xC3\x96@xn--mnchen-3ya.example"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char mem[1024];
        struct sbuf buf = SBUF_ON(mem);
        struct address a;
        str_t rest;
        assert_int_equal(address_parse_path(str_cstr(cases[i].in), PATH_FORWARD, &a, &rest), 0);
        str_t got = address_canonical(&a, &buf);
        assert_str(got, cases[i].want);
        /* and what is canonical stays as it is */
        if (a.domain.n) {
            struct address again;
            assert_int_equal(address_parse_mailbox(got, &again), 0);
            assert_str(address_canonical(&again, &buf), cases[i].want);
        }
    }
    char small[4];
    struct sbuf buf = SBUF_ON(small);
    struct address a;
    assert_int_equal(address_parse_mailbox(STR("user@example.com"), &a), 0);
    assert_null(address_canonical(&a, &buf).p);
    assert_true(buf.overflow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_path),
        cmocka_unit_test(test_reverse_path),
        cmocka_unit_test(test_nul_inside),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_mailbox_is_the_whole_string),
        cmocka_unit_test(test_canonical),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
