/* The rings of workers that are gone. */
#include "bed.h"

static void use_ring(struct bed *b, uint32_t index)
{
    b->opt.ring_index = index;
}

static void exists(const struct bed *b, uint32_t index, bool expected)
{
    char path[128];
    snprintf(path, sizeof path, "%s/ring-%02u", b->dir, index);
    assert_int_equal(access(path, F_OK) == 0, expected);
}

static err_t adopt(struct bed *b, uint32_t index)
{
    b->live_count = 0;
    return queue_adopt(b->q, index, bed_live, b, &b->notes);
}

static void test_adopt(void **state)
{
    enum { COUNT = 25 };
    struct bed b;
    bed_make(&b);
    use_ring(&b, 5);
    bed_open(&b);
    uint64_t ids[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        struct qmsg *m = bed_put(&b, i, i * 5000, 1 + i, 0);
        ids[i] = m->id;
        queue_set_due(b.q, m, 1000 + i, i);
        queue_set_held(b.q, m, i % 2);
        if (i % 3 == 1)
            queue_set_warned(b.q, m);
        if (i > 0)
            queue_set_rcpt(b.q, m, 0, RCPT_DELIVERED);
    }
    queue_remove(b.q, bed_by_id(&b, ids[7]));
    bed_close(&b);

    use_ring(&b, 0);
    bed_open(&b);
    uint64_t own = bed_put(&b, 500, 1000, 1, 0)->id;
    bed_close(&b);
    assert_int_equal(bed_try_open(&b), 0);
    assert_int_equal(adopt(&b, 5), 0);
    assert_int_equal(b.live_count, COUNT - 1);
    exists(&b, 5, false);
    bed_start(&b);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(bed_check(&b, bed_by_id(&b, own), NULL), 0);
        for (uint32_t i = 0; i < COUNT; i++) {
            if (i == 7) {
                assert_null(queue_find(b.q, ids[i]));
                continue;
            }
            struct qmsg *m = bed_by_id(&b, ids[i]);
            uint32_t seed;
            assert_int_equal(bed_check(&b, m, &seed), 0);
            assert_int_equal(seed, i);
            assert_int_equal(m->due_ms, 1000 + i);
            assert_int_equal(m->attempts, i);
            assert_int_equal(m->held, i % 2);
            assert_int_equal(m->warned, i % 3 == 1);
            assert_int_equal(m->rcpt_pending, i > 0 ? i : 1);
        }
        bed_reopen(&b);
        assert_int_equal(b.live_count, COUNT);
    }
    bed_destroy(&b);
}

/* A crash between the copy and the rename: both rings hold the mail. */
static void test_adopt_twice(void **state)
{
    struct bed b;
    bed_make(&b);
    use_ring(&b, 3);
    bed_open(&b);
    for (uint32_t i = 0; i < 5; i++)
        bed_put(&b, i, 3000, 1, 0);
    bed_close(&b);
    char from[128], to[128];
    snprintf(from, sizeof from, "%s/ring-03", b.dir);
    snprintf(to, sizeof to, "%s/aside", b.dir);
    assert_int_equal(link(from, to), 0);
    use_ring(&b, 0);
    assert_int_equal(bed_try_open(&b), 0);
    assert_int_equal(adopt(&b, 3), 0);
    assert_int_equal(b.live_count, 5);
    queue_discard(b.q);
    assert_int_equal(rename(to, from), 0);
    assert_int_equal(bed_try_open(&b), 0);
    assert_int_equal(b.live_count, 5);
    assert_int_equal(adopt(&b, 3), 0);
    assert_int_equal(b.live_count, 0);
    exists(&b, 3, false);
    queue_discard(b.q);
    b.q = NULL;
    bed_destroy(&b);
}

/* All or nothing. */
static void test_no_room(void **state)
{
    struct bed b;
    bed_make(&b);
    uint64_t ring_bytes = b.opt.ring_bytes;
    b.opt.ring_bytes = 8 << 20;
    use_ring(&b, 9);
    bed_open(&b);
    for (uint32_t i = 0; i < 40; i++)
        bed_put(&b, i, 100000, 1, 0);
    bed_close(&b);
    b.opt.ring_bytes = ring_bytes;
    use_ring(&b, 0);
    assert_int_equal(bed_try_open(&b), 0);
    assert_int_equal(adopt(&b, 9), ERR_FULL);
    assert_true(bed_noted(&b, "not adopted"));
    assert_int_equal(b.live_count, 0);
    exists(&b, 9, true);
    assert_int_equal(adopt(&b, 8), ERR_NOT_FOUND);
    bed_start(&b);
    uint64_t id = bed_put(&b, 1, 1000, 1, 0)->id;
    bed_reopen(&b);
    assert_int_equal(b.live_count, 1);
    assert_int_equal(bed_check(&b, bed_by_id(&b, id), NULL), 0);
    bed_destroy(&b);
}

/* Many units' worth: the memory of the new ring is used over and over. */
static void test_adopt_much(void **state)
{
    struct bed b;
    bed_make(&b);
    b.opt.ring_bytes = 16 << 20;
    use_ring(&b, 1);
    bed_open(&b);
    uint64_t ids[60];
    for (uint32_t i = 0; i < COUNT_OF(ids); i++)
        ids[i] = bed_put(&b, i, 150000, 1, 0)->id;
    bed_close(&b);
    use_ring(&b, 0);
    assert_int_equal(bed_try_open(&b), 0);
    assert_int_equal(adopt(&b, 1), 0);
    bed_start(&b);
    bed_reopen(&b);
    for (uint32_t i = 0; i < COUNT_OF(ids); i++)
        assert_int_equal(bed_check(&b, bed_by_id(&b, ids[i]), NULL), 0);
    bed_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adopt),
        cmocka_unit_test(test_adopt_twice),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_adopt_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
