/* What an operator's tools need: walks over a queue that changes, points after which all is durable, and
 * messages that were queued elsewhere before. */
#define BED_ON_DISK
#include "bed.h"

static void test_walk_goes_from_the_newest_to_the_oldest(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    for (uint32_t i = 1; i <= 5; i++)
        bed_put(&b, i, 10, 1, 0);
    struct queue_cursor c;
    queue_cursor_start(b.q, &c);
    for (uint32_t i = 5; i >= 1; i--)
        assert_int_equal(queue_cursor_next(b.q, &c)->arrived_ms, i);
    assert_null(queue_cursor_next(b.q, &c));
    queue_cursor_end(&c);
    bed_destroy(&b);
}

static void test_walk_survives_changes(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    uint64_t ids[6];
    for (uint32_t i = 1; i <= 5; i++)
        ids[i] = bed_put(&b, i, 10, 1, 0)->id;
    struct queue_cursor c, other;
    queue_cursor_start(b.q, &c);
    queue_cursor_start(b.q, &other);
    assert_int_equal(queue_cursor_next(b.q, &c)->arrived_ms, 5);
    queue_remove(b.q, bed_by_id(&b, ids[4])); /* where both but one stand */
    queue_remove(b.q, bed_by_id(&b, ids[3]));
    queue_remove(b.q, bed_by_id(&b, ids[5])); /* passed, and where the other one stands */
    bed_put(&b, 6, 10, 1, 0);                 /* newer than where it began */
    assert_int_equal(queue_cursor_next(b.q, &c)->arrived_ms, 2);
    assert_int_equal(queue_cursor_next(b.q, &c)->arrived_ms, 1);
    assert_null(queue_cursor_next(b.q, &c));
    assert_int_equal(queue_cursor_next(b.q, &other)->arrived_ms, 2);
    queue_remove(b.q, bed_by_id(&b, ids[1])); /* the last one */
    assert_null(queue_cursor_next(b.q, &other));
    queue_cursor_end(&c);
    queue_cursor_end(&other);
    bed_destroy(&b);
}

struct waiter {
    struct queue_sync s;
    volatile bool done;
    err_t err;
};

static void synced(struct queue_sync *s, err_t err)
{
    struct waiter *w = container_of(s, struct waiter, s);
    w->err = err;
    w->done = true;
}

static void test_sync_means_durable(void **state)
{
    struct bed b, copy;
    bed_make(&b);
    b.opt.progress_flush_ms = 60000; /* nothing is written but for the sync */
    bed_open(&b);
    uint64_t held = bed_put(&b, 1, 10, 1, 0)->id, gone = bed_put(&b, 2, 10, 1, 0)->id;
    uint64_t many = bed_put(&b, 3, 10, 1, 0)->id;
    struct waiter w = {.s.done = synced}, second = {.s.done = synced};
    queue_set_held(b.q, bed_by_id(&b, held), true);
    queue_remove(b.q, bed_by_id(&b, gone));
    queue_sync(b.q, &w.s);
    assert_false(w.done);
    bed_run_until(&b, &w.done);
    assert_int_equal(w.err, 0);
    bed_crash_copy(&b, &copy);
    bed_open(&copy);
    assert_true(bed_by_id(&copy, held)->held);
    assert_null(queue_find(copy.q, gone));
    assert_false(bed_by_id(&copy, many)->held);
    bed_destroy(&copy);
    queue_sync(b.q, &second.s); /* with nothing to write */
    bed_run_until(&b, &second.done);
    assert_int_equal(second.err, 0);
    struct waiter third = {.s.done = synced};
    queue_sync(b.q, &third.s);
    queue_sync_cancel(&third.s);
    queue_set_held(b.q, bed_by_id(&b, held), false);
    bed_reopen(&b);
    assert_false(third.done);
    assert_false(bed_by_id(&b, held)->held);
    bed_destroy(&b);
}

static void test_a_message_from_elsewhere_keeps_what_it_was(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    const uint64_t id = UINT64_C(0x0123456789abcdef);
    const str_t rcpts[] = {STR("one"), STR("two"), STR("three")};
    const uint8_t states[] = {RCPT_DELIVERED, RCPT_PENDING, RCPT_BOUNCED};
    struct put p = {.b = &b};
    struct queue_commit c = {.meta = STR("meta"),
                             .trace = STR("X: y\r\n"),
                             .rcpts = rcpts,
                             .rcpt_count = 3,
                             .arrived_ms = 4711,
                             .due_ms = 4712,
                             .states = states,
                             .attempts = 9,
                             .held = true,
                             .done = put_done,
                             .ctx = &p};
    assert_int_equal(queue_begin_as(b.q, id, &p.w), 0);
    queue_append(p.w, "body", 4, NULL, NULL);
    queue_commit(p.w, &c);
    bed_run_until(&b, &p.done);
    assert_int_equal(p.err, 0);
    for (unsigned round = 0; round < 2; round++) {
        const struct qmsg *m = bed_by_id(&b, id);
        assert_int_equal(m->rcpt_pending, 1);
        assert_int_equal(m->attempts, 9);
        assert_int_equal(m->arrived_ms, 4711);
        assert_int_equal(m->due_ms, 4712);
        assert_true(m->held);
        for (uint32_t i = 0; i < 3; i++)
            assert_int_equal(queue_rcpt_state(m, i), states[i]);
        bed_reopen(&b);
    }
    bed_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk_goes_from_the_newest_to_the_oldest),
        cmocka_unit_test(test_walk_survives_changes),
        cmocka_unit_test(test_sync_means_durable),
        cmocka_unit_test(test_a_message_from_elsewhere_keeps_what_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
