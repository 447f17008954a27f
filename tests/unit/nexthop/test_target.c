/* tests/unit/nexthop/test_target.c: which address is tried next, and with what TLS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "nexthop/target.h"

static void picks_in_order_and_leaves_failed_ones_for_last(void **state)
{
    struct candidate list[3] = {{.failed_until_ms = 100}, {.failed_until_ms = 0}, {.failed_until_ms = 50}};
    struct candidates c = {list, 3};
    static const struct {
        uint32_t tried;
        bool failed_too;
        uint64_t now_ms;
        int pick;
    } cases[] = {
        {0, false, 10, 1},  /* the only one that did not fail */
        {2, false, 10, -1}, /* others work: no need of one that failed */
        {2, true, 10, 0},   {3, true, 10, 2},
        {7, true, 10, -1},  {0, false, 100, 0}, /* forgiven: the order counts again */
        {1, false, 60, 1},  {3, false, 60, 2},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(candidates_pick(&c, cases[i].tried, cases[i].failed_too, cases[i].now_ms),
                         cases[i].pick);
}

static void says_once_that_one_of_several_failed(void **state)
{
    struct candidate list[2] = {{.failed_until_ms = 0}};
    struct candidates two = {list, 2}, one = {list + 1, 1};
    assert_true(candidates_failed(&two, &list[0], 1000));
    assert_false(candidates_failed(&two, &list[0], 2000));
    assert_true(candidates_failed(&two, &list[0], 2000 + 60000));
    assert_false(candidates_failed(&one, &list[1], 1000)); /* the next hop itself is down then */
}

static void tls_by_level(void **state)
{
    char bytes; /* only compared */
    struct tls_context *context = (void *)&bytes;
    const struct {
        enum tls_level want;
        bool broken;
        struct tls_context *tls;
        enum smtpc_tls level;
    } cases[] = {
        {TLS_OFF, false, NULL, SMTPC_TLS_OFF},          {TLS_MAY, false, context, SMTPC_TLS_MAY},
        {TLS_MAY, true, NULL, SMTPC_TLS_OFF},           {TLS_REQUIRE, true, context, SMTPC_TLS_REQUIRE},
        {TLS_VERIFY, true, context, SMTPC_TLS_REQUIRE}, {TLS_PIN, true, context, SMTPC_TLS_REQUIRE},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct candidate to = {.tls_broken = cases[i].broken};
        struct hop_access access = {.level = cases[i].want, .tls = cases[i].want == TLS_OFF ? NULL : context};
        struct tls_context *tls;
        enum smtpc_tls level;
        candidate_tls(&to, &access, &tls, &level);
        assert_ptr_equal(tls, cases[i].tls);
        assert_int_equal(level, cases[i].level);
    }
    static const struct {
        const char *host, *name, *asked; /* asked: NULL: no name */
        enum tls_level level;
    } names[] = {
        {"mx.example", "", "mx.example", TLS_MAY},
        {"192.0.2.1", "", NULL, TLS_REQUIRE},
        {"192.0.2.1", "", NULL, TLS_PIN},
        {"192.0.2.1", "", "192.0.2.1", TLS_VERIFY},
        {"192.0.2.1", "mail.example", "mail.example", TLS_VERIFY},
        {"mx.example", "mail.example", "mail.example", TLS_REQUIRE},
    };
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct hop_access access = {.level = names[i].level, .name = str_cstr(names[i].name)};
        str_t asked = candidate_server_name(str_cstr(names[i].host), &access);
        assert_true(str_eq(asked, str_cstr(names[i].asked)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(picks_in_order_and_leaves_failed_ones_for_last),
        cmocka_unit_test(says_once_that_one_of_several_failed),
        cmocka_unit_test(tls_by_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
