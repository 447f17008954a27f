/* tests/unit/relay/test_gate.c: window and back-off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "relay/gate_priv.h"

static const struct backoff five_minutes = {300, 4000};

/* What outconn.c does to the counts. */
static void open_one(struct gate *g)
{
    g->connections++;
}
static void speak(struct gate *g, uint64_t now_ms)
{
    g->speaking++;
    (void)gate_spoke(g, now_ms);
}
static bool lose_one(struct gate *g, bool spoke, uint64_t now_ms)
{
    g->connections--;
    if (spoke)
        g->speaking--;
    return gate_failed(g, spoke, now_ms, five_minutes, 0);
}

static void window_bounds_connections(void **state)
{
    struct gate g;
    gate_init(&g, 20);
    for (int i = 0; i < GATE_WINDOW_FIRST; i++) {
        assert_int_equal(gate_may_connect(&g, 0), GATE_OPEN);
        open_one(&g);
    }
    assert_int_equal(gate_may_connect(&g, 0), GATE_FULL);
    for (int i = 0; i < 100; i++)
        assert_false(gate_moved(&g, 0));
    assert_int_equal(g.window, 20);
    gate_set_window_max(&g, 2);
    assert_int_equal(g.window, 2);
    assert_int_equal(gate_may_connect(&g, 0), GATE_FULL);
}

static void few_connections_for_a_burst_more_for_a_slow_server(void **state)
{
    static const struct {
        uint32_t window, connections, speaking, waiting;
        uint64_t waited_ms;
        uint32_t wanted;
    } cases[] = {
        {5, 0, 0, 0, 0, 0},                               /* nothing waits */
        {5, 0, 0, 1, 0, 1},                               /* the first */
        {5, 0, 0, 16, 0, 1},                              /* one carries a burst */
        {5, 0, 0, 17, 0, 2},       {5, 0, 0, 1000, 0, 5}, /* as far as the window goes */
        {5, 2, 0, 20, 0, 0},                              /* on their way already */
        {20, 2, 2, 10, 10, 0},                            /* they will get to it */
        {20, 2, 2, 10, 500, 2},                           /* they are slow: twice as many */
        {20, 4, 2, 10, 500, 0},                           /* and these are on their way */
        {20, 8, 8, 3, 500, 3},                            /* not more than there are jobs */
        {20, 15, 15, 100, 500, 5},                        /* up to the window */
        {20, 20, 20, 100, 500, 0},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct gate g;
        gate_init(&g, 20);
        g.window = cases[i].window;
        g.connections = cases[i].connections;
        g.speaking = cases[i].speaking;
        assert_int_equal(gate_wanted(&g, 0, cases[i].waiting, cases[i].waited_ms), cases[i].wanted);
    }
}

static void goes_down_with_the_last_connection_and_tries_one(void **state)
{
    struct gate g;
    gate_init(&g, 20);
    open_one(&g);
    open_one(&g);
    assert_false(lose_one(&g, false, 1000)); /* the other may still make it */
    assert_true(lose_one(&g, false, 1000));
    assert_true(g.down);
    assert_in_range(g.retry_at_ms, 1000 + 240000, 1000 + 360000);
    assert_int_equal(gate_may_connect(&g, g.retry_at_ms - 1), GATE_DOWN);
    assert_int_equal(gate_wanted(&g, g.retry_at_ms - 1, 50, 9999), 0);

    uint64_t now = g.retry_at_ms;
    assert_int_equal(gate_wanted(&g, now, 50, 9999), 1);
    open_one(&g);
    assert_int_equal(gate_may_connect(&g, now), GATE_FULL); /* one trial, not a herd */
    assert_true(lose_one(&g, false, now));
    assert_in_range(g.retry_at_ms - now, 480000, 720000); /* longer the second time */

    now = g.retry_at_ms;
    open_one(&g);
    g.speaking++;
    assert_true(gate_spoke(&g, now));
    assert_false(g.down);
    assert_false(gate_moved(&g, now));
    assert_int_equal(g.failures, 0);
}

static void a_refused_extra_connection_only_narrows_the_window(void **state)
{
    struct gate g;
    gate_init(&g, 20);
    for (int i = 0; i < 20; i++)
        (void)gate_moved(&g, 0);
    for (int i = 0; i < 9; i++) {
        open_one(&g);
        if (i < 8)
            speak(&g, 0);
    }
    assert_false(lose_one(&g, false, 1000));
    assert_false(g.down);
    assert_int_equal(g.window, 10);
    open_one(&g);
    assert_false(lose_one(&g, false, 1000));
    assert_int_equal(g.window, 8); /* what works stays */
    (void)gate_moved(&g, 1001);
    assert_int_equal(g.window, 8); /* does not ask for more at once */
    (void)gate_moved(&g, 1000 + GATE_GROW_PAUSE_MS);
    assert_int_equal(g.window, 9);
}

static void servers_that_speak_and_break_go_down_in_the_end(void **state)
{
    struct gate g;
    gate_init(&g, 20);
    for (int i = 1; i < GATE_BARREN_MAX; i++) {
        open_one(&g);
        speak(&g, 0);
        assert_false(lose_one(&g, true, 0));
    }
    open_one(&g);
    speak(&g, 0);
    open_one(&g); /* being dialed: does not save it */
    assert_true(lose_one(&g, true, 0));
    assert_true(g.down);
    uint64_t retry_at = g.retry_at_ms;
    g.speaking++;
    assert_false(gate_spoke(&g, 10)); /* not before its time */
    g.connections--;
    g.speaking--;
    assert_false(gate_failed(&g, true, 20, five_minutes, 0)); /* nor counted again */
    assert_int_equal(g.retry_at_ms, retry_at);
    assert_true(gate_moved(&g, 30)); /* but mail that moves is proof */
    assert_false(g.down);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(window_bounds_connections),
        cmocka_unit_test(few_connections_for_a_burst_more_for_a_slow_server),
        cmocka_unit_test(goes_down_with_the_last_connection_and_tries_one),
        cmocka_unit_test(a_refused_extra_connection_only_narrows_the_window),
        cmocka_unit_test(servers_that_speak_and_break_go_down_in_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
