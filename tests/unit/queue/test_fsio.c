/* Files: made whole or not at all, read, written, extended, renamed, removed, appended to. */
#define BED_ON_DISK
#include "bed.h"

#include "queue/fsio.h"

static char dir[64], path[128];

static int setup(void **state)
{
    snprintf(dir, sizeof dir, "/tmp/postern-fsio-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/file", dir);
    return 0;
}

static int teardown(void **state)
{
    bed_remove_folder(dir);
    return 0;
}

static void test_create_and_transfer(void **state)
{
    assert_int_equal(fsio_create(path, 3 << 20), 0);
    struct fsio_file f;
    assert_int_equal(fsio_open(&f, path), 0);
    assert_int_equal(f.bytes, 3 << 20);
    assert_true(f.direct == (f.why == NULL));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true((uint64_t)st.st_blocks * 512 >= 3 << 20); /* not a hole */
    uint8_t *p = aligned_alloc(FSIO_ALIGN, 1 << 20);
    memset(p, 1, 1 << 20);
    assert_int_equal(fsio_read(&f, p, 1 << 20, 2 << 20), 0);
    for (size_t i = 0; i < 1 << 20; i++)
        assert_int_equal(p[i], 0);
    bed_fill(p, 3, 0, 1 << 20);
    assert_int_equal(fsio_write_durable(&f, p, 1 << 20, 1 << 20), 0);
    memset(p, 0, 1 << 20);
    assert_int_equal(fsio_read(&f, p, 1 << 20, 1 << 20), 0);
    for (size_t i = 0; i < 1 << 20; i++)
        assert_int_equal(p[i], bed_byte(3, i));
    assert_int_equal(fsio_read(&f, p, 1 << 20, 3 << 20), -EIO); /* behind the end */
    fsio_close(&f);
    free(p);
}

static void test_extend(void **state)
{
    struct fsio_file f;
    assert_int_equal(truncate(path, (2 << 20) + 100), 0);
    assert_int_equal(fsio_open(&f, path), 0);
    assert_int_equal(fsio_extend(&f, 4 << 20), 0);
    assert_int_equal(f.bytes, 4 << 20);
    uint8_t *p = aligned_alloc(FSIO_ALIGN, FSIO_ALIGN);
    assert_int_equal(fsio_read(&f, p, FSIO_ALIGN, (4 << 20) - FSIO_ALIGN), 0);
    fsio_close(&f);
    free(p);
}

struct transfer {
    struct fsio_io io;
    volatile bool done;
    err_t err;
};

static void transfer_done(struct fsio_io *io, err_t err)
{
    struct transfer *t = container_of(io, struct transfer, io);
    t->err = err;
    t->done = true;
}

/* Both ways of being durable. */
static void test_async(void **state)
{
    const struct loop_options small = {.entries = 8, .buffer_count = 4, .buffer_bytes = 1024, .cpu = -1};
    struct loop *l;
    assert_int_equal(loop_create(&l, &small), 0);
    loop_stop(l);
    for (int buffered = 0; buffered < 2; buffered++) {
        struct fsio_file f;
        assert_int_equal(fsio_open(&f, path), 0);
        if (buffered) {
            assert_int_equal(fcntl(f.fd, F_SETFL, O_RDWR), 0);
            f.direct = false;
        }
        uint8_t *p = aligned_alloc(FSIO_ALIGN, 1 << 20);
        bed_fill(p, 8 + (uint32_t)buffered, 0, 1 << 20);
        struct transfer t = {.io.done = transfer_done};
        fsio_write_durable_async(&t.io, l, &f, p, 1 << 20, 1 << 20);
        while (!t.done)
            loop_run(l);
        assert_int_equal(t.err, 0);
        memset(p, 0, 1 << 20);
        t.done = false;
        fsio_read_async(&t.io, l, &f, p, 1 << 20, 1 << 20);
        while (!t.done)
            loop_run(l);
        assert_int_equal(t.err, 0);
        assert_int_equal(p[70000], bed_byte(8 + (uint32_t)buffered, 70000));
        t.done = false;
        fsio_read_async(&t.io, l, &f, p, 1 << 20, 64 << 20);
        while (!t.done)
            loop_run(l);
        assert_int_equal(t.err, -EIO);
        fsio_close(&f);
        free(p);
    }
    loop_destroy(l);
}

static void test_names(void **state)
{
    char other[128];
    snprintf(other, sizeof other, "%s/other", dir);
    assert_int_equal(fsio_rename(path, other), 0);
    struct fsio_file f;
    assert_int_equal(fsio_open(&f, path), -ENOENT);
    assert_int_equal(fsio_remove(other), 0);
    assert_int_equal(fsio_remove(other), -ENOENT);
    snprintf(other, sizeof other, "%s/none/file", dir);
    assert_int_equal(fsio_create(other, 4096), -ENOENT);
}

static void test_append(void **state)
{
    char kept[128], text[16] = {0};
    snprintf(kept, sizeof kept, "%s/corrupt/x.bin", dir);
    assert_int_equal(fsio_append_file(kept, "one", 3), 0);
    assert_int_equal(fsio_append_file(kept, "two", 3), 0);
    int fd = open(kept, O_RDONLY);
    assert_int_equal(read(fd, text, sizeof text), 6);
    close(fd);
    assert_string_equal(text, "onetwo");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_and_transfer),
        cmocka_unit_test(test_extend),
        cmocka_unit_test(test_async),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_append),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
