/* tests/unit/verify/test_watch.c: canaries find backends that take everything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "verify/watch.h"

#define HOUR_S 3600u
#define DAY_MS (UINT64_C(24) * 3600 * 1000)

static void first_one_a_while_after_the_first_use(void **state)
{
    struct watch w = {0};
    assert_false(watch_due(&w, HOUR_S, 1000));
    watch_used(&w, 0, 1000, 0);
    assert_false(watch_due(&w, 0, DAY_MS)); /* none wanted */
    watch_used(&w, HOUR_S, 1000, 0);
    assert_false(watch_due(&w, HOUR_S, 1001));
    assert_true(watch_due(&w, HOUR_S, 6000));
    watch_used(&w, HOUR_S, 5999, 0); /* moves nothing */
    assert_true(watch_due(&w, HOUR_S, 6000));
    w.is_out = true;
    assert_false(watch_due(&w, HOUR_S, 6000));
    watch_unsettled(&w, 6000);
    assert_false(watch_due(&w, HOUR_S, 6001));
    assert_true(watch_due(&w, HOUR_S, 66000));
}

static void taken_twice_is_blind_and_asked_again_daily(void **state)
{
    struct watch w = {.is_out = true};
    assert_false(watch_taken(&w, HOUR_S, 1000, 0));
    assert_int_equal(w.state, WATCH_UNTRIED);
    assert_true(watch_due(&w, HOUR_S, 3000));
    w.is_out = true;
    assert_true(watch_taken(&w, HOUR_S, 3000, 0));
    assert_true(watch_is_blind(&w));
    assert_false(watch_due(&w, HOUR_S, 3000 + DAY_MS / 2));
    assert_true(watch_due(&w, HOUR_S, 3000 + DAY_MS));
    assert_false(watch_taken(&w, HOUR_S, 3000 + DAY_MS, 0));
    assert_true(watch_data_refused(&w, 4000 + DAY_MS));
    assert_int_equal(w.state, WATCH_DATA_STAGE);
    assert_false(watch_data_refused(&w, 4000 + DAY_MS));
    assert_false(watch_taken(&w, HOUR_S, 3000 + 2 * DAY_MS, 0)); /* stays what it is */
    assert_int_equal(w.state, WATCH_DATA_STAGE);
    assert_true(watch_refused(&w, HOUR_S, 3000 + 3 * DAY_MS, 0));
    assert_false(watch_is_blind(&w));
    assert_false(watch_data_refused(&w, 0)); /* one that tells is not blind for one late refusal */
}

static void a_refused_delivery_brings_it_forward(void **state)
{
    struct watch w = {.is_out = true, .taken_count = 1};
    assert_true(watch_taken(&w, HOUR_S, 3000, 0));
    watch_told(&w, 4000);
    assert_false(watch_due(&w, HOUR_S, 12999)); /* not for each one */
    assert_true(watch_due(&w, HOUR_S, 13000));
    watch_told(&w, DAY_MS / 2);
    assert_true(watch_due(&w, HOUR_S, DAY_MS / 2));
    w.is_out = true;
    assert_true(watch_refused(&w, HOUR_S, DAY_MS / 2, 0));
    watch_told(&w, DAY_MS / 2); /* as it should be */
    assert_false(watch_due(&w, HOUR_S, DAY_MS / 2));
}

static void passes_with_both_seen_lately(void **state)
{
    struct watch w = {0};
    assert_false(watch_passed(&w, HOUR_S, 0));
    watch_refused(&w, HOUR_S, 1000, 0);
    assert_false(watch_passed(&w, HOUR_S, 1000));
    watch_good(&w, 2000);
    assert_true(watch_passed(&w, HOUR_S, 2000));
    assert_true(watch_passed(&w, HOUR_S, 1000 + HOUR_S * 1000));
    assert_false(watch_passed(&w, HOUR_S, 1001 + HOUR_S * 1000));
    assert_false(watch_passed(&w, 0, 2000));
    watch_taken(&w, HOUR_S, 3000, 0);
    assert_false(watch_passed(&w, HOUR_S, 3000)); /* first doubts */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_one_a_while_after_the_first_use),
        cmocka_unit_test(taken_twice_is_blind_and_asked_again_daily),
        cmocka_unit_test(a_refused_delivery_brings_it_forward),
        cmocka_unit_test(passes_with_both_seen_lately),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
