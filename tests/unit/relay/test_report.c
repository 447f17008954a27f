/* What senders are told, how often, and what is done when they cannot be. */
#include "world.h"

static uint32_t count_of(const struct gbuf *text, const char *what)
{
    uint32_t n = 0;
    size_t len = strlen(what);
    for (size_t i = 0; i + len <= text->n; i++)
        n += memcmp(text->p + i, what, len) == 0;
    return n;
}

static void assert_says(const struct gbuf *text, const char *what)
{
    if (!count_of(text, what))
        fail_msg("no \"%s\" in:\n" STR_FMT, what, STR_ARG(gbuf_view(text)));
}

static const struct step end = {NULL, NULL};
#define RETRY "first: 5m, max: 4000s"

static const struct rule offers_dsn[] = {{"EHLO", "250-sink.example\r\n250-DSN\r\n250 PIPELINING\r\n", false},
                                         {0}};
static const struct rule refuses[] = {{"RCPT TO:<unknown", "550 5.1.1 no such user\r\n", false}, {0}};
static const struct rule refuses_all[] = {{"RCPT", "550 5.1.1 no such user\r\n", false}, {0}};
static const struct rule defers[] = {{"RCPT", "451 4.7.1 greylisted\r\n", false}, {0}};

static void put_it(struct world *w)
{
    sink_start(&w->one);
    sink_start(&w->two);
    put(w, "s@two.example", "a@one.example", SMALL_BODY);
}

static void put_unknown(struct world *w)
{
    sink_start(&w->one);
    sink_start(&w->two);
    put(w, "s@two.example", "unknown@one.example", SMALL_BODY);
}

static void run_empty(struct world *w, const char *options, void (*act)(struct world *w))
{
    world_run(w, options, RETRY, (struct step[]){{act, is_empty}, end});
}

/* --- success: RFC 3461 5.2 --- */

static void check_relayed(struct world *w)
{
    assert_int_equal(w->two.messages, 1);
    assert_int_equal(count_of(&w->one.lines, "NOTIFY"), 0);
    assert_int_equal(count_of(&w->one.lines, "ENVID"), 0);
    assert_says(&w->two.last, "Action: relayed\r\nStatus: 2.0.0\r\nRemote-MTA: dns; ");
    assert_says(&w->two.last, "Original-Envelope-Id: id+1\r\n");
    assert_says(&w->two.last,
                "Original-Recipient: rfc822; o+x@one.example\r\nFinal-Recipient: rfc822; a@one.ex");
    assert_int_equal(count_of(&w->two.last, "\r\ntext\r\n"), 0); /* RET is for failures */
}

static void passing_on_to_a_server_without_dsn_is_reported(void **state)
{
    struct world w = {.dsn = {.notify = NOTIFY_SUCCESS, .orcpt = STR("rfc822;o+2Bx@one.example")},
                      .ret = RET_FULL,
                      .envid = "id+2B1"};
    world_start(&w);
    world_run(&w, "", RETRY, (struct step[]){{put_it, is_empty}, {check_relayed, NULL}, end});
}

static void check_passed_on(struct world *w)
{
    assert_int_equal(w->two.messages, 0);
    assert_says(&w->one.lines, "MAIL FROM:<s@two.example> RET=HDRS ENVID=id+2B1\n");
    assert_says(&w->one.lines,
                "RCPT TO:<a@one.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o+2Bx@one.example\n");
}

static void a_server_with_dsn_reports_by_itself(void **state)
{
    struct world w = {
        .dsn = {.notify = NOTIFY_SUCCESS | NOTIFY_DELAY, .orcpt = STR("rfc822;o+2Bx@one.example")},
        .ret = RET_HDRS,
        .envid = "id+2B1",
        .one = {.rules = offers_dsn}};
    world_start(&w);
    world_run(&w, "", RETRY, (struct step[]){{put_it, is_empty}, {check_passed_on, NULL}, end});
}

static void check_delivered(struct world *w)
{
    assert_int_equal(w->two.messages, 1);
    assert_says(&w->two.last, "Action: delivered\r\nStatus: 2.0.0\r\n");
    assert_says(&w->two.last, "Subject: Mail Delivered\r\n");
}

