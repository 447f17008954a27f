/* Many messages to one destination, and what others notice of it. */
#include "world.h"

static const struct step end = {NULL, NULL};
#define DEFAULT_RETRY "first: 5m, max: 4000s"
#define CROWD         100
#define ACTIVE_MAX    32

static void see_one(void *ctx, const struct relay_destination_info *d)
{
    char at[64];
    struct sbuf b = SBUF_ON(at);
    struct world *w = ctx;
    endpoint_format(&w->one.at, &b);
    if (str_ends(d->key, sbuf_view(&b)))
        w->left = d->aside;
}

static uint32_t aside_at_one(struct world *w)
{
    w->left = 0;
    relay_each_destination(w->relay, see_one, w);
    return w->left;
}

static void put_crowd(struct world *w)
{
    char to[32];
    for (int i = 0; i < CROWD; i++) {
        snprintf(to, sizeof to, "u%d@one.example", i);
        put(w, "s@two.example", to, SMALL_BODY);
    }
}

static void put_crowd_to_mute(struct world *w)
{
    w->one.is_mute = true;
    sink_start(&w->one);
    sink_start(&w->two);
    put_crowd(w);
}

/* Half of what may be active is in work, the rest stands aside: the active set is not full. */
static bool crowd_is_aside(struct world *w)
{
    return aside_at_one(w) == CROWD - ACTIVE_MAX / 2;
}

static void put_to_two(struct world *w)
{
    put(w, "s@one.example", "a@two.example", SMALL_BODY);
}

static bool two_has_it(struct world *w)
{
    return w->two.messages == 1;
}

static void check_reason(struct world *w)
{
    struct qmsg *m = NULL;
    struct relay_message_info info;
    for (uint64_t id = w->last_id; !m; id--)
        m = queue_find(w->queue, id);
    relay_message_info(w->relay, m, &info);
    assert_true(str_eq(str_cstr(info.state), STR("deferred")));
    assert_true(str_istarts(info.last_text, STR("waits for its turn")));
    assert_int_equal(info.attempts, 0);
}

static void a_silent_destination_leaves_room_for_others(void **state)
{
    struct world w = {.active_max = ACTIVE_MAX};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY,
              (struct step[]){
                  {put_crowd_to_mute, crowd_is_aside}, {put_to_two, two_has_it}, {check_reason, NULL}, end});
    assert_int_equal(w.left, CROWD);
}

static void put_mixed(struct world *w)
{
    put(w, "s@two.example", "a@one.example,b@two.example", SMALL_BODY);
}

static bool two_has_its_part(struct world *w)
{
    return w->two.messages == 1 && aside_at_one(w) == CROWD - ACTIVE_MAX / 2 + 1;
}

static void a_message_to_a_crowd_and_another_reaches_the_other(void **state)
{
    struct world w = {.active_max = ACTIVE_MAX};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY,
              (struct step[]){{put_crowd_to_mute, crowd_is_aside}, {put_mixed, two_has_its_part}, end});
    assert_int_equal(w.left, CROWD + 1);
}

static void put_old_one(struct world *w)
{
    w->arrived_ms = world_wall_ms() - UINT64_C(5) * 86400 * 1000 + 500;
    put(w, "s@two.example", "old@one.example", SMALL_BODY);
}

static bool is_returned(struct world *w)
{
    return w->two.messages == 1;
}

static void check_returned(struct world *w)
{
    assert_non_null(memmem(w->two.last.p, w->two.last.n, "5.4.7", 5));
    assert_non_null(memmem(w->two.last.p, w->two.last.n, "waits for its turn", 18));
}

static void what_stands_aside_is_returned_when_its_time_is_over(void **state)
{
    struct world w = {.active_max = ACTIVE_MAX, .more_config = "dsn: { delay_after: 0 }\n"};
    world_start(&w);
    world_run(
        &w, "", "first: 5m, max: 4000s, lifetime: 5d",
        (struct step[]){
            {put_crowd_to_mute, crowd_is_aside}, {put_old_one, is_returned}, {check_returned, NULL}, end});
    assert_int_equal(w.left, CROWD);
}

/* --- a dead destination --- */

static const struct rule out_of_service[] = {{"<connect>", "554 5.3.2 not today\r\n", true}, {0}};
static uint64_t put_at_ms;

static void put_crowd_to_dead(struct world *w)
{
    w->one.rules = out_of_service;
    sink_start(&w->one);
    sink_start(&w->two);
    put_at_ms = loop_now_ms(w->loop);
    put_crowd(w);
}

