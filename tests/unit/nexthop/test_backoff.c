/* tests/unit/nexthop/test_backoff.c: waits double, spread, and never to nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "nexthop/backoff.h"

static const struct backoff five_minutes = {300, 4000};

static void backoff_doubles_to_its_maximum(void **state)
{
    static const struct {
        uint32_t n;
        uint64_t centre_ms;
    } cases[] = {{0, 300000},  {1, 300000},  {2, 600000},  {3, 1200000},
                 {4, 2400000}, {5, 4000000}, {6, 4000000}, {UINT32_MAX, 4000000}};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (uint64_t random = 0; random < 40; random++) {
            uint64_t ms = backoff_ms(cases[i].n, five_minutes, random * 0x9e3779b97f4a7c15u);
            assert_in_range(ms, cases[i].centre_ms * 8 / 10, cases[i].centre_ms * 12 / 10);
        }
    assert_in_range(backoff_ms(3, (struct backoff){0, 0}, 5), 800, 1200); /* never a busy loop */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backoff_doubles_to_its_maximum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
