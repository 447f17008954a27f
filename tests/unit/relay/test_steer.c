/* What an operator does to messages and destinations, and that nothing else happens to them. */
#include "world.h"

static const struct step end = {NULL, NULL};
#define RETRY "first: 5m, max: 4000s" /* nobody comes back by himself in a test's time */

static struct qmsg *last(const struct world *w)
{
    return queue_find(w->queue, w->last_id);
}

static str_t state_of_last(const struct world *w)
{
    struct relay_message_info info = {.state = "gone"};
    if (last(w))
        relay_message_info(w->relay, last(w), &info);
    return str_cstr(info.state);
}

static bool last_is_deferred(struct world *w)
{
    struct relay_message_info info = {0};
    if (w->queued != w->put_count)
        return false;
    relay_message_info(w->relay, last(w), &info);
    return str_eq(str_cstr(info.state), STR("deferred")) && info.last_text.p;
}

static const struct rule sick[] = {{"EHLO", "421 4.3.2 not now", true}, {0}};

static void put_more(struct world *w)
{
    put(w, "s@two.example", "a@one.example", SMALL_BODY);
}

/* one.example sends everybody away. */
static void put_one(struct world *w)
{
    w->one.rules = sick;
    sink_start(&w->one);
    put_more(w);
}

/* Its destination is up, and everybody who may go goes. */
static void start_one(struct world *w)
{
    struct route route;
    w->one.rules = NULL;
    sink_start(&w->two);
    str_t key = relay_destination_of(w->relay, STR("a@one.example"), &route);
    assert_true(relay_retry_destination(w->relay, key));
}

static void run(const struct step *steps)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", RETRY, steps);
}

/* --- hold, release --- */

static void hold(struct world *w)
{
    struct relay_message_info info;
    relay_hold(w->relay, last(w), STR("held by root: looks odd"));
    assert_true(last(w)->held);
    relay_message_info(w->relay, last(w), &info);
    assert_string_equal(info.state, "held");
    assert_true(str_eq(info.last_text, STR("held by root: looks odd")));
}

static void retry(struct world *w)
{
    relay_retry(w->relay, last(w));
}

static void hold_then_start(struct world *w)
{
    hold(w);
    retry(w); /* not of one that is held */
    start_one(w);
    put_more(w);
}

static bool one_message_left(struct world *w)
{
    return w->queued == 2 && w->one.messages == 1 && in_queue(w) == 1;
}

/* The only one that is left, whichever was put last. */
static bool take_it(void *ctx, struct qmsg *m)
{
    ((struct world *)ctx)->last_id = m->id;
    return true;
}

static void release(struct world *w)
{
    queue_each(w->queue, take_it, w);
    relay_release(w->relay, last(w));
    assert_false(last(w)->held);
}

static void a_held_message_waits_while_others_go(void **state)
{
    run((struct step[]){
        {put_one, last_is_deferred}, {hold_then_start, one_message_left}, {release, is_empty}, end});
}

static void release_of_one_that_is_not_held(struct world *w)
{
    relay_release(w->relay, last(w));
    assert_true(str_eq(state_of_last(w), STR("deferred"))); /* its back-off goes on */
}

static void only_what_is_held_is_released(void **state)
{
    run((struct step[]){{put_one, last_is_deferred},
                        {release_of_one_that_is_not_held, NULL},
                        {start_one, NULL},
                        {retry, is_empty},
                        end});
}

/* --- retry --- */

static void start_and_retry(struct world *w)
{
    w->one.rules = NULL;
    retry(w);
}

static void retry_ends_the_backoff(void **state)
{
    run((struct step[]){{put_one, last_is_deferred}, {start_and_retry, is_empty}, end});
}

static void ask_for_destinations(struct world *w)
{
    struct route route;
    char key[32];
    struct sbuf b = SBUF_ON(key);
    sbuf_printf(&b, "tls-off:127.0.0.1:%u", w->one.at.port);
    str_t key_of_one = relay_destination_of(w->relay, STR("x@one.example"), &route);
    assert_true(str_eq(key_of_one, sbuf_view(&b)));
    assert_null(relay_destination_of(w->relay, STR("no address"), &route).p);
    assert_null(relay_destination_of(w->relay, STR(""), &route).p);
    assert_false(relay_retry_destination(w->relay, STR("never.example:25")));
    w->one.rules = NULL;
    retry(w);
}

static void destinations_have_names(void **state)
{
    run((struct step[]){{put_one, last_is_deferred}, {ask_for_destinations, is_empty}, end});
}

/* --- remove --- */

static void remove_it(struct world *w)
{
    relay_remove(w->relay, last(w), false);
    assert_null(last(w)); /* at once */
    start_one(w);
}

static void a_removed_message_goes_without_a_word(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", RETRY, (struct step[]){{put_one, last_is_deferred}, {remove_it, is_empty}, end});
    assert_int_equal(w.one.messages, 0);
    assert_int_equal(w.two.messages, 0);
}

static void bounce_it(struct world *w)
{
    sink_start(&w->two);
    relay_remove(w->relay, last(w), true);
    if (last(w)) {
        assert_true(last(w)->held); /* after a crash it is not delivered */
        relay_release(w->relay, last(w));
        assert_true(last(w)->held); /* that is decided */
    }
}

