/* What `postern verify` prints for people, from the API's answers: whatever is in them. */
#include "capture.h"

#include "admin/cli/show_verify.c"
#include "admin/cli/table.c"
#include "admin/cli/text.c"

static void test_verdict(void **state)
{
    static const struct {
        const char *json, *text;
    } cases[] = {
        {"{\"address\":\"bob@example.com\",\"key\":\"bob@example.com\",\"mode\":\"unverified\",\"enforce\":"
         "true,"
         "\"verdict\":\"good\",\"source\":\"probe\",\"age_s\":11520,\"suspect\":true,\"rules\":{\"fold_"
         "case\":true},"
         "\"fresh_until\":\"2026-11-24T05:14:26.000Z\",\"kept_until\":\"2026-12-24T05:14:26.000Z\","
         "\"backend\":{\"key\":\"10.0.0.5:25\",\"state\":\"up\",\"retry_at\":null,\"domain\":\"tells\"},"
         "\"rcpt\":{\"asks\":false,\"reply\":\"250 2.1.5\",\"source\":\"cache\"}}",
         "bob@example.com\n"
         "  rcpt      250 2.1.5, by cache\n"
         "  verdict   good, said by its server 3h12m ago; refused once since: a second refusal makes it "
         "unknown\n"
         "  fresh     in 1h00m (2026-11-24T05:14:26)\n"
         "  kept      in 30d1h (2026-12-24T05:14:26)\n"
         "  mode      unverified\n"
         "  server    10.0.0.5:25, up; canaries: tells\n"
         "  known as  bob@example.com\n"},
        {"{\"address\":\"bob+x@example.com\",\"key\":\"bob@example.com\",\"mode\":\"unverified\",\"enforce\":"
         "false,"
         "\"verdict\":\"none\",\"pin\":\"unknown\",\"listed\":false,"
         "\"rules\":{\"fold_case\":false,\"separator\":\"+\"},\"backend\":null,"
         "\"rcpt\":{\"asks\":false,\"reply\":\"250 2.1.5\",\"source\":\"pin\",\"would\":\"550 "
         "5.1.1\",\"ref\":\"0123\"}}",
         "bob+x@example.com\n"
         "  rcpt      250 2.1.5, by pin; would be 550 5.1.1 if verify.enforce were true; look for ref=0123 "
         "in the "
         "log\n"
         "  verdict   nothing is known\n"
         "  pin       always unknown\n"
         "  list      does not have it\n"
         "  mode      unverified, refuses nothing (enforce: false)\n"
         "  known as  bob@example.com, tags behind + do not count, upper and lower case are different\n"},
        {"{}",
         "\n  rcpt      , by \n  verdict   nothing is known\n  mode      , refuses nothing (enforce: false)\n"
         "  known as  -\n"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *json = json_of(cases[i].json);
        CAPTURE(f, show_verdict(json, NOW_NS, f));
        assert_string_equal(output, cases[i].text);
        json_decref(json);
    }
}

/* A server's words must not paint on the screen. */
static void test_probe(void **state)
{
    json_t *json =
        json_of("{\"dialogue\":[\"     2 ms S: 550 \\u001b[2J\\u202eno\",null],\"said\":\"unknown\","
                "\"why\":\"5.1.1\",\"before\":{\"verdict\":\"none\"},\"after\":{\"verdict\":\"unknown\","
                "\"source\":\"probe\",\"age_s\":0},\"reply\":\"550 5.1.1\",\"stored\":false}");
    CAPTURE(f, show_probe(json, f));
    assert_string_equal(output, "     2 ms S: 550 ?[2J?no\n\n\n"
                                "  server    unknown (5.1.1)\n"
                                "  before    nothing is known\n"
                                "  now       unknown, said by its server 0s ago; not stored\n"
                                "  rcpt      550 5.1.1\n");
    json_decref(json);
}

static void test_stats(void **state)
{
    json_t *json = json_of("{\"cache\":{\"entries\":3,\"capacity\":1000,\"good\":2,\"unknown\":1,\"pinned\":"
                           "0,\"bytes\":2048,\"hits\":9,"
                           "\"misses\":1,\"hit_rate\":0.9},\"store\":null,\"ages\":{\"10m\":3,\"1h\":0},"
                           "\"results\":{\"accepted\":10},"
                           "\"sources\":{\"cache\":9,\"probe\":1},\"waiting\":1,\"queued\":2,\"domains\":[{"
                           "\"domain\":\"example.com\","
                           "\"mode\":\"unverified\",\"good\":2,\"unknown\":1,\"pinned\":0,\"results\":{"
                           "\"accepted\":10,\"unknown\":1,"
                           "\"disabled\":1,\"refused\":1,\"later\":2,\"full\":1,\"shadow\":4}}]}");
    CAPTURE(f, assert_int_equal(show_verify_stats(json, f), 0));
    assert_string_equal(output,
                        "  cache     3 of at most 1000: 2 good, 1 unknown; 0 pinned; 2 KiB\n"
                        "  hits      90.0 % of 10 lookups\n"
                        "  store     none: a restart forgets everything\n"
                        "  age       10m 3\n"
                        "  decided   accepted 10\n"
                        "  by        cache 9, probe 1\n"
                        "  waiting   1 clients, for 2 questions in queues\n"
                        "\n"
                        "DOMAIN       MODE        GOOD  UNKNOWN  PINNED  ACCEPTED  REFUSED  LATER  SHADOW\n"
                        "example.com  unverified     2        1       0        10        3      3       4\n");
    json_decref(json);
}

static void test_backends(void **state)
{
    json_t *json = json_of(
        "[{\"key\":\"10.0.0.5:25\",\"worker\":1,\"state\":\"refuses-us\",\"trial\":true,\"state_for_s\":70,"
        "\"retry_at\":\"2026-11-24T04:15:26.000Z\",\"connections\":1,\"connections_max\":4,\"in_flight\":2,"
        "\"queued\":3,"
        "\"rate\":200,\"last_reply\":\"550 go "
        "away\",\"domains\":[{\"domain\":\"a.example\",\"state\":\"accepts-all\"},"
        "{\"domain\":\"b.example\",\"state\":\"data-stage\"},{\"domain\":\"c.example\",\"state\":\"tells\"}]}"
        "]");
    CAPTURE(f, assert_int_equal(show_backends(json, NOW_NS, f), 0));
    assert_string_equal(
        output,
        "SERVER       WORKER  STATE                 SINCE  RETRY  OPEN  OUT  QUEUED   RATE  LAST FAILURE\n"
        "10.0.0.5:25       1  refuses-us, on trial     1m  in 1m   1/4    2       3  200/s  550 go away\n"
        "a.example: its server takes every recipient, so nobody is verified there\n"
        "b.example: its server refuses unknown recipients only after the content, so it cannot be verified; "
        "use a list\n");
    json_decref(json);
    json = json_array();
    CAPTURE(f, assert_int_equal(show_backends(json, NOW_NS, f), 0));
    assert_string_equal(output, "No server has been asked yet.\n");
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdict),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_backends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
