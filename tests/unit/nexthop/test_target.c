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

static void tls_by_level_and_what_there_is(void **state)
{
    char any_bytes, verify_bytes; /* only compared */
    struct tls_context *any = (void *)&any_bytes, *verify = (void *)&verify_bytes;
    const struct {
        enum tls_level want;
        bool broken, have;
        struct tls_context *tls;
        enum smtpc_tls level;
        bool ok;
    } cases[] = {
        {TLS_OFF, false, true, NULL, SMTPC_TLS_OFF, true},
        {TLS_MAY, false, true, any, SMTPC_TLS_MAY, true},
        {TLS_MAY, true, true, NULL, SMTPC_TLS_OFF, true},
        {TLS_MAY, false, false, NULL, SMTPC_TLS_OFF, true},
        {TLS_REQUIRE, true, true, any, SMTPC_TLS_REQUIRE, true},
        {TLS_REQUIRE, false, false, NULL, SMTPC_TLS_OFF, false},
        {TLS_VERIFY, false, true, verify, SMTPC_TLS_REQUIRE, true},
        {TLS_VERIFY, false, false, NULL, SMTPC_TLS_OFF, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct candidate to = {.tls_broken = cases[i].broken};
        struct tls_context *tls;
        enum smtpc_tls level;
        bool ok = candidate_tls(&to, cases[i].want, cases[i].have ? any : NULL, cases[i].have ? verify : NULL,
                                &tls, &level);
        assert_int_equal(ok, cases[i].ok);
        assert_ptr_equal(tls, cases[i].tls);
        assert_int_equal(level, cases[i].level);
    }
    assert_true(str_eq(candidate_server_name(STR("mx.example"), TLS_MAY), STR("mx.example")));
    assert_null(candidate_server_name(STR("192.0.2.1"), TLS_REQUIRE).p);
    assert_true(str_eq(candidate_server_name(STR("192.0.2.1"), TLS_VERIFY), STR("192.0.2.1")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(picks_in_order_and_leaves_failed_ones_for_last),
        cmocka_unit_test(says_once_that_one_of_several_failed),
        cmocka_unit_test(tls_by_level_and_what_there_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
