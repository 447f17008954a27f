/* tests/unit/verify/test_prober.c: questions, batches, verdicts, over real sockets. */
#include "world.h"

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
    assert_answer(w, "full@one.example", R_rcpt_full, "full");
    assert_answer(w, "grey@one.example", R_rcpt_temp, "later");
    assert_answer(w, "gone@one.example", R_rcpt_disabled, "probe");
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
    assert_answer(w, "gone@one.example", R_rcpt_disabled, "cache");
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

/* What it offers in EHLO (RFC 9422) is kept to from the first transaction on. */
static void ask_who_says_limits(struct world *w)
{
    char to[64];
    w->one.says_limits = true;
    w->one.rcpts_max = 3;
    w->one.messages_per_connection = 4;
    sink_start(&w->one);
    for (int i = 0; i < 30; i++) {
        snprintf(to, sizeof to, "user%d@one.example", i);
        ask(w, to);
    }
}

static void check_who_says_limits(struct world *w)
{
    for (int i = 0; i < 30; i++)
        assert_int_equal(w->asks[i].answer.reply, R_rcpt_ok);
    assert_int_equal(seen(&w->one, "RCPT"), 30); /* none too many, so none twice */
    assert_int_equal(seen(&w->one, "MAIL"), 10);
    assert_in_range(w->one.connections, 3, 10);
}

