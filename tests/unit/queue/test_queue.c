/* A message in, out, changed, removed, and all that again after a restart. */
#define BED_ON_DISK
#include "bed.h"

static void test_small(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    struct qmsg *m = bed_put(&b, 7, 1000, 1, 300);
    uint32_t seed;
    assert_int_equal(bed_check(&b, m, &seed), 0);
    assert_int_equal(seed, 7);
    assert_int_equal(m->body_bytes, 1000);
    assert_int_equal(m->rcpt_pending, 1);
    struct queue_stats st;
    queue_stats(b.q, &st);
    assert_int_equal(st.message_count, 1);
    assert_int_equal(st.pending_rcpt_count, 1);
    bed_destroy(&b);
}

static void test_empty_body(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    uint64_t id = bed_put(&b, 3, 0, 1, 0)->id;
    assert_int_equal(bed_check(&b, bed_by_id(&b, id), NULL), 0);
    bed_reopen(&b);
    assert_int_equal(bed_check(&b, bed_by_id(&b, id), NULL), 0);
    bed_destroy(&b);
}

/* Sizes around every border: staging, chunk, unit. */
static void test_sizes(void **state)
{
    static const uint64_t sizes[] = {1,     7,     8,     4095,   4096,   4097,   32711,
                                     32712, 32713, 65536, 262143, 262144, 300000, 1000000};
    static const size_t pieces[] = {0, 100, 4096, 65536};
    struct bed b;
    bed_make(&b);
    b.opt.ring_bytes = 16 << 20;
    bed_open(&b);
    uint64_t ids[COUNT_OF(sizes) * COUNT_OF(pieces)];
    uint32_t n = 0;
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (size_t k = 0; k < COUNT_OF(pieces); k++, n++)
            ids[n] = bed_put(&b, n, sizes[i], 1, pieces[k])->id;
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < n; i++) {
            uint32_t seed;
            assert_int_equal(bed_check(&b, bed_by_id(&b, ids[i]), &seed), 0);
            assert_int_equal(seed, i);
        }
        bed_reopen(&b);
        assert_int_equal(b.live_count, n);
        assert_true(b.live_in_order);
    }
    bed_destroy(&b);
}

static void test_large_default_geometry(void **state)
{
    struct bed b;
    bed_make(&b);
    b.opt.segment_bytes = 0;
    b.opt.ring_bytes = 0; /* the least */
    bed_open(&b);
    struct queue_stats st;
    queue_stats(b.q, &st);
    assert_int_equal(st.ring_bytes, 16 << 20);
    uint64_t id = bed_put(&b, 5, 9 << 20, 1, 0)->id;
    assert_int_equal(bed_check(&b, bed_by_id(&b, id), NULL), 0);
    bed_reopen(&b);
    assert_int_equal(bed_check(&b, bed_by_id(&b, id), NULL), 0);
    bed_destroy(&b);
}

static void test_many_recipients(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    struct qmsg *m = bed_put(&b, 9, 5000, 1000, 0);
    uint64_t id = m->id;
    for (uint32_t i = 0; i < 1000; i += 2)
        queue_set_rcpt(b.q, m, i, i % 4 ? RCPT_DELIVERED : RCPT_BOUNCED);
    queue_set_rcpt(b.q, m, 1, RCPT_REPORT_DUE); /* as open as before */
    queue_set_warned(b.q, m);
    assert_int_equal(m->rcpt_pending, 500);
    queue_set_due(b.q, m, 12345, 3);
    queue_set_held(b.q, m, true);
    for (int round = 0; round < 2; round++) {
        bed_reopen(&b);
        m = bed_by_id(&b, id);
        assert_int_equal(bed_check(&b, m, NULL), 0);
        assert_int_equal(m->rcpt_pending, 500);
        assert_int_equal(m->due_ms, 12345);
        assert_int_equal(m->attempts, 3);
        assert_true(m->held);
        assert_true(m->warned);
        for (uint32_t i = 0; i < 1000; i++)
            assert_int_equal(queue_rcpt_state(m, i), i == 1  ? RCPT_REPORT_DUE
                                                     : i % 2 ? RCPT_PENDING
                                                     : i % 4 ? RCPT_DELIVERED
                                                             : RCPT_BOUNCED);
    }
    bed_destroy(&b);
}

