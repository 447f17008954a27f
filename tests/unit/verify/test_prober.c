/* tests/unit/verify/test_prober.c: questions, batches, verdicts, over real sockets. */
#include "world.h"

static const struct rule ordinary[] = {
    {"RCPT TO:<bad", "550 5.1.1 no such user\r\n", false},
    {"RCPT TO:<full", "552 5.2.2 over quota\r\n", false},
    {"RCPT TO:<grey", "450 4.7.1 greylisted\r\n", false},
    {"RCPT TO:<gone", "550 5.2.1 mailbox disabled\r\n", false},
    {0},
};

/* --- one round --- */

static void ask_all_kinds(struct world *w)
{
    w->one.rules = ordinary;
    sink_start(&w->one);
    ask(w, "good@one.example");
    ask(w, "bad@one.example");
    ask(w, "full@one.example");
    ask(w, "grey@one.example");
    ask(w, "gone@one.example");
    ask(w, "off@one.example");
    w->class = CLASS_TRUSTED;
    ask(w, "bad2@one.example");
    w->class = CLASS_STRANGER;
}

static void check_all_kinds(struct world *w)
{
    assert_answer(w, "good@one.example", R_rcpt_ok, "probe");
    assert_answer(w, "bad@one.example", R_unknown_user, "probe");
    assert_answer(w, "full@one.example", R_mailbox_full, "full");
    assert_answer(w, "grey@one.example", R_rcpt_temp, "later");
    assert_answer(w, "gone@one.example", R_mailbox_disabled, "probe");
    assert_answer(w, "off@one.example", R_rcpt_ok, "off");
    assert_answer(w, "bad2@one.example", R_rcpt_ok, "bypass");
    assert_int_equal(asked(w, "bad@one.example")->answer.reference[13], '\0');
    assert_int_equal(strlen(asked(w, "bad@one.example")->answer.reference), 13);
    assert_string_equal(asked(w, "good@one.example")->answer.reference, "");
    assert_int_equal(seen(&w->one, "MAIL FROM:<>"), 1); /* what came in one tick went in one transaction */
    assert_int_equal(seen(&w->one, "RCPT"), 5);
    assert_int_equal(seen(&w->one, "RSET"), 1);
    assert_int_equal(seen(&w->one, "DATA"), 0);
    w->mark = (int)seen(&w->one, "RCPT");
    /* Known now, and at both workers. Neither what was full nor what was greylisted is. */
    w->at = 1;
    ask(w, "good@one.example");
    ask(w, "bad@one.example");
    ask(w, "gone@one.example");
    assert_answer(w, "good@one.example", R_rcpt_ok, "cache");
    assert_answer(w, "bad@one.example", R_unknown_user, "cache");
    assert_answer(w, "gone@one.example", R_mailbox_disabled, "cache");
    ask(w, "full@one.example");
    ask(w, "grey@one.example");
    assert_true(asked(w, "grey@one.example")->is_pending);
}

static void check_asked_again(struct world *w)
{
    assert_int_equal(seen(&w->one, "RCPT"), w->mark + 2);
    assert_int_equal(w->one.connections, 1); /* kept and used again */
}

