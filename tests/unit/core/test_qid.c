/* tests/unit/core/test_qid.c: queue ids as text. */
#include "core/log.h"
#include "unit.h"

static void round_trip(void **state)
{
    static const struct {
        uint64_t id;
        const char *text;
    } cases[] = {
        {0, "0000000000000"},  {1, "0000000000001"},          {31, "000000000000Z"},
        {32, "0000000000010"}, {UINT64_MAX, "FZZZZZZZZZZZZ"}, {UINT64_C(1) << 63, "8000000000000"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[14];
        uint64_t id = 42;
        assert_int_equal(qid_format(cases[i].id, text), 13);
        assert_string_equal(text, cases[i].text);
        assert_int_equal(qid_parse(str_cstr(text), &id), 0);
        assert_true(id == cases[i].id);
    }
}

static void every_digit(void **state)
{
    for (uint64_t digit = 0; digit < 32; digit++) {
        char text[14];
        uint64_t id;
        qid_format(digit, text);
        assert_int_equal(qid_parse(str_cstr(text), &id), 0);
        assert_true(id == digit);
        if (text[12] >= 'A')
            text[12] = (char)(text[12] + 32);
        assert_int_equal(qid_parse(str_cstr(text), &id), 0); /* typed in lower case */
        assert_true(id == digit);
    }
}

static void misread_letters(void **state)
{
    uint64_t id;
    assert_int_equal(qid_parse(STR("000000000OIlo"), &id), 0);
    assert_true(id == (1 << 10 | 1 << 5));
}

static void refused(void **state)
{
    static const str_t bad[] = {STR(""),
                                STR("000000000000"),
                                STR("00000000000000"),
                                STR("G000000000000"), /* 65 bits */
                                STR("000000000000U"),
                                STR("00000 0000000"),
                                STR("000000000000\0"),
                                STR("000000000000\xff"),
                                STR("000000000000["),
                                STR("000000000000@")};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        uint64_t id = 42;
        assert_int_equal(qid_parse(bad[i], &id), ERR_SYNTAX);
        assert_true(id == 42);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(every_digit),
        cmocka_unit_test(misread_letters),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
