/* A disk that fails: what was not durable is refused, what was durable stays, and the ring works again when
 * the disk does.
 *
 * The file layer is replaced at link time: fsio.c is taken in here under other names, and the asynchronous
 * calls go through a gate that can refuse. */
#define fsio_write_durable_async real_write_durable_async
#define fsio_read_async          real_read_async
#include "queue/fsio.c"
#undef fsio_write_durable_async
#undef fsio_read_async
/* The door's own declarations were renamed as well. */
void fsio_write_durable_async(struct fsio_io *io, struct loop *l, struct fsio_file *f, const void *p,
                              size_t n, uint64_t at);
void fsio_read_async(struct fsio_io *io, struct loop *l, struct fsio_file *f, void *p, size_t n, uint64_t at);

#include "bed.h"

static uint32_t fail_writes, fail_reads; /* that many from now on */
static bool half_done;                   /* a failing write leaves its first half */
static uint32_t failed_count;
static err_t failure = -EIO;
static bool only_superblocks; /* other writes do not fail */

struct refused {
    struct mail mail;
    struct fsio_io *io;
};

static void refuse(struct mail *m)
{
    struct refused *r = container_of(m, struct refused, mail);
    struct fsio_io *io = r->io;
    free(r);
    io->done(io, failure);
}

static void refuse_later(struct fsio_io *io, struct loop *l)
{
    struct refused *r = calloc(1, sizeof *r);
    r->io = io;
    r->mail.deliver = refuse;
    failed_count++;
    loop_post(l, &r->mail);
}

void fsio_write_durable_async(struct fsio_io *io, struct loop *l, struct fsio_file *f, const void *p,
                              size_t n, uint64_t at)
{
    if (fail_writes == 0 || (only_superblocks && at >= DISK_DATA_AT)) {
        real_write_durable_async(io, l, f, p, n, at);
        return;
    }
    fail_writes--;
    if (half_done)
        assert_int_equal(fsio_write_durable(f, p, ALIGN_UP(n / 2, 4096), at), 0);
    refuse_later(io, l);
}

void fsio_read_async(struct fsio_io *io, struct loop *l, struct fsio_file *f, void *p, size_t n, uint64_t at)
{
    if (fail_reads == 0) {
        real_read_async(io, l, f, p, n, at);
        return;
    }
    fail_reads--;
    refuse_later(io, l);
}

static void wait_until_works(struct bed *b)
{
    struct queue_stats st;
    do {
        loop_run(b->loop);
        queue_stats(b->q, &st);
    } while (st.error);
}

static void test_failed_commit(void **state)
{
    for (int half = 0; half < 2; half++) {
        half_done = half;
        struct bed b;
        bed_make(&b);
        bed_open(&b);
        struct qmsg *old = bed_put(&b, 1, 5000, 2, 0);
        uint64_t old_id = old->id;
        fail_writes = 2;
        struct put p = {.seed = 2, .bytes = 5000, .commit_when_sent = true}, w = {.seed = 3, .bytes = 5000};
        put_start(&b, &w);
        put_start(&b, &p);
        queue_set_rcpt(b.q, old, 1, RCPT_DELIVERED); /* rides in the same write */
        bed_run_until(&b, &p.done);
        assert_int_equal(p.err, -EIO);
        assert_null(queue_find(b.q, p.id));
        assert_int_equal(queue_check_space(b.q, 0), -EIO);
        struct queue_writer *none;
        assert_int_equal(queue_begin(b.q, &none), -EIO);
        struct put late = {.b = &b, .w = w.w, .seed = 3, .rcpt_count = 1};
        put_commit(&late); /* begun before, committed after */
        assert_false(late.done);
        bed_run_until(&b, &late.done);
        assert_int_equal(late.err, -EIO);
        wait_until_works(&b);
        assert_int_equal(fail_writes, 0);
        uint64_t id = bed_put(&b, 4, 5000, 1, 0)->id;
        struct bed crashed;
        bed_crash_copy(&b, &crashed);
        bed_open(&crashed);
        assert_int_equal(crashed.live_count, 2);
        assert_null(queue_find(crashed.q, p.id));
        assert_int_equal(queue_rcpt_state(bed_by_id(&crashed, old_id), 1), RCPT_DELIVERED);
        assert_int_equal(bed_check(&crashed, bed_by_id(&crashed, id), NULL), 0);
        struct queue_stats st;
        queue_stats(crashed.q, &st);
        assert_int_equal(st.damaged_records, 0);
        bed_destroy(&crashed);
        bed_destroy(&b);
    }
}

/* Close does not wait for a disk that is gone. */
static void test_close_on_a_dead_disk(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    struct qmsg *m = bed_put(&b, 1, 5000, 1, 0);
    uint64_t id = m->id;
    queue_set_due(b.q, m, 5, 5);
    fail_writes = UINT32_MAX;
    bed_close(&b);
    fail_writes = 0;
    bed_open(&b);
    assert_true(bed_noted(&b, "not shut down cleanly"));
    assert_int_equal(bed_check(&b, bed_by_id(&b, id), NULL), 0);
    bed_destroy(&b);
}

/* The alarm says why, and is taken back. */
static void test_alarm(void **state)
{
    const struct {
        err_t err;
        enum metric gauge;
    } rows[] = {{-EIO, M_queue_error_eio},
                {-ENOSPC, M_queue_error_enospc},
                {-EDQUOT, M_queue_error_enospc},
                {-EROFS, M_queue_error_erofs},
                {-EFBIG, M_queue_error_other}};
    half_done = false;
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        failure = rows[i].err;
        fail_writes = 2;
        struct put p = {.seed = 1, .bytes = 5000, .commit_when_sent = true};
        put_start(&b, &p);
        bed_run_until(&b, &p.done);
        assert_int_equal(p.err, rows[i].err);
        assert_int_equal(queue_check_space(b.q, 0), rows[i].err);
        assert_int_equal(metric_read(rows[i].gauge), 1);
        wait_until_works(&b);
        assert_int_equal(metric_read(rows[i].gauge), 0);
        queue_remove(b.q, bed_put(&b, 2, 5000, 1, 0));
    }
    failure = -EIO;
    bed_destroy(&b);
}

