/* tests/unit/verify/test_backend.c: servers that are down, refuse us, or ask back. */
#include "world.h"

/* --- down --- */

static void close_two(struct world *w)
{
    sink_start(&w->two);
    listener_close(w->two.listener);
}

static bool two_is_closed(struct world *w)
{
    return !w->two.listener;
}

static void ask_two(struct world *w)
{
    ask(w, "a@two.example");
    ask(w, "b@two.example");
}

static void check_down(struct world *w)
{
    assert_answer(w, "a@two.example", R_backend_down, "down");
    assert_answer(w, "b@two.example", R_backend_down, "down");
    assert_int_equal(backend_of(w, "two.example")->breaker.state, BREAKER_DOWN);
    w->mark = (int)metric_read(M_probe_connects);
    ask(w, "c@two.example");
}

static void check_down_from_the_record(struct world *w)
{
    assert_answer(w, "c@two.example", R_backend_down, "down");
    assert_int_equal(metric_read(M_probe_connects), w->mark); /* nobody tried */
    backend_of(w, "two.example")->breaker.retry_at_ms = 0;    /* the time is over */
    ask(w, "d@two.example");
    ask(w, "e@two.example");
}

static void check_one_trial(struct world *w)
{
    assert_answer(w, "d@two.example", R_backend_down, "down");
    assert_int_equal(metric_read(M_probe_connects), w->mark + 1);
    assert_int_equal(backend_of(w, "two.example")->breaker.failures, 2);
}

