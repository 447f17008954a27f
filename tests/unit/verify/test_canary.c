/* Canaries, and the domains that they watch. */
#include "world.h"

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

/* Somebody mended it, and does not want to wait for a day. */
static void retry_mended(struct world *w)
{
    static const struct rule mended[] = {{"RCPT TO:<postern-canary", "550 5.1.1 no\r\n", false}, {0}};
    struct backend *b = backend_of(w, "one.example");
    struct verifier_shown shown;
    uint32_t count, hurried;
    w->one.rules = mended;
    assert_int_equal(verifier_show(b->verifier, STR("who@one.example"), &shown), 0);
    assert_false(shown.would_ask);
    assert_int_equal(shown.answer.source, FROM_BLIND);
    verifier_retry(b->verifier, STR("nobody:25"), &count, &hurried);
    assert_int_equal(count, 0);
    verifier_retry(b->verifier, b->key, &count, &hurried);
    assert_int_equal(count, 1);
    assert_int_equal(hurried, 1);
}

static bool tells(struct world *w);

static void a_blind_server_is_tried_again_when_an_operator_says_so(void **state)
{
    static const struct step steps[] = {{ask_bob, all_answered},
                                        {canary_now, first_canary_back},
                                        {canary_now, is_blind},
                                        {retry_mended, tells},
                                        {0}};
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

/* Whoever makes up subdomains of a wildcard makes up no work for its server. */
#define SUBDOMAINS 30

static void ask_subdomains(struct world *w, const char *local)
{
    for (int i = 0; i < SUBDOMAINS; i++) {
        char to[64];
        snprintf(to, sizeof to, "%s@s%d.wild.example", local, i);
        ask(w, to);
    }
}

static void ask_refused_subdomains(struct world *w)
{
    static const struct rule rules[] = {{"RCPT TO:<bad", "550 5.1.1 no\r\n", false}, {0}};
    w->one.rules = rules;
    sink_start(&w->one);
    ask_subdomains(w, "bad");
}

static void ask_taken_subdomains(struct world *w)
{
    ask_subdomains(w, "bob");
}

static uint32_t canaries_out(struct world *w)
{
    uint32_t n = 0;
    LIST_EACH(&backend_of(w, "one.example")->watches, k)
    n += container_of(k, struct domain_watch, link)->watch.is_out;
    return n;
}

static void no_canary(struct world *w)
{
    canary_now(w);
    assert_int_equal(canaries_out(w), 0);
}

static void one_canary(struct world *w)
{
    canary_now(w);
    assert_int_equal(canaries_out(w), 1);
    canary_now(w);
    assert_int_equal(canaries_out(w), 1);
}

static bool the_next_flew(struct world *w)
{
    assert_true(canaries_out(w) <= 1);
    return seen(&w->one, "RCPT TO:<postern-canary") >= 2;
}

static void canaries_fly_one_by_one(void **state)
{
    static const struct step steps[] = {{ask_refused_subdomains, all_answered},
                                        {no_canary, NULL},
                                        {ask_taken_subdomains, all_answered},
                                        {one_canary, the_next_flew},
                                        {0}};
    static struct world w;
    world_start(&w);
    w.canary = "1h";
    world_run(&w, "", steps);
}

static void hold_bob(struct world *w)
{
    w->one.is_mute = true;
    ask_bob(w);
}

static bool bob_is_asked_for(struct world *w)
{
    return w->one.open > 0;
}

/* The list of domains does not fill up for ever, and who is being asked for stays in it. */
static void more_domains_than_fit(struct world *w)
{
    struct backend *b = backend_of(w, "one.example");
    const struct domain_watch *in_use = backend_domain(b, STR("one.example"));
    for (int i = 0; i < 30000; i++) {
        char domain[64];
        snprintf(domain, sizeof domain, "s%d.wild.example", i);
        assert_non_null(backend_domain(b, str_cstr(domain)));
    }
    assert_true(b->watches_by_domain.used_count <= 10000);
    assert_ptr_equal(backend_domain(b, STR("one.example")), in_use);
}

static void made_up_domains_push_out_each_other(void **state)
{
    static const struct step steps[] = {{hold_bob, bob_is_asked_for}, {more_domains_than_fit, NULL}, {0}};
    static struct world w;
    world_start(&w);
    world_run(&w, "", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canaries_find_servers_that_take_everything),
        cmocka_unit_test(a_blind_server_is_tried_again_when_an_operator_says_so),
        cmocka_unit_test(after_a_canary_the_first_refusal_counts),
        cmocka_unit_test(canaries_fly_one_by_one),
        cmocka_unit_test(made_up_domains_push_out_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
