/* tests/unit/core/test_arena.c: alignment, the cap, reuse. */
#include "core/arena.h"
#include "core/sanitize.h"
#include "unit.h"

static void allocates_aligned_and_apart(void **state)
{
    struct arena a;
    arena_init(&a, 1 << 20);
    char *before = NULL;
    for (size_t n = 0; n < 300; n++) {
        char *p = arena_alloc(&a, n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        memset(p, (int)n, n);
        if (before && n > 1)
            assert_int_equal(before[n - 2], (char)(n - 1));
        before = p;
    }
    unsigned char *zeroed = arena_zalloc(&a, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(zeroed[i], 0);
    arena_free(&a);
    assert_int_equal(a.bytes_used, 0);
    assert_non_null(arena_alloc(&a, 8));
    arena_free(&a);
}

static void cap_is_hard(void **state)
{
    struct arena a;
    arena_init(&a, 64);
    for (int i = 0; i < 4; i++)
        assert_non_null(arena_alloc(&a, 16));
    assert_false(a.overflow);
    assert_null(arena_alloc(&a, 1));
    assert_true(a.overflow);
    assert_int_equal(a.bytes_used, 64);
    arena_reset(&a);
    assert_false(a.overflow);
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 8));
    assert_null(arena_alloc(&a, 65));
    assert_true(a.overflow);
    assert_non_null(arena_alloc(&a, 64)); /* what fits is given, the flag stays */
    assert_true(a.overflow);
    assert_null(arena_zalloc(&a, 1));
    assert_null(arena_str(&a, STR("x")).p);
    assert_null(arena_printf(&a, "x").p);
    arena_free(&a);

    arena_init(&a, 7); /* less than one unit */
    assert_null(arena_alloc(&a, 1));
    arena_free(&a);
}

static void strings(void **state)
{
    struct arena a;
    arena_init(&a, 4096);
    str_t s = arena_str(&a, str_of("hello world", 5));
    assert_str(s, "hello");
    assert_int_equal(s.p[5], '\0');
    assert_null(arena_str(&a, STR_NONE).p);
    assert_non_null(arena_str(&a, STR("")).p);
    s = arena_printf(&a, "%d/%s", 7, "x");
    assert_str(s, "7/x");
    assert_int_equal(s.p[3], '\0');
    arena_free(&a);
}

static void large_objects_do_not_end_a_chunk(void **state)
{
    struct arena a;
    arena_init(&a, 1 << 20);
    char *first = arena_alloc(&a, 16);
    assert_non_null(arena_alloc(&a, 300000));
    char *second = arena_alloc(&a, 16);
    assert_ptr_equal(second, first + 16);
    arena_free(&a);
}

static void reset_keeps_one_chunk(void **state)
{
    struct arena a;
    arena_init(&a, 1 << 20);
    arena_alloc(&a, 900);
    char *last = arena_alloc(&a, 900); /* does not fit: a second chunk */
    arena_reset(&a);
    assert_int_equal(a.bytes_used, 0);
#ifdef SANITIZE_ADDRESS
    assert_true(MEMORY_POISONED(last)); /* a stale pointer is a report */
#endif
    char *again = arena_alloc(&a, 900);
    assert_ptr_equal(again, last);
    arena_reset(&a);

    arena_free(&a);
    arena_alloc(&a, 500000); /* too large to keep for ever */
    arena_reset(&a);
    assert_null(a.chunks);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocates_aligned_and_apart),
        cmocka_unit_test(cap_is_hard),
        cmocka_unit_test(strings),
        cmocka_unit_test(large_objects_do_not_end_a_chunk),
        cmocka_unit_test(reset_keeps_one_chunk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
