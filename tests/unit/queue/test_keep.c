/* Segments full of deferred mail stay behind the tail: nothing of them is lost or comes back, and their space
 * does. */
#include "bed.h"

enum { MESSAGE_BYTES = 1500, OLD_MAX = 9000 };

struct old {
    uint64_t id[OLD_MAX];
    uint32_t count;
};

static void make(struct bed *b)
{
    bed_make(b);
    b->opt.ring_bytes = 16 << 20;
    b->opt.segment_bytes = 256 << 10;
}

/* Many at once, as from many clients: their records share batches, so that segments are dense. */
static void fill(struct bed *b, struct old *o, unsigned percent)
{
    enum { AT_ONCE = 24 };
    struct queue_stats st;
    for (queue_stats(b->q, &st); st.live_bytes < st.ring_bytes / 100 * percent; queue_stats(b->q, &st)) {
        struct put puts[AT_ONCE];
        must(o->count + AT_ONCE <= OLD_MAX);
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            uint32_t seed = o->count + i;
            puts[i] = (struct put){
                .seed = seed, .bytes = MESSAGE_BYTES, .rcpt_count = 1 + seed % 3, .commit_when_sent = true};
            put_start(b, &puts[i]);
        }
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            bed_run_until(b, &puts[i].done);
            assert_int_equal(puts[i].err, 0);
            o->id[o->count++] = puts[i].id;
        }
    }
}

/* So many bytes come and go. */
static void churn(struct bed *b, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes; done += 20000)
        queue_remove(b->q, bed_put(b, (uint32_t)done, 20000, 1, 0));
}

static void check_all(struct bed *b, const struct old *o)
{
    for (uint32_t i = 0; i < o->count; i++) {
        uint32_t seed;
        if (o->id[i] == 0)
            continue;
        assert_int_equal(bed_check(b, bed_by_id(b, o->id[i]), &seed), 0);
        assert_int_equal(seed, i);
    }
}

static uint32_t left(const struct old *o)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < o->count; i++)
        n += o->id[i] != 0;
    return n;
}

static void remove_one(struct bed *b, struct old *o, uint32_t i)
{
    if (o->id[i])
        queue_remove(b->q, bed_by_id(b, o->id[i]));
    o->id[i] = 0;
}

/* What is on the disk now, opened by another process after a crash. */
static void crash(const struct bed *b, struct bed *after)
{
    bed_crash_copy(b, after);
    bed_open(after);
    struct queue_stats st;
    queue_stats(after->q, &st);
    assert_int_equal(st.damaged_records, 0);
}

static void begin(struct bed *b, struct old *o, uint32_t fill_percent)
{
    memset(o, 0, sizeof *o);
    make(b);
    bed_open(b);
    fill(b, o, fill_percent);
}

static void test_deferred_mail_is_not_copied(void **state)
{
    struct bed b;
    static struct old o;
    begin(&b, &o, 65);
    churn(&b, 24 << 20);
    struct queue_stats before, after;
    queue_stats(b.q, &before);
    churn(&b, 16 << 20);
    queue_stats(b.q, &after);
    /* To copy it would take about two bytes for each that comes. */
    assert_true(after.kept_segment_count > 20);
    assert_true(after.reappended_bytes - before.reappended_bytes < (16 << 20) * 2 / 3);
    check_all(&b, &o);
    bed_reopen(&b);
    assert_int_equal(b.live_count, o.count);
    check_all(&b, &o);
    churn(&b, 8 << 20);
    check_all(&b, &o);
    bed_destroy(&b);
}

