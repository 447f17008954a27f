/* tests/unit/core/test_rng.c: bounds, and that the numbers differ at all. */
#include "core/rng.h"
#include "unit.h"

static void bytes_are_filled(void **state)
{
    unsigned char a[600] = {0}, b[600] = {0};
    rng_bytes(a, 0);
    assert_int_equal(a[0], 0);
    rng_bytes(a, sizeof a); /* more than getrandom() promises in one piece */
    rng_bytes(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a + 500, b + 500, 100);
    assert_true(rng_u64() != rng_u64());
}

static void below(void **state)
{
    unsigned seen[7] = {0};
    for (int i = 0; i < 7000; i++) {
        uint64_t v = rng_below(7);
        assert_true(v < 7);
        seen[v]++;
    }
    for (int i = 0; i < 7; i++)
        assert_true(seen[i] > 0); /* fails once in 10^468 runs */
    for (int i = 0; i < 100; i++) {
        assert_int_equal(rng_below(1), 0);
        assert_true(rng_below(UINT64_C(1) << 63) < UINT64_C(1) << 63);
        assert_true(rng_below(UINT64_MAX) < UINT64_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_filled),
        cmocka_unit_test(below),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
