/* tests/unit/verify/test_store_damage.c: the verdict store after kill -9 (T14) and with damaged files. */
#include "bed.h"
#include "verify/store_priv.h"

/* --- kills (T14) --- */

/* In the child: puts without end, and says through the pipe what is on disk. */
NORETURN static void write_until_killed(struct bed *b, int fd)
{
    open_bed(b);
    for (uint32_t i = 0;; i = (i + 1) % CAPACITY) {
        (void)put(b, i, good(now_s()));
        if (i % 16 == 15 && (flush(b) || write(fd, &i, sizeof i) != sizeof i))
            _exit(1);
    }
}

static void test_kill(void **state)
{
    struct bed *b = *state;
    uint32_t x = 1, last = 0;
    for (int round = 0; round < 12; round++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            close(ends[0]);
            write_until_killed(b, ends[1]);
        }
        close(ends[1]);
        x = x * 1664525 + 1013904223;
        for (uint32_t reports = 1 + (x >> 16) % 10; reports > 0; reports--)
            assert_int_equal(read(ends[0], &last, sizeof last), sizeof last);
        kill(pid, SIGKILL); /* wherever it is now */
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        close(ends[0]);

        open_bed(b);
        struct verdict_record got;
        assert_int_equal(b->notes.n, 0);
        for (uint32_t i = 0; i <= last; i++) {
            if (!cached(b, i, &got) || got.state != VERDICT_GOOD)
                fail_msg("round %d: record %u of %u is missing", round, i, last);
        }
        assert_true(put(b, 0, good(now_s())));
        assert_int_equal(flush(b), 0);
        close_bed(b);
    }
}

/* --- damage --- */

static void fill(struct bed *b)
{
    open_bed(b);
    for (uint32_t i = 0; i < 2000; i++)
        assert_true(put(b, i, good(now_s())));
    assert_int_equal(flush(b), 0);
    for (uint32_t i = 0; i < 500; i++) /* so that there are free pages */
        assert_true(put(b, i * 3, (struct verdict_record){0}));
    close_bed(b);
}

static unsigned set_aside_count(const struct bed *b)
{
    unsigned count = 0;
    DIR *d = opendir(b->directory);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        count += str_starts(str_cstr(e->d_name), STR("verdicts.mdb.damaged-"));
    closedir(d);
    return count;
}

static void overwrite(const struct bed *b, off_t at, const void *p, size_t n)
{
    int fd = open(b->data, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, p, n, at), (ssize_t)n);
    close(fd);
}

static void overwrite_range(const struct bed *b, off_t from, off_t to, int byte)
{
    char block[4096];
    memset(block, byte, sizeof block);
    for (; from < to; from += (off_t)sizeof block)
        overwrite(b, from, block, sizeof block);
}

static off_t data_bytes(const struct bed *b)
{
    struct stat st;
    assert_int_equal(stat(b->data, &st), 0);
    return st.st_size;
}

static void truncate_half(const struct bed *b)
{
    assert_int_equal(truncate(b->data, data_bytes(b) / 2), 0);
}
static void truncate_to_100(const struct bed *b)
{
    assert_int_equal(truncate(b->data, 100), 0);
}
static void truncate_to_metas(const struct bed *b)
{
    assert_int_equal(truncate(b->data, 8192), 0);
}
static void truncate_to_0(const struct bed *b)
{
    assert_int_equal(truncate(b->data, 0), 0);
}
static void zero_metas(const struct bed *b)
{
    overwrite_range(b, 0, 8192, 0);
}
static void zero_all(const struct bed *b)
{
    overwrite_range(b, 0, data_bytes(b), 0);
}
static void zero_pages(const struct bed *b)
{
    overwrite_range(b, 8192, data_bytes(b), 0);
}
static void garbage_pages(const struct bed *b)
{
    overwrite_range(b, 8192, data_bytes(b), 0xA5);
}
static void all_ones(const struct bed *b)
{
    overwrite_range(b, 8192, data_bytes(b), 0xFF);
}
static void garbage_file(const struct bed *b)
{
    overwrite_range(b, 0, data_bytes(b), 0x5A);
}
static void wrong_version(const struct bed *b)
{
    const uint32_t version = 999; /* behind the page header of 16 bytes and the magic number */
    overwrite(b, 20, &version, sizeof version);
    overwrite(b, 4096 + 20, &version, sizeof version);
}
static void a_folder_instead(const struct bed *b)
{
    assert_int_equal(unlink(b->data), 0);
    assert_int_equal(mkdir(b->data, 0700), 0);
}

static void check_usable(struct bed *b)
{
    struct verdict_record got;
    assert_true(put(b, 9000, good(now_s())));
    assert_int_equal(flush(b), 0);
    close_bed(b);
    open_bed(b);
    assert_int_equal(b->notes.n, 0);
    assert_true(cached(b, 9000, &got));
    close_bed(b);
}

