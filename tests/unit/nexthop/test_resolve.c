/* tests/unit/nexthop/test_resolve.c: MX loops and verdicts on DNS failures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "nexthop/resolve.h"

static void mx_set(struct dns_query *q, uint16_t preference, const char *host)
{
    q->mx[q->count].preference = preference;
    memcpy(q->mx[q->count].host, host, strlen(host) + 1);
    q->count++;
}

static void drops_exchangers_not_better_than_us(void **state)
{
    static const struct {
        const char *hosts[5]; /* preferences 10, 10, 20, 20, 30 */
        uint32_t kept;
        bool looped;
    } cases[] = {
        {{"a.example", "b.example", "c.example", "d.example", "e.example"}, 5, false},
        {{"a.example", "b.example", "c.example", "d.example", "GW.example"}, 4, true},
        {{"a.example", "b.example", "gw.example", "d.example", "e.example"}, 2, true},
        {{"a.example", "b.example", "c.example", "gw.example", "e.example"},
         2,
         true}, /* its equal goes too */
        {{"a.example", "gw.example", "c.example", "d.example", "e.example"}, 0, true},
        {{"gw.example", "b.example", "c.example", "d.example", "gw.example"}, 0, true},
    };
    static const uint16_t preferences[] = {10, 10, 20, 20, 30};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct dns_query q = {.kind = DNS_MX};
        for (size_t k = 0; k < COUNT_OF(preferences); k++)
            mx_set(&q, preferences[k], cases[i].hosts[k]);
        bool looped;
        assert_int_equal(mx_better_than_us(&q, STR("gw.example"), &looped), cases[i].kept);
        assert_int_equal(looped, cases[i].looped);
    }
}

static void judges_failed_lookups(void **state)
{
    static const struct {
        bool is_dns;
        enum lookup_kind lookup;
        err_t err;
        enum resolution_kind kind;
        int code;
        uint8_t status[3];
    } cases[] = {
        {true, LOOKUP_MX, ERR_NULL_MX, RESOLVE_NEVER, 556, {5, 1, 10}},
        {true, LOOKUP_MX, ERR_DNS_NXDOMAIN, RESOLVE_NEVER, 550, {5, 1, 2}},
        {true, LOOKUP_IMPLICIT, ERR_DNS_NODATA, RESOLVE_NEVER, 550, {5, 1, 2}},
        {true, LOOKUP_EXCHANGER, ERR_DNS_NXDOMAIN, RESOLVE_NEVER, 550, {5, 4, 4}},
        {true, LOOKUP_EXCHANGER, ERR_DNS_NODATA, RESOLVE_NEVER, 550, {5, 4, 4}},
        {true, LOOKUP_MX, ERR_DNS_TEMP, RESOLVE_LATER, 451, {4, 4, 3}},
        {true, LOOKUP_MX, ERR_DNS_BOGUS, RESOLVE_LATER, 451, {4, 4, 3}},
        {false, LOOKUP_HOST, ERR_DNS_NXDOMAIN, RESOLVE_LATER, 451, {4, 4, 4}}, /* a configured name: never
                                                                                  final */
        {false, LOOKUP_MX, ERR_NULL_MX, RESOLVE_LATER, 451, {4, 4, 4}},
        {false, LOOKUP_HOST, ERR_DNS_TEMP, RESOLVE_LATER, 451, {4, 4, 3}},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct answer a;
        assert_int_equal(resolve_judge(cases[i].is_dns, cases[i].lookup, cases[i].err, &a), cases[i].kind);
        assert_int_equal(a.code, cases[i].code);
        assert_memory_equal(a.status, cases[i].status, 3);
        assert_int_not_equal(a.text.n, 0);
    }
}

static void never_asked(void *ctx, struct resolution *res)
{
    fail();
}

static struct endpoint endpoint(const char *text)
{
    struct endpoint e;
    assert_int_equal(endpoint_parse(str_cstr(text), &e), 0);
    return e;
}

/* Without names nothing is asked: the whole walk runs at once. */
static void keeps_the_order_of_hosts_and_drops_ourselves(void **state)
{
    struct endpoint own[] = {endpoint("192.0.2.9:25")};
    struct hop_settings settings = {.hostname = "gw.example", .own = own, .own_count = 1};
    struct resolver r = {.settings = &settings};
    struct target_host hosts[] = {
        {.name = STR("192.0.2.2"), .is_ip = true, .ip = endpoint("192.0.2.2:1").ip, .port = 25},
        {.name = STR("192.0.2.9"), .is_ip = true, .ip = own[0].ip, .port = 25},
        {.name = STR("192.0.2.9"),
         .is_ip = true,
         .ip = own[0].ip,
         .port = 2525}, /* another service of this machine */
        {.name = STR("192.0.2.1"), .is_ip = true, .ip = endpoint("192.0.2.1:1").ip, .port = 24},
    };
    struct target t = {.hosts = hosts, .host_count = COUNT_OF(hosts)};
    struct resolve *rs;
    struct resolution res;
    assert_int_equal(resolve_start(&r, &t, never_asked, NULL, &rs, &res), 0);
    assert_int_equal(res.kind, RESOLVED);
    assert_int_equal(res.candidates.count, 3);
    assert_true(ip_eq(&res.candidates.list[0].at.ip, &hosts[0].ip));
    assert_int_equal(res.candidates.list[1].at.port, 2525);
    assert_true(ip_eq(&res.candidates.list[2].at.ip, &hosts[3].ip));
    assert_int_equal(res.candidates.list[2].at.port, 24);
    assert_string_equal(res.candidates.list[2].host, "192.0.2.1");
    candidates_free(&res.candidates);

    /* Only ourselves: a loop, final when the domain's own DNS says so. */
    t = (struct target){.is_dns = true, .hosts = &hosts[1], .host_count = 1};
    assert_int_equal(resolve_start(&r, &t, never_asked, NULL, &rs, &res), 0);
    assert_int_equal(res.kind, RESOLVE_NEVER);
    assert_memory_equal(res.answer.status, ((uint8_t[]){5, 4, 6}), 3);
    t.is_dns = false;
    assert_int_equal(resolve_start(&r, &t, never_asked, NULL, &rs, &res), 0);
    assert_int_equal(res.kind, RESOLVE_LATER);
}

static void names_that_cannot_be_asked_fail(void **state)
{
    struct hop_settings settings = {.hostname = "gw.example"};
    struct resolver r = {.settings = &settings}; /* and no DNS */
    struct target_host host = {.name = STR("mx.example.net"), .is_mx = true, .port = 25};
    struct target t = {.is_dns = true, .hosts = &host, .host_count = 1};
    struct resolve *rs;
    struct resolution res;
    assert_int_equal(resolve_start(&r, &t, never_asked, NULL, &rs, &res), 0);
    assert_int_equal(res.kind, RESOLVE_LATER);
    assert_true(str_starts(res.answer.text, STR("mx.example.net: ")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drops_exchangers_not_better_than_us),
        cmocka_unit_test(judges_failed_lookups),
        cmocka_unit_test(keeps_the_order_of_hosts_and_drops_ourselves),
        cmocka_unit_test(names_that_cannot_be_asked_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
