/* tests/unit/core/test_ip.c: addresses, networks and endpoints as text. */
#include <arpa/inet.h>

#include "core/ip.h"
#include "unit.h"

static struct ip ip_of(const char *text)
{
    struct ip ip;
    assert_int_equal(ip_parse(str_cstr(text), &ip), 0);
    return ip;
}

static struct cidr cidr_of(const char *text)
{
    struct cidr net;
    assert_int_equal(cidr_parse(str_cstr(text), &net), 0);
    return net;
}

static void addresses(void **state)
{
    static const struct {
        const char *in, *out, *literal;
        bool is_v4;
    } cases[] = {
        {"192.0.2.1", "192.0.2.1", "[192.0.2.1]", true},
        {"0.0.0.0", "0.0.0.0", "[0.0.0.0]", true},
        {"255.255.255.255", "255.255.255.255", "[255.255.255.255]", true},
        {"::ffff:192.0.2.1", "192.0.2.1", "[192.0.2.1]", true}, /* mapped is IPv4 */
        {"::ffff:c000:201", "192.0.2.1", "[192.0.2.1]", true},
        {"2001:db8::1", "2001:db8::1", "[IPv6:2001:db8::1]", false},
        {"[2001:DB8::1]", "2001:db8::1", "[IPv6:2001:db8::1]", false},
        {"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1", "[IPv6:2001:db8::1:0:0:1]", false},
        {"::", "::", "[IPv6:::]", false},
        {"::1", "::1", "[IPv6:::1]", false},
        {"64:ff9b::192.0.2.1", "64:ff9b::c000:201", "[IPv6:64:ff9b::c000:201]", false},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
         "[IPv6:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct ip ip = ip_of(cases[i].in);
        char text[64];
        struct sbuf b = SBUF_ON(text);
        ip_format(&ip, &b);
        assert_str(sbuf_view(&b), cases[i].out);
        b = (struct sbuf)SBUF_ON(text);
        ip_format_literal(&ip, &b);
        assert_str(sbuf_view(&b), cases[i].literal);
        assert_int_equal(ip_is_v4(&ip), cases[i].is_v4);
    }
}

static void no_addresses(void **state)
{
    static const str_t bad[] = {
        STR(""),
        STR("[]"),
        STR("1.2.3"),
        STR("1.2.3.4.5"),
        STR("256.1.1.1"),
        STR("01.2.3.4"),
        STR("0x7f.0.0.1"),
        STR("1.2.3.4 "),
        STR(" 1.2.3.4"),
        STR("1.2.3.4\0"),
        STR("[1.2.3.4]"),
        STR("[::1"),
        STR("::1]"),
        STR("[[::1]]"),
        STR(":::"),
        STR("1::2::3"),
        STR("fe80::1%eth0"),
        STR("12345::"),
        STR("2130706433"),
        STR("1.2.3.-4"),
        STR("1:2:3:4:5:6:7:8:9"),
        STR("::ffff:1.2.3.256"),
        STR("0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000"),
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct ip ip;
        assert_int_equal(ip_parse(bad[i], &ip), ERR_SYNTAX);
    }
    struct ip ip;
    assert_int_equal(ip_parse(STR_NONE, &ip), ERR_SYNTAX);
}

static void kinds(void **state)
{
    struct ip a = ip_of("127.255.0.1"), b = ip_of("::1"), c = ip_of("::ffff:127.0.0.1"),
              d = ip_of("128.0.0.1");
    assert_true(ip_is_loopback(&a) && ip_is_loopback(&b) && ip_is_loopback(&c));
    assert_false(ip_is_loopback(&d));
    struct ip any4 = ip_of("0.0.0.0"), any6 = ip_of("::"), none = ip_of("0.0.0.1");
    assert_true(ip_is_any(&any4) && ip_is_any(&any6));
    assert_false(ip_is_any(&none));
    assert_false(ip_is_v4(&any6));
    assert_false(ip_eq(&any4, &any6));
}

static void networks(void **state)
{
    static const struct {
        const char *net, *ip;
        bool inside;
    } cases[] = {
        {"10.0.0.0/8", "10.255.255.255", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"10.0.0.0/8", "::ffff:10.1.2.3", true},
        {"192.0.2.128/25", "192.0.2.255", true},
        {"192.0.2.128/25", "192.0.2.127", false},
        {"192.0.2.1", "192.0.2.1", true},
        {"192.0.2.1", "192.0.2.2", false},
        {"0.0.0.0/0", "255.1.2.3", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "2001:db8::1", true},
        {"::/0", "192.0.2.1", false}, /* nobody who says ::/0 has said IPv4 */
        {"::/0", "::1", true},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"[2001:db8::]/32", "2001:db8::9", true},
        {"2001:db8::1/128", "2001:db8::1", true},
        {"2001:db8::1", "2001:db8::2", false},
        {"::ffff:10.0.0.0/104", "10.9.9.9", true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct cidr net = cidr_of(cases[i].net);
        struct ip ip = ip_of(cases[i].ip);
        assert_int_equal(cidr_match(&net, &ip), cases[i].inside);
    }
    assert_int_equal(cidr_of("10.0.0.0/8").bits, 104);
    assert_int_equal(cidr_of("10.0.0.1").bits, 128);
}