static void one_record_answers_for_a_server_that_is_down(void **state)
{
    static const struct step steps[] = {
        {close_two, two_is_closed}, {ask_two, all_answered},
        {check_down, all_answered}, {check_down_from_the_record, all_answered},
        {check_one_trial, NULL},    {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

static void ask_both(struct world *w)
{
    sink_start(&w->one);
    ask(w, "a@both.example");
}

/* The first host answers nothing; the second serves. */
static void refuse_on_one(struct world *w)
{
    static const struct rule closed[] = {{"<connect>", "554 5.7.1 not today\r\n", true}, {0}};
    w->one.rules = closed;
    sink_start(&w->two);
    ask_both(w);
}

static void check_second_host(struct world *w)
{
    assert_answer(w, "a@both.example", R_rcpt_ok, "probe");
    assert_int_equal(seen(&w->two, "RCPT"), 1);
    assert_int_equal(backend_of(w, "both.example")->breaker.state, BREAKER_UP);
}

static void the_next_host_is_asked(void **state)
{
    static const struct step steps[] = {{refuse_on_one, all_answered}, {check_second_host, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

/* --- stale --- */

static void ask_first(struct world *w)
{
    sink_start(&w->two);
    ask(w, "a@two.example");
}

static void close_and_age(struct world *w)
{
    assert_answer(w, "a@two.example", R_rcpt_ok, "probe");
    sink_stop(&w->two);
    age_record(w, "a@two.example", 2 * 86400);
}

static bool two_is_gone(struct world *w)
{
    return !w->two.listener && !w->two.open && !backend_of(w, "two.example")->conn_count;
}

static void ask_stale(struct world *w)
{
    ask(w, "a@two.example");
    ask(w, "new@two.example");
}

static void check_stale(struct world *w)
{
    assert_answer(w, "a@two.example", R_rcpt_ok, "stale");
    assert_answer(w, "new@two.example", R_backend_down, "down");
    age_record(w, "a@two.example", 8 * 86400);
    ask(w, "a@two.example");
}

static void check_too_old(struct world *w)
{
    assert_answer(w, "a@two.example", R_backend_down, "down");
}

static void serves_stale_when_the_server_is_down(void **state)
{
    static const struct step steps[] = {{ask_first, all_answered}, {close_and_age, two_is_gone},
                                        {ask_stale, all_answered}, {check_stale, all_answered},
                                        {check_too_old, NULL},     {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, ", fail: stale", steps);
}

/* --- refuses us, senders --- */

static void ask_refused(struct world *w)
{
    static const struct rule helo[] = {
        {"EHLO", "550 5.7.1 bad name\r\n", false}, {"HELO", "550 5.7.1 bad name\r\n", false}, {0}};
    w->one.rules = helo;
    sink_start(&w->one);
    ask(w, "a@one.example");
}

static void check_info(void *ctx, const struct verifier_backend_info *b)
{
    struct world *w = ctx;
    w->mark++;
    assert_int_equal(b->state, BREAKER_REFUSES_US);
    assert_true(str_eq(b->reply, STR("550 5.7.1 bad name")));
    assert_true(str_starts(b->relay, STR("127.0.0.1:")));
    assert_string_equal(b->sender, "empty");
    assert_true(b->retry_in_ms > 0);
    assert_int_equal(b->domain_count, 1);
    assert_true(str_eq(b->domains[0].domain, STR("one.example")));
    assert_int_equal(b->domains[0].good_ago_ms, -1);
}

static void check_refused(struct world *w)
{
    for (unsigned i = 0; i < 2; i++)
        verifier_each_backend(w->verifiers[i], check_info, w);
    assert_int_equal(w->mark, 1);
    assert_answer(w, "a@one.example", R_backend_refuses, "refuses-us");
    assert_int_equal(backend_of(w, "one.example")->breaker.state, BREAKER_REFUSES_US);
    struct verdict_record r;
    assert_false(verdict_cache_get(w->shared.known.cache, STR("a@one.example"), wall_s(), &r));
}

static void a_refused_name_is_not_the_recipient_s_fault(void **state)
{
    static const struct step steps[] = {{ask_refused, all_answered}, {check_refused, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

static const struct rule no_empty[] = {{"MAIL FROM:<>", "550 5.7.1 null sender refused\r\n", false},
                                       {"RCPT TO:<bad", "550 5.1.1 no\r\n", false},
                                       {0}};

static void ask_no_empty(struct world *w)
{
    w->one.rules = no_empty;
    sink_start(&w->one);
    ask(w, "a@one.example");
    ask(w, "bad@one.example");
}

static void check_no_empty(struct world *w)
{
    assert_answer(w, "a@one.example", R_rcpt_ok, "probe");
    assert_answer(w, "bad@one.example", R_unknown_user, "probe");
    assert_int_equal(seen(&w->one, "MAIL FROM:<>"), 1);
    assert_int_equal(seen(&w->one, "MAIL FROM:<postern-probe-"), 1);
    ask(w, "b@one.example");
}

static void check_remembers_sender(struct world *w)
{
    assert_answer(w, "b@one.example", R_rcpt_ok, "probe");
    assert_int_equal(seen(&w->one, "MAIL FROM:<>"), 1);
    struct backend *b = backend_of(w, "one.example");
    b->refuses_empty_until_ms = 0; /* a day later */
    ask(w, "c@one.example");
}

static void check_tries_empty_again(struct world *w)
{
    assert_answer(w, "c@one.example", R_rcpt_ok, "probe");
    assert_int_equal(seen(&w->one, "MAIL FROM:<>"), 2);
}

static void the_sender_adapts(void **state)
{
    static const struct step steps[] = {{ask_no_empty, all_answered},
                                        {check_no_empty, all_answered},
                                        {check_remembers_sender, all_answered},
                                        {check_tries_empty_again, NULL},
                                        {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

static void check_empty_wanted(struct world *w)
{
    assert_answer(w, "a@one.example", R_backend_refuses, "refuses-us");
    assert_int_equal(seen(&w->one, "MAIL"), 1);
}

static void the_configured_sender_stays(void **state)
{
    static const struct step steps[] = {{ask_no_empty, all_answered}, {check_empty_wanted, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, ", sender: empty", steps);
}

/* --- greylisting --- */

static const struct rule grey[] = {{"RCPT", "450 4.7.1 greylisted\r\n", false}, {0}};

static void ask_grey(struct world *w)
{
    char to[64];
    w->one.rules = grey;
    sink_start(&w->one);
    for (int i = 0; i < BREAKER_LATER_MAX; i++) {
        snprintf(to, sizeof to, "user%d@one.example", i);
        ask(w, to);
    }
}

static void check_grey(struct world *w)
{
    for (uint32_t i = 0; i < w->ask_count; i++) {
        assert_int_equal(w->asks[i].answer.reply, R_rcpt_temp);
        assert_string_equal(answer_source_name(w->asks[i].answer.source), "later");
    }
    struct backend *b = backend_of(w, "one.example");
    assert_int_equal(b->breaker.state, BREAKER_SUSPECT);
    b->breaker.retry_at_ms = UINT64_MAX;
    w->mark = (int)seen(&w->one, "RCPT");
    ask(w, "more@one.example");
}

static void check_left_alone(struct world *w)
{
    assert_answer(w, "more@one.example", R_rcpt_temp, "later");
    assert_int_equal(seen(&w->one, "RCPT"), w->mark);
    backend_of(w, "one.example")->breaker.retry_at_ms = 0; /* the time is over, and the list lets us in */
    w->one.rules = NULL;
    ask(w, "user1@one.example");
}

static void check_up(struct world *w)
{
    assert_answer(w, "user1@one.example", R_rcpt_ok, "probe");
    assert_int_equal(backend_of(w, "one.example")->breaker.state, BREAKER_UP);
}

static void a_greylisting_server_is_left_alone_for_a_while(void **state)
{
    static const struct step steps[] = {{ask_grey, all_answered},
                                        {check_grey, all_answered},
                                        {check_left_alone, all_answered},
                                        {check_up, NULL},
                                        {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

/* --- loops --- */

static const struct rule mute[] = {{"RCPT", "", false}, {"RSET", "", false}, {0}};

static void ask_mute(struct world *w)
{
    w->one.rules = mute;
    sink_start(&w->one);
    ask(w, "a@one.example");
}

static bool one_saw_rcpt(struct world *w)
{
    return seen(&w->one, "RCPT") == 1;
}

/* The server asks back about the same recipient, as a verifying gateway does. */
static void ask_back(struct world *w)
{
    assert_int_equal(ip_parse(STR("127.0.0.1"), &w->client), 0);
    w->sender = "";
    ask(w, "a@one.example");
}

static bool last_answered(struct world *w)
{
    return w->asks[w->ask_count - 1].is_answered;
}

static void check_loop_and_answer(struct world *w)
{
    assert_int_equal(w->asks[1].answer.reply, R_verify_loop);
    assert_int_equal(backend_of(w, "one.example")->breaker.state, BREAKER_LOOP);
    LIST_EACH(&w->one.peers, k)
    sink_say(container_of(k, struct sink_peer, link), "554 5.4.6 routing loop\r\n");
}

static void check_looped(struct world *w)
{
    assert_int_equal(w->asks[0].answer.reply, R_verify_loop);
    assert_int_equal(ip_parse(STR("192.0.2.77"), &w->client), 0);
    w->sender = "someone@far.example";
    ask(w, "b@one.example");
}

static void check_after_loop(struct world *w)
{
    assert_answer(w, "b@one.example", R_backend_refuses, "refuses-us");
}

static void a_server_that_asks_back_is_a_loop(void **state)
{
    static const struct step steps[] = {
        {ask_mute, one_saw_rcpt},     {ask_back, last_answered}, {check_loop_and_answer, all_answered},
        {check_looped, all_answered}, {check_after_loop, NULL},  {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

/* Our own probe comes back over two other gateways. */
static void token_back(struct world *w)
{
    static char sender[128];
    str_t lines = gbuf_view(&w->one.lines), line;
    while (str_cut(lines, '\n', &line, &lines))
        if (str_istarts(line, STR("MAIL FROM:<")))
            snprintf(sender, sizeof sender, STR_FMT, STR_ARG(str_sub(line, 11, line.n - 12)));
    w->sender = sender;
    ask(w, "a@one.example");
    assert_answer(w, "a@one.example", R_verify_loop, "own-probe");
    ask(w, "other@one.example"); /* nothing of it is in flight: no reason to stop asking */
    assert_answer(w, "other@one.example", R_verify_loop, "own-probe");
}

static bool is_looped(struct world *w)
{
    return backend_of(w, "one.example")->breaker.state == BREAKER_LOOP;
}

static void our_own_token_is_a_loop(void **state)
{
    static const struct step steps[] = {{ask_mute, one_saw_rcpt}, {token_back, is_looped}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, ", sender: token", steps);
}

static void foreign_token(struct world *w)
{
    sink_start(&w->one);
    w->sender = "postern-probe-aaaaaaaaaaaaaaaaaaaaaaaa@other.example";
    ask(w, "a@one.example");
    w->sender = NULL;
    ask(w, "b@one.example");
}

static void check_passed_on(struct world *w)
{
    assert_answer(w, "a@one.example", R_rcpt_ok, "probe");
    assert_int_equal(seen(&w->one, "MAIL FROM:<postern-probe-aaaaaaaaaaaaaaaaaaaaaaaa@other.example>"), 1);
    assert_int_equal(seen(&w->one, "MAIL FROM:<>"), 1);
}

static void another_gateway_s_token_is_passed_on(void **state)
{
    static const struct step steps[] = {{foreign_token, all_answered}, {check_passed_on, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

/* Anybody can write such a sender: what a server says to it must not count against the server, or make
 * anybody unknown. */
static const struct rule *const unwelcome[] = {
    (const struct rule[]){{"MAIL FROM:<postern-probe-", "550 5.7.1 domain blocked\r\n", false}, {0}},
    (const struct rule[]){{"MAIL FROM:<postern-probe-", "421 4.7.0 go away\r\n", true}, {0}},
    (const struct rule[]){{"MAIL FROM:<postern-probe-", "550 5.1.1 unknown user\r\n", false}, {0}},
    (const struct rule[]){{"MAIL FROM:<postern-probe-", "451 4.3.0 not now\r\n", false}, {0}},
    (const struct rule[]){{"MAIL FROM:<postern-probe-", "", true}, {0}},
};

static void forged_tokens(struct world *w)
{
    char to[64], sender[80];
    w->one.rules = unwelcome[w->mark];
    sink_start(&w->one);
    for (int i = 0; i < 6; i++) {
        snprintf(to, sizeof to, "user%d@one.example", i);
        snprintf(sender, sizeof sender, "postern-probe-%24.24s@evil%d.example", "aaaaaaaaaaaaaaaaaaaaaaaa",
                 i);
        w->sender = sender;
        ask(w, to);
    }
    w->sender = NULL;
}

static void check_forged_tokens(struct world *w)
{
    for (int i = 0; i < 6; i++) {
        assert_int_equal(w->asks[i].answer.reply, R_rcpt_ok);
        assert_string_equal(answer_source_name(w->asks[i].answer.source), "probe");
    }
    assert_int_equal(backend_of(w, "one.example")->breaker.state, BREAKER_UP);
}

static void forged_tokens_do_no_harm(void **state)
{
    static const struct step steps[] = {{forged_tokens, all_answered}, {check_forged_tokens, NULL}, {0}};
    for (int i = 0; i < (int)COUNT_OF(unwelcome); i++) {
        static struct world w;
        w = (struct world){.mark = i};
        world_start(&w);
        world_run(&w, "", steps);
    }
}

/* --- trouble on the way --- */

static const struct rule hangs_up[] = {{"RCPT TO:<b", "421 4.3.2 enough\r\n", true}, {0}};

static void ask_hangs_up(struct world *w)
{
    w->one.rules = hangs_up;
    sink_start(&w->one);
    ask(w, "a@one.example");
    ask(w, "b@one.example");
    ask(w, "c@one.example");
}

static void check_hangs_up(struct world *w)
{
    assert_answer(w, "a@one.example", R_rcpt_ok, "probe");
    assert_answer(w, "b@one.example", R_backend_down, "down");
}

static void a_connection_that_breaks_is_tried_again_but_not_for_ever(void **state)
{
    static const struct step steps[] = {{ask_hangs_up, all_answered}, {check_hangs_up, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

static void ask_and_leave(struct world *w)
{
    ask_mute(w);
    ask(w, "b@two.example"); /* nobody accepts there */
}

static bool asked_one(struct world *w)
{
    return one_saw_rcpt(w);
}

static void shutdown_answers_all_who_wait(void **state)
{
    static const struct step steps[] = {{ask_and_leave, asked_one}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
    assert_true(all_answered(&w));
    assert_answer(&w, "a@one.example", R_rcpt_temp, "closing");
    assert_answer(&w, "b@two.example", R_rcpt_temp, "closing");
}

static void ask_lmtp(struct world *w)
{
    w->one.rules = ordinary;
    w->one.is_lmtp = true;
    sink_start(&w->one);
    ask(w, "a@lmtp.example");
    ask(w, "bad@lmtp.example");
}

static void check_lmtp(struct world *w)
{
    assert_answer(w, "a@lmtp.example", R_rcpt_ok, "probe");
    assert_answer(w, "bad@lmtp.example", R_unknown_user, "probe");
    assert_int_equal(seen(&w->one, "LHLO"), 1);
}

static void lmtp_servers_are_asked_alike(void **state)
{
    static const struct step steps[] = {{ask_lmtp, all_answered}, {check_lmtp, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_record_answers_for_a_server_that_is_down),
        cmocka_unit_test(the_next_host_is_asked),
        cmocka_unit_test(serves_stale_when_the_server_is_down),
        cmocka_unit_test(a_refused_name_is_not_the_recipient_s_fault),
        cmocka_unit_test(the_sender_adapts),
        cmocka_unit_test(the_configured_sender_stays),
        cmocka_unit_test(a_greylisting_server_is_left_alone_for_a_while),
        cmocka_unit_test(a_server_that_asks_back_is_a_loop),
        cmocka_unit_test(our_own_token_is_a_loop),
        cmocka_unit_test(another_gateway_s_token_is_passed_on),
        cmocka_unit_test(forged_tokens_do_no_harm),
        cmocka_unit_test(a_connection_that_breaks_is_tried_again_but_not_for_ever),
        cmocka_unit_test(shutdown_answers_all_who_wait),
        cmocka_unit_test(lmtp_servers_are_asked_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
