/* From the queue to scripted servers and back. */
#include "world.h"

static uint32_t count_of(const struct gbuf *text, const char *what)
{
    uint32_t n = 0;
    size_t len = strlen(what);
    for (size_t i = 0; i + len <= text->n; i++)
        n += memcmp(text->p + i, what, len) == 0;
    return n;
}

static const struct step end = {NULL, NULL};
#define DEFAULT_RETRY "first: 5m, max: 4000s"

static struct relay_message_info info_of_last(const struct world *w)
{
    struct relay_message_info info = {.state = "gone"};
    struct qmsg *m = queue_find(w->queue, w->last_id);
    if (m)
        relay_message_info(w->relay, m, &info);
    return info;
}

static bool last_is_deferred(struct world *w)
{
    return w->queued == w->put_count && str_eq(str_cstr(info_of_last(w).state), STR("deferred")) &&
           info_of_last(w).last_text.p;
}

/* --- delivery --- */

static void put_one(struct world *w)
{
    sink_start(&w->one);
    sink_start(&w->two);
    put(w, "s@two.example", "a@one.example", SMALL_BODY);
}

static void check_content(struct world *w)
{
    char expected[256];
    int n = snprintf(expected, sizeof expected, "Received: from client.example by gw.example.com\r\n%s",
                     small_body);
    assert_int_equal(w->one.last.n, n);
    assert_memory_equal(w->one.last.p, expected, n);
    assert_int_equal(count_of(&w->one.lines, "EHLO gw.example.com"), 1);
    assert_int_equal(count_of(&w->one.lines, "MAIL FROM:<s@two.example>"), 1);
    assert_int_equal(count_of(&w->one.lines, "RCPT TO:<a@one.example>"), 1);
}

static void content_is_the_trace_and_the_body(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{put_one, is_empty}, {check_content, NULL}, end});
}

static void put_burst(struct world *w)
{
    sink_start(&w->one);
    for (int i = 0; i < 200; i++)
        put(w, "s@two.example", "a@one.example", SMALL_BODY);
}

static void a_burst_takes_few_connections(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{put_burst, is_empty}, end});
    assert_int_equal(w.one.messages, 200);
    assert_in_range(w.one.connections, 1, 13);
}

static void put_to_several(struct world *w)
{
    sink_start(&w->one);
    sink_start(&w->two);
    put(w, "s@two.example", "a@one.example,b@two.example,c@one.example,d@ONE.example", SMALL_BODY);
}

static void check_grouping(struct world *w)
{
    assert_int_equal(count_of(&w->one.lines, "MAIL "), 1);
    assert_int_equal(count_of(&w->one.lines, "RCPT "), 3);
    assert_int_equal(count_of(&w->two.lines, "RCPT "), 1);
}

static void recipients_of_one_destination_share_a_transaction(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY,
              (struct step[]){{put_to_several, is_empty}, {check_grouping, NULL}, end});
}

static void put_to_120(struct world *w)
{
    char to[120 * 20];
    struct sbuf b = SBUF_ON(to);
    for (int i = 0; i < 120; i++)
        sbuf_printf(&b, "%su%d@one.example", i ? "," : "", i);
    sbuf_char(&b, '\0');
    sink_start(&w->one);
    put(w, "s@two.example", to, SMALL_BODY);
}

static void many_recipients_take_several_transactions(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{put_to_120, is_empty}, end});
    assert_int_equal(w.one.messages, 2);
}

static void one_takes_50_rcpts(struct world *w)
{
    w->one.rcpts_max = 50;
    put_to_120(w);
}

/* RFC 5321 4.5.3.1.10 */
static void recipients_too_many_go_again_at_once(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{one_takes_50_rcpts, is_empty}, end});
    assert_int_equal(w.one.messages, 3); /* 50 + 50 of the first hundred, then 20: none was deferred */
}

static void one_says_its_limits(struct world *w)
{
    w->one.says_limits = true;
    w->one.messages_per_connection = 2;
    one_takes_50_rcpts(w);
}

static void nothing_was_said_in_vain(struct world *w)
{
    assert_int_equal(count_of(&w->one.lines, "RCPT TO:"), 120);
    assert_int_equal(w->one.messages_most, 2);
    assert_int_equal(w->one.closed_by_us,
                     0); /* 421 would be for a client that stays after its last message */
}

/* RFC 9422: what a server says in EHLO it need not refuse. */
static void limits_are_kept_unasked(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY,
              (struct step[]){{one_says_its_limits, is_empty}, {nothing_was_said_in_vain, NULL}, end});
    assert_int_equal(w.one.messages, 3);
}