static void limits_in_ehlo_hold_for_probes(void **state)
{
    static const struct step steps[] = {
        {ask_who_says_limits, all_answered}, {check_who_says_limits, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, ", connections: 1", steps);
}

static void ask_patient_server(struct world *w)
{
    char to[64];
    w->one.rules = ordinary;
    sink_start(&w->one);
    for (int i = 0; i < 500; i++) {
        snprintf(to, sizeof to, "bad%d@one.example", i);
        ask(w, to);
    }
}

static void check_patient_server(struct world *w)
{
    for (int i = 0; i < 500; i++)
        assert_int_equal(w->asks[i].answer.reply, R_unknown_user);
    assert_int_equal(seen(&w->one, "RCPT"), 500);
    assert_true(w->one.connections <= 10);
}

static void servers_that_do_not_mind_get_few_connections(void **state)
{
    static const struct step steps[] = {
        {ask_patient_server, all_answered}, {check_patient_server, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, ", connections: 2", steps);
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
            assert_string_equal(answer_source_name(w->asks[i].answer.source), "overflow");
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

/* --- lists --- */

static void ask_lists(struct world *w)
{
    struct recipient_list *list;
    struct diag d = {.file = "recipients"};
    struct verdict_key_rules rules = {.fold_case = true};
    assert_int_equal(recipient_list_parse(&list, STR("Listed@one.example\n@two.example\n"), &rules, &d), 0);
    diag_free(&d);
    ask(w, "early@one.example"); /* before the list could be read */
    assert_answer(w, "early@one.example", R_rcpt_temp, "list");
    struct verify_list l = {.path = STR("/etc/recipients"), .rules = rules, .list = list};
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(verifier_set_lists(w->verifiers[i], &l, 1), 0);
    recipient_list_unref(list);
    ask(w, "listed@one.example");
    ask(w, "other@one.example");
    ask(w, "whoever@two.example");
    assert_answer(w, "listed@one.example", R_rcpt_ok, "list");
    assert_answer(w, "other@one.example", R_unknown_user, "list");
    assert_answer(w, "whoever@two.example", R_rcpt_ok, "list");
    assert_int_equal(verifier_set_lists(w->verifiers[0], NULL, 0), 0);
    ask(w, "listed@one.example");
    assert_answer(w, "listed@one.example", R_rcpt_temp, "list");
}

static void lists_answer_at_once(void **state)
{
    static const struct step steps[] = {{ask_lists, all_answered}, {0}};
    static struct world w;
    world_start(&w);
    w.mode = "listed";
    world_run(&w, ", list: /etc/recipients", steps);
}

static void pin(struct world *w)
{
    struct verdict_record good = {.pin = PIN_GOOD}, unknown = {.pin = PIN_UNKNOWN, .state = VERDICT_GOOD};
    verdict_cache_load(w->shared.known.cache, STR("a@one.example"), &good, wall_s());
    verdict_cache_load(w->shared.known.cache, STR("b@one.example"), &unknown, wall_s());
    ask(w, "a@one.example");
    ask(w, "b@one.example");
    assert_answer(w, "a@one.example", R_rcpt_ok, "pin");
    assert_answer(w, "b@one.example", R_unknown_user, "pin");
}

static void pins_are_stronger_than_all(void **state)
{
    static const struct step steps[] = {{pin, all_answered}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

/* --- hints, reload --- */

static void hint(struct world *w)
{
    struct address a;
    str_t text = STR("next@one.example");
    sink_start(&w->one);
    assert_int_equal(address_parse_mailbox(text, &a), 0);
    struct verify_query q = {
        .address = &a, .text = text, .sender = STR("s@far.example"), .policy = w->policy};
    verifier_hint(w->verifiers[0], &q);
    verifier_hint(w->verifiers[0], &q);
    ask(w, "next@one.example");
}

static void check_hint(struct world *w)
{
    assert_answer(w, "next@one.example", R_rcpt_ok, "probe");
    assert_int_equal(seen(&w->one, "RCPT"), 1);
}

static void a_hint_starts_the_probe(void **state)
{
    static const struct step steps[] = {{hint, all_answered}, {check_hint, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

static const struct rule held[] = {{"RCPT", "", false}, {"RSET", "", false}, {0}};

static void ask_held(struct world *w)
{
    w->one.rules = held;
    sink_start(&w->one);
    ask(w, "a@one.example");
}

static bool is_held(struct world *w)
{
    return seen(&w->one, "RSET") == 1;
}

/* What is under way goes on; the session's own snapshot judges its answer. */
static void reload(struct world *w)
{
    w->next_policy = world_policy(w, ", connections: 1");
    for (unsigned i = 0; i < 2; i++)
        verifier_set_policy(w->verifiers[i], w->next_policy);
    w->one.rules = NULL;
    LIST_EACH(&w->one.peers, k)
    sink_say(container_of(k, struct sink_peer, link), "250 2.1.5 ok\r\n250 ok\r\n");
}

static void ask_under_the_new_one(struct world *w)
{
    assert_answer(w, "a@one.example", R_rcpt_ok, "probe");
    ask(w, "b@one.example");
}

static void check_new_limits(struct world *w)
{
    assert_answer(w, "b@one.example", R_rcpt_ok, "probe");
    assert_int_equal(backend_of(w, "one.example")->limits.connections, 1);
}

static void a_reload_loses_nothing(void **state)
{
    static const struct step steps[] = {{ask_held, is_held},
                                        {reload, all_answered},
                                        {ask_under_the_new_one, all_answered},
                                        {check_new_limits, NULL},
                                        {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

/* --- waiting --- */

static const struct rule silent[] = {{"RCPT", "", false}, {"RSET", "", false}, {0}};

static void ask_silent(struct world *w)
{
    w->one.rules = silent;
    sink_start(&w->one);
    ask(w, "a@one.example");
    w->class = CLASS_EDGE;
    ask(w, "a@one.example");
}

static bool stranger_answered(struct world *w)
{
    return w->asks[0].is_answered && seen(&w->one, "RSET") == 1;
}

static void speak_at_last(struct world *w)
{
    assert_int_equal(w->asks[0].answer.reply, R_rcpt_temp);
    assert_string_equal(answer_source_name(w->asks[0].answer.source), "timeout");
    assert_int_equal(strlen(w->asks[0].answer.reference), 13);
    assert_true(w->asks[1].is_pending); /* the edge waits longer */
    LIST_EACH(&w->one.peers, k)
    sink_say(container_of(k, struct sink_peer, link), "250 2.1.5 ok\r\n250 ok\r\n");
}

static void the_retry_finds_it(struct world *w)
{
    assert_int_equal(w->asks[1].answer.reply, R_rcpt_ok);
    w->class = CLASS_STRANGER;
    ask(w, "a@one.example");
    assert_answer(w, "a@one.example", R_rcpt_ok, "cache");
    assert_int_equal(seen(&w->one, "RCPT"), 1);
}

static void the_probe_goes_on_when_the_wait_is_over(void **state)
{
    static const struct step steps[] = {
        {ask_silent, stranger_answered}, {speak_at_last, all_answered}, {the_retry_finds_it, NULL}, {0}};
    static struct world w;
    world_start(&w);
    w.wait = "20ms";
    world_run(&w, "", steps);
}

/* --- addresses outside ASCII --- */

static void ask_utf8(struct world *w)
{
    sink_start(&w->one);
    ask(w, "plain@one.example");
    ask(w, "gr\xc3\xbc\xc3\x9f@one.example");
}

static void check_utf8(struct world *w)
{
    assert_answer(w, "plain@one.example", R_rcpt_ok, "probe");
    assert_answer(w, "gr\xc3\xbc\xc3\x9f@one.example", R_needs_smtputf8, "no-smtputf8");
    assert_int_equal(seen(&w->one, "RCPT"), 1);
    static const struct rule smtputf8[] = {{"EHLO", "250-sink.example\r\n250 SMTPUTF8\r\n", false}, {0}};
    w->one.rules = smtputf8;
    LIST_EACH(&w->one.peers, k)
    sink_hang_up(container_of(k, struct sink_peer, link));
}

static bool is_unconnected(struct world *w)
{
    return !backend_of(w, "one.example")->conn_count;
}

static void ask_utf8_again(struct world *w)
{
    ask(w, "gr\xc3\xbc\xc3\x9f@one.example");
}

static void check_utf8_again(struct world *w)
{
    assert_answer(w, "gr\xc3\xbc\xc3\x9f@one.example", R_rcpt_ok, "probe");
    assert_int_equal(seen(&w->one, "MAIL FROM:<> SMTPUTF8"), 1);
}

static void utf8_recipients_need_smtputf8(void **state)
{
    static const struct step steps[] = {{ask_utf8, all_answered},
                                        {check_utf8, is_unconnected},
                                        {ask_utf8_again, all_answered},
                                        {check_utf8_again, NULL},
                                        {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

/* --- good ones fall slowly --- */

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
    verdict_cache_get(w->shared.known.cache, STR("bob@one.example"), wall_s(), &r);
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
    verdict_cache_get(w->shared.known.cache, STR("writer@one.example"), wall_s(), &r);
    return r.source == SOURCE_PROBE;
}

static void learns_from_deliveries_and_senders(void **state)
{
    static const struct step steps[] = {{learn, writer_is_probed}, {0}};
    static struct world w;
    world_start(&w);
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
    assert_true(w->probe.is_answered);
    assert_int_equal(w->probe.said, VERDICT_UNKNOWN);
    assert_int_equal(w->probe.before.state, VERDICT_NONE);
    assert_int_equal(w->probe.after.state, VERDICT_UNKNOWN);
    ask(w, "bad@one.example");
    assert_answer(w, "bad@one.example", R_unknown_user, "cache");
    const struct verify_answer *a = &w->asks[w->ask_count - 1].answer;
    char reference[14]; /* the refusal leads to the log line of the probe */
    verdict_reference(STR("bad@one.example"), &w->probe.after, reference);
    assert_string_equal(a->reference, reference);
}

static void dry_probe(struct world *w)
{
    w->probe.is_dry = true;
    probe_now(w);
}

static void check_dry_probe(struct world *w)
{
    struct verdict_record r;
    assert_int_equal(w->probe.after.state, VERDICT_UNKNOWN);
    assert_int_equal(w->probe.reply, R_unknown_user);
    assert_false(verdict_cache_peek(w->shared.known.cache, STR("bad@one.example"), &r));
}

static void a_dry_probe_changes_nothing(void **state)
{
    static const struct step steps[] = {{dry_probe, probe_is_done}, {check_dry_probe, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

static void a_probe_with_its_dialogue(void **state)
{
    static const struct step steps[] = {{probe_now, probe_is_done}, {check_probe, NULL}, {0}};
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
        cmocka_unit_test(limits_in_ehlo_hold_for_probes),
        cmocka_unit_test(servers_that_do_not_mind_get_few_connections),
        cmocka_unit_test(too_many_are_answered_at_once),
        cmocka_unit_test(lists_answer_at_once),
        cmocka_unit_test(pins_are_stronger_than_all),
        cmocka_unit_test(a_hint_starts_the_probe),
        cmocka_unit_test(a_reload_loses_nothing),
        cmocka_unit_test(the_probe_goes_on_when_the_wait_is_over),
        cmocka_unit_test(utf8_recipients_need_smtputf8),
        cmocka_unit_test(good_ones_fall_at_the_second_refusal),
        cmocka_unit_test(cautious_says_450_first),
        cmocka_unit_test(shadow_mode_refuses_nothing),
        cmocka_unit_test(good_ones_in_use_are_refreshed),
        cmocka_unit_test(learns_from_deliveries_and_senders),
        cmocka_unit_test(a_probe_with_its_dialogue),
        cmocka_unit_test(a_dry_probe_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
