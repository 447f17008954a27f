/* The score of clients that ask for unknown recipients. */
#include <setjmp.h>
#include <stdarg.h>

#include "smtp/server/harvest_priv.h"

#include <cmocka.h>

static struct harvest h;
static const struct config limits = {
    .harvest = {.tarpit_after = 2, .defer_after = 4, .disconnect_after = 6, .tarpit_ms = 1, .forget_s = 10}};

static void test_levels_rise_and_fall(void **state)
{
    static const enum harvest_level levels[] = {HARVEST_NONE,      HARVEST_NONE,  HARVEST_TARPIT,
                                                HARVEST_TARPIT,    HARVEST_DEFER, HARVEST_DEFER,
                                                HARVEST_DISCONNECT};
    h = (struct harvest){0};
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        assert_int_equal(harvest_level(&h, 7, &limits, 1000), levels[i]);
        assert_int_equal(harvest_level(&h, 8, &limits, 1000), HARVEST_NONE);
        harvest_count(&h, 7, &limits, 1000);
    }
    assert_int_equal(harvest_level(&h, 7, &limits, 1019), HARVEST_DISCONNECT); /* 7 - 1 */
    assert_int_equal(harvest_level(&h, 7, &limits, 1020), HARVEST_DEFER);
    assert_int_equal(harvest_level(&h, 7, &limits, 1050), HARVEST_TARPIT);
    assert_int_equal(harvest_level(&h, 7, &limits, 1060), HARVEST_NONE);
    assert_int_equal(harvest_level(&h, 7, &limits, 10), HARVEST_DISCONNECT); /* the clock went back */
}

static void test_steps_can_be_off(void **state)
{
    static const struct config off = {.harvest = {.forget_s = 10}};
    h = (struct harvest){0};
    for (int i = 0; i < 1000; i++)
        harvest_count(&h, 7, &off, 1000);
    assert_int_equal(harvest_level(&h, 7, &off, 1000), HARVEST_NONE);
}

/* Memory is fixed: many clients push out the least of them, never a bad one. */
static void test_full_table_keeps_the_worst(void **state)
{
    h = (struct harvest){0};
    for (int i = 0; i < 6; i++)
        harvest_count(&h, UINT64_C(0xBAD), &limits, 1000);
    for (uint64_t key = 1 << 20; key < (1 << 20) + 100000; key++)
        harvest_count(&h, key, &limits, 1000);
    assert_int_equal(harvest_level(&h, UINT64_C(0xBAD), &limits, 1000), HARVEST_DISCONNECT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels_rise_and_fall),
        cmocka_unit_test(test_steps_can_be_off),
        cmocka_unit_test(test_full_table_keeps_the_worst),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
