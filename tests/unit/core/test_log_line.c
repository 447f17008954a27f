/* tests/unit/core/test_log_line.c: escaping, cutting, both formats. */
#include "core/log_priv.h"
#include "unit.h"

#define WALL_NS UINT64_C(1795493666123000000)
#define HEAD    "ts=2026-11-24T04:14:26.123Z level=info event=delivery"
#define JHEAD   "{\"ts\":\"2026-11-24T04:14:26.123Z\",\"level\":\"info\",\"event\":\"delivery\""

static str_t format(enum log_format f, const struct log_field *fields, size_t count)
{
    static char line[LOG_LINE_BYTES_MAX];
    return str_of(line, log_line(f, WALL_NS, LOG_INFO, "delivery", fields, count, line));
}

static void kinds(void **state)
{
    struct ip v4, v6;
    assert_int_equal(ip_parse(STR("192.0.2.1"), &v4), 0);
    assert_int_equal(ip_parse(STR("2001:db8::1"), &v6), 0);
    const struct log_field fields[] = {
        LF_QID("id", 33),         LF_STR("to", STR("a b")), LF_STR("absent", STR_NONE),
        LF_STR("empty", STR("")), LF_U64("u", UINT64_MAX),  LF_I64("i", INT64_MIN),
        LF_IP("v4", &v4),         LF_IP("v6", &v6),         LF_IP("no_ip", NULL),
        LF_ERR("err", ERR_FULL),  LF_CSTR("c", NULL),
    };
    assert_str(format(LOG_LOGFMT, fields, COUNT_OF(fields)),
               HEAD " id=0000000000011 to=\"a b\" empty=\"\" u=18446744073709551615 i=-9223372036854775808"
                    " v4=192.0.2.1 v6=2001:db8::1 err=\"no room left\"\n");
    assert_str(format(LOG_JSON, fields, COUNT_OF(fields)),
               JHEAD ",\"id\":\"0000000000011\",\"to\":\"a b\",\"empty\":\"\",\"u\":18446744073709551615"
                     ",\"i\":-9223372036854775808,\"v4\":\"192.0.2.1\",\"v6\":\"2001:db8::1\""
                     ",\"err\":\"no room left\"}\n");
    assert_str(format(LOG_LOGFMT, NULL, 0), HEAD "\n");
    assert_str(format(LOG_JSON, NULL, 0), JHEAD "}\n");
}