static void verdicts_of_all_kinds(void **state)
{
    static const struct step steps[] = {
        {ask_all_kinds, all_answered}, {check_all_kinds, all_answered}, {check_asked_again, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

/* --- single flight --- */

static void ask_the_same(struct world *w)
{
    w->one.rules = ordinary;
    sink_start(&w->one);
    for (int i = 0; i < 40; i++) {
        w->at = (unsigned)i % 2;
        ask(w, i % 4 < 2 ? "Bob@one.example" : "bob@one.example");
    }
    verifier_cancel(&w->asks[5].ask);
    w->asks[5].is_cancelled = true;
    w->answered_count++;
}

static void check_the_same(struct world *w)
{
    for (int i = 0; i < 40; i++)
        if (i != 5)
            assert_int_equal(w->asks[i].answer.reply, R_rcpt_ok);
    assert_int_equal(seen(&w->one, "RCPT"), 1);
}

static void one_probe_for_all_who_ask(void **state)
{
    static const struct step steps[] = {{ask_the_same, all_answered}, {check_the_same, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

/* --- batches --- */

static void ask_many(struct world *w)
{
    char to[64];
    w->one.rules = ordinary;
    w->one.rcpts_max = 10;
    sink_start(&w->one);
    for (int i = 0; i < 100; i++) {
        snprintf(to, sizeof to, "%s%d@one.example", i % 5 ? "user" : "bad", i);
        ask(w, to);
    }
}

static void check_many(struct world *w)
{
    for (int i = 0; i < 100; i++)
        assert_int_equal(w->asks[i].answer.reply, i % 5 ? R_rcpt_ok : R_unknown_user);
    assert_true(backend_of(w, "one.example")->batch_limit <= 15); /* it takes ten good ones */
    assert_true(seen(&w->one, "RCPT") < 300);
}

static void learns_how_many_a_server_takes(void **state)
{
    static const struct step steps[] = {{ask_many, all_answered}, {check_many, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

/* --- a dictionary --- */

static void ask_dictionary(struct world *w)
{
    char to[64];
    w->one.rules = ordinary;
    w->one.errors_max = 20; /* as Postfix */
    sink_start(&w->one);
    for (int i = 0; i < 300; i++) {
        snprintf(to, sizeof to, "bad%d@one.example", i);
        ask(w, to);
    }
}

static void check_dictionary(struct world *w)
{
    for (int i = 0; i < 300; i++)
        assert_int_equal(w->asks[i].answer.reply, R_unknown_user);
    assert_true(w->one.connections >= 300 / 20 && w->one.connections <= 60);
    assert_true(seen(&w->one, "RCPT") < 300 + 500); /* the first batches, of which nothing was known */
    assert_int_equal(backend_of(w, "one.example")->breaker.state, BREAKER_UP);
}

static void servers_that_count_errors_are_asked_to_the_end(void **state)
{
    static const struct step steps[] = {{ask_dictionary, all_answered}, {check_dictionary, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

/* --- overflow --- */

static void ask_too_many(struct world *w)
{
    char to[64];
    for (int i = 0; i < 30; i++) { /* nobody answers yet: the server is not started */
        snprintf(to, sizeof to, "user%d@one.example", i);
        ask(w, to);
    }
}

static bool twenty_answered(struct world *w)
{
    return w->answered_count == 20;
}

static void check_overflow(struct world *w)
{
    uint32_t overflown = 0;
    for (int i = 0; i < 30; i++)
        if (w->asks[i].is_answered) {
            assert_int_equal(w->asks[i].answer.reply, R_rcpt_temp);
            assert_string_equal(w->asks[i].answer.source, "overflow");
            overflown++;
        }
    assert_int_equal(overflown, 20);
    sink_start(&w->one);
}

static void check_ten_probed(struct world *w)
{
    assert_int_equal(seen(&w->one, "RCPT"), 10);
}

static void too_many_are_answered_at_once(void **state)
{
    static const struct step steps[] = {
        {ask_too_many, twenty_answered}, {check_overflow, all_answered}, {check_ten_probed, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, ", waiting: 10", steps);
}

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
    assert_answer(w, "a@two.example", R_verify_down, "down");
    assert_answer(w, "b@two.example", R_verify_down, "down");
    assert_int_equal(backend_of(w, "two.example")->breaker.state, BREAKER_DOWN);
    w->mark = (int)metric_read(M_probe_connects);
    ask(w, "c@two.example");
}

static void check_down_from_the_record(struct world *w)
{
    assert_answer(w, "c@two.example", R_verify_down, "down");
    assert_int_equal(metric_read(M_probe_connects), w->mark); /* nobody tried */
    backend_of(w, "two.example")->breaker.retry_at_ms = 0;    /* the time is over */
    ask(w, "d@two.example");
    ask(w, "e@two.example");
}

static void check_one_trial(struct world *w)
{
    assert_answer(w, "d@two.example", R_verify_down, "down");
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
    assert_answer(w, "new@two.example", R_verify_down, "down");
    age_record(w, "a@two.example", 8 * 86400);
    ask(w, "a@two.example");
}

static void check_too_old(struct world *w)
{
    assert_answer(w, "a@two.example", R_verify_down, "down");
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

static void check_refused(struct world *w)
{
    assert_answer(w, "a@one.example", R_verify_refused, "refuses-us");
    assert_int_equal(backend_of(w, "one.example")->breaker.state, BREAKER_REFUSES_US);
    struct verdict_record r;
    assert_false(verdict_cache_get(w->shared.cache, STR("a@one.example"), wall_s(), &r));
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
    assert_answer(w, "a@one.example", R_verify_refused, "refuses-us");
    assert_int_equal(seen(&w->one, "MAIL"), 1);
}

static void the_configured_sender_stays(void **state)
{
    static const struct step steps[] = {{ask_no_empty, all_answered}, {check_empty_wanted, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, ", sender: empty", steps);
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
    assert_answer(w, "b@one.example", R_verify_refused, "refuses-us");
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

/* --- good ones fall slowly --- */

static void ask_bob(struct world *w)
{
    sink_start(&w->one);
    ask(w, "bob@one.example");
}

static const struct rule no_bob[] = {{"RCPT TO:<bob", "550 5.1.1 no\r\n", false}, {0}};

static void bob_is_refused(struct world *w)
{
    w->one.rules = no_bob;
    age_record(w, "bob@one.example", 2 * 86400);
    ask(w, "bob@one.example");
}

static void still_good(struct world *w)
{
    assert_answer(w, "bob@one.example", R_rcpt_ok, "probe");
    age_record(w, "bob@one.example", 61);
    ask(w, "bob@one.example");
}

static void fallen(struct world *w)
{
    assert_answer(w, "bob@one.example", R_unknown_user, "probe");
}

static void good_ones_fall_at_the_second_refusal(void **state)
{
    static const struct step steps[] = {{ask_bob, all_answered},
                                        {bob_is_refused, all_answered},
                                        {still_good, all_answered},
                                        {fallen, NULL},
                                        {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

static void first_is_450(struct world *w)
{
    w->one.rules = ordinary;
    sink_start(&w->one);
    ask(w, "bad@one.example");
}

static void second_look(struct world *w)
{
    assert_answer(w, "bad@one.example", R_rcpt_temp, "probe");
    ask(w, "bad@one.example");
    assert_answer(w, "bad@one.example", R_rcpt_temp, "cache");
    age_record(w, "bad@one.example", 61);
    ask(w, "bad@one.example");
    assert_true(asked(w, "bad@one.example")->is_pending);
}

static void confirmed(struct world *w)
{
    assert_answer(w, "bad@one.example", R_unknown_user, "probe");
}

static void cautious_says_450_first(void **state)
{
    static const struct step steps[] = {
        {first_is_450, all_answered}, {second_look, all_answered}, {confirmed, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, ", cautious: true", steps);
}

static void check_shadow(struct world *w)
{
    const struct asked *k = asked(w, "bad@one.example");
    assert_int_equal(k->answer.reply, R_rcpt_ok);
    assert_true(k->answer.shadow);
    assert_int_equal(k->answer.would, R_unknown_user);
}

static void shadow_mode_refuses_nothing(void **state)
{
    static const struct step steps[] = {{first_is_450, all_answered}, {check_shadow, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, ", enforce: false", steps);
}

/* --- refresh, learning --- */

static void refresh(struct world *w)
{
    assert_answer(w, "bob@one.example", R_rcpt_ok, "probe");
    age_record(w, "bob@one.example", 20 * 3600);
    w->mark = (int)seen(&w->one, "RCPT");
    ask(w, "bob@one.example");
    assert_answer(w, "bob@one.example", R_rcpt_ok, "cache");
    w->at = 1;
    ask(w, "bob@one.example");
}

static bool refreshed(struct world *w)
{
    struct verdict_record r = {0};
    verdict_cache_get(w->shared.cache, STR("bob@one.example"), wall_s(), &r);
    return wall_s() - r.checked_s < 3600;
}

static void check_refreshed(struct world *w)
{
    assert_int_equal(seen(&w->one, "RCPT"), w->mark + 1);
}

static void good_ones_in_use_are_refreshed(void **state)
{
    static const struct step steps[] = {
        {ask_bob, all_answered}, {refresh, refreshed}, {check_refreshed, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

static void learn(struct world *w)
{
    struct address a;
    struct smtp_reply no = {.code = 550, .enhanced = {5, 1, 1}, .text = STR("no such user"), .line_count = 1};
    assert_int_equal(address_parse_mailbox(STR("sent@one.example"), &a), 0);
    verifier_learn_delivery(w->verifiers[0], &a, STAGE_DOT, &(struct smtp_reply){.code = 250}, true);
    assert_int_equal(address_parse_mailbox(STR("lost@one.example"), &a), 0);
    verifier_learn_delivery(w->verifiers[0], &a, STAGE_RCPT, &no, false);
    assert_int_equal(address_parse_mailbox(STR("writer@one.example"), &a), 0);
    verifier_learn_sender(w->verifiers[0], &a);
    assert_int_equal(address_parse_mailbox(STR("writer@far.example"), &a), 0);
    verifier_learn_sender(w->verifiers[0], &a);
    ask(w, "sent@one.example");
    assert_answer(w, "sent@one.example", R_rcpt_ok, "learned");
    ask(w, "lost@one.example");
    assert_answer(w, "lost@one.example", R_unknown_user, "learned");
    sink_start(&w->one);
    ask(w, "writer@one.example");
    assert_answer(w, "writer@one.example", R_rcpt_ok, "learned");
}

static bool writer_is_probed(struct world *w)
{
    struct verdict_record r = {0};
    verdict_cache_get(w->shared.cache, STR("writer@one.example"), wall_s(), &r);
    return r.source == SOURCE_PROBE;
}

static void learns_from_deliveries_and_senders(void **state)
{
    static const struct step steps[] = {{learn, writer_is_probed}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

/* --- canaries --- */

static void canary_now(struct world *w)
{
    struct backend *b = backend_of(w, "one.example");
    LIST_EACH(&b->watches, k)
    container_of(k, struct domain_watch, link)->watch.due_ms = 1;
    canary_timer(&b->canary_timer);
}

static enum watch_state watch_of(struct world *w)
{
    struct backend *b = backend_of(w, "one.example");
    return container_of(list_first(&b->watches), struct domain_watch, link)->watch.state;
}

static bool first_canary_back(struct world *w)
{
    struct backend *b = backend_of(w, "one.example");
    return container_of(list_first(&b->watches), struct domain_watch, link)->watch.taken_count == 1;
}

static bool is_blind(struct world *w)
{
    return watch_of(w) == WATCH_ACCEPTS_ALL;
}

static void ask_blind(struct world *w)
{
    w->mark = (int)seen(&w->one, "RCPT");
    ask(w, "whoever@one.example");
}

static void check_blind(struct world *w)
{
    assert_answer(w, "whoever@one.example", R_rcpt_ok, "accept-all");
    assert_int_equal(seen(&w->one, "RCPT"), w->mark);
    struct address a;
    struct smtp_reply no = {.code = 550, .enhanced = {5, 1, 1}, .text = STR("no such user"), .line_count = 1};
    assert_int_equal(address_parse_mailbox(STR("nobody@one.example"), &a), 0);
    verifier_learn_delivery(w->verifiers[0], &a, STAGE_DOT, &no, false);
}

static bool is_data_stage(struct world *w)
{
    return watch_of(w) == WATCH_DATA_STAGE;
}

static void canaries_find_servers_that_take_everything(void **state)
{
    static const struct step steps[] = {{ask_bob, all_answered},      {canary_now, first_canary_back},
                                        {canary_now, is_blind},       {ask_blind, all_answered},
                                        {check_blind, is_data_stage}, {0}};
    static struct world w;
    world_start(&w);
    w.canary = "1h";
    world_run(&w, "", steps);
}

static void ask_bob_and_rules(struct world *w)
{
    static const struct rule canary[] = {{"RCPT TO:<postern-canary", "550 5.1.1 no\r\n", false}, {0}};
    w->one.rules = canary;
    ask_bob(w);
}

static bool tells(struct world *w)
{
    return watch_of(w) == WATCH_TELLS;
}

static void check_falls_at_once(struct world *w)
{
    assert_answer(w, "bob@one.example", R_unknown_user, "probe");
}

static void after_a_canary_the_first_refusal_counts(void **state)
{
    static const struct step steps[] = {{ask_bob_and_rules, all_answered},
                                        {canary_now, tells},
                                        {bob_is_refused, all_answered},
                                        {check_falls_at_once, NULL},
                                        {0}};
    static struct world w;
    world_start(&w);
    w.canary = "1h";
    world_run(&w, "", steps);
}

/* --- the operator --- */

static void probe_done(struct probe_now *p)
{
    struct world *w = container_of(p, struct world, probe);
    w->probe_is_done = true;
    snprintf(w->transcript, sizeof w->transcript, STR_FMT, STR_ARG(p->transcript));
}

static void probe_now(struct world *w)
{
    w->one.rules = ordinary;
    sink_start(&w->one);
    w->probe.done = probe_done;
    assert_int_equal(verifier_probe_now(w->verifiers[0], STR("nonsense"), &w->probe), ERR_SYNTAX);
    assert_int_equal(verifier_probe_now(w->verifiers[0], STR("bad@one.example"), &w->probe), 0);
}

static bool probe_is_done(struct world *w)
{
    return w->probe_is_done && list_empty(&w->verifiers[0]->private_backends);
}

static void check_probe(struct world *w)
{
    assert_int_equal(w->probe.reply, R_unknown_user);
    assert_string_equal(w->probe.result, "unknown");
    static const char *const parts[] = {" ms S: 220 sink.example ESMTP\n", " ms C: EHLO gw.example.com\n",
                                        " ms C: RCPT TO:<bad@one.example>\n",
                                        " ms S: 550 5.1.1 no such user\n"};
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        if (!strstr(w->transcript, parts[i]))
            fail_msg("no %s in\n%s", parts[i], w->transcript);
    ask(w, "bad@one.example");
    assert_answer(w, "bad@one.example", R_unknown_user, "cache");
}

static void a_probe_with_its_dialogue(void **state)
{
    static const struct step steps[] = {{probe_now, probe_is_done}, {check_probe, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
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
    assert_answer(w, "b@one.example", R_verify_down, "down");
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
        cmocka_unit_test(verdicts_of_all_kinds),
        cmocka_unit_test(one_probe_for_all_who_ask),
        cmocka_unit_test(learns_how_many_a_server_takes),
        cmocka_unit_test(servers_that_count_errors_are_asked_to_the_end),
        cmocka_unit_test(too_many_are_answered_at_once),
        cmocka_unit_test(one_record_answers_for_a_server_that_is_down),
        cmocka_unit_test(the_next_host_is_asked),
        cmocka_unit_test(serves_stale_when_the_server_is_down),
        cmocka_unit_test(a_refused_name_is_not_the_recipient_s_fault),
        cmocka_unit_test(the_sender_adapts),
        cmocka_unit_test(the_configured_sender_stays),
        cmocka_unit_test(a_server_that_asks_back_is_a_loop),
        cmocka_unit_test(our_own_token_is_a_loop),
        cmocka_unit_test(another_gateway_s_token_is_passed_on),
        cmocka_unit_test(good_ones_fall_at_the_second_refusal),
        cmocka_unit_test(cautious_says_450_first),
        cmocka_unit_test(shadow_mode_refuses_nothing),
        cmocka_unit_test(good_ones_in_use_are_refreshed),
        cmocka_unit_test(learns_from_deliveries_and_senders),
        cmocka_unit_test(canaries_find_servers_that_take_everything),
        cmocka_unit_test(after_a_canary_the_first_refusal_counts),
        cmocka_unit_test(a_probe_with_its_dialogue),
        cmocka_unit_test(a_connection_that_breaks_is_tried_again_but_not_for_ever),
        cmocka_unit_test(shutdown_answers_all_who_wait),
        cmocka_unit_test(lmtp_servers_are_asked_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
