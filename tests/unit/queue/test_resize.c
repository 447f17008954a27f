/* A ring gets another size: nothing is lost, whatever it looks like and whenever the power goes. */
#include "bed.h"

#define SEGMENT (UINT64_C(64) << 10)

static void bed_small(struct bed *b, uint32_t segments)
{
    bed_make(b);
    b->opt.segment_bytes = SEGMENT;
    b->opt.ring_bytes = segments * SEGMENT;
    bed_open(b);
}

static void until_done(struct bed *b)
{
    struct queue_resize_state st;
    do {
        loop_run(b->loop);
        queue_resize_state(b->q, &st);
    } while (st.step);
}

static err_t resize(struct bed *b, uint32_t segments)
{
    struct queue_resize_state st;
    err_t err = queue_resize(b->q, segments * SEGMENT);
    if (err)
        return err;
    until_done(b);
    queue_resize_state(b->q, &st);
    return st.err;
}

static uint64_t file_bytes(struct bed *b)
{
    char path[128];
    struct stat st;
    bed_ring_path(b, path, sizeof path);
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static void assert_size(struct bed *b, uint32_t segments)
{
    struct queue_stats qs;
    queue_stats(b->q, &qs);
    assert_int_equal(qs.ring_bytes, segments * SEGMENT);
    assert_int_equal(file_bytes(b), DISK_DATA_AT + segments * SEGMENT);
}

static void churn(struct bed *b, uint64_t bytes)
{
    for (uint32_t seed = 0; bytes > 0; seed++, bytes -= MIN(bytes, UINT64_C(9000)))
        queue_remove(b->q, bed_put(b, seed, 9000, 1, 0));
    bed_settle(b); /* what has left has left after a crash too */
}

static void check_all(struct bed *b, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(bed_check(b, bed_by_id(b, ids[i]), NULL), 0);
    struct queue_stats qs;
    queue_stats(b->q, &qs);
    assert_int_equal(qs.message_count, count);
    assert_int_equal(qs.damaged_records, 0);
}

/* From every place of the log in its file, up and down. */
static void test_up_and_down(void **state)
{
    struct bed b;
    uint64_t ids[30];
    bed_small(&b, 16);
    for (uint32_t i = 0; i < COUNT_OF(ids); i++)
        ids[i] = bed_put(&b, 900 + i, 5000, 1, 0)->id;
    const uint32_t sizes[] = {40, 11, 16, 200, 12, 13, 12, 31};
    for (uint32_t round = 0; round < 40; round++) {
        churn(&b, 70000 + round * 7919);
        uint32_t size = sizes[round % COUNT_OF(sizes)];
        assert_int_equal(resize(&b, size), 0);
        assert_size(&b, size);
        if (round % 3 == 0) {
            check_all(&b, ids, COUNT_OF(ids));
            bed_reopen(&b);
            assert_size(&b, size);
        }
        check_all(&b, ids, COUNT_OF(ids));
    }
    bed_destroy(&b);
}

static void test_refusals(void **state)
{
    struct bed b;
    bed_small(&b, 32);
    assert_int_equal(queue_resize(b.q, 7 * SEGMENT), ERR_LIMIT);
    assert_int_equal(queue_resize(b.q, UINT64_C(1) << 50), ERR_LIMIT);
    assert_int_equal(resize(&b, 32), 0);
    for (uint32_t i = 0; i < 20; i++)
        bed_put(&b, i, 40000, 1, 0);
    assert_int_equal(queue_resize(b.q, 16 * SEGMENT), ERR_FULL);
    assert_int_equal(queue_resize(b.q, 40 * SEGMENT), 0);
    assert_int_equal(queue_resize(b.q, 50 * SEGMENT), ERR_LOCKED);
    until_done(&b);
    assert_size(&b, 40);
    bed_destroy(&b);
}

/* A full ring is the usual reason. */
static void test_full_ring_grows(void **state)
{
    struct bed b;
    bed_small(&b, 16);
    churn(&b, 300000);
    uint64_t ids[64];
    size_t count = 0;
    while (queue_check_space(b.q, 20000) == 0)
        ids[count] = bed_put(&b, 1000 + (uint32_t)count, 20000, 1, 0)->id, count++;
    assert_int_equal(resize(&b, 64), 0);
    assert_int_equal(queue_check_space(b.q, 20000), 0);
    check_all(&b, ids, count);
    bed_reopen(&b);
    check_all(&b, ids, count);
    bed_destroy(&b);
}

/* A write is streaming in all the while. */
static void test_open_writer(void **state)
{
    struct bed b;
    bed_small(&b, 24);
    struct put p = {.seed = 5, .bytes = 100000};
    put_start(&b, &p);
    const uint32_t sizes[] = {60, 14, 20};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        churn(&b, 500000);
        assert_int_equal(resize(&b, sizes[i]), 0);
    }
    put_commit(&p);
    bed_run_until(&b, &p.done);
    assert_int_equal(p.err, 0);
    check_all(&b, &p.id, 1);
    bed_destroy(&b);
}

/* The power goes after any turn of the loop; the file may be longer than the ring then. */
static void test_crashes(void **state)
{
    struct bed b;
    uint64_t ids[12];
    bed_small(&b, 12);
    for (uint32_t i = 0; i < COUNT_OF(ids); i++)
        ids[i] = bed_put(&b, 900 + i, 5000, 1, 0)->id;
    const uint32_t sizes[] = {20, 10, 30, 12, 9};
    uint32_t lives = 0;
    for (uint32_t round = 0; round < 10; round++) {
        struct queue_resize_state st;
        churn(&b, 200000 + round * 12345);
        assert_int_equal(queue_resize(b.q, sizes[round % COUNT_OF(sizes)] * SEGMENT), 0);
        for (uint32_t turn = 0;; turn++) {
            loop_run(b.loop);
            queue_resize_state(b.q, &st);
            if (turn % 3 == round % 3 || !st.step) {
                struct bed crashed;
                bed_crash_copy(&b, &crashed);
                bed_open(&crashed);
                check_all(&crashed, ids, COUNT_OF(ids));
                struct queue_stats qs;
                queue_stats(crashed.q, &qs);
                assert_int_equal(file_bytes(&crashed), DISK_DATA_AT + qs.ring_bytes);
                churn(&crashed, 100000);
                bed_reopen(&crashed);
                check_all(&crashed, ids, COUNT_OF(ids));
                bed_destroy(&crashed);
                lives++;
            }
            if (!st.step)
                break;
        }
        assert_int_equal(st.err, 0);
    }
    assert_true(lives > 25);
    bed_destroy(&b);
}

/* Closed in the middle, as by a restart. */
static void test_closed_under_it(void **state)
{
    struct bed b;
    bed_small(&b, 16);
    uint64_t id = bed_put(&b, 1, 5000, 1, 0)->id;
    for (uint32_t turns = 0; turns < 60; turns++) {
        assert_int_equal(queue_resize(b.q, (turns % 2 ? 10 : 20) * SEGMENT), 0);
        for (uint32_t i = 0; i < turns; i++)
            loop_run(b.loop);
        bed_reopen(&b);
        check_all(&b, &id, 1);
        struct queue_stats qs;
        queue_stats(b.q, &qs);
        assert_size(&b, (uint32_t)(qs.ring_bytes / SEGMENT));
    }
    bed_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_up_and_down),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_full_ring_grows), cmocka_unit_test(test_open_writer),
        cmocka_unit_test(test_crashes),         cmocka_unit_test(test_closed_under_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