static bool all_are_aside(struct world *w)
{
    return w->queued == CROWD && aside_at_one(w) == CROWD;
}

static bool tried_thrice_more(struct world *w)
{
    return w->one.connections >= 6;
}

/* The first connections come to an unknown server, as many as the first window; from then on a back-off, of
 * 800 ms or more, has one. */
static void check_connections(struct world *w)
{
    uint64_t steps = (loop_now_ms(w->loop) - put_at_ms) / 800;
    assert_in_range(w->one.connections, 1, 3 + steps);
    w->one.rules = NULL;
}

static void check_order(struct world *w)
{
    const char *at = w->one.lines.p;
    const char *to = w->one.lines.p + w->one.lines.n;
    for (int i = 0; i < CROWD; i++) {
        char line[64];
        int n = snprintf(line, sizeof line, "RCPT TO:<u%d@", i);
        at = memmem(at, (size_t)(to - at), line, (size_t)n);
        if (!at)
            fail_msg("u%d came out of order", i);
    }
}

static void a_dead_destination_costs_one_connection_a_step_and_keeps_the_order(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, ", connections: 1", "first: 1s, max: 1s",
              (struct step[]){{put_crowd_to_dead, all_are_aside},
                              {NULL, tried_thrice_more},
                              {check_connections, is_empty},
                              {check_order, NULL},
                              end});
    assert_int_equal(w.one.messages, CROWD);
}

static void start_two(struct world *w)
{
    w->one.rules = out_of_service;
    sink_start(&w->one);
    sink_start(&w->two);
    put_crowd(w);
}

static void route_to_two(struct world *w)
{
    struct policy *old = w->policy;
    struct sink one = w->one;
    w->one.at = w->two.at;
    w->policy = world_policy(w, "", DEFAULT_RETRY);
    w->one.at = one.at;
    relay_set_policy(w->relay, w->policy);
    policy_free(old);
}

static void a_new_route_is_taken_at_once(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY,
              (struct step[]){{start_two, all_are_aside}, {route_to_two, is_empty}, end});
    assert_int_equal(w.two.messages, CROWD);
}

/* It makes more jobs than may be active. */
static void put_wide(struct world *w)
{
    static char to[120 * 20];
    struct sbuf b = SBUF_ON(to);
    for (int i = 0; i < 120; i++)
        sbuf_printf(&b, "%su%d@one.example", i ? "," : "", i);
    sbuf_char(&b, '\0');
    w->one.rules = out_of_service;
    sink_start(&w->one);
    put(w, "s@two.example", to, SMALL_BODY);
}

static bool wide_is_aside(struct world *w)
{
    return w->queued == 1 && aside_at_one(w) == 1;
}

static void repair(struct world *w)
{
    w->one.rules = NULL;
}

static void a_message_of_many_jobs_goes_after_the_trial(void **state)
{
    struct world w = {.active_max = 2};
    world_start(&w);
    world_run(&w, "", "first: 1s, max: 1s",
              (struct step[]){{put_wide, wide_is_aside}, {repair, is_empty}, end});
    assert_int_equal(w.one.messages, 2);
}

/* --- paused by an operator --- */

static void set_pauses(struct world *w, bool all, str_t key)
{
    struct pauses *p = pauses_new(all, &key, key.p != NULL);
    assert_non_null(p);
    relay_set_pauses(w->relay, p);
    pauses_unref(p);
}

static str_t key_of_one(struct world *w, struct sbuf *b)
{
    sbuf_cstr(b, "TLS-OFF:");
    endpoint_format(&w->one.at, b);
    return sbuf_view(b);
}

static void pause_one(struct world *w)
{
    char text[80];
    struct sbuf b = SBUF_ON(text);
    sink_start(&w->one);
    sink_start(&w->two);
    set_pauses(w, false, key_of_one(w, &b));
    put_crowd(w);
}

static void check_paused(struct world *w)
{
    struct relay_message_info info;
    relay_message_info(w->relay, queue_find(w->queue, w->last_id), &info);
    assert_true(str_eq(info.last_text, STR("paused by the administrator")));
    assert_int_equal(info.due_ms, 0);
    assert_int_equal(info.attempts, 0);
    assert_int_equal(w->one.connections, 0);
}

static void resume(struct world *w)
{
    set_pauses(w, false, STR_NONE);
}