static void hostile_values(void **state)
{
    static const struct {
        str_t value;
        const char *logfmt, *json;
    } cases[] = {
        {STR("plain-<user@example.com>"), "plain-<user@example.com>", "\"plain-<user@example.com>\""},
        {STR("x\nts=1 level=error"), "\"x\\x0ats=1 level=error\"", "\"x\\u000ats=1 level=error\""},
        {STR("a\r\nb"), "\"a\\x0d\\x0ab\"", "\"a\\u000d\\u000ab\""},
        {STR("\" evil=1"), "\"\\\" evil=1\"", "\"\\\" evil=1\""},
        {STR("a\\"), "\"a\\\\\"", "\"a\\\\\""},
        {STR("k=v"), "\"k=v\"", "\"k=v\""},
        {STR("nul\0x"), "\"nul\\x00x\"", "\"nul\\u0000x\""},
        {STR("\x1b[31m"), "\"\\x1b[31m\"", "\"\\u001b[31m\""},
        {STR("\x7f"), "\"\\x7f\"", "\"\\u007f\""},
        {STR("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f", "\"gr\xc3\xbc\xc3\x9f\""},
        {STR("\xf0\x9f\x93\xa7"), "\xf0\x9f\x93\xa7", "\"\xf0\x9f\x93\xa7\""},
        {STR("\xff\xc3"), "\"\\xff\\xc3\"", "\"\\u00ff\\u00c3\""},
        {STR("\xed\xa0\x80"), "\"\\xed\\xa0\\x80\"", "\"\\u00ed\\u00a0\\u0080\""},
        {STR("\xc2\x85"), "\"\\xc2\\x85\"", "\"\\u0085\""},          /* NEL */
        {STR("\xe2\x80\xa8"), "\"\\xe2\\x80\\xa8\"", "\"\\u2028\""}, /* line separator */
        {STR("\xe2\x80\xae"), "\"\\xe2\\x80\\xae\"", "\"\\u202e\""}, /* right to left */
        {STR("\xef\xbb\xbf"), "\"\\xef\\xbb\\xbf\"", "\"\\ufeff\""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct log_field fields[] = {LF_STR("k", cases[i].value)};
        char expected[256];
        snprintf(expected, sizeof expected, HEAD " k=%s\n", cases[i].logfmt);
        assert_str(format(LOG_LOGFMT, fields, 1), expected);
        snprintf(expected, sizeof expected, JHEAD ",\"k\":%s}\n", cases[i].json);
        assert_str(format(LOG_JSON, fields, 1), expected);
    }
}

static void long_values_are_cut(void **state)
{
    char text[5000];
    memset(text, 'x', sizeof text);
    for (int f = LOG_LOGFMT; f <= LOG_JSON; f++) {
        const struct log_field fields[] = {LF_STR("k", str_of(text, sizeof text)), LF_U64("after", 1)};
        str_t line = format((enum log_format)f, fields, 2);
        str_t end = f == LOG_JSON ? STR("x\xe2\x80\xa6\",\"after\":1}\n") : STR("x\xe2\x80\xa6 after=1\n");
        assert_true(str_ends(line, end));
        assert_true(line.n < LOG_VALUE_BYTES_MAX + 150);
    }
    /* A value at the limit is not cut. */
    const struct log_field whole[] = {LF_STR("k", str_of(text, LOG_VALUE_BYTES_MAX - 3))};
    assert_true(str_ends(format(LOG_LOGFMT, whole, 1), STR("xxx\n")));
}

static void never_cut_inside_a_character_or_escape(void **state)
{
    char text[3000];
    for (size_t lead = 0; lead < 8; lead++) {
        memset(text, 'x', sizeof text);
        for (size_t i = lead; i + 3 <= sizeof text; i += 3)
            memcpy(text + i, "\xe2\x82\xac", 3);
        const struct log_field euros[] = {LF_STR("k", str_of(text, sizeof text))};
        str_t line = format(LOG_JSON, euros, 1);
        assert_true(str_is_utf8(line));
        assert_true(str_ends(line, STR("\xe2\x82\xac\xe2\x80\xa6\"}\n")));
        memset(text + lead, '\x01', sizeof text - lead);
        line = format(LOG_JSON, euros, 1);
        assert_true(str_ends(line, STR("\\u0001\xe2\x80\xa6\"}\n")));
    }
}

static void lines_are_capped(void **state)
{
    char text[LOG_VALUE_BYTES_MAX];
    memset(text, '"', sizeof text);
    struct log_field fields[200];
    for (size_t f = 0; f <= 1; f++) {
        for (size_t value_bytes = 0; value_bytes < 300; value_bytes++) {
            for (size_t i = 0; i < COUNT_OF(fields); i++)
                fields[i] = LF_STR("key", str_of(text, value_bytes));
            str_t line = format((enum log_format)f, fields, COUNT_OF(fields));
            assert_true(line.n <= LOG_LINE_BYTES_MAX);
            assert_int_equal(str_find(line, '\n'), line.n - 1);
            if (value_bytes >= 10)
                assert_true(str_ends(line, f == LOG_JSON ? STR(",\"\xe2\x80\xa6\":\"\xe2\x80\xa6\"}\n")
                                                         : STR(" \xe2\x80\xa6=\xe2\x80\xa6\n")));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds),
        cmocka_unit_test(hostile_values),
        cmocka_unit_test(long_values_are_cut),
        cmocka_unit_test(never_cut_inside_a_character_or_escape),
        cmocka_unit_test(lines_are_capped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
