/* tests/unit/verify/test_patience.c: how many refusals a server stands is found out without annoying it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "verify/patience.h"

/* How many connections `count` unknown recipients take, one after the other, at a server that becomes slow
 * after `soft` refusals and hangs up after `hard`. */
static uint32_t connections_for(struct patience *p, uint32_t count, uint32_t soft, uint32_t hard,
                                uint64_t now, uint32_t *slow_count)
{
    uint32_t connections = 0, asked = 0;
    while (asked < count) {
        uint32_t refused = 0;
        connections++;
        while (asked < count && !patience_is_over(p, refused, now)) {
            if (refused == hard) {
                patience_hung_up(p, refused, now);
                break;
            }
            if (refused >= soft) {
                patience_slowed(p, refused, now);
                ++*slow_count;
            } else {
                patience_stood(p, refused + 1);
            }
            refused++;
            asked++;
        }
    }
    return connections;
}

static void patient_servers_are_asked_over_few_connections(void **state)
{
    struct patience p = {0};
    uint32_t slow = 0;
    assert_true(connections_for(&p, 1000, 1000000, 1000000, 1, &slow) <= 6);
    assert_int_equal(patience_limit(&p), PATIENCE_MAX);
    assert_int_equal(slow, 0);
}

static void postfix_becomes_slow_once(void **state)
{
    struct patience p = {0};
    uint32_t slow = 0, connections = connections_for(&p, 1000, 9, 20, 1, &slow);
    assert_in_range(connections, 105, 112);
    assert_int_equal(slow, 1);
    /* Long after, it may have been told to be more patient. */
    slow = 0;
    assert_true(connections_for(&p, 1000, 1000000, 1000000, 1 + 7200000, &slow) <= 7);
}

static void who_hangs_up_is_asked_for_half(void **state)
{
    struct patience p = {0};
    uint32_t slow = 0;
    connections_for(&p, 1000, 1000000, 70, 1, &slow);
    assert_in_range(patience_limit(&p), 35, 69);
    p = (struct patience){0};
    patience_hung_up(&p, 3, 1); /* for other reasons */
    assert_int_equal(patience_limit(&p), PATIENCE_START);
    for (int i = 0; i < 10; i++)
        patience_hung_up(&p, 5, 1);
    assert_int_equal(patience_limit(&p), PATIENCE_MIN);
    assert_false(patience_is_over(&p, PATIENCE_MIN - 1, 2));
    assert_true(patience_is_over(&p, PATIENCE_MIN, 2));
}

static void slow_is_slower_than_before(void **state)
{
    assert_true(patience_is_slow(1000, 3));
    assert_false(patience_is_slow(200, 3));
    assert_false(patience_is_slow(5000, 5000)); /* it is so with everybody */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patient_servers_are_asked_over_few_connections),
        cmocka_unit_test(postfix_becomes_slow_once),
        cmocka_unit_test(who_hangs_up_is_asked_for_half),
        cmocka_unit_test(slow_is_slower_than_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
