/* How many recipients one message to a server may have, by what it says of its LIMITS (RFC 9422). */
#include "../../core/unit.h"
#include "smtp/client/client.h"

static void test_recipients_that_fit(void **state)
{
    const struct envelope_rcpt rcpts[] = {{.address = STR("a@x.example")},
                                          {.address = STR("b@X.EXAMPLE")},
                                          {.address = STR("\"c@y.example\"@x.example")},
                                          {.address = STR("d@y.example")},
                                          {.address = STR("e@x.example")},
                                          {.address = STR("f@z.example")}};
    static const struct {
        uint32_t rcpts_max, domains_max, fit;
    } rows[] = {{0, 0, 6}, {4, 0, 4}, {100, 0, 6}, {0, 1, 3}, {0, 2, 5},
                {0, 3, 6}, {2, 1, 2}, {4, 1, 3},   {1, 9, 1}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const struct smtpc_features f = {.rcpts_max = rows[i].rcpts_max,
                                         .rcpt_domains_max = rows[i].domains_max};
        if (smtpc_rcpts_fitting(&f, rcpts, COUNT_OF(rcpts)) != rows[i].fit)
            fail_msg("row %zu", i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_recipients_that_fit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
