/* A table of numbers that all threads share: who has a place, who gives way, and that nothing is lost. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/cells.h"
#include "core/hash.h"

static uint64_t itself(uint64_t value, const void *ctx)
{
    (void)ctx;
    return value;
}

static uint64_t add(uint64_t value, const void *ctx)
{
    return value + *(const uint64_t *)ctx;
}

static uint64_t take(uint64_t value, const void *ctx)
{
    return value >= *(const uint64_t *)ctx ? value - *(const uint64_t *)ctx : CELL_LEAVE;
}

static uint64_t nothing(uint64_t value, const void *ctx)
{
    (void)value, (void)ctx;
    return 0;
}

static const struct cell_rules adding = {.worth = itself, .next = add},
                               taking = {.worth = itself, .next = take},
                               evicting = {.worth = itself, .next = add, .evicts = true},
                               forgetting = {.worth = nothing, .next = add};

static uint64_t value_of(const struct cells *c, uint64_t n)
{
    return cells_worth(c, hash_u64(n), &adding, NULL);
}

static enum cell_result change(struct cells *c, uint64_t n, const struct cell_rules *r, uint64_t by)
{
    return cells_change(c, hash_u64(n), r, &by);
}

static void test_a_number_each(void **state)
{
    (void)state;
    struct cells *c = cells_new(64);
    assert_int_equal(value_of(c, 1), 0);
    assert_int_equal(change(c, 1, &taking, 1), CELL_LEFT);
    assert_int_equal(change(c, 1, &adding, 5), CELL_CHANGED);
    assert_int_equal(change(c, 2, &adding, CELL_MAX), CELL_CHANGED);
    assert_int_equal(change(c, 1, &adding, 2), CELL_CHANGED);
    assert_int_equal(value_of(c, 1), 7);
    assert_int_equal(value_of(c, 2), CELL_MAX);
    assert_int_equal(change(c, 1, &taking, 8), CELL_LEFT);
    assert_int_equal(change(c, 1, &taking, 7), CELL_CHANGED);
    assert_int_equal(value_of(c, 1), 0);
    assert_int_equal(change(c, 2, &forgetting, 3), CELL_CHANGED); /* begins again */
    assert_int_equal(value_of(c, 2), 3);
    cells_free(c);
}

/* Half of the places are taken without anybody being turned away; more than all are not. */
static void test_full(void **state)
{
    (void)state;
    enum { PLACES = 4096 };
    struct cells *c = cells_new(PLACES);
    size_t placed = 0;
    for (uint64_t n = 0; n < PLACES / 2; n++)
        assert_int_equal(change(c, n, &adding, 1), CELL_CHANGED);
    for (uint64_t n = PLACES / 2; n < 16 * PLACES; n++)
        placed += change(c, n, &adding, 1) == CELL_CHANGED;
    assert_in_range(placed, 1, PLACES); /* all of it, and a few that are taken for others by chance */
    assert_int_equal(change(c, 7, &adding, 1), CELL_CHANGED);
    for (uint64_t n = 0; n < PLACES / 2; n++)
        assert_in_range(value_of(c, n), 1, UINT64_MAX);
    cells_free(c);
}

static void test_who_is_worth_least_gives_way(void **state)
{
    (void)state;
    struct cells *c = cells_new(64);
    change(c, UINT64_MAX, &evicting, 3);
    for (uint64_t n = 0; n < 10000; n++) {
        assert_int_equal(change(c, n, &evicting, 1), CELL_CHANGED);
        assert_true(value_of(c, n) >= 1);
    }
    assert_true(value_of(c, UINT64_MAX) >= 3);
    cells_free(c);
}

#define THREADS 4
#define ROUNDS  20000
#define KEYS    50 /* in 64 places: some are turned away */

struct worker {
    pthread_t thread;
    struct cells *c;
    uint64_t added[KEYS];
};

static void *add_and_take(void *arg)
{
    struct worker *w = arg;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint64_t n = i % KEYS;
        if (change(w->c, n, &adding, 2) == CELL_CHANGED && change(w->c, n, &taking, 1) == CELL_CHANGED)
            w->added[n]++;
    }
    return NULL;
}

/* What was added and not taken is there, whoever came first with a key. */
static void test_threads_lose_nothing(void **state)
{
    (void)state;
    struct worker workers[THREADS] = {0};
    struct cells *c = cells_new(64);
    for (size_t i = 0; i < THREADS; i++) {
        workers[i].c = c;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, add_and_take, &workers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    for (uint64_t n = 0; n < KEYS; n++) {
        uint64_t sum = 0;
        for (size_t i = 0; i < THREADS; i++)
            sum += workers[i].added[n];
        assert_int_equal(value_of(c, n), sum);
    }
    cells_free(c);
}

/* Keys that come and go all the time leave nothing behind. */
static void *come_and_go(void *arg)
{
    struct worker *w = arg;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint64_t n = i % (4 * KEYS);
        if (change(w->c, n, &adding, 1) == CELL_CHANGED)
            while (change(w->c, n, &taking, 1) != CELL_CHANGED)
                ;
    }
    return NULL;
}

static void test_threads_that_come_and_go(void **state)
{
    (void)state;
    struct worker workers[THREADS] = {0};
    struct cells *c = cells_new(64);
    for (size_t i = 0; i < THREADS; i++) {
        workers[i].c = c;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, come_and_go, &workers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    for (uint64_t n = 0; n < 4 * KEYS; n++)
        assert_int_equal(value_of(c, n), 0);
    cells_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_number_each),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_who_is_worth_least_gives_way),
        cmocka_unit_test(test_threads_lose_nothing),
        cmocka_unit_test(test_threads_that_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
