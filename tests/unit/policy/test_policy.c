/* Who is who, what is taken, where it goes (semantics M4-M18, M29; T3-T8). Refusals of whole files stand in
 * tests/golden/config. */
#include <setjmp.h>
#include <stdarg.h>

#include "fake_resolver.h"

#include <cmocka.h>

static struct policy *build(const char *yaml)
{
    struct diag d = {.file = "t.yaml"};
    struct config *c;
    struct policy *p = NULL;
    err_t err = config_load_text(str_cstr(yaml), "t.yaml", &c, &d);
    if (!err)
        err = policy_build(&p, c, &fake_resolver, &d);
    if (err)
        print_error(STR_FMT, STR_ARG(gbuf_view(&d.text)));
    assert_int_equal(err, 0);
    diag_free(&d);
    return p;
}

static struct address address_of(const char *text)
{
    struct address a = {0};
    str_t rest;
    char path[600];
    /* as RCPT gives it, so that <postmaster> is possible */
    static char keep[8][600];
    static unsigned at;
    snprintf(path, sizeof path, "<%s>", text);
    char *kept = keep[at++ % 8];
    memcpy(kept, path, sizeof path);
    assert_int_equal(address_parse_path(str_cstr(kept), PATH_FORWARD, &a, &rest), 0);
    return a;
}

static const char EDGE_FILE[] =
    "hostname: gw.example.com\n"
    "listeners: [ { address: '127.0.0.1:2525' } ]\n"
    "destination: { mode: edge, host: edge.example.net, port: 26 }\n"
    "trusted_networks: [10.0.0.0/8, '2001:db8:1::/48', mail.internal.example.com]\n"
    "domains:\n"
    "  - { name: example.com, local: true, route: { hosts: [10.0.0.5] } }\n"
    "  - { name: sales.example.com, local: true, route: { hosts: ['[2001:db8::5]:2526', mx2.example.com] } "
    "}\n"
    "  - { name: CEO@example.com, route: { hosts: [10.0.0.9], tls: require } }\n"
    "  - { name: 'box@foreign.example', route: { hosts: [10.0.0.8], port: 24, protocol: lmtp } }\n"
    "  - { name: '*.example.org', local: true, route: { hosts: [10.1.0.1] } }\n"
    "  - { name: '*.deep.example.org', route: { hosts: [10.1.0.2] } }\n"
    "  - { name: www.example.org, route: { hosts: [10.1.0.3], tls: verify } }\n"
    "  - { name: out.example.org, local: false }\n"
    "  - { name: partner.example, route: { hosts: [mx.example.org], mx: true } }\n";

static void test_classes(void **state)
{
    static const struct {
        const char *ip;
        enum client_class c;
    } cases[] = {{"192.0.2.10", CLASS_EDGE},       {"2001:db8:e::10", CLASS_EDGE},
                 {"192.0.2.11", CLASS_STRANGER},   {"10.200.0.1", CLASS_TRUSTED},
                 {"2001:db8:1::9", CLASS_TRUSTED}, {"2001:db8:2::9", CLASS_STRANGER},
                 {"127.0.0.1", CLASS_STRANGER},    {"::ffff:10.0.0.1", CLASS_TRUSTED}};
    struct policy *p = build(EDGE_FILE);

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct ip ip;
        assert_int_equal(ip_parse(str_cstr(cases[i].ip), &ip), 0);
        if (policy_classify(p, &ip) != cases[i].c)
            fail_msg("%s should be %s", cases[i].ip, client_class_name(cases[i].c));
    }
    policy_free(p);
}

