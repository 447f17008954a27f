/* How fast a client may go on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "smtp/server/pace_priv.h"

#define START_NS (UINT64_C(1000) * NS_PER_S)

static struct pace *fresh(void)
{
    struct pace *p = calloc(1, sizeof *p);
    assert_non_null(p);
    return p;
}

static unsigned take_many(struct pace *p, uint64_t key, const struct cfg_rate *rate, uint64_t now_ns,
                          unsigned tries)
{
    unsigned taken = 0;
    for (unsigned i = 0; i < tries; i++)
        taken += pace_take(p, key, PACE_MESSAGES, rate, now_ns);
    return taken;
}

static void test_shares(void **state)
{
    (void)state;
    struct pace *p = fresh();
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
    free(p);
}

static void test_others_and_none(void **state)
{
    (void)state;
    struct pace *p = fresh();
    const struct cfg_rate one = {.count = 1, .period_s = 3600}, none = {0};
    assert_int_equal(take_many(p, 1, &one, START_NS, 9), 1);
    assert_int_equal(take_many(p, 2, &one, START_NS, 9), 1);
    assert_true(pace_take(p, 1, PACE_CONNECTIONS, &one, START_NS)); /* kinds are apart */
    assert_false(pace_take(p, 1, PACE_CONNECTIONS, &one, START_NS));
    assert_int_equal(take_many(p, 1, &none, START_NS, 9), 9);
    free(p);
}

/* More clients than places: each is still served, and nobody who comes back is blocked for another's sake. */
static void test_crowd(void **state)
{
    (void)state;
    struct pace *p = fresh();
    const struct cfg_rate rate = {.count = 5, .period_s = 60};
    for (uint64_t key = 1; key <= 4 * PACE_SETS * PACE_WAYS; key++)
        assert_true(pace_take(p, key * UINT64_C(0x10000000000), PACE_MESSAGES, &rate, START_NS));
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_others_and_none),
        cmocka_unit_test(test_crowd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