static void delivery_into_the_mailbox_is_reported(void **state)
{
    struct world w = {.dsn = {.notify = NOTIFY_SUCCESS}, .one = {.is_lmtp = true}};
    world_start(&w);
    world_run(&w, ", protocol: lmtp", RETRY,
              (struct step[]){{put_it, is_empty}, {check_delivered, NULL}, end});
}

static void success_is_not_told_unasked(void **state)
{
    struct world w = {.dsn = {.notify = NOTIFY_FAILURE | NOTIFY_DELAY}};
    world_start(&w);
    run_empty(&w, "", put_it);
    assert_int_equal(w.one.messages, 1);
    assert_int_equal(w.two.connections, 0);
}

/* The crash came between the delivery and its report. */
static void check_recovered(struct world *w)
{
    assert_int_equal(w->one.messages, 0);
    assert_int_equal(w->two.messages, 1);
    assert_says(&w->two.last, "Action: relayed\r\n");
}

static void a_success_report_survives_a_crash(void **state)
{
    struct world w = {.dsn = {.notify = NOTIFY_SUCCESS}, .is_delivered = true};
    world_start(&w);
    world_run(&w, "", RETRY, (struct step[]){{put_it, is_empty}, {check_recovered, NULL}, end});
}

/* --- failures --- */

static void a_failure_is_not_told_to_who_does_not_want_it(void **state)
{
    for (uint8_t notify = NOTIFY_NEVER; notify <= NOTIFY_DELAY; notify *= 2) {
        struct world w = {.dsn = {.notify = notify}, .one = {.rules = refuses}};
        world_start(&w);
        run_empty(&w, "", put_unknown);
        assert_int_equal(w.two.messages, notify == NOTIFY_FAILURE);
    }
}

static void check_whole(struct world *w)
{
    assert_says(&w->two.last, "Content-Type: message/rfc822\r\n\r\nReceived: from client.example");
    assert_says(&w->two.last, "\r\n\r\ntext\r\n\r\n--=_report_");
    assert_says(&w->two.last, "The message is attached.");
}

static void check_headers(struct world *w)
{
    assert_says(&w->two.last, "Content-Type: text/rfc822-headers\r\n\r\nReceived: from client.example");
    assert_int_equal(count_of(&w->two.last, "\r\ntext\r\n"), 0);
}

static void the_whole_message_goes_back_if_asked_for(void **state)
{
    struct world w = {.ret = RET_FULL, .one = {.rules = refuses}};
    world_start(&w);
    world_run(&w, "", RETRY, (struct step[]){{put_unknown, is_empty}, {check_whole, NULL}, end});
}

static void a_large_message_goes_back_as_header_lines(void **state)
{
    struct world w = {
        .ret = RET_FULL, .one = {.rules = refuses}, .more_config = "dsn: { return_size: 80 }\n"};
    world_start(&w);
    world_run(&w, "", RETRY, (struct step[]){{put_unknown, is_empty}, {check_headers, NULL}, end});
}

static void put_with_nul(struct world *w)
{
    sink_start(&w->one);
    sink_start(&w->two);
    put(w, "s@two.example", "unknown@one.example", STR("Subject: a\r\n\r\ntext\r\n\0\r\n"));
}

static void what_mime_cannot_hold_goes_back_as_header_lines(void **state)
{
    struct world w = {.ret = RET_FULL, .one = {.rules = refuses}};
    world_start(&w);
    world_run(&w, "", RETRY, (struct step[]){{put_with_nul, is_empty}, {check_headers, NULL}, end});
}

static void check_all_told(struct world *w)
{
    assert_says(&w->two.last, "Remote-MTA: dns; 127.0.0.1");
    assert_says(&w->two.last, "no such user");
}

static void check_discreet(struct world *w)
{
    assert_int_equal(w->two.messages, 1);
    assert_says(&w->two.last, "Action: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1\r\n");
    assert_int_equal(count_of(&w->two.last, "127.0.0.1"), 0);
    assert_int_equal(count_of(&w->two.last, "no such user"), 0);
}