static void no_networks(void **state)
{
    static const str_t bad[] = {
        STR("10.0.0.1/8"),      STR("10.0.0.0/33"),
        STR("10.0.0.0/"),       STR("10.0.0.0/08"),
        STR("10.0.0.0/-1"),     STR("10.0.0.0/8 "),
        STR("10.0.0.0/8/8"),    STR("/8"),
        STR("2001:db8::1/127"), STR("::/129"),
        STR("::1/0"),           STR("10/8"),
        STR("0.0.0.1/0"),       STR("10.0.0.0/18446744073709551624"),
        STR("::ffff:0:0/95"),
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct cidr net;
        assert_int_equal(cidr_parse(bad[i], &net), ERR_SYNTAX);
    }
}

static void overlaps(void **state)
{
    static const struct {
        const char *a, *b;
        bool overlap;
    } cases[] = {
        {"10.0.0.0/8", "10.1.0.0/16", true},       {"10.0.0.0/8", "11.0.0.0/8", false},
        {"0.0.0.0/0", "192.0.2.1", true},          {"::/0", "192.0.2.1", false},
        {"2001:db8::/32", "2001:db8::1", true},    {"2001:db8::/32", "2001:db9::/32", false},
        {"192.0.2.0/25", "192.0.2.128/25", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct cidr a = cidr_of(cases[i].a), b = cidr_of(cases[i].b);
        assert_int_equal(cidr_overlap(&a, &b), cases[i].overlap);
        assert_int_equal(cidr_overlap(&b, &a), cases[i].overlap);
    }
}

static void endpoints(void **state)
{
    static const char *const good[] = {"192.0.2.1:25", "[2001:db8::1]:65535", "0.0.0.0:0", "[::]:2525"};
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct endpoint e, back;
        char text[64];
        struct sbuf b = SBUF_ON(text);
        assert_int_equal(endpoint_parse(str_cstr(good[i]), &e), 0);
        endpoint_format(&e, &b);
        assert_str(sbuf_view(&b), good[i]);

        struct sockaddr_storage sa;
        socklen_t n = endpoint_to_sockaddr(&e, &sa);
        assert_int_equal(n, ip_is_v4(&e.ip) ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&sa, &back), 0);
        assert_true(ip_eq(&e.ip, &back.ip));
        assert_int_equal(e.port, back.port);
    }
    static const str_t bad[] = {
        STR(""),        STR("192.0.2.1"),       STR("192.0.2.1:"), STR("192.0.2.1:65536"),
        STR("::1:25"),  STR("2001:db8::1:25"),  STR("[::1]"),      STR(":25"),
        STR("[::1]25"), STR("host.example:25"), STR("[::1]:x"),    STR("[192.0.2.1]:25"),
        STR("[::1:25")};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct endpoint e;
        assert_int_equal(endpoint_parse(bad[i], &e), ERR_SYNTAX);
    }
}

static void sockaddrs(void **state)
{
    struct endpoint e;
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6, .sin6_port = htons(25)};
    inet_pton(AF_INET6, "::ffff:192.0.2.1", &mapped.sin6_addr);
    assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&mapped, &e), 0);
    assert_true(ip_is_v4(&e.ip)); /* what a dual-stack listener reports */
    assert_int_equal(e.port, 25);
    struct sockaddr local = {.sa_family = AF_UNIX};
    assert_int_equal(endpoint_from_sockaddr(&local, &e), ERR_UNSUPPORTED);
}

static void client_keys(void **state)
{
    static const char *const rows[][2] = {{"192.0.2.1", "192.0.2.1"},
                                          {"0.0.0.0", "0.0.0.0"},
                                          {"2001:db8:1:2:3::4", "2001:db8:1:2::"},
                                          {"::1", "::"}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct ip ip, back;
        char text[64];
        struct sbuf b = SBUF_ON(text);
        assert_int_equal(ip_parse(str_cstr(rows[i][0]), &ip), 0);
        assert_true(ip_client_key(&ip) != 0);
        back = ip_of_client_key(ip_client_key(&ip));
        ip_format(&back, &b);
        assert_str(sbuf_view(&b), rows[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses), cmocka_unit_test(no_addresses), cmocka_unit_test(kinds),
        cmocka_unit_test(networks),  cmocka_unit_test(no_networks),  cmocka_unit_test(overlaps),
        cmocka_unit_test(endpoints), cmocka_unit_test(sockaddrs),    cmocka_unit_test(client_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