static void test_local_domains(void **state)
{
    static const struct {
        const char *domain;
        bool local;
    } cases[] = {{"example.com", true},
                 {"EXAMPLE.Com", true},
                 {"x.example.com", false}, /* M9 */
                 {"sales.example.com", true},
                 {"example.org", false},
                 {"a.example.org", true},
                 {"a.b.C.example.ORG", true},
                 {"x.deep.example.org", true},
                 {"deep.example.org", true},
                 {"www.example.org", true},
                 {"out.example.org", false},
                 {"partner.example", false},
                 {"foreign.example", false},
                 {"", false},
                 {".example.org", true},
                 {"gw.example.com", false},
                 {"[192.0.2.1]", false},
                 {"[x.example.org", false},
                 {"m\xc3\xbcnchen.example.org", false},
                 {"xexample.org", false},
                 {"org", false}};
    struct policy *p = build(EDGE_FILE);

    for (size_t i = 0; i < COUNT_OF(cases); i++)
        if (policy_domain_is_local(p, str_cstr(cases[i].domain)) != cases[i].local)
            fail_msg("%s should %sbe local", cases[i].domain, cases[i].local ? "" : "not ");
    assert_false(policy_domain_is_local(p, STR_NONE));
    policy_free(p);
}

static void test_recipients(void **state)
{
    static const struct {
        const char *rcpt;
        enum reply_id stranger; /* and edge; trusted may send anywhere */
    } cases[] = {{"a@example.com", R_rcpt_ok},
                 {"a@X.EXAMPLE.ORG", R_rcpt_ok},
                 {"a@foreign.example", R_relay_denied},
                 {"box@foreign.example", R_relay_denied},
                 {"a@[127.0.0.1]", R_relay_denied},
                 {"a@out.example.org", R_relay_denied},
                 {"a@m\xc3\xbcnchen.example.org", R_relay_denied},
                 {"\xc3\xbc@example.com", R_rcpt_ok},
                 {"abuse@gw.example.com", R_relay_denied},
                 /* routes that an old internal server may follow, out again and anywhere */
                 {"a%foreign.example@example.com", R_relay_denied},
                 {"foreign.example!a@example.com", R_relay_denied},
                 {"\"a@foreign.example\"@example.com", R_relay_denied},
                 {"\"a\\@foreign.example\"@example.com", R_relay_denied},
                 {"a+b=c/d@example.com", R_rcpt_ok}};
    struct policy *p = build(EDGE_FILE);
    str_t rewritten;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct address a = address_of(cases[i].rcpt);
        if (policy_check_rcpt(p, CLASS_STRANGER, &a, &rewritten) != cases[i].stranger ||
            policy_check_rcpt(p, CLASS_EDGE, &a, &rewritten) != cases[i].stranger)
            fail_msg("%s from strangers and the edge", cases[i].rcpt);
        assert_int_equal(policy_check_rcpt(p, CLASS_TRUSTED, &a, &rewritten), R_rcpt_ok);
        assert_null(rewritten.p);
    }
    struct address null = {.is_null = true};
    assert_int_equal(policy_check_rcpt(p, CLASS_TRUSTED, &null, &rewritten), R_bad_rcpt);
    policy_free(p);
}

static void test_postmaster(void **state)
{
    static const struct {
        const char *yaml, *address;
    } cases[] = {
        {"hostname: gw.example.com\n", "postmaster@gw.example.com"},
        {"hostname: gw.example.com\npostmaster: Admin@EXAMPLE.net\ndomains: [ { name: example.com, local: "
         "true } ]\n",
         "Admin@example.net"},
        {"hostname: gw.example.com\ndomains: [ { name: '*.example.net', local: true }, { name: a.example }, "
         "{ name: example.com, "
         "local: true } ]\n",
         "postmaster@example.com"},
        {"hostname: gw.example.com\ndomains: [ { name: example.com, local: true }, { name: '*.example.com', "
         "local: true } ]\n",
         "postmaster@gw.example.com"},
        {"hostname: gw.example.com\ndestination: { mode: edge, host: 192.0.2.10 }\ndomains: [ { name: "
         "example.com, local: true, "
         "route: { hosts: [10.0.0.5] } } ]\n",
         "postmaster@example.com"},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct policy *p = build(cases[i].yaml);
        struct address a = address_of("PostMaster");
        struct route route;
        str_t rewritten;
        assert_int_equal(policy_check_rcpt(p, CLASS_STRANGER, &a, &rewritten), R_rcpt_ok);
        if (!str_eq(rewritten, str_cstr(cases[i].address)))
            fail_msg("case %zu: " STR_FMT, i, STR_ARG(rewritten));
        assert_int_equal(policy_route(p, &a, &route), 0);
        /* our own name is refused to nobody either (RFC 5321 4.5.1) */
        a = address_of("Postmaster@GW.example.com");
        assert_int_equal(policy_check_rcpt(p, CLASS_STRANGER, &a, &rewritten), R_rcpt_ok);
        policy_free(p);
    }
}

