/* Damage of every kind: one damaged thing costs one thing, nothing crashes, nothing is formatted behind
 * anybody's back. */
#include "bed.h"

#define DATA_AT (1 << 20)

/* A small generator of our own: a failure can be repeated. */
static uint64_t lcg;
static uint64_t below(uint64_t bound)
{
    lcg = lcg * 6364136223846793005u + 1442695040888963407u;
    return (lcg >> 33) % bound;
}

static void make_small(struct bed *b)
{
    bed_make(b);
    b->opt.segment_bytes = 64 << 10;
    b->opt.ring_bytes = 1 << 20;
}

static int ring_fd(const struct bed *b)
{
    char path[128];
    bed_ring_path(b, path, sizeof path);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    return fd;
}

static void poke(const struct bed *b, uint64_t at, const void *p, size_t n)
{
    int fd = ring_fd(b);
    assert_int_equal(pwrite(fd, p, n, (off_t)at), n);
    close(fd);
}

static void peek(const struct bed *b, uint64_t at, void *p, size_t n)
{
    int fd = ring_fd(b);
    assert_int_equal(pread(fd, p, n, (off_t)at), n);
    close(fd);
}

static void flip(const struct bed *b, uint64_t at)
{
    uint8_t v;
    peek(b, at, &v, 1);
    v ^= (uint8_t)(1u << below(8));
    poke(b, at, &v, 1);
}

static uint32_t files_in_corrupt(const struct bed *b)
{
    char path[128];
    snprintf(path, sizeof path, "%s/corrupt", b->dir);
    DIR *d = opendir(path);
    uint32_t n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

static uint64_t damaged(const struct bed *b)
{
    struct queue_stats st;
    queue_stats(b->q, &st);
    return st.damaged_records;
}

struct check {
    struct bed *b;
    uint32_t count;
    struct qmsg *all[256];
};

static bool check_collect(void *ctx, struct qmsg *m)
{
    struct check *c = ctx;
    assert_true(c->count < COUNT_OF(c->all));
    c->all[c->count++] = m;
    return true;
}

/* Every live message can be read and is what it was; returns how many there are. */
static uint32_t check_all(struct bed *b)
{
    struct check c = {.b = b};
    queue_each(b->q, check_collect, &c);
    for (uint32_t i = 0; i < c.count; i++)
        assert_int_equal(bed_check(b, c.all[i], NULL), 0);
    return c.count;
}

/* `count` messages of many sizes, some of them done. Returns how many live. */
static uint32_t fill(struct bed *b, uint32_t count)
{
    uint32_t live = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct qmsg *m = bed_put(b, i, i % 6 == 5 ? 40000 : i * 331 % 9000, 1 + i % 9, 0);
        if (i % 5 == 4)
            queue_remove(b->q, m);
        else
            live++;
    }
    return live;
}

/* ---- superblocks ---- */

static void test_one_superblock(void **state)
{
    for (uint32_t slot = 0; slot < 2; slot++) {
        struct bed b;
        make_small(&b);
        bed_open(&b);
        uint32_t live = fill(&b, 10);
        bed_close(&b);
        flip(&b, slot * 4096 + below(4096));
        bed_open(&b);
        assert_true(bed_noted(&b, "superblock"));
        assert_int_equal(check_all(&b), live);
        bed_reopen(&b); /* mended by the next writes */
        assert_false(bed_noted(&b, "superblock"));
        assert_int_equal(check_all(&b), live);
        bed_destroy(&b);
    }
}

static void test_both_superblocks(void **state)
{
    struct bed b;
    make_small(&b);
    bed_open(&b);
    fill(&b, 10);
    bed_close(&b);
    flip(&b, 100);
    flip(&b, 4096 + 100);
    static uint8_t before[2 << 20], after[2 << 20];
    peek(&b, 0, before, sizeof before);
    assert_int_equal(bed_try_open(&b), ERR_CORRUPT);
    assert_true(bed_noted(&b, "both superblocks are damaged"));
    peek(&b, 0, after, sizeof after);
    assert_memory_equal(before, after, sizeof before);
    b.q = NULL;
    bed_destroy(&b);
}

