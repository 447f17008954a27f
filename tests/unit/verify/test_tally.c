/* tests/unit/verify/test_tally.c: tests of verify/tally.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "verify/tally.h"

static const struct tally_row *find(const struct tally_row *rows, size_t count, str_t domain)
{
    for (size_t i = 0; i < count; i++)
        if (str_eq(rows[i].domain, domain))
            return &rows[i];
    fail_msg("no row for " STR_FMT, STR_ARG(domain));
    return NULL;
}

static void test_sums(void **state)
{
    struct tally *t[2];
    size_t count;
    for (size_t i = 0; i < COUNT_OF(t); i++)
        assert_int_equal(tally_create(&t[i]), 0);
    tally_count(t[0], STR("one.example"), FROM_CACHE, TALLY_ACCEPTED);
    tally_count(t[1], STR("two.example"), FROM_PROBE, TALLY_UNKNOWN);
    tally_count(t[1], STR("ONE.example"), FROM_CACHE, TALLY_ACCEPTED);
    tally_count(t[1], STR("*.one.example"), FROM_CACHE, TALLY_ACCEPTED);
    tally_count(t[1], STR_NONE, FROM_BYPASS, TALLY_ACCEPTED);
    struct tally_row *rows = tally_sum(t, COUNT_OF(t), &count);
    assert_int_equal(count, 4);
    assert_int_equal(find(rows, count, STR("one.example"))->counts[FROM_CACHE][TALLY_ACCEPTED], 2);
    assert_int_equal(find(rows, count, STR("two.example"))->counts[FROM_PROBE][TALLY_UNKNOWN], 1);
    assert_int_equal(find(rows, count, STR("two.example"))->counts[FROM_PROBE][TALLY_ACCEPTED], 0);
    assert_int_equal(find(rows, count, STR("*.one.example"))->counts[FROM_CACHE][TALLY_ACCEPTED], 1);
    assert_int_equal(find(rows, count, STR("other"))->counts[FROM_BYPASS][TALLY_ACCEPTED], 1);
    free(rows);
    for (size_t i = 0; i < COUNT_OF(t); i++)
        tally_destroy(t[i]);
}

/* Whatever comes: a bounded number of rows, and nothing is lost. */
static void test_bound(void **state)
{
    struct tally *t;
    size_t count;
    assert_int_equal(tally_create(&t), 0);
    for (unsigned i = 0; i < 3 * TALLY_DOMAINS_MAX; i++) {
        char name[32];
        tally_count(t, str_of(name, (size_t)snprintf(name, sizeof name, "d%u.example", i)), FROM_PROBE,
                    TALLY_LATER);
    }
    struct tally_row *rows = tally_sum(&t, 1, &count);
    assert_int_equal(count, TALLY_DOMAINS_MAX + 1);
    assert_int_equal(find(rows, count, STR("other"))->counts[FROM_PROBE][TALLY_LATER], 2 * TALLY_DOMAINS_MAX);
    assert_int_equal(find(rows, count, STR("d999.example"))->counts[FROM_PROBE][TALLY_LATER], 1);
    free(rows);
    tally_destroy(t);
}

static void test_results(void **state)
{
    static const struct {
        enum reply_id reply;
        bool shadow;
        enum tally_result result;
    } rows[] = {
        {R_rcpt_ok, false, TALLY_ACCEPTED},       {R_rcpt_ok, true, TALLY_SHADOW},
        {R_unknown_user, false, TALLY_UNKNOWN},   {R_rcpt_disabled, false, TALLY_DISABLED},
        {R_rcpt_full, false, TALLY_FULL},         {R_rcpt_temp, false, TALLY_LATER},
        {R_backend_down, false, TALLY_LATER},     {R_verify_loop, false, TALLY_REFUSED},
        {R_needs_smtputf8, false, TALLY_REFUSED},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        assert_int_equal(tally_result_of(rows[i].reply, rows[i].shadow), rows[i].result);
}

/* Names are labels and an interface: each is there, and no two are alike. */
static void test_names(void **state)
{
    for (int i = 0; i < FROM_COUNT; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(answer_source_name((enum answer_source)i),
                                    answer_source_name((enum answer_source)k));
    assert_string_equal(answer_source_name(FROM_BLIND), "accept-all");
    assert_string_equal(answer_source_name(FROM_COUNT), "unknown");
    assert_string_equal(tally_result_name(TALLY_SHADOW), "shadow");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