static void check_route(const struct policy *p, const char *rcpt, const char *key)
{
    struct address a = address_of(rcpt);
    struct route route;
    err_t err = policy_route(p, &a, &route);
    if (!key) {
        assert_int_equal(err, ERR_NOT_FOUND);
        return;
    }
    if (err || !str_eq(route.key, str_cstr(key)))
        fail_msg("%s goes to \"" STR_FMT "\" and not to \"%s\"", rcpt, STR_ARG(route.key), key);
    if (route.kind == ROUTE_HOSTS)
        assert_true(route.hosts->host_count > 0);
    else
        assert_true(str_eq(route.domain, route.key) && route.domain.p == route.lower);
}

static void test_routes_in_edge_mode(void **state)
{
    static const struct {
        const char *rcpt, *key;
    } cases[] = {{"a@example.com", "10.0.0.5:25"},
                 {"a@EXAMPLE.com", "10.0.0.5:25"},
                 {"CEO@Example.com", "tls-require:10.0.0.9:25"},
                 {"\"CEO\"@example.com", "tls-require:10.0.0.9:25"},
                 {"ceo@example.com", "10.0.0.5:25"}, /* the local part is exact */
                 {"box@foreign.example", "lmtp:10.0.0.8:24"},
                 {"a@sales.example.com", "[2001:db8::5]:2526,mx2.example.com:25"},
                 {"a@x.example.com", "edge.example.net:26"},
                 {"a@x.example.org", "10.1.0.1:25"},
                 {"a@x.y.deep.example.org", "10.1.0.2:25"},
                 {"a@deep.example.org", "10.1.0.1:25"},
                 {"a@www.example.org", "tls-verify:10.1.0.3:25"},
                 {"a@out.example.org", "10.1.0.1:25"}, /* not local, and routed still */
                 {"a@partner.example", "mx:mx.example.org:25"},
                 {"a@[203.0.113.1]", "edge.example.net:26"},
                 {"a@m\xc3\xbcnchen.example", "edge.example.net:26"},
                 {"postmaster", "10.0.0.5:25"},
                 {"a@elsewhere.example", "edge.example.net:26"}};
    struct policy *p = build(EDGE_FILE);

    for (size_t i = 0; i < COUNT_OF(cases); i++)
        check_route(p, cases[i].rcpt, cases[i].key);
    policy_free(p);
}

static void test_routes_in_dns_mode(void **state)
{
    struct policy *p = build("hostname: gw.example.com\n"
                             "trusted_networks: [10.0.0.1]\n"
                             "listeners: [ { address: '0.0.0.0:25' } ]\n"
                             "domains: [ { name: example.com, local: true }, { name: a.example, route: { "
                             "hosts: ['127.0.0.1:26'] } } ]\n");

    check_route(p, "a@Example.COM", "example.com");
    check_route(p, "a@elsewhere.example", "elsewhere.example");
    check_route(p, "a@a.example", "127.0.0.1:26");
    check_route(p, "a@[203.0.113.1]", "[203.0.113.1]");
    check_route(p, "a@[IPv6:2001:DB8::1]", "[IPv6:2001:db8::1]");
    check_route(p, "a@[127.0.0.1]", NULL); /* that is us */
    check_route(p, "a@[0.0.0.0]", NULL);
    check_route(p, "a@m\xc3\xbcnchen.example", NULL);
    struct address bad = {.local = STR("a"), .domain = STR("a..b")}, null = {.is_null = true};
    struct route route;
    assert_int_equal(policy_route(p, &bad, &route), ERR_NOT_FOUND);
    assert_int_equal(policy_route(p, &null, &route), ERR_NOT_FOUND);
    policy_free(p);
}

