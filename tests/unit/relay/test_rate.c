/* How many messages a rate lets go, and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "relay/rate_priv.h"

#define START_NS (UINT64_C(1000) * NS_PER_S)

static uint32_t take_all(rate_state *s, const struct cfg_rate *r, uint64_t now_ns)
{
    uint32_t n = 0;
    while (rate_take(s, r, now_ns) == 0)
        n++;
    return n;
}

/* Looked at every `tick_ms`, with more to send than may go. */
static void a_rate_is_kept(void **state)
{
    static const struct {
        struct cfg_rate rate;
        uint64_t tick_ms, seconds;
        uint32_t min, max;
    } cases[] = {
        {{1, 1}, 8, 10, 10, 11},    {{100, 60}, 8, 60, 99, 101},     {{100, 60}, 1000, 60, 60, 100},
        {{10, 1}, 8, 10, 99, 102},  {{1000, 1}, 8, 10, 9990, 10102}, {{1000000, 1}, 8, 1, 990000, 1100002},
        {{7, 3600}, 8, 3600, 6, 8}, {{1, 86400}, 1000, 86399, 1, 1},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        rate_state s = 0;
        uint32_t sent = 0;
        for (uint64_t ms = 0; ms < cases[i].seconds * 1000; ms += cases[i].tick_ms)
            sent += take_all(&s, &cases[i].rate, START_NS + ms * NS_PER_MS);
        if (sent < cases[i].min || sent > cases[i].max)
            fail_msg("case %zu: %u sent", i, sent);
    }
}

static void the_wait_is_what_it_takes(void **state)
{
    static const struct cfg_rate rate = {60, 60};
    rate_state s = 0;
    assert_int_equal(rate_wait_ms(&s, &rate, START_NS), 0);
    assert_int_equal(rate_take(&s, &rate, START_NS), 0);
    uint64_t wait = rate_take(&s, &rate, START_NS);
    assert_int_equal(wait, 1000 - RATE_SLACK_MS);
    assert_int_equal(rate_wait_ms(&s, &rate, START_NS), wait);
    assert_int_equal(rate_take(&s, &rate, START_NS + (wait - 1) * NS_PER_MS), 1);
    assert_int_equal(rate_take(&s, &rate, START_NS + wait * NS_PER_MS), 0);
}

static void nothing_is_saved_up(void **state)
{
    static const struct cfg_rate rate = {10, 1};
    rate_state s = 0;
    assert_true(take_all(&s, &rate, START_NS) <= 2);
    assert_true(take_all(&s, &rate, START_NS + 3600 * NS_PER_S) <= 2);
}

static void a_raised_rate_holds_at_once(void **state)
{
    static const struct cfg_rate slow = {1, 86400}, fast = {10, 1};
    rate_state s = 0;
    assert_int_equal(rate_take(&s, &slow, START_NS), 0);
    assert_in_range(rate_take(&s, &fast, START_NS), 1, 100);
}

static void none_is_no_limit(void **state)
{
    static const struct cfg_rate none = {0};
    rate_state s = 0;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(rate_take(&s, &none, START_NS), 0);
    assert_int_equal(rate_wait_ms(&s, &none, START_NS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rate_is_kept),      cmocka_unit_test(the_wait_is_what_it_takes),
        cmocka_unit_test(nothing_is_saved_up), cmocka_unit_test(a_raised_rate_holds_at_once),
        cmocka_unit_test(none_is_no_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