static void test_no_superblock_at_all(void **state)
{
    struct bed b;
    make_small(&b);
    char path[128];
    bed_ring_path(&b, path, sizeof path);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    close(fd);
    assert_int_equal(bed_try_open(&b), ERR_CORRUPT);
    b.q = NULL;
    bed_destroy(&b);
}

/* The newest superblock is lost after many laps: the older one's tail was overwritten since. */
static void test_older_superblock_after_laps(void **state)
{
    for (uint32_t slot = 0; slot < 2; slot++) {
        struct bed b, crashed;
        make_small(&b);
        bed_open(&b);
        uint64_t kept = bed_put(&b, 77, 20000, 1, 0)->id;
        for (uint32_t i = 0; i < 150; i++)
            queue_remove(b.q, bed_put(&b, i, 20000, 1, 0));
        bed_settle(&b);
        bed_crash_copy(&b, &crashed);
        flip(&crashed, slot * 4096 + 20);
        bed_open(&crashed);
        assert_int_equal(damaged(&crashed), 0);
        assert_int_equal(bed_check(&crashed, bed_by_id(&crashed, kept), NULL), 0);
        bed_destroy(&crashed);
        bed_destroy(&b);
    }
}

/* ---- damage in the middle ---- */

static void test_bit_flips(void **state)
{
    struct bed b;
    make_small(&b);
    bed_open(&b);
    uint32_t live = fill(&b, 50);
    struct queue_stats st;
    queue_stats(b.q, &st);
    bed_close(&b);
    uint32_t lost_count = 0;
    for (uint32_t i = 0; i < 100; i++) {
        struct bed hurt;
        bed_crash_copy(&b, &hurt);
        lcg = i * 7919;
        uint64_t at = DATA_AT + below(st.used_bytes);
        flip(&hurt, at);
        bed_open(&hurt);
        uint32_t n = check_all(&hurt);
        if (n + 1 < live)
            fail_msg("flip %u at %llu cost %u messages", i, (unsigned long long)at, live - n);
        if (n < live) {
            lost_count++;
            assert_true(damaged(&hurt) > 0);
            assert_true(bed_noted(&hurt, "damaged places"));
            assert_true(files_in_corrupt(&hurt) > 0);
        }
        /* It is told once. */
        bed_reopen(&hurt);
        assert_int_equal(damaged(&hurt), 0);
        assert_int_equal(check_all(&hurt), n);
        assert_int_equal(bed_check(&hurt, bed_put(&hurt, 500, 3000, 1, 0), NULL), 0);
        bed_destroy(&hurt);
    }
    assert_true(lost_count > 10);
    bed_destroy(&b);
}

/* Whole sectors are gone, read as zeros or as garbage. */
static void test_lost_sectors(void **state)
{
    struct bed b;
    make_small(&b);
    b.opt.ring_bytes = 4 << 20; /* nothing is moved: what is moved shares its batch with others */
    bed_open(&b);
    uint32_t live = fill(&b, 50);
    struct queue_stats st;
    queue_stats(b.q, &st);
    assert_int_equal(st.reappended_bytes, 0);
    bed_close(&b);
    for (uint32_t i = 0; i < 80; i++) {
        struct bed hurt;
        bed_crash_copy(&b, &hurt);
        lcg = i * 104729;
        uint8_t sector[4096] = {0};
        if (i % 2)
            for (size_t k = 0; k < sizeof sector; k++)
                sector[k] = (uint8_t)below(256);
        poke(&hurt, DATA_AT + below(st.used_bytes / 4096) * 4096, sector, sizeof sector);
        bed_open(&hurt);
        /* A batch per message: a sector holds pieces of one, and its neighbours' progress. */
        assert_true(check_all(&hurt) + 1 >= live);
        bed_destroy(&hurt);
    }
    bed_destroy(&b);
}

