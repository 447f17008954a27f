/* Exactly one row of the decision tables matches every combination of inputs, and every row is needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "queue/recovery_priv.h"

static void test_super_rows(void **state)
{
    for (int a = 0; a < SLOT_END; a++)
        for (int b = 0; b < SLOT_END; b++)
            for (int same = 0; same < SAME_END; same++) {
                enum super_action action;
                assert_int_equal(recovery_super_match(a, b, same, &action), 1);
                /* Whatever is used is whole, and of our version. */
                assert_true(action != SUPER_USE_A || a == SLOT_OK);
                assert_true(action != SUPER_USE_B || b == SLOT_OK);
                assert_true(action != SUPER_USE_NEWEST || (a == SLOT_OK && b == SLOT_OK && same));
            }
}

static void test_batch_rows(void **state)
{
    unsigned seen[BATCH_END + 1] = {0};
    for (int header = 0; header < HEADER_END; header++)
        for (int records = 0; records < RECORDS_END; records++)
            for (int later = 0; later < LATER_END; later++)
                for (int clean = 0; clean < CLEAN_END; clean++) {
                    enum batch_action action;
                    assert_int_equal(recovery_batch_match(header, records, later, clean, &action), 1);
                    seen[action]++;
                    bool ends = action == BATCH_END || action == BATCH_TORN_END || action == BATCH_LOST_END;
                    assert_false(ends && later == LATER_YES);
                    /* Only what is whole and due is taken as a whole. */
                    assert_true((action == BATCH_APPLY) ==
                                (header == HEADER_NEXT && records == RECORDS_GOOD));
                    /* A closed ring is never called torn. */
                    assert_false((action == BATCH_TORN || action == BATCH_TORN_END) && clean != CLEAN_NO);
                }
    for (size_t i = 0; i < COUNT_OF(seen); i++)
        assert_true(seen[i] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_super_rows),
        cmocka_unit_test(test_batch_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
