/* The stages in which a worker turns clients away: where they begin and end, and that they do not flap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/metrics.h"
#include "smtp/server/shed_priv.h"

/* In the order in which they are used, and left. */
struct row {
    uint64_t used;
    enum shed_stage stage;
};

static void walk(enum shed_cause cause, uint64_t limit, const struct row *rows, size_t count)
{
    struct shed s = {0};
    for (size_t i = 0; i < count; i++) {
        shed_look(&s, cause, rows[i].used, limit);
        if (shed_stage(&s, cause) != rows[i].stage)
            fail_msg("row %zu: %llu of %llu is stage %d", i, (unsigned long long)rows[i].used,
                     (unsigned long long)limit, (int)shed_stage(&s, cause));
    }
}

static void test_sessions(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {0, SHED_NONE},    {1499, SHED_NONE}, {1500, SHED_STRANGERS}, {1450, SHED_STRANGERS},
        {1600, SHED_ALL},  {1594, SHED_ALL},  {1593, SHED_STRANGERS}, {1500, SHED_STRANGERS},
        {1406, SHED_NONE}, {1499, SHED_NONE}, {9999, SHED_ALL},       {0, SHED_NONE},
    };
    static const struct row few[] = {
        {30, SHED_STRANGERS}, {32, SHED_ALL}, {31, SHED_STRANGERS}, {28, SHED_NONE}};
    walk(SHED_SESSIONS, 1600, rows, COUNT_OF(rows));
    walk(SHED_SESSIONS, 32, few, COUNT_OF(few)); /* the edge gets the next place that is free */
}

static void test_files(void **state)
{
    (void)state;
    static const struct row few[] = {{95, SHED_NONE}, {96, SHED_STRANGERS}, {112, SHED_ALL}, {0, SHED_NONE}};
    static const struct row many[] = {{65000, SHED_NONE},
                                      {65024, SHED_STRANGERS},
                                      {65280, SHED_ALL},
                                      {65536, SHED_ALL},
                                      {64000, SHED_NONE}};
    walk(SHED_FILES, 128, few, COUNT_OF(few));
    walk(SHED_FILES, 65536, many, COUNT_OF(many));
}

static void test_memory(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {799, SHED_NONE},      {800, SHED_STRANGERS}, {760, SHED_STRANGERS}, {900, SHED_UNKNOWN},
        {860, SHED_UNKNOWN},   {1000, SHED_ALL},      {960, SHED_ALL},       {940, SHED_UNKNOWN},
        {840, SHED_STRANGERS}, {740, SHED_NONE},      {2000, SHED_ALL},      {0, SHED_NONE},
    };
    walk(SHED_MEMORY, 1000, rows, COUNT_OF(rows));
}

static void test_no_limit_and_large_ones(void **state)
{
    (void)state;
    struct shed s = {0};
    shed_look(&s, SHED_MEMORY, UINT64_MAX, 0);
    assert_int_equal(shed_stage(&s, SHED_MEMORY), SHED_NONE);
    for (enum shed_cause cause = 0; cause < SHED_CAUSE_COUNT; cause++) {
        shed_look(&s, cause, UINT64_MAX, UINT64_MAX);
        assert_int_equal(shed_stage(&s, cause), SHED_ALL);
        shed_look(&s, cause, 0, UINT64_MAX);
        assert_int_equal(shed_stage(&s, cause), SHED_NONE);
    }
    shed_look(&s, SHED_MEMORY, 1, 0); /* a reload took the limit */
    assert_int_equal(shed_stage(&s, SHED_MEMORY), SHED_NONE);
    for (uint64_t limit = 1; limit < 40; limit++) { /* however small: nobody is shed of nothing used */
        shed_look(&s, SHED_SESSIONS, 0, limit);
        assert_int_equal(shed_stage(&s, SHED_SESSIONS), SHED_NONE);
        shed_look(&s, SHED_SESSIONS, limit, limit);
        assert_int_equal(shed_stage(&s, SHED_SESSIONS), SHED_ALL);
    }
}

/* One cause does not end what another began. */
static void test_causes_are_apart(void **state)
{
    (void)state;
    struct shed s = {0};
    shed_look(&s, SHED_MEMORY, 900, 1000);
    shed_look(&s, SHED_SESSIONS, 1600, 1600);
    shed_look(&s, SHED_FILES, 0, 1024);
    assert_int_equal(shed_stage(&s, SHED_MEMORY), SHED_UNKNOWN);
    assert_int_equal(shed_stage(&s, SHED_SESSIONS), SHED_ALL);
    assert_int_equal(shed_stage(&s, SHED_FILES), SHED_NONE);
}

/* The metric of a stage says 1 while it, or a later one, is on. */
static void test_metrics(void **state)
{
    (void)state;
    struct shed s = {0};
    shed_look(&s, SHED_MEMORY, 950, 1000);
    assert_int_equal(metric_read(M_overload_memory_strangers), 1);
    assert_int_equal(metric_read(M_overload_memory_unknown), 1);
    assert_int_equal(metric_read(M_overload_memory_all), 0);
    shed_look(&s, SHED_MEMORY, 0, 1000);
    assert_int_equal(metric_read(M_overload_memory_strangers), 0);
    assert_int_equal(metric_read(M_overload_memory_unknown), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sessions), cmocka_unit_test(test_files),
        cmocka_unit_test(test_memory),   cmocka_unit_test(test_no_limit_and_large_ones),
        cmocka_unit_test(test_metrics),  cmocka_unit_test(test_causes_are_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
