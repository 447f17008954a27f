/* The ring goes round: what lives moves on, what is full says so, and gets roomy again. */
#include "bed.h"

static uint64_t laps(const struct bed *b, uint64_t written)
{
    struct queue_stats st;
    queue_stats(b->q, &st);
    return written / st.ring_bytes;
}

static void test_wrap_around(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    uint64_t written = 0;
    struct qmsg *previous = NULL;
    uint32_t seed = 0;
    while (laps(&b, written) < 12) {
        uint64_t bytes = seed % 5 == 0 ? 300000 : seed * 977 % 40000;
        struct qmsg *m = bed_put(&b, seed, bytes, 1 + seed % 9, 0);
        written += bytes;
        if (seed % 11 == 0)
            assert_int_equal(bed_check(&b, m, NULL), 0);
        if (previous) {
            assert_int_equal(bed_check(&b, previous, NULL), 0);
            queue_remove(b.q, previous);
        }
        previous = m;
        seed++;
    }
    uint64_t id = previous->id;
    bed_reopen(&b);
    assert_int_equal(b.live_count, 1);
    assert_int_equal(bed_check(&b, bed_by_id(&b, id), NULL), 0);
    struct queue_stats st;
    queue_stats(b.q, &st);
    assert_int_equal(st.damaged_records, 0);
    bed_destroy(&b);
}

/* Messages deferred for long stay whole while the ring laps over them again and again. */
static void test_deferred_survive_laps(void **state)
{
    enum { OLD = 12 };
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    uint64_t old[OLD];
    for (uint32_t i = 0; i < OLD; i++) {
        struct qmsg *m = bed_put(&b, 1000 + i, 1000 + i * 25000, 1 + i, 0);
        old[i] = m->id;
        queue_set_due(b.q, m, 777 + i, i);
        if (i > 2)
            queue_set_rcpt(b.q, m, 2, RCPT_DELIVERED);
    }
    uint64_t written = 0;
    for (uint32_t seed = 0; laps(&b, written) < 10; seed++) {
        struct qmsg *m = bed_put(&b, seed, 60000, 1, 0);
        written += 60000;
        queue_remove(b.q, m);
        if (seed % 200 == 100)
            bed_reopen(&b);
    }
    struct queue_stats st;
    queue_stats(b.q, &st);
    assert_true(st.reappended_bytes > 0);
    struct bed crashed;
    bed_settle(&b);
    bed_crash_copy(&b, &crashed);
    bed_open(&crashed);
    struct bed *both[] = {&b, &crashed};
    for (size_t k = 0; k < 2; k++) {
        for (uint32_t i = 0; i < OLD; i++) {
            struct qmsg *m = bed_by_id(both[k], old[i]);
            uint32_t seed;
            assert_int_equal(bed_check(both[k], m, &seed), 0);
            assert_int_equal(seed, 1000 + i);
            assert_int_equal(m->due_ms, 777 + i);
            assert_int_equal(m->attempts, i);
            assert_int_equal(m->rcpt_pending, i > 2 ? i : 1 + i);
        }
        queue_stats(both[k]->q, &st);
        assert_int_equal(st.message_count, OLD);
        assert_int_equal(st.damaged_records, 0);
    }
    bed_destroy(&crashed);
    bed_destroy(&b);
}

/* A writer that takes its time, and has chunks in the tail, blocks nobody. */
static void test_slow_writer(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    struct put slow = {.seed = 4711, .bytes = 200000, .piece = 50000};
    put_start(&b, &slow);
    uint64_t written = 0;
    for (uint32_t seed = 0; laps(&b, written) < 4; seed++) {
        queue_remove(b.q, bed_put(&b, seed, 60000, 1, 0));
        written += 60000;
    }
    put_commit(&slow);
    bed_run_until(&b, &slow.done);
    assert_int_equal(slow.err, 0);
    bed_reopen(&b);
    assert_int_equal(bed_check(&b, bed_by_id(&b, slow.id), NULL), 0);
    bed_destroy(&b);
}

/* A message being read is not moved; the reader sees its bytes to the end. */
static void test_pinned_stays(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    struct qmsg *m = bed_put(&b, 99, 200000, 1, 0);
    uint64_t id = m->id;
    struct get g;
    assert_int_equal(get_load(&b, m, &g), 0);
    queue_body_open(&g.body, &g.ld);
    uint64_t written = 0;
    for (uint32_t seed = 0; laps(&b, written) < 2; seed++) {
        queue_remove(b.q, bed_put(&b, seed, 60000, 1, 0));
        written += 60000;
    }
    uint64_t at = 0;
    struct qslice *s;
    err_t err;
    while ((err = get_next(&b, &g, &s)) == 0) {
        for (size_t i = 0; i < s->n; i++)
            assert_int_equal(s->p[i], bed_byte(99, at + i));
        at += s->n;
        queue_slice_release(s);
    }
    assert_int_equal(err, ERR_EOF);
    assert_int_equal(at, 200000);
    get_end(&g);
    written = 0;
    for (uint32_t seed = 0; laps(&b, written) < 3; seed++) {
        queue_remove(b.q, bed_put(&b, seed, 60000, 1, 0));
        written += 60000;
    }
    assert_int_equal(bed_check(&b, bed_by_id(&b, id), NULL), 0);
    bed_destroy(&b);
}

