/* tests/unit/core/test_pool.c: zeroed objects, the limit, reuse. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/pool.h"
#include "core/sanitize.h"
#include "unit.h"

static void objects_are_zeroed_and_reused(void **state)
{
    struct pool p;
    pool_init(&p, "test", 40, 0);
    unsigned char *a = pool_get(&p);
    assert_int_equal((uintptr_t)a % 16, 0);
    memset(a, 0xff, 40);
    assert_int_equal(p.used_count, 1);
    pool_put(&p, a);
    assert_int_equal(p.used_count, 0);
#ifdef SANITIZE_ADDRESS
    assert_true(MEMORY_POISONED(a));
#endif
    unsigned char *b = pool_get(&p);
    assert_ptr_equal(a, b);
    for (int i = 0; i < 40; i++)
        assert_int_equal(b[i], 0);
    pool_put(&p, b);
    pool_put(&p, NULL);
    pool_free(&p);
    assert_int_equal(p.total_count, 0);
}

static void limit(void **state)
{
    struct pool p;
    void *objects[100];
    pool_init(&p, "test", 1, 100); /* smaller than the free list's link */
    for (int i = 0; i < 100; i++) {
        objects[i] = pool_get(&p);
        assert_non_null(objects[i]);
        memset(objects[i], i, 1);
    }
    assert_null(pool_get(&p));
    assert_int_equal(p.total_count, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(*(char *)objects[i], i); /* no overlap */
    pool_put(&p, objects[50]);
    assert_ptr_equal(pool_get(&p), objects[50]);
    for (int i = 0; i < 100; i++)
        pool_put(&p, objects[i]);
    pool_free(&p);
}

static void large_objects(void **state)
{
    struct pool p;
    void *objects[3];
    pool_init(&p, "test", 1 << 20, 3);
    for (int i = 0; i < 3; i++)
        objects[i] = pool_get(&p);
    assert_non_null(objects[2]);
    assert_int_equal(p.total_count, 3); /* one by one: nothing in vain */
    assert_null(pool_get(&p));
    for (int i = 0; i < 3; i++)
        pool_put(&p, objects[i]);
    pool_free(&p);
}

static void leak_is_found(void **state)
{
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        struct pool p;
        pool_init(&p, "test", 8, 0);
        if (!pool_get(&p))
            _exit(1);
        pool_free(&p);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_zeroed_and_reused),
        cmocka_unit_test(limit),
        cmocka_unit_test(large_objects),
        cmocka_unit_test(leak_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
