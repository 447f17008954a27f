/* The `postern` command's pure parts: they are a program's and not a library's, hence the includes. */
#include "capture.h"

#include "admin/cli/show.c"
#include "admin/cli/table.c"
#include "admin/cli/text.c"

static void assert_says(const char *text)
{
    if (!strstr(output, text))
        fail_msg("\"%s\" is not in:\n%s", text, output);
}

/* --- text --- */

static void test_age(void **state)
{
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {
        {0, "0s"},       {-5, "0s"},       {59.9, "59s"},    {60, "1m"},
        {3599, "59m"},   {3600, "1h00m"},  {11520, "3h12m"}, {86399, "23h59m"},
        {86400, "1d0h"}, {442800, "5d3h"}, {1e300, "0s"},    {NAN, "0s"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[32] = "";
        struct sbuf b = {text, 0, sizeof text - 1, false};
        text_age(&b, cases[i].seconds);
        assert_string_equal(text, cases[i].text);
    }
}

static void test_size(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},
        {1023, "1023 B"},
        {1024, "1 KiB"},
        {1536, "1.5 KiB"},
        {20480, "20 KiB"},
        {1048575, "1 MiB"},
        {268435456, "256 MiB"},
        {UINT64_C(3435973837), "3.2 GiB"},
        {UINT64_MAX, "16777216 TiB"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[32] = "";
        struct sbuf b = {text, 0, sizeof text - 1, false};
        text_size(&b, cases[i].bytes);
        if (i ==
            5) { /* 1023.999 KiB rounds up into the next unit or stays below it, but is never "1024 KiB" */
            assert_null(strstr(text, "1024"));
            continue;
        }
        assert_string_equal(text, cases[i].text);
    }
}