/* Progress of kept messages is as safe as that of others; who has left does not come back. */
static void test_crashes_and_progress(void **state)
{
    struct bed b;
    static struct old o;
    begin(&b, &o, 60);
    for (uint32_t round = 0; round < 6; round++) {
        churn(&b, 1400000);
        for (uint32_t i = round; i < o.count; i += 37)
            remove_one(&b, &o, i);
        for (uint32_t i = 0; i < o.count; i += 11)
            if (o.id[i])
                queue_set_due(b.q, bed_by_id(&b, o.id[i]), 1000 + round, round);
        bed_settle(&b);
        struct bed after;
        crash(&b, &after);
        assert_int_equal(after.live_count, left(&o));
        check_all(&after, &o);
        for (uint32_t i = 0; i < o.count; i += 11)
            if (o.id[i])
                assert_int_equal(bed_by_id(&after, o.id[i])->due_ms, 1000 + round);
        churn(&after, 3 << 20);
        check_all(&after, &o);
        bed_destroy(&after);
    }
    bed_destroy(&b);
}

/* Messages leave here and there: what they leave behind is used again, and a full ring gets empty. */
static void test_space_comes_back(void **state)
{
    struct bed b;
    static struct old o;
    begin(&b, &o, 75);
    churn(&b, 6 << 20);
    for (uint32_t i = 0; i < o.count; i++)
        if (i % 4)
            remove_one(&b, &o, i);
    churn(&b, 12 << 20);
    struct queue_stats st;
    queue_stats(b.q, &st);
    check_all(&b, &o);
    assert_true(st.kept_segment_count * (256 << 10) < st.live_bytes * 2 + (1 << 20));
    /* It takes as much new mail as an empty one would beside what is left. */
    static struct old more;
    memset(&more, 0, sizeof more);
    fill(&b, &more, 80);
    check_all(&b, &o);
    check_all(&b, &more);
    for (uint32_t i = 0; i < o.count; i++)
        remove_one(&b, &o, i);
    for (uint32_t i = 0; i < more.count; i++)
        remove_one(&b, &more, i);
    churn(&b, 6 << 20);
    bed_settle(&b);
    queue_stats(b.q, &st);
    assert_int_equal(st.kept_segment_count, 0);
    assert_int_equal(st.message_count, 0);
    bed_reopen(&b);
    assert_int_equal(b.live_count, 0);
    bed_destroy(&b);
}

static void zero_newer_superblock(const struct bed *b)
{
    char path[128];
    bed_ring_path(b, path, sizeof path);
    int fd = open(path, O_RDWR);
    static uint8_t super[2][4096];
    uint64_t generation[2];
    assert_int_equal(pread(fd, super, sizeof super, 0), sizeof super);
    for (unsigned i = 0; i < 2; i++)
        memcpy(&generation[i], super[i] + offsetof(struct disk_super, generation), 8);
    memset(super[0], 0, sizeof super[0]);
    assert_int_equal(pwrite(fd, super[0], 4096, generation[0] > generation[1] ? 0 : 4096), 4096);
    close(fd);
}

/* Flips a bit in the first keep record at or behind an offset; returns where to go on, 0: there is none. */
static uint64_t damage_next_keep(const struct bed *b, uint64_t at)
{
    char path[128];
    bed_ring_path(b, path, sizeof path);
    int fd = open(path, O_RDWR);
    static uint8_t all[18 << 20];
    ssize_t n = pread(fd, all, sizeof all, 0);
    struct disk_super super;
    memcpy(&super, all, sizeof super);
    uint32_t magic = DISK_RECORD_MAGIC ^ (uint32_t)(super.salt >> 32);
    for (; at + sizeof(struct disk_record) < (uint64_t)n; at += 8) {
        struct disk_record r;
        memcpy(&r, all + at, sizeof r);
        if (r.magic != magic || r.type != RECORD_KEEP)
            continue;
        all[at + sizeof r + 20] ^= 4;
        assert_int_equal(pwrite(fd, all + at + sizeof r + 20, 1, (off_t)(at + sizeof r + 20)), 1);
        close(fd);
        return at + 8;
    }
    close(fd);
    return 0;
}

/* The older superblock does not know of the newest kept segments: their records do. */
static void test_older_superblock(void **state)
{
    struct bed b;
    static struct old o;
    begin(&b, &o, 60);
    for (uint32_t round = 0; round < 4; round++) {
        churn(&b, 1800000);
        for (uint32_t i = round; i < o.count; i += 23)
            remove_one(&b, &o, i);
        bed_settle(&b);
        struct bed after;
        bed_crash_copy(&b, &after);
        zero_newer_superblock(&after);
        bed_open(&after);
        assert_int_equal(after.live_count, left(&o));
        check_all(&after, &o);
        bed_destroy(&after);
    }
    bed_destroy(&b);
}

