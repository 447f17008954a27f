/* The score of clients that ask for unknown recipients. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include "smtp/server/harvest.h"

#include <cmocka.h>

static struct cells *h;
static const struct config limits = {
    .harvest = {.tarpit_after = 2, .defer_after = 4, .disconnect_after = 6, .tarpit_ms = 1, .forget_s = 10}};

static int table_new(void **state)
{
    h = cells_new(HARVEST_CLIENTS);
    return h ? 0 : -1;
}

static int table_free(void **state)
{
    cells_free(h);
    return 0;
}

static void test_levels_rise_and_fall(void **state)
{
    static const enum harvest_level levels[] = {HARVEST_NONE,      HARVEST_NONE,  HARVEST_TARPIT,
                                                HARVEST_TARPIT,    HARVEST_DEFER, HARVEST_DEFER,
                                                HARVEST_DISCONNECT};
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        assert_int_equal(harvest_level(h, 7, &limits, 1000), levels[i]);
        assert_int_equal(harvest_level(h, 8, &limits, 1000), HARVEST_NONE);
        assert_int_equal(harvest_room(h, 7, &limits, 1000), i < 4 ? 4 - i : 0);
        harvest_count(h, 7, &limits, 1000);
    }
    assert_int_equal(harvest_level(h, 7, &limits, 1019), HARVEST_DISCONNECT); /* 7 - 1 */
    assert_int_equal(harvest_level(h, 7, &limits, 1020), HARVEST_DEFER);
    assert_int_equal(harvest_level(h, 7, &limits, 1050), HARVEST_TARPIT);
    assert_int_equal(harvest_level(h, 7, &limits, 1060), HARVEST_NONE);
    assert_int_equal(harvest_level(h, 7, &limits, 10), HARVEST_DISCONNECT); /* the clock went back */
}

static void test_steps_can_be_off(void **state)
{
    static const struct config off = {.harvest = {.forget_s = 10}};
    for (int i = 0; i < 1000; i++)
        harvest_count(h, 7, &off, 1000);
    assert_int_equal(harvest_level(h, 7, &off, 1000), HARVEST_NONE);
    assert_int_equal(harvest_room(h, 7, &off, 1000), UINT64_MAX);
    static const struct config end = {.harvest = {.forget_s = 10, .disconnect_after = 1001}};
    assert_int_equal(harvest_room(h, 7, &end, 1000), 1);
}

/* Memory is fixed: many clients push out the least of them, never a bad one. */
static void test_full_table_keeps_the_worst(void **state)
{
    for (int i = 0; i < 6; i++)
        harvest_count(h, UINT64_C(0xBAD), &limits, 1000);
    for (uint64_t key = 1 << 20; key < (1 << 20) + 100000; key++)
        harvest_count(h, key, &limits, 1000);
    assert_int_equal(harvest_level(h, UINT64_C(0xBAD), &limits, 1000), HARVEST_DISCONNECT);
}

/* The largest limit can be reached, and the score stays there. */
static void test_highest_score(void **state)
{
    static const struct config high = {.harvest = {.disconnect_after = 1000000, .forget_s = 10}};
    for (int i = 0; i < 999999; i++)
        harvest_count(h, 7, &high, 1000);
    assert_int_equal(harvest_level(h, 7, &high, 1000), HARVEST_NONE);
    for (int i = 0; i < 100000; i++)
        harvest_count(h, 7, &high, 1000);
    assert_int_equal(harvest_level(h, 7, &high, 1000), HARVEST_DISCONNECT);
    assert_int_equal(harvest_level(h, 8, &high, 1000), HARVEST_NONE);
}

#define THREADS   2
#define EACH      20000
#define NEWCOMERS 100

static void *count_some(void *arg)
{
    for (int i = 0; i < EACH; i++) {
        harvest_count(h, 7, &limits, 1000);
        if (i < NEWCOMERS) /* the first to come may be two at once */
            harvest_count(h, (uint64_t)i << 20, &limits, 1000);
    }
    return NULL;
}

/* Workers count together: none of it is lost. */
static void test_two_threads(void **state)
{
    static const struct config all = {.harvest = {.disconnect_after = THREADS * EACH, .forget_s = 10}};
    static const struct config one_more = {
        .harvest = {.disconnect_after = THREADS * EACH + 1, .forget_s = 10}};
    static const struct config both = {.harvest = {.disconnect_after = THREADS, .forget_s = 10}};
    static const struct config more = {.harvest = {.disconnect_after = THREADS + 1, .forget_s = 10}};
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_some, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(harvest_level(h, 7, &all, 1000), HARVEST_DISCONNECT);
    assert_int_equal(harvest_level(h, 7, &one_more, 1000), HARVEST_NONE);
    for (uint64_t i = 0; i < NEWCOMERS; i++) {
        assert_int_equal(harvest_level(h, i << 20, &both, 1000), HARVEST_DISCONNECT);
        assert_int_equal(harvest_level(h, i << 20, &more, 1000), HARVEST_NONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_levels_rise_and_fall, table_new, table_free),
        cmocka_unit_test_setup_teardown(test_steps_can_be_off, table_new, table_free),
        cmocka_unit_test_setup_teardown(test_full_table_keeps_the_worst, table_new, table_free),
        cmocka_unit_test_setup_teardown(test_highest_score, table_new, table_free),
        cmocka_unit_test_setup_teardown(test_two_threads, table_new, table_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