static const struct rule refuses_the_first[] = {{"RCPT TO:<u0@", "550 5.1.1 no such user\r\n", false}, {0}};

static void one_takes_one_and_refuses_the_first(struct world *w)
{
    w->one.says_limits = true;
    w->one.messages_per_connection = 100;
    w->one.rcpts_max = 1;
    w->one.rules = refuses_the_first;
    sink_start(&w->one);
    put(w, "", "u0@one.example,u1@one.example,u2@one.example", SMALL_BODY);
}

static void a_refused_part_does_not_defer_the_rest(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{one_takes_one_and_refuses_the_first, is_empty}, end});
    assert_int_equal(w.one.messages, 2);
}

static void put_large(struct world *w)
{
    struct gbuf body = {0};
    gbuf_cstr(&body, "Subject: large\r\n\r\n");
    for (int i = 0; i < 14000; i++)
        gbuf_printf(&body, "%06d 0123456789012345678901234567890123456789012345678901234567890\r\n", i);
    sink_start(&w->one);
    put(w, "s@two.example", "a@one.example", gbuf_view(&body));
    gbuf_free(&body);
}

static void check_large(struct world *w)
{
    assert_int_equal(w->one.last.n, 49 + 18 + 14000 * 70);
    for (int i = 0; i < 14000; i++) {
        char number[8];
        snprintf(number, sizeof number, "%06d", i);
        assert_memory_equal(w->one.last.p + 49 + 18 + i * 70, number, 6);
    }
}

static void a_large_body_arrives_whole(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{put_large, is_empty}, {check_large, NULL}, end});
}

/* --- refusals --- */

static const struct rule refuses_unknown[] = {{"RCPT TO:<unknown", "550 5.1.1 no such user\r\n", false}, {0}};

static void put_unknown(struct world *w)
{
    w->one.rules = refuses_unknown;
    sink_start(&w->one);
    sink_start(&w->two);
    put(w, "s@two.example", "unknown@one.example,known@one.example", SMALL_BODY);
}

static void check_report(struct world *w)
{
    assert_int_equal(w->one.messages, 1);
    assert_int_equal(w->two.messages, 1);
    assert_int_equal(count_of(&w->two.lines, "MAIL FROM:<>"), 1);
    assert_int_equal(count_of(&w->two.lines, "RCPT TO:<s@two.example>"), 1);
    const char *expected[] = {"unknown@one.example", "5.1.1", "no such user", "Subject: a\r\n",
                              "multipart/report"};
    for (size_t i = 0; i < COUNT_OF(expected); i++)
        if (!count_of(&w->two.last, expected[i]))
            fail_msg("no %s in the report:\n" STR_FMT, expected[i], STR_ARG(gbuf_view(&w->two.last)));
    assert_int_equal(count_of(&w->two.last, "known@one.example"),
                     count_of(&w->two.last, "unknown@one.example"));
    assert_int_equal(count_of(&w->two.last, "\r\ntext\r\n"), 0); /* headers only */
}

static void a_permanent_failure_is_reported_to_the_sender(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{put_unknown, is_empty}, {check_report, NULL}, end});
}

static void put_unknown_from_nobody(struct world *w)
{
    w->one.rules = refuses_unknown;
    sink_start(&w->one);
    sink_start(&w->two);
    put(w, "", "unknown@one.example", SMALL_BODY);
}

static void a_failed_report_is_not_reported(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{put_unknown_from_nobody, is_empty}, end});
    assert_int_equal(w.two.connections, 0);
}

static const struct rule refuses_everything_later[] = {{"RCPT", "451 4.7.1 greylisted\r\n", false}, {0}};

static void put_greylisted(struct world *w)
{
    w->one.rules = refuses_everything_later;
    put_one(w);
}

static void check_deferred(struct world *w)
{
    struct relay_message_info info = info_of_last(w);
    assert_int_equal(info.attempts, 1);
    assert_in_range(info.due_ms, world_wall_ms() + 200000, world_wall_ms() + 400000);
    assert_true(str_eq(info.last_text, STR("greylisted")));
    char at[64];
    struct sbuf b = SBUF_ON(at);
    endpoint_format(&w->one.at, &b);
    assert_true(str_ends(info.destination, sbuf_view(&b)));
    assert_int_equal(relay_oldest_arrived_ms(w->relay), info.arrived_ms);
}

static void a_temporary_refusal_defers(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY,
              (struct step[]){{put_greylisted, last_is_deferred}, {check_deferred, NULL}, end});
    assert_int_equal(w.left, 1);
}

