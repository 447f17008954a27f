/* tests/unit/verify/test_answer.c: findings to replies, by the settings of the domain. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "verify/answer.h"

#define NOW UINT32_C(1800000000)
#define DAY 86400u
#define GOOD(age)                                                                                            \
    {                                                                                                        \
        .state = VERDICT_GOOD, .checked_s = NOW - (age)                                                      \
    }
#define UNKNOWN(first, last)                                                                                 \
    {                                                                                                        \
        .state = VERDICT_UNKNOWN, .refused_s = NOW - (first), .checked_s = NOW - (last)                      \
    }

static const struct cfg_verify defaults = {.mode = VERIFY_UNVERIFIED,
                                           .enforce = true,
                                           .good_fresh_s = DAY,
                                           .good_refresh_s = DAY * 3 / 4,
                                           .good_keep_s = 31 * DAY,
                                           .unknown_fresh_s = 600,
                                           .unknown_keep_s = DAY,
                                           .confirm_s = 60,
                                           .stale_s = 7 * DAY};

struct row {
    enum finding finding;
    struct verdict_record record;
    enum verify_fail fail;
    bool cautious, postfix;
    enum reply_id reply;
    const char *source;
};

static const struct row rows[] = {
    {FINDING_KNOWN, GOOD(0), FAIL_CLOSED, false, false, R_rcpt_ok, "probe"},
    {FINDING_KNOWN, UNKNOWN(0, 0), FAIL_OPEN, false, false, R_unknown_user, "probe"},
    {FINDING_KNOWN, {.state = VERDICT_DISABLED}, FAIL_CLOSED, false, false, R_rcpt_disabled, "probe"},
    {FINDING_KNOWN,
     {.pin = PIN_GOOD, .state = VERDICT_UNKNOWN},
     FAIL_CLOSED,
     true,
     false,
     R_rcpt_ok,
     "probe"},
    {FINDING_KNOWN,
     {.pin = PIN_UNKNOWN, .state = VERDICT_GOOD},
     FAIL_CLOSED,
     true,
     false,
     R_unknown_user,
     "probe"},
    {FINDING_KNOWN, {0}, FAIL_CLOSED, false, false, R_rcpt_temp, "probe"}, /* nothing fitted into the cache */
    {FINDING_KNOWN, UNKNOWN(0, 0), FAIL_CLOSED, true, false, R_rcpt_temp, "probe"},
    {FINDING_KNOWN, UNKNOWN(59, 0), FAIL_CLOSED, true, false, R_rcpt_temp, "probe"},
    {FINDING_KNOWN, UNKNOWN(60, 0), FAIL_CLOSED, true, false, R_unknown_user, "probe"},
    {FINDING_FULL, {0}, FAIL_OPEN, false, false, R_rcpt_full, "full"},
    {FINDING_NO_SMTPUTF8, {0}, FAIL_OPEN, false, false, R_needs_smtputf8, "no-smtputf8"},
    {FINDING_LATER, {0}, FAIL_CLOSED, false, false, R_rcpt_temp, "later"},
    {FINDING_LATER, GOOD(DAY), FAIL_CLOSED, false, false, R_rcpt_temp, "later"},
    {FINDING_LATER, GOOD(DAY), FAIL_STALE, false, false, R_rcpt_ok, "stale"},
    {FINDING_DOWN, {0}, FAIL_CLOSED, false, false, R_backend_down, "down"},
    {FINDING_DOWN, {0}, FAIL_CLOSED, false, true, R_rcpt_temp, "down"},
    {FINDING_DOWN, GOOD(2 * DAY), FAIL_CLOSED, false, false, R_backend_down, "down"},
    {FINDING_DOWN, GOOD(7 * DAY), FAIL_STALE, false, false, R_rcpt_ok, "stale"},
    {FINDING_DOWN, GOOD(7 * DAY + 1), FAIL_STALE, false, false, R_backend_down, "down"},
    {FINDING_DOWN, UNKNOWN(2 * DAY, 2 * DAY), FAIL_STALE, false, false, R_backend_down, "down"},
    {FINDING_DOWN, {0}, FAIL_STALE, false, false, R_backend_down, "down"},
    {FINDING_DOWN, {0}, FAIL_OPEN, false, false, R_rcpt_ok, "open"},
    {FINDING_DOWN, GOOD(DAY), FAIL_OPEN, false, false, R_rcpt_ok, "stale"},
    {FINDING_REFUSES_US, {0}, FAIL_CLOSED, false, false, R_backend_refuses, "refuses-us"},
    {FINDING_REFUSES_US, {0}, FAIL_CLOSED, false, true, R_rcpt_temp, "refuses-us"},
    {FINDING_REFUSES_US, {0}, FAIL_OPEN, false, false, R_rcpt_ok, "open"},
    {FINDING_TIMEOUT, {0}, FAIL_CLOSED, false, false, R_rcpt_temp, "timeout"},
    {FINDING_TIMEOUT, GOOD(2 * DAY), FAIL_STALE, false, false, R_rcpt_ok, "stale"},
    {FINDING_OVERFLOW, {0}, FAIL_OPEN, false, false, R_rcpt_temp, "overflow"}, /* an attack is not let in */
    {FINDING_OVERFLOW, GOOD(2 * DAY), FAIL_STALE, false, false, R_rcpt_ok, "stale"},
    {FINDING_LOOPS, {0}, FAIL_OPEN, false, true, R_verify_loop, "loops"},
    {FINDING_OWN_PROBE, {0}, FAIL_OPEN, false, false, R_verify_loop, "own-probe"},
    {FINDING_BLIND, {0}, FAIL_CLOSED, false, false, R_rcpt_ok, "accept-all"},
    {FINDING_NO_ROUTE, {0}, FAIL_OPEN, false, false, R_no_route_now, "no-route"},
    {FINDING_CLOSING, {0}, FAIL_OPEN, false, false, R_rcpt_temp, "closing"},
};

