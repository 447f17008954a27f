/* Filters: parameters in, verdicts out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "admin/filter.h"

static char error_text[256];

static err_t set(struct filter *f, const char *key, const char *value)
{
    struct sbuf error = {error_text, 0, sizeof error_text - 1, false};
    memset(error_text, 0, sizeof error_text);
    return filter_set(f, str_cstr(key), str_cstr(value), &error);
}

static void test_glob(void **state)
{
    static const struct {
        const char *pattern, *text;
        bool matches;
    } cases[] = {
        {"", "", true},
        {"", "a", false},
        {"*", "", true},
        {"*", "anything@at.all", true},
        {"bob@example.com", "BOB@Example.COM", true},
        {"bob@example.com", "bob@example.com.evil", false},
        {"*@example.com", "bob@example.com", true},
        {"*@example.com", "bob@sub.example.com", false},
        {"bob@*", "bob@x", true},
        {"b*b@*.com", "bob@example.com", true},
        {"b*b@*.com", "bobby@example.com", false},
        {"*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
        {"a?c", "abc", false}, /* only '*' is special: '?' may stand in an address */
        {"a?c", "a?c", true},
        {"a**c", "abbc", true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        if (filter_glob(str_cstr(cases[i].pattern), str_cstr(cases[i].text)) != cases[i].matches)
            fail_msg("%s on %s", cases[i].pattern, cases[i].text);
}

static void test_parameters(void **state)
{
    static const struct {
        const char *key, *value;
        err_t err;
        const char *error;
    } cases[] = {
        {"sender", "a@b", 0, ""},
        {"older", "45", 0, ""},
        {"older", "45s", 0, ""},
        {"younger", "10m", 0, ""},
        {"older", "3h", 0, ""},
        {"older", "2d", 0, ""},
        {"older", "", ERR_SYNTAX, "45s"},
        {"older", "0", ERR_SYNTAX, "45s"},
        {"older", "d", ERR_SYNTAX, "45s"},
        {"older", "-3h", ERR_SYNTAX, "45s"},
        {"older", "3w", ERR_SYNTAX, "3h"},
        {"older", "99999999999d", ERR_SYNTAX, "3h"},
        {"state", "held", 0, ""},
        {"state", "HELD,deferred", 0, ""},
        {"state", "", ERR_SYNTAX, "held"},
        {"state", "held,,", ERR_SYNTAX, "held"},
        {"id", "0123456789ABC", 0, ""},
        {"id", "0123456789AB", ERR_SYNTAX, "13"},
        {"size", "5", ERR_NOT_FOUND, ""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct filter f = {0};
        err_t err = set(&f, cases[i].key, cases[i].value);
        if (err != cases[i].err || !strstr(error_text, cases[i].error))
            fail_msg("%s=%s: %s: %s", cases[i].key, cases[i].value, err_text(err), error_text);
        filter_free(&f);
    }
}

static void test_what_matches(void **state)
{
    struct filter f = {0};
    assert_true(filter_is_empty(&f));
    assert_false(filter_wants_envelope(&f));
    assert_true(filter_takes_sender(&f, STR("")));
    assert_true(filter_takes_destination(&f, STR_NONE));
    assert_true(filter_takes_age(&f, 0));
    assert_true(filter_takes_state(&f, STR("active")));
    assert_int_equal(set(&f, "sender", "<>"), 0);
    assert_int_equal(set(&f, "sender", "*@spam.example"), 0); /* the last one counts */
    assert_int_equal(set(&f, "recipient", "bob@*"), 0);
    assert_int_equal(set(&f, "domain", "example.*"), 0);
    assert_int_equal(set(&f, "destination", "10.0.0.5:25"), 0);
    assert_int_equal(set(&f, "older", "1m"), 0);
    assert_int_equal(set(&f, "younger", "1h"), 0);
    assert_int_equal(set(&f, "state", "held,deferred"), 0);
    assert_true(filter_wants_envelope(&f));
    assert_true(filter_takes_sender(&f, STR("x@SPAM.example")));
    assert_false(filter_takes_sender(&f, STR("")));
    assert_true(filter_takes_recipient(&f, STR("bob@example.com")));
    assert_false(filter_takes_recipient(&f, STR("bob@elsewhere.example")));
    assert_false(filter_takes_recipient(&f, STR("eve@example.com")));
    assert_false(filter_takes_recipient(&f, STR("bob")));
    assert_true(filter_takes_destination(&f, STR("10.0.0.5:25")));
    assert_false(filter_takes_destination(&f, STR_NONE));
    assert_false(filter_takes_age(&f, 59));
    assert_true(filter_takes_age(&f, 60));
    assert_false(filter_takes_age(&f, 3600));
    assert_true(filter_takes_state(&f, STR("held")));
    assert_false(filter_takes_state(&f, STR("active")));
    filter_free(&f);
    assert_int_equal(set(&f, "sender", "<>"), 0);
    assert_true(filter_takes_sender(&f, STR("")));
    assert_false(filter_takes_sender(&f, STR("a@b")));
    filter_free(&f);
}

static void test_ids_are_sorted_and_single(void **state)
{
    struct filter f = {0};
    struct sbuf error = {error_text, 0, sizeof error_text - 1, false};
    assert_int_equal(
        filter_set_ids(&f, STR("0000000000003\n\n0000000000001\r\n0000000000003\n0000000000002"), &error), 0);
    filter_finish(&f);
    assert_int_equal(f.id_count, 3);
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(f.ids[i], i + 1);
    assert_false(filter_is_empty(&f));
    filter_free(&f);
    assert_int_equal(filter_set_ids(&f, STR("0000000000003\nnonsense\n"), &error), ERR_SYNTAX);
    filter_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_glob),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_what_matches),
        cmocka_unit_test(test_ids_are_sorted_and_single),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