static void put_old(struct world *w)
{
    w->one.rules = refuses_everything_later;
    w->arrived_ms = world_wall_ms() - UINT64_C(6) * 86400 * 1000;
    put_one(w);
}

static void check_expired(struct world *w)
{
    assert_int_equal(w->two.messages, 1);
    assert_true(count_of(&w->two.last, "5.4.7") > 0);
    assert_true(count_of(&w->two.last, "greylisted") > 0);
}

static void what_is_too_old_is_returned(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{put_old, is_empty}, {check_expired, NULL}, end});
}

static void put_lmtp(struct world *w)
{
    w->one.is_lmtp = true;
    sink_start(&w->one);
    put(w, "s@two.example", "a@one.example,full@one.example", SMALL_BODY);
}

static void check_one_pending(struct world *w)
{
    struct relay_message_info info = info_of_last(w);
    assert_int_equal(info.rcpt_pending, 1);
    assert_true(str_eq(info.last_text, STR("mailbox full")));
    assert_int_equal(count_of(&w->one.lines, "LHLO"), 1);
}

static void lmtp_recipients_have_replies_of_their_own(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, ", protocol: lmtp", DEFAULT_RETRY,
              (struct step[]){{put_lmtp, last_is_deferred}, {check_one_pending, NULL}, end});
}

/* --- servers in trouble --- */

static const struct rule out_of_service[] = {{"<connect>", "554 5.3.2 not today\r\n", true}, {0}};

static void put_to_down(struct world *w)
{
    w->one.rules = out_of_service;
    put_one(w);
}

static void see_down(void *ctx, const struct relay_destination_info *d)
{
    struct world *w = ctx;
    if (d->down) {
        w->left = 100;
        assert_true(d->retry_at_ms > world_wall_ms());
        assert_true(str_eq(d->last_text, STR("not today")));
    }
}

static void check_down(struct world *w)
{
    assert_int_equal(info_of_last(w).attempts, 0); /* the destination's fault, not the message's */
    relay_each_destination(w->relay, see_down, w);
    assert_int_equal(w->left, 100);
}

static void put_another(struct world *w)
{
    put(w, "s@two.example", "b@one.example", SMALL_BODY);
}

static void check_not_tried(struct world *w)
{
    assert_int_equal(w->one.connections, 1);
}

static void a_refused_session_never_bounces_and_leaves_the_server_alone(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY,
              (struct step[]){{put_to_down, last_is_deferred},
                              {check_down, NULL},
                              {put_another, last_is_deferred},
                              {check_not_tried, NULL},
                              end});
    assert_int_equal(w.left, 2);
}

static void repair(struct world *w)
{
    w->one.rules = NULL;
}

static void a_destination_that_is_up_again_gets_its_mail(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", "first: 1s, max: 2s",
              (struct step[]){{put_to_down, last_is_deferred}, {repair, is_empty}, end});
    assert_int_equal(w.one.messages, 1);
}

static void put_to_both(struct world *w)
{
    w->one.rules = out_of_service;
    sink_start(&w->one);
    sink_start(&w->two);
    put(w, "s@two.example", "a@both.example", SMALL_BODY);
}

static void the_next_host_is_tried(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{put_to_both, is_empty}, end});
    assert_int_equal(w.one.connections, 1);
    assert_int_equal(w.two.messages, 1);
}

static void put_to_stingy(struct world *w)
{
    w->one.messages_per_connection = 3;
    sink_start(&w->one);
    for (int i = 0; i < 20; i++)
        put(w, "s@two.example", "a@one.example", SMALL_BODY);
}

static void connections_that_end_in_between_cost_no_attempt(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY,
              (struct step[]){{put_to_stingy, is_empty}, end}); /* a deferral would take five minutes */
    assert_int_equal(w.one.messages, 20);
}

static const struct rule hangs_up_at_the_end[] = {{".", "", true}, {0}};

static void put_lost(struct world *w)
{
    w->one.rules = hangs_up_at_the_end;
    put_one(w);
}

static void check_attempted(struct world *w)
{
    assert_int_equal(info_of_last(w).attempts, 1);
    assert_int_equal(w->one.messages, 1); /* and not again at once: it may have been delivered */
}

static void a_connection_lost_after_the_end_of_data_defers(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY,
              (struct step[]){{put_lost, last_is_deferred}, {check_attempted, NULL}, end});
}

static const struct rule hangs_up_at_mail[] = {{"MAIL", "421 4.3.2 going down\r\n", true}, {0}};

static void put_many_to_broken(struct world *w)
{
    w->one.rules = hangs_up_at_mail;
    sink_start(&w->one);
    for (int i = 0; i < 50; i++)
        put(w, "s@two.example", "a@one.example", SMALL_BODY);
}

