/* tests/unit/verify/test_verdict.c: tests of verify/verdict.c: every state at every age, every answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "verify/verdict.h"

#define HOUR 3600U
#define DAY  (24 * HOUR)
#define NOW  (1000 * DAY)

static const struct verdict_times times = {.good_fresh = DAY,
                                           .good_refresh = 18 * HOUR,
                                           .good_keep = 31 * DAY,
                                           .unknown_fresh = 600,
                                           .unknown_keep = DAY,
                                           .confirm = 60};

static struct verdict_record record(enum verdict state, enum verdict_source source, uint32_t age)
{
    return (struct verdict_record){
        .state = (uint8_t)state, .source = (uint8_t)source, .checked_s = NOW - age};
}

static struct verdict_record suspect(uint32_t age, uint32_t refused_ago)
{
    struct verdict_record r = record(VERDICT_GOOD, SOURCE_PROBE, age);
    r.suspect = 1;
    r.refused_s = NOW - refused_ago;
    return r;
}

static void test_age(void **state)
{
    static const struct {
        enum verdict v;
        enum verdict_source source;
        uint32_t age;
        enum verdict_age want;
    } cases[] = {
        {VERDICT_NONE, SOURCE_PROBE, 0, AGE_NONE},
        {VERDICT_GOOD, SOURCE_PROBE, 0, AGE_FRESH},
        {VERDICT_GOOD, SOURCE_PROBE, 18 * HOUR - 1, AGE_FRESH},
        {VERDICT_GOOD, SOURCE_DELIVERY, 18 * HOUR, AGE_REFRESH},
        {VERDICT_GOOD, SOURCE_PROBE, DAY - 1, AGE_REFRESH},
        {VERDICT_GOOD, SOURCE_PROBE, DAY, AGE_STALE},
        {VERDICT_GOOD, SOURCE_PROBE, 31 * DAY - 1, AGE_STALE},
        {VERDICT_GOOD, SOURCE_PROBE, 31 * DAY, AGE_NONE},
        {VERDICT_GOOD, SOURCE_SENDER, 0, AGE_REFRESH},
        {VERDICT_GOOD, SOURCE_SENDER, DAY, AGE_STALE},
        {VERDICT_GOOD, SOURCE_SENDER, 31 * DAY, AGE_NONE},
        {VERDICT_UNKNOWN, SOURCE_PROBE, 0, AGE_FRESH},
        {VERDICT_UNKNOWN, SOURCE_PROBE, 599, AGE_FRESH},
        {VERDICT_UNKNOWN, SOURCE_PROBE, 600, AGE_STALE},
        {VERDICT_UNKNOWN, SOURCE_DELIVERY, DAY - 1, AGE_STALE},
        {VERDICT_UNKNOWN, SOURCE_PROBE, DAY, AGE_NONE},
        {VERDICT_DISABLED, SOURCE_PROBE, 599, AGE_FRESH},
        {VERDICT_DISABLED, SOURCE_PROBE, 600, AGE_STALE},
        {VERDICT_DISABLED, SOURCE_PROBE, DAY, AGE_NONE},
        {VERDICT_GOOD, SOURCE_PROBE, (uint32_t)-DAY, AGE_FRESH}, /* the clock went back a day */
        {VERDICT_UNKNOWN, SOURCE_PROBE, (uint32_t)-DAY, AGE_FRESH},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct verdict_record r = record(cases[i].v, cases[i].source, cases[i].age);
        if (verdict_age(&r, &times, NOW) != cases[i].want)
            fail_msg("case %zu: age %d", i, verdict_age(&r, &times, NOW));
        r.pin = PIN_GOOD;
        assert_int_equal(verdict_age(&r, &times, NOW), AGE_FRESH);
        r.pin = PIN_UNKNOWN;
        assert_int_equal(verdict_age(&r, &times, NOW), AGE_FRESH);
    }
}

static void test_age_of_a_suspect(void **state)
{
    static const struct {
        uint32_t age, refused_ago;
        enum verdict_age want;
    } cases[] = {
        {HOUR, 0, AGE_FRESH},     {HOUR, 59, AGE_FRESH},
        {HOUR, 60, AGE_REFRESH},  {20 * HOUR, 60, AGE_REFRESH},
        {2 * DAY, 59, AGE_FRESH}, {2 * DAY, 60, AGE_STALE},
        {31 * DAY, 10, AGE_NONE}, {HOUR, (uint32_t)-HOUR, AGE_FRESH},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct verdict_record r = suspect(cases[i].age, cases[i].refused_ago);
        if (verdict_age(&r, &times, NOW) != cases[i].want)
            fail_msg("case %zu: age %d", i, verdict_age(&r, &times, NOW));
    }
}

static bool same(struct verdict_record a, struct verdict_record b)
{
    return a.state == b.state && a.source == b.source && a.pin == b.pin && a.suspect == b.suspect &&
           a.checked_s == b.checked_s && a.refused_s == b.refused_s;
}

