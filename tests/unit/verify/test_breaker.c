/* tests/unit/verify/test_breaker.c: when a backend is asked, and when it is left alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "verify/breaker.h"

/* 0 as random: 20 % early. */
#define EARLY(ms) ((ms) - (ms)*2 / 5 / 2)

enum event { ANSWERED, LATER, FAILED, REFUSED_EARLY, REFUSED_RCPT, LOOPED, TRY };

static bool feed(struct breaker *b, enum event e, uint64_t now)
{
    switch (e) {
    case ANSWERED: return breaker_answered(b, now);
    case LATER: return breaker_later(b, now, 0);
    case FAILED: return breaker_failed(b, now, 0);
    case REFUSED_EARLY: return breaker_refused(b, false, now, 0);
    case REFUSED_RCPT: return breaker_refused(b, true, now, 0);
    case LOOPED: return breaker_looped(b, now, 0);
    case TRY:
        assert_int_equal(breaker_leave(b, now), BREAKER_TRY);
        breaker_begin_trial(b);
        assert_int_equal(breaker_leave(b, now), BREAKER_ON_TRIAL);
        return false;
    }
    return false;
}

struct step {
    uint64_t at_ms;
    enum event event;
    bool changes;
    enum breaker_state state;
    uint64_t retry_at_ms; /* 0: do not look */
};

static void play(const struct step *steps, size_t count)
{
    struct breaker b = {0};
    for (size_t i = 0; i < count; i++) {
        bool changed = feed(&b, steps[i].event, steps[i].at_ms);
        if (changed != steps[i].changes || b.state != steps[i].state)
            fail_msg("step %zu: state %s, changed %d", i, breaker_name(b.state), changed);
        if (steps[i].retry_at_ms) {
            assert_int_equal(b.retry_at_ms, steps[i].retry_at_ms);
            assert_int_equal(breaker_leave(&b, b.retry_at_ms - 1), BREAKER_WAIT);
            assert_int_equal(breaker_leave(&b, b.retry_at_ms), BREAKER_TRY);
        }
        if (b.state == BREAKER_UP)
            assert_int_equal(breaker_leave(&b, steps[i].at_ms), BREAKER_GO);
    }
}

static void down_doubles_and_comes_back_by_one_trial(void **state)
{
    static const struct step steps[] = {
        {1000, ANSWERED, false, BREAKER_UP, 0},
        {2000, FAILED, true, BREAKER_DOWN, 2000 + EARLY(5000)},
        {2100, FAILED, false, BREAKER_DOWN, 2000 + EARLY(5000)}, /* was on its way already */
        {7000, TRY, false, BREAKER_DOWN, 0},
        {7100, FAILED, false, BREAKER_DOWN, 7100 + EARLY(10000)},
        {20000, TRY, false, BREAKER_DOWN, 0},
        {20000, FAILED, false, BREAKER_DOWN, 20000 + EARLY(20000)},
        {40000, TRY, false, BREAKER_DOWN, 0},
        {40000, ANSWERED, true, BREAKER_UP, 0},
        {41000, FAILED, true, BREAKER_DOWN, 41000 + EARLY(5000)}, /* begins anew */
    };
    play(steps, COUNT_OF(steps));
    struct breaker b = {0};
    uint64_t now = 0;
    for (int i = 0; i < 20; i++) {
        breaker_failed(&b, now, 0);
        now = b.retry_at_ms;
        breaker_begin_trial(&b);
    }
    breaker_failed(&b, now, 0);
    assert_int_equal(b.retry_at_ms, now + EARLY(300000));
}

static void refusals_of_us_count_at_rcpt_when_three_come(void **state)
{
    static const struct step steps[] = {
        {1000, REFUSED_EARLY, true, BREAKER_REFUSES_US, 1000 + EARLY(5000)},
        {1100, REFUSED_EARLY, false, BREAKER_REFUSES_US, 1000 + EARLY(5000)},
        {70000, TRY, false, BREAKER_REFUSES_US, 0},
        {70000, REFUSED_RCPT, false, BREAKER_REFUSES_US, 70000 + EARLY(10000)},
        {200000, TRY, false, BREAKER_REFUSES_US, 0},
        {200000, ANSWERED, true, BREAKER_UP, 0},
        {200001, REFUSED_RCPT, false, BREAKER_UP, 0}, /* one recipient with a rule of its own */
        {200002, REFUSED_RCPT, false, BREAKER_UP, 0},
        {200003, ANSWERED, false, BREAKER_UP, 0},
        {200004, REFUSED_RCPT, false, BREAKER_UP, 0},
        {200005, REFUSED_RCPT, false, BREAKER_UP, 0},
        {200006, REFUSED_RCPT, true, BREAKER_REFUSES_US, 200006 + EARLY(5000)},
    };
    play(steps, COUNT_OF(steps));
}

static void later_alone_makes_suspect(void **state)
{
    struct breaker b = {0};
    for (int i = 1; i < BREAKER_LATER_MAX; i++)
        assert_false(breaker_later(&b, 1000, 0));
    assert_int_equal(b.state, BREAKER_UP);
    assert_true(breaker_later(&b, 1000, 0));
    assert_int_equal(b.state, BREAKER_SUSPECT);
    assert_int_equal(b.retry_at_ms, 1000 + EARLY(1000));
    assert_false(breaker_later(&b, 1001, 0)); /* of the same batch */
    assert_int_equal(b.retry_at_ms, 1000 + EARLY(1000));
    breaker_begin_trial(&b);
    assert_false(breaker_later(&b, 2000, 0));
    assert_int_equal(b.retry_at_ms, 2000 + EARLY(2000));
    assert_true(breaker_answered(&b, 4000));
    for (int i = 1; i < BREAKER_LATER_MAX; i++)
        assert_false(breaker_later(&b, 5000, 0));
    assert_false(breaker_answered(&b, 5000));
    assert_false(breaker_later(&b, 5000, 0)); /* counted anew */
}

static void a_trial_that_only_says_later_is_up(void **state)
{
    static const struct step steps[] = {
        {1000, FAILED, true, BREAKER_DOWN, 0}, {6000, TRY, false, BREAKER_DOWN, 0},
        {6000, LATER, true, BREAKER_UP, 0},    {7000, LOOPED, true, BREAKER_LOOP, 7000 + EARLY(5000)},
        {400000, TRY, false, BREAKER_LOOP, 0}, {400000, ANSWERED, true, BREAKER_UP, 0},
    };
    play(steps, COUNT_OF(steps));
    struct breaker b = {0};
    breaker_failed(&b, 0, 0);
    breaker_begin_trial(&b);
    breaker_end_trial(&b); /* shutdown, or nobody asked any more */
    assert_int_equal(breaker_leave(&b, b.retry_at_ms), BREAKER_TRY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(down_doubles_and_comes_back_by_one_trial),
        cmocka_unit_test(refusals_of_us_count_at_rcpt_when_three_come),
        cmocka_unit_test(later_alone_makes_suspect),
        cmocka_unit_test(a_trial_that_only_says_later_is_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