/* Everything at once. Nothing is promised but that what is given out is right. */
static void test_ruin(void **state)
{
    struct bed b;
    make_small(&b);
    bed_open(&b);
    fill(&b, 50);
    bed_close(&b);
    for (uint32_t i = 0; i < 40; i++) {
        struct bed hurt;
        bed_crash_copy(&b, &hurt);
        lcg = i * 15485863;
        uint32_t count = 1 + (uint32_t)below(200);
        for (uint32_t k = 0; k < count; k++)
            flip(&hurt, DATA_AT + below(1 << 20));
        bed_open(&hurt);
        check_all(&hurt);
        assert_int_equal(bed_check(&hurt, bed_put(&hurt, 500, 3000, 1, 0), NULL), 0);
        uint32_t n = check_all(&hurt);
        bed_reopen(&hurt);
        assert_int_equal(check_all(&hurt), n);
        bed_destroy(&hurt);
    }
    bed_destroy(&b);
}

static void test_truncation(void **state)
{
    struct bed b;
    make_small(&b);
    bed_open(&b);
    uint32_t live = fill(&b, 50);
    bed_close(&b);
    uint32_t before = 0;
    for (uint32_t i = 0; i <= 16; i++) {
        struct bed hurt;
        bed_crash_copy(&b, &hurt);
        char path[128];
        bed_ring_path(&hurt, path, sizeof path);
        assert_int_equal(truncate(path, DATA_AT + i * (64 << 10) + (i < 16 ? i * 100 : 0)), 0);
        bed_open(&hurt);
        assert_int_equal(bed_noted(&hurt, "bytes short"), i < 16);
        uint32_t n = check_all(&hurt);
        assert_true(n >= before); /* the more is left the more is saved */
        before = n;
        assert_int_equal(bed_check(&hurt, bed_put(&hurt, 500, 30000, 1, 0), NULL), 0);
        bed_destroy(&hurt);
    }
    assert_int_equal(before, live);
    bed_destroy(&b);
}

/* The end of a ring that was closed is missing: damage, not a torn write. */
static void test_closed_ring_lost_its_end(void **state)
{
    struct bed b;
    make_small(&b);
    bed_open(&b);
    uint32_t live = fill(&b, 7);
    struct queue_stats before, after;
    queue_stats(b.q, &before);
    bed_put(&b, 9, 10000, 1, 0);
    queue_stats(b.q, &after);
    bed_close(&b);
    static const uint8_t zeros[64 << 10];
    poke(&b, DATA_AT + before.used_bytes, zeros, after.used_bytes - before.used_bytes);
    bed_open(&b);
    assert_true(damaged(&b) > 0);
    assert_int_equal(check_all(&b), live);
    bed_reopen(&b);
    assert_int_equal(damaged(&b), 0);
    assert_int_equal(check_all(&b), live);
    bed_destroy(&b);
}

/* ---- torn writes ---- */

/* Of the sectors that a last write changed a few reach the disk. What was promised before is there, nothing
 * is called damage, and the ring goes on. */
static void test_torn_last_batch(void **state)
{
    for (uint32_t i = 0; i < 40; i++) {
        struct bed b, before, after;
        make_small(&b);
        bed_open(&b);
        uint32_t live = fill(&b, 12);
        bed_settle(&b);
        bed_crash_copy(&b, &before);
        uint64_t last = bed_put(&b, 900, 12000, 3, 0)->id;
        bed_crash_copy(&b, &after);
        lcg = i * 32452843;
        bool all = true;
        for (uint64_t at = DATA_AT; at < DATA_AT + (1 << 20); at += 4096) {
            uint8_t old[4096], new[4096];
            peek(&before, at, old, sizeof old);
            peek(&after, at, new, sizeof new);
            if (memcmp(old, new, sizeof old) == 0)
                continue;
            if (below(3) > 0)
                poke(&before, at, new, sizeof new);
            else
                all = false;
        }
        for (uint32_t again = 0; again < 3; again++) {
            if (again == 0)
                bed_open(&before);
            assert_int_equal(damaged(&before), 0);
            uint32_t n = check_all(&before);
            bool has_last = queue_find(before.q, last) != NULL;
            assert_true(!all || has_last);
            assert_int_equal(n, live + has_last + again);
            bed_put(&before, 901, 5000, 1, 0);
            struct bed next;
            bed_crash_copy(&before, &next);
            bed_destroy(&before);
            before = next;
            before.opt.directory = str_cstr(before.dir);
            bed_open(&before);
        }
        bed_destroy(&before);
        bed_destroy(&after);
        bed_destroy(&b);
    }
}