static void test_full_and_back(void **state)
{
    enum { MAX = 400 };
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    uint64_t ids[MAX];
    uint32_t n = 0;
    while (queue_check_space(b.q, 50000) == 0) {
        assert_true(n < MAX);
        ids[n] = bed_put(&b, n, 50000, 1, 0)->id;
        n++;
    }
    assert_true(n > 40); /* of 84 that the data area could hold at most */
    assert_int_equal(queue_check_space(b.q, 50000), ERR_FULL);
    assert_int_equal(queue_check_space(b.q, UINT64_MAX), ERR_FULL);
    struct queue_stats st;
    /* Some leave, some come, never the oldest: the full ring turns. */
    uint32_t turns = 0;
    for (uint32_t i = 1; turns < 150; i = (i + 7) % n) {
        struct qmsg *m = queue_find(b.q, ids[i]);
        if (m)
            queue_remove(b.q, m);
        if (queue_check_space(b.q, 50000))
            continue;
        ids[i] = bed_put(&b, 5000 + turns++, 50000, 1, 0)->id;
    }
    queue_stats(b.q, &st);
    assert_true(st.reappended_bytes > 0);
    for (uint32_t i = 0; i < n; i++) {
        struct qmsg *m = queue_find(b.q, ids[i]);
        if (m) {
            assert_int_equal(bed_check(&b, m, NULL), 0);
            queue_remove(b.q, m);
        }
    }
    bed_settle(&b);
    assert_int_equal(queue_check_space(b.q, 50000), 0);
    queue_stats(b.q, &st);
    assert_false(st.full);
    assert_int_equal(st.live_bytes, 0);
    bed_reopen(&b);
    assert_int_equal(b.live_count, 0);
    bed_destroy(&b);
}

/* Without asking first: a message that does not fit is refused at its commit, and nothing else is harmed. */
static void test_message_larger_than_the_ring(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    uint64_t kept = bed_put(&b, 1, 100000, 1, 0)->id;
    for (int i = 0; i < 3; i++) {
        struct put p = {.seed = 2, .bytes = 6 << 20, .commit_when_sent = true};
        put_start(&b, &p);
        bed_run_until(&b, &p.done);
        assert_int_equal(p.err, ERR_FULL);
    }
    assert_int_equal(bed_check(&b, bed_by_id(&b, kept), NULL), 0);
    for (uint32_t seed = 0; seed < 200; seed++)
        queue_remove(b.q, bed_put(&b, seed, 60000, 1, 0));
    assert_int_equal(bed_check(&b, bed_by_id(&b, kept), NULL), 0);
    bed_destroy(&b);
}

/* All of the ring is alive: reclaim gains nothing and must not run in circles; what is there can still leave.
 */
static void test_stuffed_ring_stands_still(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    uint64_t ids[400];
    uint32_t n = 0;
    for (;;) {
        struct put p = {.seed = n, .bytes = 30000, .commit_when_sent = true};
        put_start(&b, &p);
        bed_run_until(&b, &p.done);
        if (p.err) {
            assert_int_equal(p.err, ERR_FULL);
            break;
        }
        ids[n++] = p.id;
    }
    for (int i = 0; i < 50; i++)
        loop_run(b.loop);
    struct queue_stats before, after;
    queue_stats(b.q, &before);
    for (int i = 0; i < 200; i++)
        loop_run(b.loop);
    queue_stats(b.q, &after);
    assert_int_equal(after.reappended_bytes, before.reappended_bytes);
    bed_reopen(&b);
    assert_int_equal(b.live_count, n);
    for (uint32_t i = 0; i < n; i++) {
        struct qmsg *m = bed_by_id(&b, ids[i]);
        assert_int_equal(bed_check(&b, m, NULL), 0);
        queue_set_rcpt(b.q, m, 0, RCPT_DELIVERED);
    }
    bed_settle(&b);
    bed_reopen(&b);
    assert_int_equal(b.live_count, 0);
    assert_int_equal(bed_check(&b, bed_put(&b, 1, 60000, 1, 0), NULL), 0);
    bed_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrap_around),
        cmocka_unit_test(test_deferred_survive_laps),
        cmocka_unit_test(test_slow_writer),
        cmocka_unit_test(test_pinned_stays),
        cmocka_unit_test(test_full_and_back),
        cmocka_unit_test(test_message_larger_than_the_ring),
        cmocka_unit_test(test_stuffed_ring_stands_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
