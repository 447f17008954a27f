/* tests/unit/verify/test_bucket.c: a rate holds over any stretch of time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "verify/bucket.h"

static void holds_its_rate_from_the_first_moment(void **state)
{
    static const uint32_t rates[] = {1, 7, 200, 5000};
    for (size_t i = 0; i < COUNT_OF(rates); i++) {
        struct bucket b = {0};
        uint64_t taken = 0, now = 123456;
        for (uint64_t ms = 0; ms < 10000; ms += 8)
            taken += bucket_take(&b, rates[i], 100, now + ms);
        uint64_t most = (uint64_t)rates[i] * 10 + MAX(rates[i] / 10, 1);
        assert_in_range(taken, (uint64_t)rates[i] * 10 - 1, most);
    }
}

static void says_when_the_next_may_go(void **state)
{
    struct bucket b = {0};
    assert_int_equal(bucket_wait_ms(&b, 10, 50), 0);
    assert_int_equal(bucket_take(&b, 10, 5, 50), 1);
    assert_int_equal(bucket_wait_ms(&b, 10, 50), 100);
    assert_int_equal(bucket_take(&b, 10, 5, 149), 0);
    assert_int_equal(bucket_wait_ms(&b, 10, 149), 1);
    assert_int_equal(bucket_take(&b, 10, 5, 150), 1);
    bucket_return(&b, 1);
    assert_int_equal(bucket_take(&b, 10, 5, 150), 1);
    assert_int_equal(bucket_take(&b, 10, 5, UINT64_MAX / 2),
                     1); /* a long sleep earns no more than the depth */
    assert_int_equal(bucket_take(&b, 0, 5, 0), 5);
    assert_int_equal(bucket_wait_ms(&b, 0, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_its_rate_from_the_first_moment),
        cmocka_unit_test(says_when_the_next_may_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
