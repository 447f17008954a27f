/* Scrub: what is whole is passed over in silence; what has rotted is told and kept once. */
#include "bed.h"

static void until_ended(struct bed *b, struct queue_scrub_state *st)
{
    do {
        loop_run(b->loop);
        queue_scrub_state(b->q, st);
    } while (st->running);
}

static void scrub(struct bed *b, struct queue_scrub_state *st)
{
    queue_scrub(b->q);
    queue_scrub_state(b->q, st);
    assert_true(st->running && st->hurried);
    until_ended(b, st);
    assert_false(st->hurried);
    assert_true(st->ended_ms >= st->started_ms);
}

static void rot(struct bed *b, uint64_t position)
{
    char path[128];
    bed_ring_path(b, path, sizeof path);
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "rot", 3, (off_t)qfile_at(b->q, position)), 3);
    close(fd);
}

static off_t kept_bytes(struct bed *b, const struct qmsg *m)
{
    char path[QPATH_BYTES];
    struct stat st;
    while (qdamage_is_busy(b->q))
        usleep(1000); /* another thread writes it */
    assert_int_equal(qdamage_path(b->q, m->commit_at, path, sizeof path), 0);
    return stat(path, &st) < 0 ? 0 : st.st_size;
}

static void test_all_good(void **state)
{
    struct bed b;
    struct queue_scrub_state st;
    bed_make(&b);
    bed_open(&b);
    scrub(&b, &st);
    assert_int_equal(st.message_count, 0);
    for (uint32_t i = 0; i < 50; i++)
        bed_put(&b, i, i * 1000, 1 + i % 9, 0);
    scrub(&b, &st);
    assert_int_equal(st.message_count, 50);
    assert_true(st.read_bytes > 50 * 49 / 2 * 1000);
    assert_int_equal(st.damaged_count + st.unreadable_count, 0);
    LIST_EACH(&b.q->messages, k)
    assert_int_equal(container_of(k, struct qmsg, all_link)->pins, 0);
    bed_destroy(&b);
}

static void test_rot(void **state)
{
    struct bed b;
    struct queue_scrub_state st;
    struct queue_stats qs;
    bed_make(&b);
    bed_open(&b);
    struct qmsg *m[5];
    for (uint32_t i = 0; i < COUNT_OF(m); i++)
        m[i] = bed_put(&b, 70 + i, 100000, 1, 0);
    rot(&b, m[1]->commit_at + 60);
    rot(&b, m[3]->commit_at - 500);
    for (int round = 0; round < 2; round++) {
        scrub(&b, &st);
        assert_int_equal(st.message_count, COUNT_OF(m));
        assert_int_equal(st.damaged_count, 2);
        queue_stats(b.q, &qs);
        assert_int_equal(qs.damaged_records, 2); /* told once */
        for (uint32_t i = 0; i < COUNT_OF(m); i++)
            assert_int_equal(m[i]->damaged, i == 1 || i == 3);
        assert_int_equal(kept_bytes(&b, m[1]), m[1]->commit_bytes);
        assert_int_equal(kept_bytes(&b, m[3]), m[3]->ring_bytes); /* all of it */
        assert_int_equal(kept_bytes(&b, m[2]), 0);
    }
    bed_destroy(&b);
}

/* Messages come, move and leave under it. */
static void test_among_laps(void **state)
{
    struct bed b;
    struct queue_scrub_state st;
    uint64_t kept[20], laps = 0;
    bed_make(&b);
    b.opt.segment_bytes = 64 << 10;
    b.opt.ring_bytes = 1 << 20;
    bed_open(&b);
    for (uint32_t i = 0; i < COUNT_OF(kept); i++)
        kept[i] = bed_put(&b, 500 + i, 3000 * (i % 4), 1, 0)->id;
    queue_scrub(b.q);
    for (uint32_t i = 0; i < 600; i++) {
        struct qmsg *m = bed_put(&b, i, 9000, 1, 0);
        loop_run(b.loop);
        queue_remove(b.q, m);
        queue_scrub_state(b.q, &st);
        if (st.running && i % 50 != 49)
            continue;
        laps += !st.running;
        queue_scrub(b.q); /* also in the middle of one */
    }
    until_ended(&b, &st);
    assert_true(laps > 0);
    assert_true(b.q->reappended_bytes > 0);
    assert_int_equal(st.damaged_count + st.unreadable_count, 0);
    for (uint32_t i = 0; i < COUNT_OF(kept); i++)
        assert_int_equal(bed_check(&b, bed_by_id(&b, kept[i]), NULL), 0);
    queue_scrub(b.q); /* and closed under it */
    bed_destroy(&b);
}

static void test_by_itself(void **state)
{
    struct bed b;
    struct queue_scrub_state st;
    bed_make(&b);
    bed_open(&b);
    bed_put(&b, 1, 5000, 1, 0);
    queue_scrub_state(b.q, &st);
    assert_int_equal(st.ended_ms, 0); /* off */
    queue_set_scrub(b.q, 1);
    do {
        loop_run(b.loop);
        queue_scrub_state(b.q, &st);
    } while (st.ended_ms == 0);
    assert_int_equal(st.message_count, 1);
    uint64_t first_ms = st.started_ms;
    do {
        loop_run(b.loop);
        queue_scrub_state(b.q, &st);
    } while (st.running || st.started_ms == first_ms);
    assert_true(st.started_ms - first_ms >= 900); /* by another clock than the timer's */
    bed_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_good),
        cmocka_unit_test(test_rot),
        cmocka_unit_test(test_among_laps),
        cmocka_unit_test(test_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
