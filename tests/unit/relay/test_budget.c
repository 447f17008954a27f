/* So many reports in a minute to a domain, and no more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "relay/relay_priv.h"

static void a_domain_has_its_own_minute(void **state)
{
    struct budget b = {0};
    for (int minute = 0; minute < 3; minute++) {
        uint64_t now_ms = UINT64_C(60000) * (1000000 + (uint64_t)minute);
        assert_true(budget_take(&b, STR("one.example"), 2, now_ms));
        assert_true(budget_take(&b, STR("ONE.example"), 2, now_ms + 59999)); /* the same */
        assert_false(budget_take(&b, STR("one.example"), 2, now_ms + 59999));
        assert_true(budget_take(&b, STR("two.example"), 2, now_ms));
        assert_true(budget_take(&b, STR("one.example"), 3, now_ms));
    }
    budget_free(&b);
}

static void no_rate_is_no_limit(void **state)
{
    struct budget b = {0};
    for (int i = 0; i < 1000; i++)
        assert_true(budget_take(&b, STR("one.example"), 0, 0));
    budget_free(&b);
}

/* Invented domains must not take memory without end. */
static void so_many_domains_in_a_minute(void **state)
{
    struct budget b = {0};
    unsigned taken = 0;
    for (int i = 0; i < 20000; i++) {
        char name[32];
        struct sbuf s = SBUF_ON(name);
        sbuf_printf(&s, "d%d.example", i);
        taken += budget_take(&b, sbuf_view(&s), 5, 60000);
    }
    assert_int_equal(taken, 10000);
    assert_true(budget_take(&b, STR("d1.example"), 5, 60000)); /* known */
    assert_true(budget_take(&b, STR("other.example"), 5, 120000));
    budget_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_domain_has_its_own_minute),
        cmocka_unit_test(no_rate_is_no_limit),
        cmocka_unit_test(so_many_domains_in_a_minute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