static void test_record_limit(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    struct put p = {.seed = 1, .bytes = 10, .rcpt_count = 20000, .commit_when_sent = true};
    put_start(&b, &p); /* its record does not fit into a unit of 256 KiB */
    assert_false(p.done);
    bed_run_until(&b, &p.done);
    assert_int_equal(p.err, ERR_LIMIT);
    assert_null(queue_find(b.q, p.id));
    assert_int_equal(bed_check(&b, bed_put(&b, 2, 10, 3000, 0), NULL), 0);
    bed_destroy(&b);
}

static void test_removed_is_gone(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    struct qmsg *a = bed_put(&b, 1, 100, 2, 0), *c = bed_put(&b, 2, 100, 1, 0);
    uint64_t a_id = a->id, c_id = c->id, kept = bed_put(&b, 3, 100, 1, 0)->id;
    queue_set_rcpt(b.q, a, 0, RCPT_DELIVERED);
    assert_ptr_equal(queue_find(b.q, a_id), a);
    queue_set_rcpt(b.q, a, 1, RCPT_REPORT_DUE); /* it stays for that */
    assert_ptr_equal(queue_find(b.q, a_id), a);
    queue_set_rcpt(b.q, a, 1, RCPT_BOUNCED); /* the last one: it leaves by itself */
    assert_null(queue_find(b.q, a_id));
    queue_remove(b.q, c);
    assert_null(queue_find(b.q, c_id));
    bed_settle(&b);
    struct bed crashed;
    bed_crash_copy(&b, &crashed);
    bed_open(&crashed);
    assert_int_equal(crashed.live_count, 1);
    assert_non_null(queue_find(crashed.q, kept));
    bed_destroy(&crashed);
    bed_reopen(&b);
    assert_int_equal(b.live_count, 1);
    bed_destroy(&b);
}

/* A pinned message outlives its removal; its memory and its bytes stay. */
static void test_remove_while_pinned(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    struct qmsg *m = bed_put(&b, 1, 50000, 1, 0);
    struct get g;
    assert_int_equal(get_load(&b, m, &g), 0);
    queue_body_open(&g.body, &g.ld);
    struct qslice *s;
    assert_int_equal(get_next(&b, &g, &s), 0);
    queue_set_rcpt(b.q, m, 0, RCPT_DELIVERED);
    queue_remove(b.q, m); /* no effect */
    bed_settle(&b);
    assert_int_equal(m->rcpt_pending, 0);
    get_end(&g);
    assert_int_equal(s->p[10], bed_byte(1, 10)); /* the slice outlives the body */
    queue_slice_release(s);
    bed_destroy(&b);
}

/* Interleaved: their chunks share batches. */
static void test_many_writers(void **state)
{
    enum { COUNT = 60 };
    struct bed b;
    bed_make(&b);
    b.opt.ring_bytes = b.opt.hot_bytes = 16 << 20;
    bed_open(&b);
    static struct put puts[COUNT];
    memset(puts, 0, sizeof puts);
    for (uint32_t i = 0; i < COUNT; i++) {
        puts[i] = (struct put){
            .seed = i, .bytes = 1000 + i * 3000, .piece = 500 + i * 100, .b = &b, .rcpt_count = 1};
        assert_int_equal(queue_begin(b.q, &puts[i].w), 0);
        puts[i].id = queue_writer_id(puts[i].w);
    }
    bool more = true;
    while (more) {
        more = false;
        for (uint32_t i = 0; i < COUNT; i++) {
            struct put *p = &puts[i];
            uint8_t buffer[8192];
            size_t n = MIN(p->piece, (size_t)(p->bytes - p->sent));
            bed_fill(buffer, p->seed, p->sent, n);
            while (n > 0) {
                size_t took = queue_append(p->w, buffer, n, put_send, p); /* memory is enough here */
                assert_int_equal(took, n);
                p->sent += took;
                n -= took;
            }
            more |= p->sent < p->bytes;
        }
        loop_run(b.loop);
    }
    for (uint32_t i = 0; i < COUNT; i++)
        if (i % 7 == 3)
            queue_abort(puts[i].w);
        else
            put_commit(&puts[i]);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        if (i % 7 == 3)
            continue;
        bed_run_until(&b, &puts[i].done);
        assert_int_equal(puts[i].err, 0);
        kept++;
    }
    struct queue_stats st;
    queue_stats(b.q, &st);
    assert_int_equal(st.message_count, kept);
    bed_reopen(&b);
    assert_int_equal(b.live_count, kept);
    for (uint32_t i = 0; i < COUNT; i++)
        if (i % 7 != 3)
            assert_int_equal(bed_check(&b, bed_by_id(&b, puts[i].id), NULL), 0);
    bed_destroy(&b);
}

