/* Sets of networks answer as cidr_match does for each of them, whatever their number and mixture. */
#include <setjmp.h>
#include <stdarg.h>

#include "policy/netset.h"

#include <cmocka.h>

static struct ip ip_of(const char *text)
{
    struct ip ip;
    assert_int_equal(ip_parse(str_cstr(text), &ip), 0);
    return ip;
}

static void add(struct netset *s, const char *text)
{
    struct cidr net;
    assert_int_equal(cidr_parse(str_cstr(text), &net), 0);
    assert_int_equal(netset_add(s, &net), 0);
}

static void test_empty(void **state)
{
    struct netset s = {0};
    struct ip ip = ip_of("10.0.0.1");
    netset_seal(&s);
    assert_false(netset_match(&s, &ip));
    netset_free(&s);
}

static void test_mixture(void **state)
{
    static const char *const nets[] = {"10.0.0.0/8",    "10.1.0.0/16", "192.0.2.10",        "192.0.2.10",
                                       "2001:db8::/32", "2001:db8::1", "198.51.100.128/25", "172.16.0.0/12"};
    static const struct {
        const char *ip;
        bool in;
    } cases[] = {{"10.255.255.255", true},
                 {"11.0.0.0", false},
                 {"9.255.255.255", false},
                 {"192.0.2.10", true},
                 {"192.0.2.11", false},
                 {"2001:db8:ffff::", true},
                 {"2001:db9::", false},
                 {"198.51.100.127", false},
                 {"198.51.100.128", true},
                 {"172.31.255.255", true},
                 {"172.32.0.0", false},
                 {"::ffff:10.0.0.1", true},
                 {"::", false},
                 {"::10.0.0.1", false}};
    struct netset s = {0};

    for (size_t i = 0; i < COUNT_OF(nets); i++)
        add(&s, nets[i]);
    netset_seal(&s);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct ip ip = ip_of(cases[i].ip);
        if (netset_match(&s, &ip) != cases[i].in)
            fail_msg("%s should %sbe in the set", cases[i].ip, cases[i].in ? "" : "not ");
    }
    netset_free(&s);
}

/* All IPv6 is not all IPv4, although the latter is kept inside the former. */
static void test_everything_of_one_family(void **state)
{
    struct ip v4 = ip_of("192.0.2.1"), v6 = ip_of("2001:db8::1");
    struct netset s = {0};
    add(&s, "::/0");
    netset_seal(&s);
    assert_true(netset_match(&s, &v6));
    assert_false(netset_match(&s, &v4));
    netset_free(&s);
    add(&s, "0.0.0.0/0");
    netset_seal(&s);
    assert_true(netset_match(&s, &v4));
    assert_false(netset_match(&s, &v6));
    netset_free(&s);
}

static void test_agrees_with_cidr_match(void **state)
{
    struct netset s = {0};
    uint32_t seed = 12345;
    char text[32];

    for (int i = 0; i < 500; i++) {
        seed = seed * 1103515245u + 12345u;
        unsigned bits = 8 + (seed >> 16) % 25;
        uint32_t address = bits == 32 ? seed : seed & ~(UINT32_MAX >> bits);
        snprintf(text, sizeof text, "%u.%u.%u.%u/%u", address >> 24, address >> 16 & 255, address >> 8 & 255,
                 address & 255, bits);
        add(&s, text);
    }
    netset_seal(&s);
    for (int i = 0; i < 2000; i++) {
        seed = seed * 1103515245u + 12345u;
        struct ip ip = ip_of("0.0.0.0");
        memcpy(ip.b + 12, &seed, 4);
        bool expected = false;
        for (size_t j = 0; j < s.count; j++)
            expected = expected || cidr_match(&s.items[j], &ip);
        assert_int_equal(netset_match(&s, &ip), expected);
    }
    netset_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_mixture),
        cmocka_unit_test(test_everything_of_one_family),
        cmocka_unit_test(test_agrees_with_cidr_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