static void test_until(void **state)
{
    static const struct {
        const char *time, *text;
    } cases[] = {
        {"2026-11-24T04:18:26.000Z", "in 4m"},
        {"2026-11-24T04:14:26.000Z", "now"},
        {"2020-01-01T00:00:00Z", "now"},
        {"2026-11-25T04:14:26Z", "in 1d0h"},
        {"2026-11-24T04:18:26+01:00", "2026-11-24T04:18:26+01:00"},
        {"tomorrow, perhaps tomorrow", "tomorrow, perhaps tomorrow"},
        {"soon", "soon"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[64] = "";
        struct sbuf b = {text, 0, sizeof text - 1, false};
        text_until(&b, str_cstr(cases[i].time), NOW_NS);
        assert_string_equal(text, cases[i].text);
    }
}

static void test_safe(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        {"b\xc3\xbc"
         "cher",
         "b\xc3\xbc"
         "cher"},
        {"\x1b[2J\x1b]0;x\x07", "?[2J?]0;x?"},
        {"a\r\nb\tc\x7f", "a??b?c?"},
        {"\xc2\x9b"
         "2J",
         "?2J"}, /* CSI as C1 */
        {"\xe2\x80\xae"
         "gpj.exe",
         "?gpj.exe"}, /* right-to-left override */
        {"\xe2\x81\xa6x", "?x"},
        {"\xe2\x82\xac", "\xe2\x82\xac"}, /* the euro sign */
        {"\xc2", "\xc2"},                 /* cut */
        {"", ""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char out[64] = "";
        size_t n = text_safe(out, str_cstr(cases[i].in));
        assert_int_equal(n, strlen(cases[i].out));
        assert_memory_equal(out, cases[i].out, n);
    }
}

/* --- table --- */

static void test_table(void **state)
{
    struct table t = {0};
    table_column(&t, "NAME", false);
    table_column(&t, "COUNT", true);
    table_column(&t, "TEXT", false);
    table_cell(&t, STR("b\xc3\xbc"
                       "cherei"));
    table_cell(&t, STR("7"));
    table_cell(&t, STR("one"));
    table_cell(&t, STR("x"));
    table_cell(&t, STR("1234567"));
    table_cell(&t, STR_NONE);
    CAPTURE(f, assert_int_equal(table_write(&t, f), 0));
    assert_string_equal(output, "NAME        COUNT  TEXT\n"
                                "b\xc3\xbc"
                                "cherei        7  one\n"
                                "x         1234567  -\n");
    table_free(&t);
}

static void test_long_table(void **state)
{
    struct table t = {0};
    table_column(&t, "N", true);
    for (int i = 0; i < 1000; i++)
        table_cell(&t, STR("42"));
    CAPTURE(f, assert_int_equal(table_write(&t, f), 0));
    assert_int_equal(strlen(output), 3 * 1001);
    table_free(&t);
}

/* --- answers --- */

static void test_status(void **state)
{
    json_t *json = json_of(
        "{\"version\":\"0.1.0\",\"pid\":4711,\"hostname\":\"gw.example.com\",\"uptime_s\":90061.5,"
        "\"generation\":3,"
        "\"config_file\":\"/etc/postern/postern.yaml\",\"tls\":\"BoringSSL\",\"draining\":true,"
        "\"queue\":{\"messages\":12,\"recipients\":30,\"oldest_age_s\":3600.0},"
        "\"workers\":[{\"id\":0,\"sessions\":5,\"queue_messages\":12,\"ring\":{\"bytes\":268435456,"
        "\"used\":67108864,\"write_amplification\":1.44,\"direct_io\":true,\"full\":false,\"error\":null}},"
        "{\"id\":1,\"ring\":{\"bytes\":1048576,\"used\":1048576,\"direct_io\":false,\"full\":true}},"
        "{\"id\":2,\"ring\":{\"error\":\"Input/output error\"}}]}");
    CAPTURE(f, assert_int_equal(show_status(json, f), 0));
    assert_says("Postern 0.1.0 on gw.example.com, pid 4711, up 1d1h, shutting down\n");
    assert_says("/etc/postern/postern.yaml, generation 3\n");
    assert_says("12 messages, 30 recipients, oldest 1h00m\n");
    assert_says("256 MiB   25%    1.4  direct    good\n");
    assert_says("buffered  full, MAIL gets 452\n");
    assert_says("Input/output error\n");
    json_decref(json);
}

static void test_queue(void **state)
{
    json_t *json =
        json_of("[{\"id\":\"0123456789ABC\",\"age_s\":73.2,\"size\":20480,\"attempts\":2,\"recipients\":3,"
                "\"pending\":1,\"state\":\"deferred\",\"due\":\"2026-11-24T04:19:26.120Z\","
                "\"reason\":\"450 \\u001b[31mred\",\"destination\":\"example.com\"}]");
    CAPTURE(f, assert_int_equal(show_queue(json, false, false, NOW_NS, f), 0));
    assert_says("0123456789ABC");
    assert_says("1m  20 KiB    1/3      2  deferred  in 5m  -       -   example.com  450 ?[31mred\n");
    assert_null(strstr(output, "newest"));
    CAPTURE(f, assert_int_equal(show_queue(json, true, false, NOW_NS, f), 0));
    assert_says("These are the newest 1; --limit N shows more.\n");
    json_object_set_new(json_array_get(json, 0), "sender", json_string(""));
    CAPTURE(f, assert_int_equal(show_queue(json, false, false, NOW_NS, f), 0));
    assert_says("<>");
    json_decref(json);

    json = json_array();
    CAPTURE(f, assert_int_equal(show_queue(json, false, false, NOW_NS, f), 0));
    assert_string_equal(output, "The queue is empty.\n");
    json_decref(json);
}

static void test_destinations(void **state)
{
    json_t *json =
        json_of("[{\"key\":\"example.com\",\"worker\":0,\"connections\":2,\"window\":10,\"jobs\":4,"
                "\"aside\":7,\"down\":false,\"retry_at\":null,\"last_text\":null},"
                "{\"key\":\"10.0.0.5:25\",\"worker\":1,\"down\":true,"
                "\"retry_at\":\"2026-11-24T04:15:06Z\",\"last_text\":\"Connection refused\"}]");
    CAPTURE(f, assert_int_equal(show_destinations(json, NOW_NS, f), 0));
    assert_says("example.com       0            2      10     4      7  up     -       -\n");
    assert_says("10.0.0.5:25       1            -       -     -      -  down   in 40s  Connection refused\n");
    json_decref(json);
}

static void test_edges(void **state)
{
    json_t *json = json_of(
        "{\"format\":\"learned\",\"needed\":8,\"edges\":[{\"address\":\"192.0.2.10\",\"learned\":true,"
        "\"alike\":32,\"formats\":[\"postfix\"],\"hops\":0,\"doubted\":2},{\"address\":\"2001:db8::/64\","
        "\"learned\":false,\"alike\":3,\"formats\":[\"sendmail\",\"exim\"],\"hops\":1,\"doubted\":0}]}");
    CAPTURE(f, assert_int_equal(show_edges(json, f), 0));
    assert_says("192.0.2.10     learned       postfix              0        2\n");
    assert_says("2001:db8::/64  3 of 8 alike  sendmail or exim     1        0\n");
    json_decref(json);
    json = json_of("{\"format\":\"postfix\",\"edges\":[]}");
    CAPTURE(f, assert_int_equal(show_edges(json, f), 0));
    assert_says("postfix. What was learned does not count.\n");
    json_decref(json);
}

/* Whatever another version sends, nothing breaks. */
static void test_odd_answers(void **state)
{
    static const char *const texts[] = {
        "{}",
        "[]",
        "[[]]",
        "[null, 1, \"x\", {}]",
        "{\"workers\":7,\"queue\":[],\"version\":null,\"pid\":\"x\",\"generation\":1e300}",
        "{\"workers\":[null,{\"id\":-1,\"ring\":[]},{\"ring\":{\"bytes\":1e300,\"used\":-4}}]}",
        "[{\"id\":5,\"age_s\":\"x\",\"due\":3,\"recipients\":1e308,\"pending\":-1e308,\"sender\":[]}]",
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        json_t *json = json_of(texts[i]);
        CAPTURE(f, assert_int_equal(show_status(json, f), 0));
        CAPTURE(f, assert_int_equal(show_queue(json, false, false, NOW_NS, f), 0));
        CAPTURE(f, assert_int_equal(show_destinations(json, NOW_NS, f), 0));
        CAPTURE(f, assert_int_equal(show_edges(json, f), 0));
        CAPTURE(f, show_error(json, 500, f));
        assert_says("postern: posternd answered with HTTP status 500\n");
        json_decref(json);
    }
    CAPTURE(f, show_error(NULL, 502, f));
    assert_says("502");
}

static void test_error(void **state)
{
    json_t *json =
        json_of("{\"error\":\"refused\",\"problems\":[\"a.yaml:1:2: error: x\",7,\"a.yaml:3:4: error: y\"]}");
    CAPTURE(f, show_error(json, 422, f));
    assert_string_equal(output, "postern: refused\na.yaml:1:2: error: x\na.yaml:3:4: error: y\n");
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_age),          cmocka_unit_test(test_size),
        cmocka_unit_test(test_until),        cmocka_unit_test(test_safe),
        cmocka_unit_test(test_table),        cmocka_unit_test(test_long_table),
        cmocka_unit_test(test_status),       cmocka_unit_test(test_queue),
        cmocka_unit_test(test_destinations), cmocka_unit_test(test_edges),
        cmocka_unit_test(test_odd_answers),  cmocka_unit_test(test_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