static void internal_servers_are_not_named_to_outsiders(void **state)
{
    struct world w = {.one = {.rules = refuses}}, v = {.one = {.rules = refuses}, .from_stranger = true};
    world_start(&w);
    world_run(&w, "", RETRY, (struct step[]){{put_unknown, is_empty}, {check_all_told, NULL}, end});
    world_start(&v);
    world_run(&v, "", RETRY, (struct step[]){{put_unknown, is_empty}, {check_discreet, NULL}, end});
}

/* --- delay --- */

static void put_late(struct world *w)
{
    w->arrived_ms = world_wall_ms() - UINT64_C(5) * 3600 * 1000;
    put_it(w);
}

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
    struct relay_message_info info = info_of_last(w);
    return w->queued == w->put_count && str_eq(str_cstr(info.state), STR("deferred")) && info.last_text.p;
}

static bool is_warned(struct world *w)
{
    const struct qmsg *m = queue_find(w->queue, w->last_id);
    return m && m->warned && last_is_deferred(w) && in_queue(w) == 1 && w->two.messages == 1;
}

static void check_warning(struct world *w)
{
    assert_int_equal(w->two.messages, 1);
    assert_says(&w->two.last, "Action: delayed\r\nStatus: 4.7.1\r\n");
    assert_says(&w->two.last, "\r\nWill-Retry-Until: ");
    assert_says(&w->two.last, "\r\nLast-Attempt-Date: ");
    assert_says(&w->two.last, "greylisted");
}

static void refuse_now(struct world *w)
{
    sink_start(&w->one);
    sink_start(&w->two);
    w->queued = w->put_count = 0;
    w->last_id = w->live[0]->id;
}

static bool is_tried_again(struct world *w)
{
    return info_of_last(w).attempts >= 2 && last_is_deferred(w);
}

static void a_sender_is_warned_once(void **state)
{
    struct world w = {.one = {.rules = defers}, .keep = true};
    world_start(&w);
    world_run(&w, "", RETRY, (struct step[]){{put_late, is_warned}, {check_warning, NULL}, end});
    struct world again = {.one = {.rules = defers}};
    memcpy(again.directory, w.directory, sizeof w.directory);
    world_start(&again);
    assert_int_equal(again.live_count, 1);
    assert_true(again.live[0]->warned);
    queue_set_due(again.queue, again.live[0], 1, again.live[0]->attempts); /* now */
    world_run(&again, "", RETRY, (struct step[]){{refuse_now, is_tried_again}, end});
    assert_int_equal(again.two.connections, 0);
    assert_int_equal(again.left, 1);
}

static void no_warning_unless_wanted(void **state)
{
    static const struct {
        uint8_t notify;
        const char *config;
    } cases[] = {{NOTIFY_NEVER, NULL},
                 {NOTIFY_SUCCESS | NOTIFY_FAILURE, NULL},
                 {0, "dsn: { delay_after: 0 }\n"},
                 {0, "dsn: { delay_after: 6h }\n"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct world w = {
            .dsn = {.notify = cases[i].notify}, .one = {.rules = defers}, .more_config = cases[i].config};
        world_start(&w);
        world_run(&w, "", RETRY, (struct step[]){{put_late, last_is_deferred}, end});
        assert_int_equal(w.two.connections, 0);
        assert_int_equal(w.left, 1);
    }
}

static void put_late_to_nobody(struct world *w)
{
    w->arrived_ms = world_wall_ms() - UINT64_C(5) * 3600 * 1000;
    sink_start(&w->two);
    put(w, "s@two.example", "a@one.example", SMALL_BODY);
}

static bool is_warned_of_silence(struct world *w)
{
    const struct qmsg *m = queue_find(w->queue, w->last_id);
    return m && m->warned && in_queue(w) == 1 && w->two.messages == 1;
}

static const struct rule hangs_up[] = {{"<connect>", "421 4.3.2 not today\r\n", true}, {0}};

static void put_late_to_closed(struct world *w)
{
    w->one.rules = hangs_up;
    sink_start(&w->one);
    put_late_to_nobody(w);
}

static void check_delayed(struct world *w)
{
    assert_int_equal(w->two.messages, 1);
    assert_says(&w->two.last, "Action: delayed\r\n");
    assert_says(&w->two.last, "not today");
}

/* Its messages stand aside, and their senders are told all the same. */
static void a_sender_is_warned_of_a_server_that_is_down(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", RETRY,
              (struct step[]){{put_late_to_closed, is_warned_of_silence}, {check_delayed, NULL}, end});
    assert_int_equal(w.left, 1);
}

