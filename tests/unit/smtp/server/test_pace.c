/* How fast a client may go on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "smtp/server/pace_priv.h"

#define START_NS (UINT64_C(1000) * NS_PER_S)

static struct cells *fresh(void)
{
    struct cells *p = cells_new(PACE_CLIENTS);
    assert_non_null(p);
    return p;
}

static unsigned take_many(struct cells *p, uint64_t key, const struct cfg_rate *rate, uint64_t now_ns,
                          unsigned tries)
{
    unsigned taken = 0;
    for (unsigned i = 0; i < tries; i++)
        taken += pace_take(p, key, rate, now_ns);
    return taken;
}

static void test_shares(void **state)
{
    (void)state;
    struct cells *p = fresh();
    const struct cfg_rate rate = {.count = 10, .period_s = 60};
    const struct {
        uint64_t after_s;
        unsigned tries, wanted;
    } rows[] = {
        {0, 25, 10},                             /* a whole share at once */
        {5, 3, 0},                               /* one each six seconds */
        {6, 3, 1},   {18, 5, 2}, {3600, 25, 10}, /* whole again, and no more than that */
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        assert_int_equal(take_many(p, 7, &rate, START_NS + rows[i].after_s * NS_PER_S, rows[i].tries),
                         rows[i].wanted);
    cells_free(p);
}

static void test_others_and_none(void **state)
{
    (void)state;
    struct cells *p = fresh();
    const struct cfg_rate one = {.count = 1, .period_s = 3600}, none = {0};
    assert_int_equal(take_many(p, 1, &one, START_NS, 9), 1);
    assert_int_equal(take_many(p, 2, &one, START_NS, 9), 1);
    assert_int_equal(take_many(p, 1, &none, START_NS, 9), 9);
    cells_free(p);
}

/* A worker that read its clock a moment before another one took the share finds it taken. */
static void test_clocks_cross(void **state)
{
    (void)state;
    struct cells *p = fresh();
    const struct cfg_rate one = {.count = 1, .period_s = 60};
    assert_true(pace_take(p, 1, &one, START_NS));
    assert_false(pace_take(p, 1, &one, START_NS - 5000));
    cells_free(p);
}

/* Rates of all sizes are what they say, also after two years. */
static void test_large_and_small(void **state)
{
    (void)state;
    static const struct cfg_rate rates[] = {{.count = CFG_RATE_COUNT_MAX, .period_s = 1},
                                            {.count = 7, .period_s = 1},
                                            {.count = 1, .period_s = 86400},
                                            {.count = CFG_RATE_COUNT_MAX, .period_s = 86400}};
    for (size_t i = 0; i < COUNT_OF(rates); i++) {
        const uint64_t period_ns = rates[i].period_s * NS_PER_S, turn_ns = (CELL_MAX + 1) * 1000 + 7000;
        struct cells *p = fresh();
        for (uint64_t at_ns = turn_ns - period_ns; at_ns <= turn_ns + period_ns; at_ns += period_ns)
            assert_in_range(take_many(p, 7, &rates[i], at_ns, rates[i].count + 5),
                            rates[i].count - rates[i].count / 1000, rates[i].count);
        cells_free(p);
    }
}

/* A reload that makes the period shorter forgives. */
static void test_another_rate(void **state)
{
    (void)state;
    struct cells *p = fresh();
    const struct cfg_rate day = {.count = 1, .period_s = 86400}, minute = {.count = 1, .period_s = 60};
    assert_int_equal(take_many(p, 7, &day, START_NS, 3), 1);
    assert_int_equal(take_many(p, 7, &minute, START_NS, 3), 1);
    cells_free(p);
}

/* More clients than places: each is still served, and nobody who comes back is blocked for another's sake. */
static void test_crowd(void **state)
{
    (void)state;
    struct cells *p = fresh();
    const struct cfg_rate rate = {.count = 5, .period_s = 60};
    for (uint64_t key = 1; key <= 4 * PACE_CLIENTS; key++)
        assert_true(pace_take(p, key * UINT64_C(0x10000000000), &rate, START_NS));
    cells_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),       cmocka_unit_test(test_others_and_none),
        cmocka_unit_test(test_clocks_cross), cmocka_unit_test(test_large_and_small),
        cmocka_unit_test(test_another_rate), cmocka_unit_test(test_crowd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