/* All that is ready in one tick shares one write. */
static void test_group_commit(void **state)
{
    enum { COUNT = 20 };
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    static struct put puts[COUNT];
    memset(puts, 0, sizeof puts);
    struct queue_stats before, after;
    queue_stats(b.q, &before);
    for (uint32_t i = 0; i < COUNT; i++) {
        puts[i] = (struct put){.seed = i, .bytes = 2000, .commit_when_sent = true};
        put_start(&b, &puts[i]);
    }
    for (uint32_t i = 0; i < COUNT; i++)
        bed_run_until(&b, &puts[i].done);
    queue_stats(b.q, &after);
    assert_int_equal(after.commits - before.commits, 1);
    bed_destroy(&b);
}

/* Receivers that never read: their slices pin half of the memory at most, the others get copies, and mail
 * goes on coming in. */
static void test_slow_receivers(void **state)
{
    enum { COUNT = 40 };
    struct bed b;
    bed_make(&b);
    b.opt.ring_bytes = 16 << 20;
    bed_open(&b);
    struct qslice *slices[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        struct get g;
        struct qmsg *m = bed_put(&b, i, 200000, 1, 0);
        assert_int_equal(get_load(&b, m, &g), 0);
        queue_body_open(&g.body, &g.ld);
        assert_int_equal(get_next(&b, &g, &slices[i]), 0);
        get_end(&g);
    }
    assert_true(b.q->pinned_count > 0 && b.q->pinned_count <= b.q->block_count / 2);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(slices[i]->p[slices[i]->n - 1], bed_byte(i, slices[i]->n - 1));
        queue_slice_release(slices[i]);
    }
    assert_int_equal(b.q->pinned_count, 0);
    bed_destroy(&b);
}

/* No memory: an append takes what fits, a commit waits, and both go on when there is some. */
static void test_memory_pressure(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    bed_put(&b, 1, 1000, 1, 0);
    for (uint32_t i = 0; i < b.q->block_count; i++)
        qblock_pin(b.q, &b.q->blocks[i]);
    uint32_t free_count = 0;
    struct link *free_blocks[64];
    for (struct link *k; (k = list_pop_front(&b.q->blocks_free));)
        free_blocks[free_count++] = k;
    struct put big = {.seed = 2, .bytes = 600000, .commit_when_sent = true};
    put_start(&b, &big);
    struct put small = {.seed = 3, .bytes = 3000, .rcpt_count = 5, .commit_when_sent = true};
    put_start(&b, &small); /* its bytes are staged, its record waits */
    for (int i = 0; i < 100; i++)
        loop_run(b.loop);
    assert_true(big.sent < big.bytes);
    assert_false(small.done);
    assert_null(queue_find(b.q, small.id));
    while (free_count > 0)
        list_push_back(&b.q->blocks_free, free_blocks[--free_count]);
    for (uint32_t i = 0; i < b.q->block_count; i++)
        qblock_unpin(b.q, &b.q->blocks[i]);
    qbatch_request(b.q); /* as the release of a slice does */
    bed_run_until(&b, &small.done);
    bed_run_until(&b, &big.done);
    assert_int_equal(small.err, 0);
    assert_int_equal(big.err, 0);
    assert_int_equal(bed_check(&b, small.m, NULL), 0);
    assert_int_equal(bed_check(&b, big.m, NULL), 0);
    bed_destroy(&b);
}

static void test_commit_delay(void **state)
{
    struct bed b;
    bed_make(&b);
    b.opt.commit_delay_us = 2000;
    bed_open(&b);
    uint64_t id = bed_put(&b, 4, 2000, 1, 0)->id; /* alone: comes through when the delay is over */
    bed_reopen(&b);
    assert_int_equal(bed_check(&b, bed_by_id(&b, id), NULL), 0);
    bed_destroy(&b);
}

/* Chunks of a message that was never committed are nothing. */
static void test_uncommitted_is_nothing(void **state)
{
    struct bed b, crashed;
    bed_make(&b);
    bed_open(&b);
    struct put p = {.seed = 1, .bytes = 400000};
    put_start(&b, &p);
    bed_settle(&b);
    bed_crash_copy(&b, &crashed);
    bed_open(&crashed);
    assert_int_equal(crashed.live_count, 0);
    bed_destroy(&crashed);
    queue_abort(p.w);
    queue_abort(NULL);
    bed_destroy(&b);
}