/* T4, T5: nothing is taken, nothing crashes. */
static void test_empty_configuration(void **state)
{
    struct policy *p = build("hostname: gw.example.com\n");
    struct address a = address_of("a@example.com");
    struct ip ip = {.b = {[15] = 1}};
    str_t rewritten;

    assert_int_equal(policy_classify(p, &ip), CLASS_STRANGER);
    assert_int_equal(policy_check_rcpt(p, CLASS_STRANGER, &a, &rewritten), R_relay_denied);
    assert_true(str_eq(policy_config(p)->hostname, STR("gw.example.com")));
    policy_free(p);
    policy_free(NULL);
}

static bool owns_ten(void *ctx, const struct ip *ip)
{
    (void)ctx;
    return ip_is_v4(ip) && ip->b[12] == 10;
}

/* With is_own the machine's other addresses are known, and a name is as good as an address. */
static void test_own_addresses(void **state)
{
    static const struct policy_resolver knowing = {.resolve = fake_resolve, .is_own = owns_ten};
    const char *yaml =
        "hostname: gw.example.com\ndomains: [ { name: a.example, route: { hosts: [own.example.net] } } ]\n";
    struct diag d = {.file = "t.yaml"};
    struct config *c;
    struct policy *p;

    assert_int_equal(config_load_text(str_cstr(yaml), "t.yaml", &c, &d), 0);
    assert_int_equal(policy_build(&p, c, &knowing, &d), ERR_CONFIG);
    assert_null(p);
    assert_true(memmem(d.text.p, d.text.n, "(10.0.0.1:25) is one of our own listeners", 41) != NULL);
    diag_free(&d);
    p = build(yaml);
    policy_free(p);
    p = NULL;
    assert_int_equal(config_load_text(str_cstr(yaml), "t.yaml", &c, &d), 0);
    assert_int_equal(policy_build(&p, c, NULL, &d), 0); /* no resolver: nothing resolves */
    policy_free(p);
    diag_free(&d);
}

/* The most specific entry that says anything about verification decides, settings and server alike. */
static void test_verification(void **state)
{
    static const char file[] =
        "hostname: gw.example.com\n"
        "trusted_networks: [10.0.0.0/8]\n"
        "verify: { mode: unverified, rate: 1 }\n"
        "domains:\n"
        "  - { name: a.example, local: true, route: { hosts: [10.0.0.5] } }\n"
        "  - { name: b.example, local: true, route: { hosts: [10.0.0.6] }, verify: { rate: 2, route: { "
        "hosts: "
        "[10.0.0.7] } } }\n"
        "  - { name: boss@b.example, verify: { mode: off, rate: 3 } }\n"
        "  - { name: '*.c.example', local: true, route: { hosts: [10.0.0.8] }, verify: { rate: 4 } }\n"
        "  - { name: x.c.example, local: true }\n";
    static const struct {
        const char *rcpt, *key;
        uint32_t rate;
    } cases[] = {
        {"u@a.example", "10.0.0.5:25", 1},    {"u@b.example", "10.0.0.7:25", 2},
        {"boss@b.example", "10.0.0.6:25", 3}, {"u@x.c.example", "10.0.0.8:25", 4},
        {"u@y.c.example", "10.0.0.8:25", 4},  {"postmaster", "10.0.0.5:25", 1},
    };
    struct policy *p = build(file);

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct address a = address_of(cases[i].rcpt);
        struct route route;
        assert_int_equal(policy_verify(p, &a)->rate_per_s, cases[i].rate);
        assert_int_equal(policy_verify_route(p, &a, &route), 0);
        if (!str_eq(route.key, str_cstr(cases[i].key)))
            fail_msg("%s is asked for at " STR_FMT, cases[i].rcpt, STR_ARG(route.key));
    }
    policy_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_verification),
        cmocka_unit_test(test_local_domains),
        cmocka_unit_test(test_recipients),
        cmocka_unit_test(test_postmaster),
        cmocka_unit_test(test_routes_in_edge_mode),
        cmocka_unit_test(test_routes_in_dns_mode),
        cmocka_unit_test(test_empty_configuration),
        cmocka_unit_test(test_own_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