/* A keep record names many messages: damage to one costs none of them. */
static void test_damaged_keep_record(void **state)
{
    struct bed b;
    static struct old o;
    begin(&b, &o, 60);
    churn(&b, 5 << 20);
    bed_settle(&b);
    struct bed after;
    uint32_t damaged = 0;
    for (uint64_t at = DISK_DATA_AT, n; damaged < 4; at = n) {
        bed_crash_copy(&b, &after);
        n = damage_next_keep(&after, at);
        if (n == 0) {
            bed_destroy(&after);
            break;
        }
        bed_open(&after);
        assert_int_equal(after.live_count, o.count);
        check_all(&after, &o);
        bed_destroy(&after);
        damaged++;
    }
    assert_int_equal(damaged, 4);
    bed_destroy(&b);
}

/* A reader holds a message in a segment that is dissolved and emptied around it. */
static void test_reader_in_a_kept_segment(void **state)
{
    struct bed b;
    static struct old o;
    begin(&b, &o, 60);
    churn(&b, 5 << 20);
    struct get g;
    assert_int_equal(get_load(&b, bed_by_id(&b, o.id[100]), &g), 0);
    queue_body_open(&g.body, &g.ld);
    for (uint32_t i = 0; i < o.count; i++)
        if (i != 100 && i % 5)
            remove_one(&b, &o, i);
    churn(&b, 8 << 20);
    struct qslice *s;
    uint64_t at = 0;
    err_t err;
    while ((err = get_next(&b, &g, &s)) == 0) {
        for (size_t i = 0; i < s->n; i++)
            assert_int_equal(s->p[i], bed_byte(100, at + i));
        at += s->n;
        queue_slice_release(s);
    }
    assert_int_equal(err, ERR_EOF);
    get_end(&g);
    check_all(&b, &o);
    bed_destroy(&b);
}

static void test_entries(void **state)
{
    struct qkeep_entry many[3] = {
        {.id = UINT64_MAX, .arrived_ms = 1, .due_ms = 0, .offset = 4096, .rcpt_count = 3},
        {.id = 1,
         .arrived_ms = UINT64_MAX,
         .due_ms = 7,
         .offset = UINT64_MAX - 7,
         .commit_bytes = UINT64_MAX},
        {.id = 2, .body_bytes = UINT64_MAX, .ring_bytes = 300, .attempts = UINT32_MAX, .flags = 3}};
    uint8_t bytes[3 * 100 + 3], *to = bytes, *first_end = bytes;
    struct qkeep_entry before = {0}, e = {0};
    for (unsigned i = 0; i < 3; i++) {
        uint8_t *from = to;
        to = qkeep_encode(to, &before, &many[i]);
        assert_true(to - from <= 100);
        memset(to, 1, many[i].rcpt_count);
        to += many[i].rcpt_count;
        first_end = i == 0 ? to : first_end;
    }
    const uint8_t *p = bytes;
    for (unsigned i = 0; i < 3; i++) {
        assert_true(qkeep_decode(&p, to, &e));
        assert_memory_equal(&e, &many[i], sizeof e);
        p += e.rcpt_count;
    }
    assert_ptr_equal(p, to);
    e = (struct qkeep_entry){0};
    for (const uint8_t *end = bytes; end < first_end; end++) {
        p = bytes;
        assert_false(qkeep_decode(&p, end, &e));
        e = (struct qkeep_entry){0};
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_deferred_mail_is_not_copied),
        cmocka_unit_test(test_crashes_and_progress),
        cmocka_unit_test(test_space_comes_back),
        cmocka_unit_test(test_older_superblock),
        cmocka_unit_test(test_reader_in_a_kept_segment),
        cmocka_unit_test(test_damaged_keep_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
