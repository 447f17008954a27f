/* The timer wheel against a plain model: never early, in order, bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "net/timer.h"

#define T0 UINT64_C(123456789) /* not on a tick */

static struct wheel wheel; /* large */

struct shot {
    struct timer timer;
    uint64_t want_ms, fired_ms;
    unsigned fired_count;
    uint64_t again_ms; /* re-arm so much later */
    struct timer *kill;
};

static uint64_t now_ms;

static void fire(struct timer *t)
{
    struct shot *s = container_of(t, struct shot, timer);
    assert_false(timer_armed(t));
    s->fired_count++;
    s->fired_ms = now_ms;
    if (s->again_ms)
        wheel_arm(&wheel, t, now_ms + s->again_ms);
    if (s->kill)
        wheel_disarm(&wheel, s->kill);
}

static void arm(struct shot *s, uint64_t due_ms)
{
    s->timer.fire = fire;
    s->want_ms = due_ms;
    wheel_arm(&wheel, &s->timer, due_ms);
}

static int setup(void **state)
{
    now_ms = T0;
    wheel_init(&wheel, now_ms);
    return 0;
}

/* Sleeps as a loop would: only as long as the wheel says. */
static void run_until_empty(void)
{
    unsigned turns = 0;
    for (uint64_t next; (next = wheel_next_ms(&wheel)) != WHEEL_NEVER; turns++) {
        now_ms = MAX(now_ms, next);
        wheel_run(&wheel, now_ms, 1000);
        assert_true(turns < 100000);
    }
}

static void test_due_times(void **state)
{
    static const uint64_t after[] = {0,
                                     1,
                                     7,
                                     8,
                                     9,
                                     63 * 8,
                                     64 * 8,
                                     65 * 8,
                                     511,
                                     512,
                                     4095,
                                     4096,
                                     32767,
                                     32768,
                                     300 * 1000,
                                     3600 * 1000,
                                     999983,
                                     86400000,
                                     UINT64_C(5) * 86400000,
                                     WHEEL_AFTER_MS_MAX};
    struct shot shots[COUNT_OF(after)] = {0};
    for (size_t i = 0; i < COUNT_OF(after); i++)
        arm(&shots[i], T0 + after[i]);
    run_until_empty();
    for (size_t i = 0; i < COUNT_OF(after); i++) {
        assert_int_equal(shots[i].fired_count, 1);
        assert_true(shots[i].fired_ms >= shots[i].want_ms);
        assert_true(shots[i].fired_ms <= shots[i].want_ms + 2 * WHEEL_TICK_MS);
    }
}

/* The wheel's own time passes carries of every level. */
static void test_carry(void **state)
{
    for (unsigned bits = 6; bits <= 36; bits += 6) {
        now_ms = ((UINT64_C(1) << bits) - 1) * WHEEL_TICK_MS;
        wheel_init(&wheel, now_ms);
        struct shot a = {0}, b = {0};
        arm(&a, now_ms + 5);
        arm(&b, now_ms + 5000);
        run_until_empty();
        assert_int_equal(a.fired_count, 1);
        assert_int_equal(b.fired_count, 1);
        assert_true(a.fired_ms >= a.want_ms && a.fired_ms <= a.want_ms + 2 * WHEEL_TICK_MS);
        assert_true(b.fired_ms >= b.want_ms && b.fired_ms <= b.want_ms + 2 * WHEEL_TICK_MS);
    }
}

static void test_disarm(void **state)
{
    struct shot a = {0}, b = {0}, c = {0};
    arm(&a, T0 + 1000);
    arm(&b, T0 + 1000);
    arm(&c, T0 + 70000);
    assert_true(timer_armed(&a.timer));
    wheel_disarm(&wheel, &a.timer);
    wheel_disarm(&wheel, &a.timer); /* twice is fine */
    assert_false(timer_armed(&a.timer));
    wheel_disarm(&wheel, &b.timer);
    wheel_disarm(&wheel, &c.timer);
    assert_true(wheel_next_ms(&wheel) == WHEEL_NEVER); /* no bit is left behind */
    now_ms = T0 + 100000;
    assert_int_equal(wheel_run(&wheel, now_ms, 100), 0);
}