static bool report_came(struct world *w)
{
    return w->two.messages == 1 && in_queue(w) == 0;
}

static void a_bounced_message_is_reported(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", RETRY, (struct step[]){{put_one, last_is_deferred}, {bounce_it, report_came}, end});
    assert_int_equal(w.one.messages, 0);
}

static void bounce_a_held_one(struct world *w)
{
    hold(w);
    bounce_it(w);
}

static void a_held_message_can_be_bounced(void **state)
{
    run((struct step[]){{put_one, last_is_deferred}, {bounce_a_held_one, report_came}, end});
}

/* --- while it is tried --- */

static void put_to_mute(struct world *w)
{
    w->one.is_mute = true; /* connects, and hears nothing */
    sink_start(&w->one);
    put_more(w);
}

static bool last_is_busy(struct world *w)
{
    return w->queued == 1 && relay_is_busy(last(w)) && w->one.connections > 0;
}

static void remove_a_busy_one(struct world *w)
{
    relay_remove(w->relay, last(w), false);
}

static void what_is_tried_is_removed_after_it(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", RETRY,
              (struct step[]){{put_to_mute, last_is_busy}, {remove_a_busy_one, is_empty}, end});
    assert_int_equal(w.one.messages, 0);
}

static void hold_a_busy_one(struct world *w)
{
    relay_hold(w->relay, last(w), STR("held"));
}

static bool last_is_held(struct world *w)
{
    return str_eq(state_of_last(w), STR("held"));
}

static void what_is_tried_is_held_after_it(void **state)
{
    struct world w = {0};
    world_start(&w);
    world_run(&w, "", RETRY,
              (struct step[]){{put_to_mute, last_is_busy}, {hold_a_busy_one, last_is_held}, end});
    assert_int_equal(w.left, 1);
}

/* --- lease --- */

static void lease(struct world *w)
{
    assert_true(relay_lease(w->relay, last(w)));
    assert_true(relay_is_leased(last(w)));
    assert_false(relay_lease(w->relay, last(w))); /* one at a time */
    assert_true(str_eq(state_of_last(w), STR("leased")));
    retry(w);
    start_one(w);
    put_more(w);
}

static void end_lease(struct world *w)
{
    queue_each(w->queue, take_it, w);
    relay_lease_end(w->relay, last(w));
    assert_true(str_eq(state_of_last(w), STR("deferred")));
    retry(w);
}

static void a_leased_message_is_left_alone(void **state)
{
    run((struct step[]){{put_one, last_is_deferred}, {lease, one_message_left}, {end_lease, is_empty}, end});
}

static void lease_and_remove(struct world *w)
{
    assert_true(relay_lease(w->relay, last(w)));
    relay_remove(w->relay, last(w), false);
    assert_null(last(w));
}

static void a_leased_message_is_removed_at_once(void **state)
{
    run((struct step[]){{put_one, last_is_deferred}, {lease_and_remove, is_empty}, end});
}

static void lease_and_hold(struct world *w)
{
    assert_true(relay_lease(w->relay, last(w)));
    relay_hold(w->relay, last(w), STR("held"));
    relay_lease_end(w->relay, last(w));
    assert_true(last_is_held(w));
    start_one(w);
    relay_release(w->relay, last(w));
}

static void a_lease_ends_in_hold(void **state)
{
    run((struct step[]){{put_one, last_is_deferred}, {lease_and_hold, is_empty}, end});
}

static void lease_and_release(struct world *w)
{
    relay_hold(w->relay, last(w), STR("held"));
    assert_true(relay_lease(w->relay, last(w)));
    start_one(w);
    relay_release(w->relay, last(w));
    assert_true(relay_is_leased(last(w))); /* still his who has it */
    relay_lease_end(w->relay, last(w));
    retry(w);
}

static void a_release_waits_for_the_lease(void **state)
{
    run((struct step[]){{put_one, last_is_deferred}, {lease_and_release, is_empty}, end});
}

static void bounce_then_lease(struct world *w)
{
    bounce_it(w);
    if (last(w))
        assert_false(relay_lease(w->relay, last(w)));
}

static void what_is_on_its_way_out_is_not_leased(void **state)
{
    run((struct step[]){{put_one, last_is_deferred}, {bounce_then_lease, report_came}, end});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_held_message_waits_while_others_go),
        cmocka_unit_test(only_what_is_held_is_released),
        cmocka_unit_test(retry_ends_the_backoff),
        cmocka_unit_test(destinations_have_names),
        cmocka_unit_test(a_removed_message_goes_without_a_word),
        cmocka_unit_test(a_bounced_message_is_reported),
        cmocka_unit_test(a_held_message_can_be_bounced),
        cmocka_unit_test(what_is_tried_is_removed_after_it),
        cmocka_unit_test(what_is_tried_is_held_after_it),
        cmocka_unit_test(a_leased_message_is_left_alone),
        cmocka_unit_test(a_leased_message_is_removed_at_once),
        cmocka_unit_test(a_lease_ends_in_hold),
        cmocka_unit_test(a_release_waits_for_the_lease),
        cmocka_unit_test(what_is_on_its_way_out_is_not_leased),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