/* What the answer must make of it, said in other words than verdict_apply() says it. */
static struct verdict_record expected(struct verdict_record old, enum verdict answer,
                                      enum verdict_source source, bool canary)
{
    struct verdict_record fresh = record(answer, source, 0), marked = old;
    uint32_t keep = old.state == VERDICT_GOOD ? times.good_keep : times.unknown_keep;
    bool known = old.state != VERDICT_NONE && NOW - old.checked_s < keep;
    fresh.pin = old.pin;
    if (answer == VERDICT_NONE)
        return old;
    if (source == SOURCE_SENDER)
        return answer == VERDICT_GOOD && !known ? fresh : old;
    if (answer == VERDICT_GOOD || !known || old.state != VERDICT_GOOD)
        return fresh;
    if (canary || old.source == SOURCE_SENDER)
        return fresh;
    if (old.suspect)
        return NOW - old.refused_s >= times.confirm ? fresh : old;
    marked.suspect = 1;
    marked.refused_s = NOW;
    return marked;
}

static size_t digit(size_t *n, size_t base)
{
    size_t d = *n % base;
    *n /= base;
    return d;
}

static void test_apply_all_combinations(void **state)
{
    static const uint32_t ages[] = {0, 599, 600, 18 * HOUR, DAY - 1, DAY, 31 * DAY - 1, 31 * DAY};
    static const uint32_t refusals[] = {UINT32_MAX, 0, 59, 60, DAY}; /* the first: no suspect */
    (void)state;
    /* one number names a combination: state, source, pin, age, suspicion, answer, its source, canary */
    for (size_t n = 0; n < 4UL * 3 * 3 * 8 * 5 * 4 * 3 * 2; n++) {
        size_t rest = n;
        struct verdict_record old = {.state = (uint8_t)digit(&rest, 4)};
        old.source = (uint8_t)digit(&rest, 3);
        old.pin = (uint8_t)digit(&rest, 3);
        old.checked_s = NOW - ages[digit(&rest, COUNT_OF(ages))];
        uint32_t refused = refusals[digit(&rest, COUNT_OF(refusals))];
        enum verdict answer = (enum verdict)digit(&rest, 4);
        enum verdict_source source = (enum verdict_source)digit(&rest, 3);
        bool canary = digit(&rest, 2);
        if (old.state == VERDICT_GOOD && refused != UINT32_MAX) {
            old.suspect = 1;
            old.refused_s = NOW - refused;
        }
        struct verdict_record got = verdict_apply(old, answer, source, canary, &times, NOW);
        if (!same(got, expected(old, answer, source, canary)))
            fail_msg("combination %zu: state %d source %d suspect %d", n, got.state, got.source, got.suspect);
    }
}

/* The story that the rules are for. */
static void test_a_good_address_falls_slowly(void **state)
{
    (void)state;
    struct verdict_record r = record(VERDICT_GOOD, SOURCE_PROBE, 0);
    for (uint32_t at = 0; at < 60; at += 10) {
        r = verdict_apply(r, VERDICT_UNKNOWN, SOURCE_PROBE, false, &times, NOW + at);
        assert_int_equal(r.state, VERDICT_GOOD);
        assert_int_equal(r.suspect, 1);
        assert_int_equal(r.refused_s, NOW);
    }
    struct verdict_record cleared = verdict_apply(r, VERDICT_GOOD, SOURCE_DELIVERY, false, &times, NOW + 60);
    assert_int_equal(cleared.suspect, 0);
    cleared = verdict_apply(cleared, VERDICT_UNKNOWN, SOURCE_PROBE, false, &times, NOW + 61);
    assert_int_equal(cleared.state, VERDICT_GOOD);

    r = verdict_apply(r, VERDICT_DISABLED, SOURCE_PROBE, false, &times, NOW + 60);
    assert_int_equal(r.state, VERDICT_DISABLED);
    assert_int_equal(r.suspect, 0);
    assert_int_equal(r.checked_s, NOW + 60);
}

/* A refusal that seems to come from the future does not keep a dead address alive until then. */
static void test_clock_went_back(void **state)
{
    (void)state;
    struct verdict_record r = suspect(HOUR, (uint32_t)-DAY);
    r = verdict_apply(r, VERDICT_UNKNOWN, SOURCE_PROBE, false, &times, NOW);
    assert_int_equal(r.state, VERDICT_GOOD);
    assert_int_equal(r.refused_s, NOW);
    r = verdict_apply(r, VERDICT_UNKNOWN, SOURCE_PROBE, false, &times, NOW + 60);
    assert_int_equal(r.state, VERDICT_UNKNOWN);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(verdict_name(VERDICT_DISABLED), "disabled");
    assert_string_equal(verdict_source_name(SOURCE_SENDER), "sender");
    assert_string_equal(verdict_pin_name(PIN_UNKNOWN), "unknown");
}

/* The same on every machine and after every restart: refusals out of the cache name an old log line by it. */
static void test_reference(void **state)
{
    char one[14], two[14];
    struct verdict_record r = {.state = VERDICT_UNKNOWN, .checked_s = 1795493666};
    verdict_reference(STR("bob@example.com"), &r, one);
    assert_string_equal(one, "275M4RKQA8X9Q");
    r.refused_s = 1; /* tells nothing of the moment */
    verdict_reference(STR("bob@example.com"), &r, two);
    assert_string_equal(one, two);
    r.checked_s++;
    verdict_reference(STR("bob@example.com"), &r, two);
    assert_string_not_equal(one, two);
    r.checked_s--;
    verdict_reference(STR("bob@example.con"), &r, two);
    assert_string_not_equal(one, two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_age),
        cmocka_unit_test(test_age_of_a_suspect),
        cmocka_unit_test(test_apply_all_combinations),
        cmocka_unit_test(test_a_good_address_falls_slowly),
        cmocka_unit_test(test_clock_went_back),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