/* One bad sector under a superblock: batches could be written, but the tail could never move. Mail is refused
 * until the superblock works, not now and then. */
static void test_failing_superblock(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    uint64_t id = bed_put(&b, 1, 5000, 1, 0)->id;
    fail_writes = 3;
    only_superblocks = true;
    qsuper_request(b.q);
    while (!b.q->error)
        loop_run(b.loop);
    queue_set_due(b.q, bed_by_id(&b, id), 77, 7); /* what is delivered meanwhile */
    while (fail_writes > 0) {
        loop_run(b.loop);
        assert_int_equal(queue_check_space(b.q, 0), -EIO);
    }
    only_superblocks = false;
    wait_until_works(&b);
    assert_false(b.q->super.again);
    assert_int_equal(bed_check(&b, bed_put(&b, 2, 5000, 1, 0), NULL), 0);
    bed_reopen(&b);
    assert_int_equal(bed_by_id(&b, id)->due_ms, 77);
    bed_destroy(&b);
}

static void test_failed_reads(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    uint64_t id = bed_put(&b, 1, 100000, 1, 0)->id;
    bed_reopen(&b);
    struct qmsg *m = bed_by_id(&b, id);
    fail_reads = 1;
    assert_int_equal(bed_check(&b, m, NULL), -EIO);
    struct get g;
    assert_int_equal(get_load(&b, m, &g), 0);
    queue_body_open(&g.body, &g.ld);
    fail_reads = 1;
    struct qslice *s;
    assert_int_equal(get_next(&b, &g, &s), -EIO);
    get_end(&g);
    assert_int_equal(m->pins, 0);
    assert_int_equal(bed_check(&b, m, NULL), 0);
    bed_destroy(&b);
}

/* Writes fail now and then while the ring laps and moves what lives. */
static void test_errors_among_laps(void **state)
{
    half_done = true;
    struct bed b;
    bed_make(&b);
    b.opt.segment_bytes = 64 << 10;
    b.opt.ring_bytes = 1 << 20;
    bed_open(&b);
    uint64_t kept[6];
    for (uint32_t i = 0; i < COUNT_OF(kept); i++)
        kept[i] = bed_put(&b, 50 + i, 20000, 1 + i, 0)->id;
    for (uint32_t i = 0; i < 300; i++) {
        if (i % 100 == 50)
            fail_writes = 1;
        struct put p = {.seed = i, .bytes = 9000, .commit_when_sent = true};
        if (queue_check_space(b.q, 9000) == 0) {
            put_start(&b, &p);
            bed_run_until(&b, &p.done);
            if (p.m)
                queue_remove(b.q, p.m);
        }
        wait_until_works(&b);
    }
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < COUNT_OF(kept); i++)
            assert_int_equal(bed_check(&b, bed_by_id(&b, kept[i]), NULL), 0);
        bed_reopen(&b);
        assert_int_equal(b.live_count, COUNT_OF(kept));
        struct queue_stats st;
        queue_stats(b.q, &st);
        assert_int_equal(st.damaged_records, 0);
    }
    assert_true(failed_count > 3);
    bed_destroy(&b);
}

/* The disk rots under a running ring: reclaim finds it, keeps what it can, and goes on. */
static void test_rot_while_running(void **state)
{
    struct bed b;
    bed_make(&b);
    b.opt.segment_bytes = 64 << 10;
    b.opt.ring_bytes = 8 << 20; /* larger than the hot memory: moves come from the disk */
    bed_open(&b);
    struct qmsg *m[9];
    for (uint32_t i = 0; i < COUNT_OF(m); i++)
        m[i] = bed_put(&b, 70 + i, 7000, 1, 0);
    char path[128];
    bed_ring_path(&b, path, sizeof path);
    int fd = open(path, O_RDWR);
    const uint64_t places[] = {m[3]->commit_at + 60, m[5]->commit_at - 100}; /* one's envelope, one's body */
    for (size_t i = 0; i < COUNT_OF(places); i++)
        assert_int_equal(pwrite(fd, "rot", 3, (off_t)(DISK_DATA_AT + places[i])), 3);
    close(fd);
    uint64_t written = 0;
    for (uint32_t seed = 0; written < UINT64_C(20) << 20; seed++, written += 60000)
        queue_remove(b.q, bed_put(&b, seed, 60000, 1, 0));
    for (uint32_t i = 0; i < COUNT_OF(m); i++)
        assert_int_equal(bed_check(&b, m[i], NULL), i == 3 || i == 5 ? ERR_CORRUPT : 0);
    struct queue_stats st;
    queue_stats(b.q, &st);
    assert_true(st.damaged_records >= 2);
    queue_remove(b.q, m[3]);
    queue_remove(b.q, m[5]);
    bed_reopen(&b);
    assert_int_equal(b.live_count, COUNT_OF(m) - 2);
    bed_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed_commit),
        cmocka_unit_test(test_close_on_a_dead_disk),
        cmocka_unit_test(test_alarm),
        cmocka_unit_test(test_failing_superblock),
        cmocka_unit_test(test_failed_reads),
        cmocka_unit_test(test_errors_among_laps),
        cmocka_unit_test(test_rot_while_running),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
