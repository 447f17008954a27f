/* tests/unit/core/test_clock.c: dates. */
#include <time.h>

#include "core/clock.h"
#include "unit.h"

static const struct {
    uint64_t seconds;
    const char *rfc5322, *rfc3339;
} cases[] = {
    {0, "Thu, 1 Jan 1970 00:00:00 +0000", "1970-01-01T00:00:00.000Z"},
    {68169599, "Mon, 28 Feb 1972 23:59:59 +0000", "1972-02-28T23:59:59.000Z"},
    {68169600, "Tue, 29 Feb 1972 00:00:00 +0000", "1972-02-29T00:00:00.000Z"},
    {951782400, "Tue, 29 Feb 2000 00:00:00 +0000", "2000-02-29T00:00:00.000Z"}, /* divisible by 400: leap */
    {951868800, "Wed, 1 Mar 2000 00:00:00 +0000", "2000-03-01T00:00:00.000Z"},
    {1709251199, "Thu, 29 Feb 2024 23:59:59 +0000", "2024-02-29T23:59:59.000Z"},
    {1735689599, "Tue, 31 Dec 2024 23:59:59 +0000", "2024-12-31T23:59:59.000Z"},
    {1795493666, "Tue, 24 Nov 2026 04:14:26 +0000", "2026-11-24T04:14:26.000Z"},
    {4107542399, "Sun, 28 Feb 2100 23:59:59 +0000",
     "2100-02-28T23:59:59.000Z"}, /* divisible by 100: not leap */
    {4107542400, "Mon, 1 Mar 2100 00:00:00 +0000", "2100-03-01T00:00:00.000Z"},
};

static void dates(void **state)
{
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[40];
        size_t n = clock_rfc5322(cases[i].seconds * NS_PER_S, text);
        assert_string_equal(text, cases[i].rfc5322);
        assert_int_equal(n, strlen(text));
        n = clock_rfc3339(cases[i].seconds * NS_PER_S, text);
        assert_string_equal(text, cases[i].rfc3339);
        assert_int_equal(n, strlen(text));
    }
}

static void fractions_are_cut(void **state)
{
    char text[40];
    clock_rfc3339(UINT64_C(1795493666123999999), text);
    assert_string_equal(text, "2026-11-24T04:14:26.123Z");
    clock_rfc5322(UINT64_C(1795493666999999999), text);
    assert_string_equal(text, "Tue, 24 Nov 2026 04:14:26 +0000");
}

static void last_moment(void **state)
{
    char text[40];
    assert_true(clock_rfc3339(UINT64_MAX, text) < 32);
    assert_string_equal(text, "2554-07-21T23:34:33.709Z");
    assert_true(clock_rfc5322(UINT64_MAX, text) < 40);
}

/* Every day of 200 years as the C library sees it. */
static void same_as_gmtime(void **state)
{
    for (uint64_t day = 0; day < 200 * 366; day++) {
        time_t t = (time_t)(day * 86400 + day % 86400);
        struct tm tm;
        char ours[40], theirs[40];
        gmtime_r(&t, &tm);
        strftime(theirs, sizeof theirs, "%a, %e %b %Y %H:%M:%S +0000", &tm);
        if (theirs[5] == ' ')
            memmove(theirs + 5, theirs + 6, strlen(theirs + 6) + 1);
        clock_rfc5322((uint64_t)t * NS_PER_S, ours);
        assert_string_equal(ours, theirs);
    }
}

static void clocks_run(void **state)
{
    uint64_t before = clock_mono_ns();
    assert_true(clock_mono_ns() >= before);
    assert_true(clock_wall_ns() > UINT64_C(1700000000) * NS_PER_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dates),          cmocka_unit_test(fractions_are_cut), cmocka_unit_test(last_moment),
        cmocka_unit_test(same_as_gmtime), cmocka_unit_test(clocks_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
