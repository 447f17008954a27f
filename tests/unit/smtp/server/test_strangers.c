/* Sessions of one client, counted for all workers. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base.h"
#include "smtp/server/strangers.h"

static void test_one_more_and_one_less(void **state)
{
    (void)state;
    struct strangers *s = strangers_new(100);
    assert_non_null(s);
    for (int i = 0; i < 3; i++)
        assert_int_equal(strangers_enter(s, 7, 3), STRANGER_COUNTED);
    assert_int_equal(strangers_enter(s, 7, 3), STRANGER_TOO_MANY);
    assert_int_equal(strangers_enter(s, 8, 3), STRANGER_COUNTED);
    assert_int_equal(strangers_sessions(s, 7), 3);
    strangers_leave(s, 7);
    assert_int_equal(strangers_enter(s, 7, 3), STRANGER_COUNTED);
    assert_int_equal(strangers_enter(s, 7, 0), STRANGER_COUNTED); /* no limit; a reload may bring one */
    assert_int_equal(strangers_enter(s, 7, 4), STRANGER_TOO_MANY);
    strangers_free(s);
}

#define THREADS  4
#define MAX_EACH 3

static atomic_int open_now, most;
static struct strangers *shared;

static void *worker(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20000; i++) {
        if (strangers_enter(shared, 7, MAX_EACH) != STRANGER_COUNTED)
            continue;
        int now = atomic_fetch_add(&open_now, 1) + 1, before = atomic_load(&most);
        while (now > before && !atomic_compare_exchange_weak(&most, &before, now))
            ;
        atomic_fetch_sub(&open_now, 1);
        strangers_leave(shared, 7);
    }
    return NULL;
}

/* However they meet, never more than that are in, and none is left. */
static void test_threads_together_keep_the_limit(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    shared = strangers_new(100);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, worker, NULL), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_in_range(atomic_load(&most), 1, MAX_EACH);
    assert_int_equal(strangers_sessions(shared, 7), 0);
    strangers_free(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_more_and_one_less),
        cmocka_unit_test(test_threads_together_keep_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
