/* So many reports in a minute to a domain, and no more, from however many threads. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "relay/budget.h"

#define MINUTE_MS UINT64_C(60000)

static void a_domain_has_its_own_minute(void **state)
{
    struct cells *b = cells_new(BUDGET_DOMAINS);
    for (uint64_t minute = 0; minute < 3; minute++) {
        uint64_t now_ms = MINUTE_MS * (1000000 + minute);
        assert_true(budget_take(b, STR("one.example"), 2, now_ms));
        assert_true(budget_take(b, STR("ONE.example"), 2, now_ms + 59999)); /* the same */
        assert_false(budget_take(b, STR("one.example"), 2, now_ms + 59999));
        assert_true(budget_take(b, STR("two.example"), 2, now_ms));
        assert_true(budget_take(b, STR("one.example"), 3, now_ms));
    }
    cells_free(b);
}

static void the_first_minute_after_boot(void **state)
{
    struct cells *b = cells_new(BUDGET_DOMAINS);
    assert_true(budget_take(b, STR("one.example"), 1, 5));
    assert_false(budget_take(b, STR("one.example"), 1, 6));
    cells_free(b);
}

/* Each worker looks at a clock of its own. */
static void a_clock_that_is_behind(void **state)
{
    struct cells *b = cells_new(BUDGET_DOMAINS);
    assert_true(budget_take(b, STR("one.example"), 2, 5 * MINUTE_MS));
    assert_true(budget_take(b, STR("one.example"), 2, 5 * MINUTE_MS - 1)); /* counts in the new minute */
    assert_false(budget_take(b, STR("one.example"), 2, 5 * MINUTE_MS));
    assert_true(budget_take(b, STR("one.example"), 2, 6 * MINUTE_MS));
    cells_free(b);
}

static void the_minutes_turn_round(void **state)
{
    struct cells *b = cells_new(BUDGET_DOMAINS);
    for (uint64_t minute = (1 << 20) - 2; minute < (1 << 20) + 2; minute++) {
        assert_true(budget_take(b, STR("one.example"), 1, minute * MINUTE_MS));
        assert_false(budget_take(b, STR("one.example"), 1, minute * MINUTE_MS));
    }
    cells_free(b);
}

static void no_rate_is_no_limit(void **state)
{
    struct cells *b = cells_new(BUDGET_DOMAINS);
    for (int i = 0; i < 1000; i++)
        assert_true(budget_take(b, STR("one.example"), 0, 0));
    cells_free(b);
}

/* Invented domains must not take memory without end. */
static void so_many_domains_in_a_minute(void **state)
{
    struct cells *b = cells_new(BUDGET_DOMAINS);
    unsigned taken = 0;
    for (int i = 0; i < 40000; i++) {
        char name[32];
        struct sbuf s = SBUF_ON(name);
        sbuf_printf(&s, "d%d.example", i);
        bool ok = budget_take(b, sbuf_view(&s), 5, MINUTE_MS);
        taken += ok;
        assert_true(ok || i > 8000);
    }
    /* A place each; once in a while two share a place, being of one tag by chance. */
    assert_in_range(taken, 8000, (1 << 14) + 16);
    assert_true(budget_take(b, STR("d1.example"), 5, MINUTE_MS)); /* known */
    assert_true(budget_take(b, STR("other.example"), 5, 2 * MINUTE_MS));
    cells_free(b);
}

struct taker {
    pthread_t thread;
    struct cells *b;
    unsigned taken[10];
};

static void *take(void *arg)
{
    struct taker *t = arg;
    for (unsigned i = 0; i < 2000; i++) {
        char name[32];
        struct sbuf s = SBUF_ON(name);
        sbuf_printf(&s, "d%u.example", i % 10);
        t->taken[i % 10] += budget_take(t->b, sbuf_view(&s), 500, 7 * MINUTE_MS);
    }
    return NULL;
}

/* 800 asked for, 500 given out: by all threads together. */
static void threads_share_it(void **state)
{
    struct cells *b = cells_new(BUDGET_DOMAINS);
    struct taker takers[4] = {0};
    for (int i = 0; i < 4; i++) {
        takers[i].b = b;
        assert_int_equal(pthread_create(&takers[i].thread, NULL, take, &takers[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(takers[i].thread, NULL);
    for (int d = 0; d < 10; d++) {
        unsigned sum = 0;
        for (int i = 0; i < 4; i++)
            sum += takers[i].taken[d];
        assert_int_equal(sum, 500);
    }
    cells_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_domain_has_its_own_minute),
        cmocka_unit_test(the_first_minute_after_boot),
        cmocka_unit_test(a_clock_that_is_behind),
        cmocka_unit_test(the_minutes_turn_round),
        cmocka_unit_test(no_rate_is_no_limit),
        cmocka_unit_test(so_many_domains_in_a_minute),
        cmocka_unit_test(threads_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