static void replies(void **state)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const struct row *r = &rows[i];
        struct cfg_verify s = defaults;
        s.fail = r->fail;
        s.cautious = r->cautious;
        s.compat = r->postfix ? COMPAT_POSTFIX : COMPAT_NONE;
        enum answer_source source = FROM_COUNT;
        enum reply_id got = answer_for(&s, r->finding, &r->record, NOW, &source);
        if (got != r->reply || strcmp(answer_source_name(source), r->source) != 0)
            fail_msg("row %zu (%s): %d from %s", i, finding_name(r->finding), reply_def(got)->code,
                     answer_source_name(source));
    }
}

/* Whatever the fail mode: a 5xx only for what a server said of the recipient, or a loop. */
static void unreachable_is_never_final(void **state)
{
    static const enum finding temporary[] = {FINDING_LATER,   FINDING_DOWN,     FINDING_REFUSES_US,
                                             FINDING_TIMEOUT, FINDING_OVERFLOW, FINDING_NO_ROUTE,
                                             FINDING_CLOSING, FINDING_FULL};
    const struct verdict_record records[] = {{0}, GOOD(DAY), UNKNOWN(2 * DAY, 2 * DAY)};
    for (size_t i = 0; i < COUNT_OF(temporary); i++)
        for (size_t k = 0; k < COUNT_OF(records); k++)
            for (int fail = FAIL_CLOSED; fail <= FAIL_OPEN; fail++) {
                struct cfg_verify s = defaults;
                s.fail = (enum verify_fail)fail;
                enum answer_source source;
                enum reply_id got = answer_for(&s, temporary[i], &records[k], NOW, &source);
                assert_true(reply_def(got)->code < 500);
            }
}

static void cautious_looks_again(void **state)
{
    struct cfg_verify s = defaults;
    struct verdict_record r = UNKNOWN(60, 60), early = UNKNOWN(59, 59), twice = UNKNOWN(120, 30);
    assert_int_equal(verify_age(&s, &r, NOW), AGE_FRESH);
    s.cautious = true;
    assert_int_equal(verify_age(&s, &r, NOW), AGE_STALE);
    assert_int_equal(verify_age(&s, &early, NOW), AGE_FRESH);
    assert_int_equal(verify_age(&s, &twice, NOW), AGE_FRESH); /* said twice: believed */
}

static void the_first_refusal_in_a_row_is_remembered(void **state)
{
    struct verdict_times t = verify_times(&defaults);
    struct verdict_record r =
        verify_apply((struct verdict_record){0}, VERDICT_UNKNOWN, SOURCE_PROBE, false, &t, 1000000);
    assert_int_equal(r.refused_s, 1000000);
    r = verify_apply(r, VERDICT_UNKNOWN, SOURCE_PROBE, false, &t, 1000100);
    assert_int_equal(r.refused_s, 1000000);
    assert_int_equal(r.checked_s, 1000100);
    r = verify_apply(r, VERDICT_GOOD, SOURCE_PROBE, false, &t, 1000200);
    assert_int_equal(r.state, VERDICT_GOOD);
    r = verify_apply(r, VERDICT_UNKNOWN, SOURCE_PROBE, false, &t, 1000300); /* suspect */
    assert_int_equal(r.state, VERDICT_GOOD);
    r = verify_apply(r, VERDICT_UNKNOWN, SOURCE_PROBE, false, &t, 1000400);
    assert_int_equal(r.state, VERDICT_UNKNOWN);
    assert_int_equal(r.refused_s, 1000300);
    r = verify_apply(r, VERDICT_UNKNOWN, SOURCE_PROBE, false, &t,
                     1000400 + 2 * DAY); /* forgotten meanwhile */
    assert_int_equal(r.refused_s, 1000400 + 2 * DAY);
}

static void the_same_again_changes_nothing(void **state)
{
    static const struct {
        enum verdict_source was, is;
        uint32_t seconds;
        bool suspect, changes;
    } same_again[] = {
        {SOURCE_PROBE, SOURCE_DELIVERY, 0, false, false},
        {SOURCE_DELIVERY, SOURCE_DELIVERY, 18 * 3600 / 16 - 1, false, false},
        {SOURCE_DELIVERY, SOURCE_DELIVERY, 18 * 3600 / 16, false, true},
        {SOURCE_PROBE, SOURCE_DELIVERY, 10, true, true},
        {SOURCE_SENDER, SOURCE_PROBE, 10, false, true},
        {SOURCE_SENDER, SOURCE_SENDER, 10, false, false},
    };
    struct verdict_times t = verify_times(&defaults);
    for (size_t i = 0; i < COUNT_OF(same_again); i++) {
        struct verdict_record old = {.state = VERDICT_GOOD,
                                     .source = (uint8_t)same_again[i].was,
                                     .suspect = same_again[i].suspect,
                                     .checked_s = 1000000};
        struct verdict_record r =
            verify_apply(old, VERDICT_GOOD, same_again[i].is, false, &t, 1000000 + same_again[i].seconds);
        assert_int_equal(memcmp(&r, &old, sizeof r) != 0, same_again[i].changes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies),
        cmocka_unit_test(unreachable_is_never_final),
        cmocka_unit_test(cautious_looks_again),
        cmocka_unit_test(the_first_refusal_in_a_row_is_remembered),
        cmocka_unit_test(the_same_again_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
