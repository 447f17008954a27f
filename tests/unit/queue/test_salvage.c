/* Salvage: what a ring's bytes still say when nothing else does. */
#include "bed.h"

#include "queue/salvage.h"

struct image {
    uint8_t *p;
    size_t n;
};

static struct image image_of(const struct bed *b)
{
    char path[128];
    struct stat st;
    bed_ring_path(b, path, sizeof path);
    int fd = open(path, O_RDONLY);
    assert_int_equal(fstat(fd, &st), 0);
    struct image im = {.p = malloc((size_t)st.st_size), .n = (size_t)st.st_size};
    assert_int_equal(read(fd, im.p, im.n), im.n);
    close(fd);
    return im;
}

struct sum {
    uint32_t seed;
    uint64_t at, missing, wrong;
};

static void add(void *ctx, const uint8_t *p, size_t n, bool damaged)
{
    struct sum *s = ctx;
    for (size_t i = 0; i < n && p; i++)
        s->wrong += p[i] != bed_byte(s->seed, s->at + i);
    s->missing += p ? 0 : n;
    s->at += n;
}

static struct sum read_body(const struct salvage *s, const struct salvage_message *m, uint32_t seed)
{
    struct sum sum = {.seed = seed};
    salvage_body(s, m, add, &sum);
    return sum;
}

static const struct salvage_message *by_id(const struct salvage *s, uint64_t id)
{
    for (size_t i = 0; i < salvage_count(s); i++)
        if (salvage_at(s, i)->id == id)
            return salvage_at(s, i);
    fail_msg("not found");
    return NULL;
}

static size_t staying(const struct salvage *s)
{
    size_t count = 0;
    for (size_t i = 0; i < salvage_count(s); i++)
        count += !salvage_at(s, i)->has_left;
    return count;
}

/* A ring with a few laps behind it, with its superblocks and without. */
static void test_ring(void **state)
{
    struct bed b;
    bed_make(&b);
    b.opt.segment_bytes = 64 << 10;
    b.opt.ring_bytes = 2 << 20;
    bed_open(&b);
    struct qmsg *m[12];
    for (uint32_t i = 0; i < COUNT_OF(m); i++)
        m[i] = bed_put(&b, 300 + i, 20000 + i, 1 + i % 3, 0);
    for (uint32_t i = 0; i < 400; i++)
        queue_remove(b.q, bed_put(&b, i, 9000, 1, 0));
    queue_set_rcpt(b.q, m[2], 1, RCPT_DELIVERED);
    bed_settle(&b);
    struct image im = image_of(&b);
    for (int without = 0; without < 2; without++) {
        struct salvage *s;
        if (without)
            memset(im.p, 0xee, 2 * DISK_SECTOR);
        assert_int_equal(salvage_open(&s, im.p, im.n, without ? NULL : im.p), 0);
        assert_true(staying(s) >= COUNT_OF(m));
        if (!without)
            assert_int_equal(staying(s), COUNT_OF(m));
        for (uint32_t i = 0; i < COUNT_OF(m); i++) {
            const struct salvage_message *f = by_id(s, m[i]->id);
            assert_true(f->has_envelope && !f->envelope_damaged && !f->has_left);
            assert_int_equal(f->missing_bytes + f->damaged_bytes, 0);
            struct sum sum = read_body(s, f, 300 + i);
            assert_int_equal(sum.at, 20000 + i);
            assert_int_equal(sum.wrong, 0);
            enum rcpt_state st;
            for (uint32_t r = 0; r < f->rcpt_count; r++) {
                char name[32];
                snprintf(name, sizeof name, "rcpt-%u-%u", 300 + i, r);
                assert_true(str_eq(salvage_rcpt(s, f, r, &st), str_cstr(name)));
                assert_int_equal(st, i == 2 && r == 1 ? RCPT_DELIVERED : RCPT_PENDING);
            }
        }
        salvage_close(s);
    }
    free(im.p);
    bed_destroy(&b);
}

/* What a scrub keeps of a damaged message, with the ring's superblocks and without. */
static void test_kept(void **state)
{
    struct bed b;
    bed_make(&b);
    bed_open(&b);
    struct qmsg *m = bed_put(&b, 7, 600000, 2, 0);
    char path[QPATH_BYTES];
    bed_ring_path(&b, path, sizeof path);
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "rot", 3, (off_t)qfile_at(b.q, m->commit_at - 500)), 3);
    close(fd);
    queue_scrub(b.q);
    struct queue_scrub_state st;
    do {
        loop_run(b.loop);
        queue_scrub_state(b.q, &st);
    } while (st.running);
    while (qdamage_is_busy(b.q))
        usleep(1000);
    struct image ring = image_of(&b);
    assert_int_equal(qdamage_path(b.q, m->commit_at, path, sizeof path), 0);
    static uint8_t kept[1 << 20];
    fd = open(path, O_RDONLY);
    ssize_t n = read(fd, kept, sizeof kept);
    close(fd);
    assert_int_equal(n, m->ring_bytes);
    for (int without = 0; without < 2; without++) {
        struct salvage *s;
        assert_int_equal(salvage_open(&s, kept, (size_t)n, without ? NULL : ring.p), 0);
        const struct salvage_message *f = by_id(s, m->id);
        assert_int_equal(f->missing_bytes, 0);
        assert_true(f->damaged_bytes > 0 && f->damaged_bytes < 600000);
        struct sum sum = read_body(s, f, 7);
        assert_int_equal(sum.at, 600000);
        assert_in_range(sum.wrong, 1, 3);
        salvage_close(s);
        /* A piece of it gone; then its envelope. */
        assert_int_equal(salvage_open(&s, kept, (size_t)n - 4096, without ? NULL : ring.p), 0);
        f = by_id(s, m->id);
        sum = read_body(s, f, 7);
        assert_true(sum.missing > 0 && sum.missing == f->missing_bytes);
        assert_int_equal(sum.at, 600000);
        salvage_close(s);
        assert_int_equal(
            salvage_open(&s, kept + m->commit_bytes, (size_t)n - m->commit_bytes, without ? NULL : ring.p),
            0);
        f = by_id(s, m->id);
        assert_false(f->has_envelope);
        assert_int_equal(read_body(s, f, 7).at, 600000);
        salvage_close(s);
    }
    free(ring.p);
    bed_destroy(&b);
}

static void test_nothing(void **state)
{
    struct salvage *s;
    static uint8_t zeros[100000];
    assert_int_equal(salvage_open(&s, zeros, sizeof zeros, NULL), ERR_NOT_FOUND);
    assert_int_equal(salvage_open(&s, zeros, 0, NULL), ERR_NOT_FOUND);
    assert_int_equal(salvage_open(&s, zeros, 39, zeros), ERR_NOT_FOUND);
    memset(zeros, 1, sizeof zeros);
    assert_int_equal(salvage_open(&s, zeros, sizeof zeros, NULL), ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_kept),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