/* --- storms, and reports that nobody can get --- */

static void put_three(struct world *w)
{
    put_unknown(w);
    put(w, "s@TWO.example", "unknown@one.example", SMALL_BODY);
    put(w, "t@two.example", "unknown@one.example", SMALL_BODY);
}

static void a_domain_gets_so_many_reports_in_a_minute(void **state)
{
    struct world w = {.one = {.rules = refuses}, .more_config = "dsn: { rate: 1 }\n"};
    world_start(&w);
    run_empty(&w, "", put_three);
    assert_in_range(w.two.messages, 1, 2); /* two if the minute ended meanwhile */
}

static void put_from_nobody(struct world *w)
{
    sink_start(&w->one);
    sink_start(&w->two);
    put(w, "", "unknown@one.example", SMALL_BODY);
}

static void put_from_nowhere(struct world *w)
{
    sink_start(&w->one);
    sink_start(&w->two);
    put(w, "x@[0.0.0.0]", "unknown@one.example", SMALL_BODY);
}

static void put_to_postmaster_from_nobody(struct world *w)
{
    sink_start(&w->two);
    put(w, "", "pm@two.example", SMALL_BODY);
}

static void check_postmaster_told(struct world *w)
{
    assert_int_equal(w->two.messages, 1);
    assert_says(&w->two.lines, "MAIL FROM:<> ");
    assert_says(&w->two.lines, "RCPT TO:<pm@two.example>\n");
    assert_says(&w->two.last, "Subject: Undelivered Mail Without a Sender to Tell\r\n");
    assert_says(&w->two.last, "Action: failed\r\nStatus: 5.1.1\r\n");
}

static void double_bounces_go_to_the_postmaster_if_wanted(void **state)
{
    static void (*const puts[])(struct world *) = {put_from_nobody, put_from_nowhere};
    for (size_t i = 0; i < COUNT_OF(puts); i++) {
        struct world w = {.one = {.rules = refuses}, .more_config = "dsn: { double_bounces: postmaster }\n"};
        world_start(&w);
        world_run(&w, "", RETRY, (struct step[]){{puts[i], is_empty}, {check_postmaster_told, NULL}, end});
        struct world v = {.one = {.rules = refuses}};
        world_start(&v);
        run_empty(&v, "", puts[i]);
        assert_int_equal(v.two.connections, 0);
    }
}

static void what_the_postmaster_cannot_get_is_dropped(void **state)
{
    struct world w = {.two = {.rules = refuses_all}, .more_config = "dsn: { double_bounces: postmaster }\n"};
    world_start(&w);
    run_empty(&w, "", put_to_postmaster_from_nobody);
    assert_int_equal(w.two.messages, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passing_on_to_a_server_without_dsn_is_reported),
        cmocka_unit_test(a_server_with_dsn_reports_by_itself),
        cmocka_unit_test(delivery_into_the_mailbox_is_reported),
        cmocka_unit_test(success_is_not_told_unasked),
        cmocka_unit_test(a_success_report_survives_a_crash),
        cmocka_unit_test(a_failure_is_not_told_to_who_does_not_want_it),
        cmocka_unit_test(the_whole_message_goes_back_if_asked_for),
        cmocka_unit_test(a_large_message_goes_back_as_header_lines),
        cmocka_unit_test(what_mime_cannot_hold_goes_back_as_header_lines),
        cmocka_unit_test(internal_servers_are_not_named_to_outsiders),
        cmocka_unit_test(a_sender_is_warned_once),
        cmocka_unit_test(no_warning_unless_wanted),
        cmocka_unit_test(a_sender_is_warned_of_a_server_that_is_down),
        cmocka_unit_test(a_domain_gets_so_many_reports_in_a_minute),
        cmocka_unit_test(double_bounces_go_to_the_postmaster_if_wanted),
        cmocka_unit_test(what_the_postmaster_cannot_get_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