static void test_damage(void **state)
{
    static void (*const kinds[])(const struct bed *b) = {
        truncate_half, truncate_to_100, truncate_to_metas, truncate_to_0, zero_metas,    zero_all,
        zero_pages,    garbage_pages,   all_ones,          garbage_file,  wrong_version, a_folder_instead,
    };
    struct bed *b = *state;
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        fill(b);
        kinds[i](b);
        open_bed(b);
        if (set_aside_count(b) != 1 || !b->notes.n)
            fail_msg("kind %zu was not set aside", i);
        check_usable(b);
        nftw(b->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    }
}

/* What stands before the damage is used. */
static void test_salvage(void **state)
{
    struct bed *b = *state;
    struct verdict_record got;
    uint32_t found = 0;
    open_bed(b);
    for (uint32_t i = 0; i < CAPACITY; i++)
        assert_true(put(b, i, good(now_s())));
    close_bed(b);
    open_bed(b); /* written anew: in order */
    close_bed(b);
    overwrite_range(b, ALIGN_DOWN((uint64_t)data_bytes(b) / 2, 4096), data_bytes(b) / 2 + 8192, 0xA5);
    open_bed(b);
    assert_int_equal(set_aside_count(b), 1);
    for (uint32_t i = 0; i < CAPACITY; i++)
        found += cached(b, i, &got);
    assert_true(found > CAPACITY / 4 && found < CAPACITY);
    assert_int_equal(stats(b).records, found);
    close_bed(b);
    open_bed(b);
    assert_int_equal(stats(b).records, found);
    close_bed(b);
}

/* Bytes changed anywhere. Whatever is found or not, the process lives and the store works. */
static void test_random_damage(void **state)
{
    struct bed *b = *state;
    uint32_t x = 42;
    for (int round = 0; round < 30; round++) {
        fill(b);
        for (int i = 0; i < 40; i++) {
            x = x * 1664525 + 1013904223;
            uint8_t byte = (uint8_t)(x >> 24);
            off_t at = (off_t)((uint64_t)x * (uint64_t)data_bytes(b) >> 32);
            overwrite(b, at, &byte, 1);
        }
        open_bed(b);
        check_usable(b);
        nftw(b->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    }
}

static void test_other_files(void **state)
{
    struct bed *b = *state;
    char lock[160];
    fill(b);
    snprintf(lock, sizeof lock, "%s/verdicts.mdb-lock", b->directory);
    int fd = open(lock, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "garbage garbage garbage", 23), 23);
    close(fd);
    open_bed(b); /* nobody holds it: it is written anew */
    assert_int_equal(b->notes.n, 0);
    assert_int_equal(stats(b).records, 1500);
    close_bed(b);
    assert_int_equal(unlink(lock), 0);
    open_bed(b);
    assert_int_equal(b->notes.n, 0);
    assert_int_equal(stats(b).records, 1500);
    close_bed(b);

    char new[160]; /* a start that a crash ended */
    snprintf(new, sizeof new, "%s/verdicts.new", b->directory);
    fd = open(new, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "garbage garbage garbage", 23), 23);
    close(fd);
    open_bed(b);
    assert_int_equal(b->notes.n, 0);
    assert_int_equal(stats(b).records, 1500);
    check_usable(b);
}

/* One value is wrong: that record is missing, the rest is there. */
static void test_damaged_value(void **state)
{
    struct bed *b = *state;
    struct verdict_record got;
    fill(b);
    off_t size = data_bytes(b);
    char *text = malloc((size_t)size);
    assert_non_null(text);
    int fd = open(b->data, O_RDONLY);
    assert_true(fd >= 0 && pread(fd, text, (size_t)size, 0) == size);
    close(fd);
    /* Every copy of it, older pages too; but not where the key stands in an inner page, as a signpost without
     * a value: which keys do depends on how the writer's batches fell. A value has zeroes there. */
    const char *key = "user01000@example.com";
    for (char *at = text; (at = memmem(at, (size_t)(text + size - at), key, strlen(key))); at++) {
        const char *value = at + strlen(key);
        if (value + STORE_VALUE_BYTES <= text + size && !value[5] && !value[6] && !value[7])
            overwrite(b, value - text + 9, "\xEE", 1);
    }
    free(text);
    open_bed(b);
    assert_int_equal(set_aside_count(b), 0);
    assert_int_equal(stats(b).damaged, 1);
    assert_true(b->notes.n > 0);
    assert_false(cached(b, 1000, &got));
    assert_true(cached(b, 1001, &got));
    check_usable(b);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_kill),          TEST(test_damage),      TEST(test_salvage),
        TEST(test_random_damage), TEST(test_other_files), TEST(test_damaged_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