static void test_move(void **state)
{
    struct shot a = {0};
    arm(&a, T0 + 100);
    arm(&a, T0 + 10000);
    now_ms = T0 + 5000;
    assert_int_equal(wheel_run(&wheel, now_ms, 100), 0);
    arm(&a, now_ms + 16);
    run_until_empty();
    assert_int_equal(a.fired_count, 1);
    assert_true(a.fired_ms < T0 + 5100);
}

static void test_rearm_in_fire(void **state)
{
    struct shot a = {.again_ms = 50};
    arm(&a, T0 + 50);
    for (unsigned i = 0; i < 200; i++) {
        now_ms += 10;
        wheel_run(&wheel, now_ms, 100);
    }
    assert_true(a.fired_count >= 30 && a.fired_count <= 40);
    wheel_disarm(&wheel, &a.timer);
}

/* Two are due together; the first takes the second away. */
static void test_disarm_due(void **state)
{
    struct shot a = {0}, b = {0};
    a.kill = &b.timer;
    arm(&a, T0 + 20);
    arm(&b, T0 + 20);
    now_ms = T0 + 1000;
    assert_int_equal(wheel_run(&wheel, now_ms, 100), 1);
    assert_int_equal(a.fired_count, 1);
    assert_int_equal(b.fired_count, 0);
    assert_true(wheel_next_ms(&wheel) == WHEEL_NEVER);
}

static void test_bounded(void **state)
{
    enum { N = 100 };
    static struct shot shots[N];
    memset(shots, 0, sizeof shots);
    for (unsigned i = 0; i < N; i++)
        arm(&shots[i], T0 + 10 * i);
    now_ms = T0 + 100000;
    assert_int_equal(wheel_run(&wheel, now_ms, 30), 30);
    assert_true(wheel_next_ms(&wheel) == 0); /* the rest at once */
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(shots[i].fired_count, i < 30);
    assert_int_equal(wheel_run(&wheel, now_ms, 1000), N - 30);
}

static uint64_t random_state = 42;

static uint64_t random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Arms, moves, disarms and turns at random; nothing is early, nothing is late, nothing is forgotten. */
static void test_model(void **state)
{
    enum { N = 300 };
    static struct shot shots[N];
    memset(shots, 0, sizeof shots);
    for (unsigned turn = 0; turn < 20000; turn++) {
        struct shot *s = &shots[random_u64() % N];
        if (random_u64() % 8 == 0)
            wheel_disarm(&wheel, &s->timer);
        else
            arm(s, now_ms + random_u64() % (UINT64_C(1) << (random_u64() % 26)));
        now_ms += random_u64() % (turn % 100 == 0 ? 1000000 : 50);
        s->fired_count = 0;
        wheel_run(&wheel, now_ms, UINT32_MAX);
        for (unsigned i = 0; i < N; i++) {
            if (timer_armed(&shots[i].timer))
                assert_true(shots[i].want_ms + 2 * WHEEL_TICK_MS > now_ms);
            if (shots[i].fired_count && shots[i].fired_ms == now_ms)
                assert_true(shots[i].want_ms <= now_ms);
        }
    }
    run_until_empty();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_due_times, setup),     cmocka_unit_test_setup(test_carry, setup),
        cmocka_unit_test_setup(test_disarm, setup),        cmocka_unit_test_setup(test_move, setup),
        cmocka_unit_test_setup(test_rearm_in_fire, setup), cmocka_unit_test_setup(test_disarm_due, setup),
        cmocka_unit_test_setup(test_bounded, setup),       cmocka_unit_test_setup(test_model, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