static void count_deferred(void *ctx, const struct relay_destination_info *d)
{
    struct world *w = ctx;
    w->left = d->jobs;
}

static bool all_are_deferred(struct world *w)
{
    w->left = 1;
    relay_each_destination(w->relay, count_deferred, w);
    return w->queued == 50 && w->left == 0 && in_queue(w) == 50;
}

static void a_server_that_breaks_every_transaction_is_left_alone(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{put_many_to_broken, all_are_deferred}, end});
    assert_in_range(w.one.connections, 2, 20); /* not three for each message */
}

static const struct rule promises_tls[] = {
    {"EHLO", "250-sink.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n", false},
    {"STARTTLS", "220 2.0.0 go\r\n", true},
    {0}};

static void put_to_bad_tls(struct world *w)
{
    w->one.rules = promises_tls;
    sink_start(&w->one);
    put(w, "s@two.example", "a@maybe.example", SMALL_BODY);
}

static void opportunistic_tls_that_fails_goes_in_the_clear(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{put_to_bad_tls, is_empty}, end});
    assert_int_equal(w.one.connections, 2);
    assert_int_equal(w.one.messages, 1);
}

/* --- shutdown and reload --- */

static void put_to_mute(struct world *w)
{
    w->one.is_mute = true;
    put_one(w);
}

static bool one_is_connected(struct world *w)
{
    return w->one.open == 1;
}

static void drain_keeps_what_was_not_sent(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{put_to_mute, one_is_connected}, end});
    assert_int_equal(w.left, 1);
}

static void put_large_to_mute(struct world *w)
{
    w->one.is_mute = true;
    put_large(w);
}

static void start_servers(struct world *w)
{
    sink_start(&w->one);
    sink_start(&w->two);
}

/* Nothing of it is in memory: envelope and body come from the disk, piece by piece. */
static void a_recovered_message_is_sent(void **state)
{
    struct world before = {.keep = true}, after = {0};
    world_start(&before);
    world_run(&before, "", DEFAULT_RETRY, (struct step[]){{put_large_to_mute, one_is_connected}, end});
    assert_int_equal(before.left, 1);
    memcpy(after.directory, before.directory, sizeof after.directory);
    world_start(&after);
    assert_int_equal(after.live_count, 1);
    world_run(&after, "", DEFAULT_RETRY,
              (struct step[]){{start_servers, is_empty}, {check_large, NULL}, end});
}

static void reload(struct world *w)
{
    struct policy *old = w->policy;
    w->policy = world_policy(w, ", connections: 1", DEFAULT_RETRY);
    relay_set_policy(w->relay, w->policy);
    policy_free(old);
    put_another(w);
}

static void a_reload_keeps_no_pointer_into_the_old_policy(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY, (struct step[]){{put_one, is_empty}, {reload, is_empty}, end});
    assert_int_equal(w.one.messages, 2);
    assert_int_equal(w.one.connections, 1); /* still warm */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_is_the_trace_and_the_body),
        cmocka_unit_test(a_burst_takes_few_connections),
        cmocka_unit_test(recipients_of_one_destination_share_a_transaction),
        cmocka_unit_test(many_recipients_take_several_transactions),
        cmocka_unit_test(recipients_too_many_go_again_at_once),
        cmocka_unit_test(limits_are_kept_unasked),
        cmocka_unit_test(a_refused_part_does_not_defer_the_rest),
        cmocka_unit_test(a_large_body_arrives_whole),
        cmocka_unit_test(a_permanent_failure_is_reported_to_the_sender),
        cmocka_unit_test(a_failed_report_is_not_reported),
        cmocka_unit_test(a_temporary_refusal_defers),
        cmocka_unit_test(what_is_too_old_is_returned),
        cmocka_unit_test(lmtp_recipients_have_replies_of_their_own),
        cmocka_unit_test(a_refused_session_never_bounces_and_leaves_the_server_alone),
        cmocka_unit_test(a_destination_that_is_up_again_gets_its_mail),
        cmocka_unit_test(the_next_host_is_tried),
        cmocka_unit_test(connections_that_end_in_between_cost_no_attempt),
        cmocka_unit_test(a_connection_lost_after_the_end_of_data_defers),
        cmocka_unit_test(a_server_that_breaks_every_transaction_is_left_alone),
        cmocka_unit_test(opportunistic_tls_that_fails_goes_in_the_clear),
        cmocka_unit_test(a_recovered_message_is_sent),
        cmocka_unit_test(drain_keeps_what_was_not_sent),
        cmocka_unit_test(a_reload_keeps_no_pointer_into_the_old_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