static void a_paused_destination_gets_nothing_until_it_is_resumed(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", DEFAULT_RETRY,
              (struct step[]){{pause_one, all_are_aside},
                              {check_paused, NULL},
                              {put_to_two, two_has_it},
                              {resume, is_empty},
                              end});
    assert_int_equal(w.one.messages, CROWD);
}

static void put_some(struct world *w)
{
    sink_start(&w->one);
    sink_start(&w->two);
    w->one.is_mute = true; /* they wait for the greeting */
    put_crowd(w);
}

static bool one_is_connected(struct world *w)
{
    return w->queued == CROWD && w->one.open > 0;
}

static void pause_all(struct world *w)
{
    set_pauses(w, true, STR_NONE);
}

static void put_paused_old_one(struct world *w)
{
    resume(w);
    pause_all(w);
    put_old_one(w);
}

/* The message is gone, its report is in the queue. */
static bool report_waits(struct world *w)
{
    return w->queued == CROWD + 1 && !queue_find(w->queue, w->last_id) && in_queue(w) == CROWD + 1;
}

static void check_returned_paused(struct world *w)
{
    assert_non_null(memmem(w->two.last.p, w->two.last.n, "paused by the administrator", 27));
}

/* What waits for a connection goes aside too; lifetimes go on; the report about it waits as well. */
static void with_all_paused_lifetimes_go_on(void **state)
{
    struct world w = {.more_config = "dsn: { delay_after: 0 }\n"};
    world_start(&w);
    world_run(&w, "", "first: 5m, max: 4000s, lifetime: 5d",
              (struct step[]){{put_some, one_is_connected},
                              {pause_all, all_are_aside},
                              {put_paused_old_one, report_waits},
                              {resume, is_returned},
                              {check_returned_paused, NULL},
                              end});
}

/* --- limits of a route --- */

static bool all_are_sent(struct world *w)
{
    return w->queued == CROWD && in_queue(w) == 0;
}

static void put_crowd_to_good(struct world *w)
{
    sink_start(&w->one);
    put_at_ms = loop_now_ms(w->loop);
    put_crowd(w);
}

static void a_connection_carries_as_many_messages_as_it_may(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, ", messages_per_connection: 7", DEFAULT_RETRY,
              (struct step[]){{put_crowd_to_good, all_are_sent}, end});
    assert_int_equal(w.one.messages, CROWD);
    assert_int_equal(w.one.messages_most, 7);
}

static void check_rate(struct world *w)
{
    uint64_t ms = loop_now_ms(w->loop) - put_at_ms;
    assert_true(ms >= CROWD * 10 - 200); /* 100 a second, and what may be caught up */
}

static void a_rate_spreads_the_messages(void **state)
{
    struct world w = {.active_max = ACTIVE_MAX};
    world_start(&w);
    world_run(&w, ", rate: 100/s", DEFAULT_RETRY,
              (struct step[]){{put_crowd_to_good, all_are_sent}, {check_rate, NULL}, end});
    assert_int_equal(w.one.messages, CROWD);
}

static void one_has_its_first(struct world *w)
{
    put_crowd_to_good(w);
    sink_start(&w->two);
}

static bool one_has_one(struct world *w)
{
    return w->queued == CROWD && w->one.messages == 1;
}

static void a_slow_rate_holds_nobody_else_up(void **state)
{
    struct world w = {.active_max = ACTIVE_MAX};
    world_start(&w);
    world_run(&w, ", rate: 1/d", DEFAULT_RETRY,
              (struct step[]){{one_has_its_first, one_has_one}, {put_to_two, two_has_it}, end});
    assert_int_equal(w.one.messages, 1);
    assert_in_range(w.one.connections, 1, 3);
    assert_int_equal(w.left, CROWD - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_silent_destination_leaves_room_for_others),
        cmocka_unit_test(a_message_to_a_crowd_and_another_reaches_the_other),
        cmocka_unit_test(what_stands_aside_is_returned_when_its_time_is_over),
        cmocka_unit_test(a_dead_destination_costs_one_connection_a_step_and_keeps_the_order),
        cmocka_unit_test(a_new_route_is_taken_at_once),
        cmocka_unit_test(a_message_of_many_jobs_goes_after_the_trial),
        cmocka_unit_test(a_paused_destination_gets_nothing_until_it_is_resumed),
        cmocka_unit_test(with_all_paused_lifetimes_go_on),
        cmocka_unit_test(a_connection_carries_as_many_messages_as_it_may),
        cmocka_unit_test(a_rate_spreads_the_messages),
        cmocka_unit_test(a_slow_rate_holds_nobody_else_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