/* A move was interrupted: the old copy still stands. */
static void test_torn_move(void **state)
{
    struct bed b;
    make_small(&b);
    bed_open(&b);
    uint64_t kept[4];
    for (uint32_t i = 0; i < 4; i++)
        kept[i] = bed_put(&b, 60 + i, 9000, 1, 0)->id;
    struct queue_stats st;
    for (uint32_t i = 0; i < 400; i++) {
        queue_remove(b.q, bed_put(&b, i, 15000, 1, 0));
        if (i % 10)
            continue;
        struct bed crashed;
        bed_crash_copy(&b, &crashed);
        bed_open(&crashed);
        queue_stats(crashed.q, &st);
        assert_int_equal(st.damaged_records, 0);
        for (uint32_t k = 0; k < 4; k++)
            assert_int_equal(bed_check(&crashed, bed_by_id(&crashed, kept[k]), NULL), 0);
        bed_destroy(&crashed);
    }
    bed_destroy(&b);
}

/* ---- bytes that want to be records ---- */

/* A mail whose body is a copy of the ring itself brings nothing to life, even when the batch around it is
 * damaged. */
static void test_planted_records(void **state)
{
    struct bed b;
    make_small(&b);
    bed_open(&b);
    bed_put(&b, 1, 3000, 1, 0);
    static uint8_t image[40000];
    peek(&b, DATA_AT, image, sizeof image);
    struct queue_writer *w;
    assert_int_equal(queue_begin(b.q, &w), 0);
    for (size_t at = 0; at < sizeof image; at += 8000)
        assert_int_equal(queue_append(w, image + at, 8000, NULL, NULL), 8000);
    struct put p = {.b = &b, .w = w, .seed = 2, .rcpt_count = 1, .sent_all = true};
    put_commit(&p);
    bed_run_until(&b, &p.done);
    assert_int_equal(p.err, 0);
    struct queue_stats st;
    queue_stats(b.q, &st);
    bed_close(&b);
    for (uint64_t at = DATA_AT; at < DATA_AT + st.used_bytes; at += 4096)
        flip(&b, at + 8); /* every batch header */
    bed_open(&b);
    assert_true(b.live_count <= 2);
    bed_destroy(&b);
}

/* ---- what a start reads ---- */

static uint64_t bytes_read_so_far(void)
{
    char name[32];
    unsigned long long value, found = 0;
    FILE *f = fopen("/proc/self/io", "r");
    assert_non_null(f);
    while (fscanf(f, "%31s %llu", name, &value) == 2)
        if (strcmp(name, "rchar:") == 0)
            found = value;
    fclose(f);
    return found;
}

/* What was never written is not read: a large ring starts as fast as its mail is little. */
static void test_start_reads_what_is_used(void **state)
{
    struct bed b;
    bed_make(&b);
    b.opt.ring_bytes = 64 << 20;
    b.opt.segment_bytes = 1 << 20;
    bed_open(&b);
    for (uint32_t i = 0; i < 60; i++)
        bed_put(&b, i, 100000, 1, 0);
    struct queue_stats st;
    queue_stats(b.q, &st);
    bed_close(&b);
    uint64_t before = bytes_read_so_far();
    bed_open(&b);
    uint64_t seen = bytes_read_so_far() - before;
    assert_int_equal(b.live_count, 60);
    assert_true(seen >= st.used_bytes);
    assert_true(seen <= st.used_bytes + (4 << 20)); /* the last segments twice, a sector of each */
    bed_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_superblock),
        cmocka_unit_test(test_both_superblocks),
        cmocka_unit_test(test_no_superblock_at_all),
        cmocka_unit_test(test_older_superblock_after_laps),
        cmocka_unit_test(test_bit_flips),
        cmocka_unit_test(test_lost_sectors),
        cmocka_unit_test(test_ruin),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_closed_ring_lost_its_end),
        cmocka_unit_test(test_torn_last_batch),
        cmocka_unit_test(test_torn_move),
        cmocka_unit_test(test_planted_records),
        cmocka_unit_test(test_start_reads_what_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