/* What `done` said 0 for survives a cut at that very moment. */
static void test_crash_after_each_commit(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    for (uint32_t i = 0; i < 12; i++) {
        bed_put(&b, i, i * 9000, 1 + i * 3, 0);
        struct bed crashed;
        bed_crash_copy(&b, &crashed);
        bed_open(&crashed);
        assert_int_equal(crashed.live_count, i + 1);
        assert_true(bed_noted(&crashed, "not shut down cleanly"));
        /* it goes on, and crashes again */
        uint64_t id = bed_put(&crashed, 100 + i, 3000, 1, 0)->id;
        struct bed again;
        bed_crash_copy(&crashed, &again);
        bed_open(&again);
        assert_int_equal(again.live_count, i + 2);
        assert_int_equal(bed_check(&again, bed_by_id(&again, id), NULL), 0);
        struct queue_stats st;
        queue_stats(again.q, &st);
        assert_int_equal(st.damaged_records, 0);
        bed_destroy(&again);
        bed_destroy(&crashed);
    }
    bed_destroy(&b);
}

static void test_ids_are_never_reused(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    uint64_t last = 0;
    for (int i = 0; i < 5; i++) {
        struct qmsg *m = bed_put(&b, 1, 10, 1, 0);
        assert_true(m->id > last);
        last = m->id;
        queue_remove(b.q, m);
        bed_reopen(&b);
    }
    bed_destroy(&b);
}

static bool collect(void *ctx, struct qmsg *m)
{
    uint64_t *at = ctx;
    assert_true(m->arrived_ms >= *at);
    *at = m->arrived_ms;
    return m->arrived_ms < 5;
}

static void test_each_is_oldest_first(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    for (uint32_t i = 0; i < 10; i++)
        bed_put(&b, i, 10, 1, 0);
    uint64_t at = 0;
    queue_each(b.q, collect, &at);
    assert_int_equal(at, 5); /* it stopped there */
    bed_destroy(&b);
}

/* A load and a body may be given up while the disk is still reading. */
static void test_give_up_reading(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    uint64_t id = bed_put(&b, 1, 200000, 1, 0)->id;
    bed_reopen(&b); /* nothing is hot now */
    struct qmsg *m = bed_by_id(&b, id);
    struct get g = {.ld.done = get_loaded, .body.ready = get_ready};
    arena_init(&g.arena, 1 << 20);
    assert_int_equal(queue_load(b.q, m, &g.arena, &g.ld), ERR_PENDING);
    queue_load_end(&g.ld);
    arena_free(&g.arena);
    assert_int_equal(get_load(&b, m, &g), 0);
    queue_body_open(&g.body, &g.ld);
    struct qslice *s;
    assert_int_equal(queue_body_next(&g.body, &s), ERR_PENDING);
    assert_int_equal(queue_body_next(&g.body, &s), ERR_PENDING);
    get_end(&g);
    assert_false(g.woken && g.ld.err);
    assert_int_equal(bed_check(&b, m, NULL), 0);
    bed_destroy(&b);
}

/* Before the loop there are no callbacks to wait for. */
static void test_close_and_discard_at_boot(void **state)
{
    struct bed b;
    bed_make(&b);
    assert_int_equal(bed_try_open(&b), 0);
    queue_discard(b.q);
    assert_int_equal(bed_try_open(&b), 0);
    queue_close(b.q, bed_closed, &b);
    assert_true(b.closed);
    bed_open(&b);
    assert_false(bed_noted(&b, "not shut down cleanly"));
    bed_destroy(&b);
}

static void test_open_errors(void **state)
{
    struct bed b;
    bed_make(&b);
    b.opt.directory = STR("/nonexistent/postern");
    assert_int_equal(bed_try_open(&b), -ENOENT);
    assert_true(bed_noted(&b, "ring-00"));
    b.q = NULL;
    bed_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_empty_body),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_large_default_geometry),
        cmocka_unit_test(test_many_recipients),
        cmocka_unit_test(test_record_limit),
        cmocka_unit_test(test_removed_is_gone),
        cmocka_unit_test(test_remove_while_pinned),
        cmocka_unit_test(test_many_writers),
        cmocka_unit_test(test_group_commit),
        cmocka_unit_test(test_slow_receivers),
        cmocka_unit_test(test_memory_pressure),
        cmocka_unit_test(test_commit_delay),
        cmocka_unit_test(test_uncommitted_is_nothing),
        cmocka_unit_test(test_crash_after_each_commit),
        cmocka_unit_test(test_ids_are_never_reused),
        cmocka_unit_test(test_each_is_oldest_first),
        cmocka_unit_test(test_give_up_reading),
        cmocka_unit_test(test_close_and_discard_at_boot),
        cmocka_unit_test(test_open_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
