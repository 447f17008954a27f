/* tests/unit/verify/test_store.c: tests of the verdict store: restarts, kills, damage, pins, listing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "verify/store_priv.h"

#define CAPACITY 4000

/* A store, its cache and a folder of its own. */
struct bed {
    char root[64], directory[96], data[128];
    struct verdict_cache *cache;
    struct verdict_store *store;
    struct gbuf notes;
};

static uint32_t now_s(void)
{
    return (uint32_t)(clock_wall_ns() / NS_PER_S);
}

static err_t try_open(struct bed *b, uint32_t capacity)
{
    gbuf_free(&b->notes);
    b->notes = (struct gbuf){0};
    assert_int_equal(verdict_cache_create(&b->cache, CAPACITY), 0);
    return verdict_store_open(&b->store, str_cstr(b->directory), capacity, b->cache, &b->notes);
}

static void open_with(struct bed *b, uint32_t capacity)
{
    assert_int_equal(try_open(b, capacity), 0);
    assert_int_equal(verdict_store_start(b->store), 0);
}

static void open_bed(struct bed *b)
{
    open_with(b, CAPACITY);
}

static void close_bed(struct bed *b)
{
    verdict_store_close(b->store);
    verdict_cache_destroy(b->cache);
    b->store = NULL;
    b->cache = NULL;
}

static int set_up(void **state)
{
    struct bed *b = calloc(1, sizeof *b);
    *state = b;
    snprintf(b->root, sizeof b->root, "/tmp/postern-verdicts-XXXXXX");
    if (!b || !mkdtemp(b->root))
        return -1;
    snprintf(b->directory, sizeof b->directory, "%s/verdicts", b->root);
    snprintf(b->data, sizeof b->data, "%s/verdicts.mdb", b->directory);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int tear_down(void **state)
{
    struct bed *b = *state;
    gbuf_free(&b->notes);
    nftw(b->root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(b);
    return 0;
}

static str_t key_of(char *room, size_t cap, uint32_t i)
{
    return str_of(room, (size_t)snprintf(room, cap, "user%05u@example.com", i));
}

static struct verdict_record good(uint32_t checked_s)
{
    return (struct verdict_record){.state = VERDICT_GOOD, .source = SOURCE_PROBE, .checked_s = checked_s};
}

static bool put(struct bed *b, uint32_t i, struct verdict_record r)
{
    char room[64];
    return verdict_store_put(b->store, key_of(room, sizeof room, i), &r);
}

struct waiter {
    struct verdict_store_sync sync;
    sem_t done;
};

static void sync_done(struct verdict_store_sync *y, err_t err)
{
    struct waiter *w = container_of(y, struct waiter, sync);
    assert_int_equal(err, y->err);
    sem_post(&w->done);
}

static err_t flush(struct bed *b)
{
    struct waiter w = {.sync.done = sync_done};
    sem_init(&w.done, 0, 0);
    verdict_store_flush(b->store, &w.sync);
    while (sem_wait(&w.done) < 0)
        ;
    sem_destroy(&w.done);
    return w.sync.err;
}

static bool cached(struct bed *b, uint32_t i, struct verdict_record *out)
{
    char room[64];
    return verdict_cache_get(b->cache, key_of(room, sizeof room, i), now_s(), out);
}

static struct verdict_store_stats stats(struct bed *b)
{
    struct verdict_store_stats s;
    verdict_store_stats(b->store, &s);
    return s;
}

/* --- ordinary days --- */

static void test_restart(void **state)
{
    struct bed *b = *state;
    struct verdict_record want = {.state = VERDICT_GOOD,
                                  .source = SOURCE_DELIVERY,
                                  .suspect = 1,
                                  .checked_s = now_s() - 5,
                                  .refused_s = now_s() - 3},
                          got;
    open_bed(b);
    assert_int_equal(b->notes.n, 0);
    for (uint32_t i = 0; i < 1000; i++)
        assert_true(put(b, i, want));
    assert_true(put(b, 1, (struct verdict_record){.pin = PIN_UNKNOWN}));
    assert_true(put(b, 2, (struct verdict_record){0})); /* deleted */
    assert_true(put(b, 5000, (struct verdict_record){0}));
    assert_int_equal(flush(b), 0);
    assert_int_equal(stats(b).records, 999);
    assert_int_equal(stats(b).pending, 0);
    assert_true(put(b, 3, (struct verdict_record){.state = VERDICT_DISABLED, .checked_s = now_s()}));
    close_bed(b); /* writes the last one */

    open_bed(b);
    assert_int_equal(b->notes.n, 0);
    assert_true(cached(b, 0, &got));
    assert_memory_equal(&got, &want, sizeof got);
    assert_true(cached(b, 1, &got));
    assert_int_equal(got.pin, PIN_UNKNOWN);
    assert_int_equal(got.state, VERDICT_NONE);
    assert_false(cached(b, 2, &got));
    assert_true(cached(b, 3, &got));
    assert_int_equal(got.state, VERDICT_DISABLED);
    assert_int_equal(stats(b).records, 999);
    close_bed(b);
}

/* Never started, as when the boot fails later on. */
static void test_close_without_start(void **state)
{
    struct bed *b = *state;
    struct verdict_record got;
    assert_int_equal(try_open(b, CAPACITY), 0);
    assert_true(put(b, 1, good(now_s())));
    close_bed(b);
    open_bed(b);
    assert_true(cached(b, 1, &got));
    close_bed(b);
}

static void test_too_many_wait(void **state)
{
    struct bed *b = *state;
    uint64_t taken = 0;
    assert_int_equal(try_open(b, CAPACITY), 0); /* no thread: nothing is taken away */
    for (uint32_t i = 0; i < STORE_RING_SLOTS + 10; i++)
        taken += put(b, i % 100, good(now_s()));
    assert_int_equal(taken, STORE_RING_SLOTS);
    assert_int_equal(stats(b).pending, STORE_RING_SLOTS);
    assert_int_equal(stats(b).dropped, 10);
    close_bed(b);
    open_bed(b);
    assert_int_equal(stats(b).records, 100);
    close_bed(b);
}

static void test_longest_key(void **state)
{
    struct bed *b = *state;
    char text[VERIFY_KEY_MAX];
    struct verdict_record r = good(now_s()), got;
    memset(text, 'x', sizeof text);
    open_bed(b);
    assert_true(verdict_store_put(b->store, str_of(text, sizeof text), &r));
    assert_int_equal(flush(b), 0);
    close_bed(b);
    open_bed(b);
    assert_true(verdict_cache_get(b->cache, str_of(text, sizeof text), now_s(), &got));
    close_bed(b);
}

static void test_full(void **state)
{
    struct bed *b = *state;
    struct verdict_record unknown = {.state = VERDICT_UNKNOWN, .checked_s = now_s()}, got;
    open_with(b, 100);
    for (uint32_t i = 0; i < 150; i++)
        assert_true(put(b, i, i < 20 ? good(now_s()) : unknown));
    assert_int_equal(flush(b), 0);
    assert_int_equal(stats(b).records, 100);
    assert_int_equal(stats(b).skipped, 50);
    for (uint32_t i = 200; i < 230; i++) /* good ones push refusals out */
        assert_true(put(b, i, good(now_s())));
    assert_true(put(b, 300, (struct verdict_record){.pin = PIN_GOOD}));
    assert_int_equal(flush(b), 0);
    assert_int_equal(stats(b).skipped, 50);
    assert_true(stats(b).records <= 101);
    close_bed(b);
    open_bed(b);
    for (uint32_t i = 200; i < 230; i++)
        assert_true(cached(b, i, &got));
    assert_true(cached(b, 300, &got));
    for (uint32_t i = 0; i < 20; i++)
        assert_true(cached(b, i, &got));
    close_bed(b);
}

/* The walk begins with the first transaction. */
static void test_old_records_go(void **state)
{
    struct bed *b = *state;
    uint32_t now = now_s();
    assert_int_equal(try_open(b, CAPACITY), 0);
    put(b, 1, good(now - 31 * 86400));
    put(b, 2, good(now - 30 * 86400));
    put(b, 3, (struct verdict_record){.state = VERDICT_UNKNOWN, .checked_s = now - 86400});
    put(b, 4, (struct verdict_record){.state = VERDICT_UNKNOWN, .checked_s = now - 80000});
    put(b, 5, (struct verdict_record){.state = VERDICT_UNKNOWN, .pin = PIN_GOOD, .checked_s = 1});
    close_bed(b);
    open_bed(b);
    assert_int_equal(flush(b), 0);
    assert_int_equal(stats(b).records, 3);
    close_bed(b);
}

/* --- listing --- */

struct listing {
    char text[4096];
    struct sbuf keys;
    uint32_t count, stop_at;
    char last[VERIFY_KEY_MAX];
    size_t last_bytes;
};

static bool list_one(void *ctx, str_t key, const struct verdict_record *r)
{
    struct listing *l = ctx;
    assert_true(r->state <= VERDICT_DISABLED);
    sbuf_str(&l->keys, key);
    sbuf_char(&l->keys, ' ');
    memcpy(l->last, key.p, key.n);
    l->last_bytes = key.n;
    return ++l->count != l->stop_at;
}

static const char *list(struct bed *b, struct listing *l, const char *glob, const char *after, uint32_t max,
                        uint32_t stop_at)
{
    memset(l, 0, sizeof *l);
    l->keys = SBUF_ON(l->text);
    l->stop_at = stop_at;
    assert_int_equal(verdict_store_each(b->store, str_cstr(glob), str_cstr(after), max, list_one, l), 0);
    sbuf_char(&l->keys, '\0');
    return l->text;
}

static void test_listing(void **state)
{
    static const char *const keys[] = {"alice@a.example", "alice@b.example", "bob@a.example",
                                       "carol@a.example"};
    struct verdict_record r = good(now_s());
    struct bed *b = *state;
    struct listing l;
    open_bed(b);
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        assert_true(verdict_store_put(b->store, str_cstr(keys[i]), &r));
    assert_int_equal(flush(b), 0);
    static const struct {
        const char *glob, *after;
        uint32_t max, stop_at;
        const char *want;
    } cases[] = {
        {NULL, NULL, 100, 0, "alice@a.example alice@b.example bob@a.example carol@a.example "},
        {"", NULL, 100, 0, ""},
        {"*", NULL, 2, 0, "alice@a.example alice@b.example "},
        {"*", "alice@b.example", 2, 0, "bob@a.example carol@a.example "},
        {"*", "b", 100, 0, "bob@a.example carol@a.example "},
        {"*", "zz", 100, 0, ""},
        {"*", NULL, 0, 0, ""},
        {"*", NULL, 100, 3, "alice@a.example alice@b.example bob@a.example "},
        {"*@a.example", NULL, 100, 0, "alice@a.example bob@a.example carol@a.example "},
        {"*@a.example", "alice@a.example", 1, 0, "bob@a.example "},
        {"alice@*", NULL, 100, 0, "alice@a.example alice@b.example "},
        {"alice@*", "alice@a.example", 100, 0, "alice@b.example "},
        {"alice@*", "a", 100, 0, "alice@a.example alice@b.example "},
        {"b?b@*", NULL, 100, 0, "bob@a.example "},
        {"bob@a.example", NULL, 100, 0, "bob@a.example "},
        {"bob", NULL, 100, 0, ""},
        {"*o*@*.example", NULL, 100, 0, "bob@a.example carol@a.example "},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *got = list(b, &l, cases[i].glob, cases[i].after, cases[i].max, cases[i].stop_at);
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("case %zu: \"%s\", want \"%s\"", i, got, cases[i].want);
    }
    close_bed(b);
}

/* Page by page, each record once. */
static void test_paging(void **state)
{
    struct bed *b = *state;
    struct listing l = {0};
    char after[VERIFY_KEY_MAX + 1] = "";
    uint32_t seen = 0;
    open_bed(b);
    for (uint32_t i = 0; i < 500; i++)
        assert_true(put(b, i, good(now_s())));
    assert_int_equal(flush(b), 0);
    for (int page = 0; page < 100; page++) {
        (void)list(b, &l, "user*", after, 7, 0);
        if (!l.count)
            break;
        seen += l.count;
        memcpy(after, l.last, l.last_bytes);
        after[l.last_bytes] = '\0';
    }
    assert_int_equal(seen, 500);
    close_bed(b);
}

static void test_glob(void **state)
{
    static const struct {
        const char *glob, *key;
        bool want;
    } cases[] = {{"", "", true},         {"*", "", true},          {"?", "", false},
                 {"a", "a", true},       {"a", "ab", false},       {"a*", "ab", true},
                 {"*b", "aab", true},    {"a*b*c", "aXbYc", true}, {"a*b*c", "aXbY", false},
                 {"**a**", "xax", true}, {"?b", "ab", true},       {"a?", "a", false},
                 {"*ab", "aaab", true},  {"*aab*", "aaab", true},  {"*.c", "a.b.c", true}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        if (store_glob(str_cstr(cases[i].glob), str_cstr(cases[i].key)) != cases[i].want)
            fail_msg("case %zu: %s", i, cases[i].glob);
    }
}

static void test_record_bytes(void **state)
{
    const struct verdict_record r = {.state = VERDICT_DISABLED,
                                     .source = SOURCE_SENDER,
                                     .pin = PIN_GOOD,
                                     .suspect = 1,
                                     .checked_s = 0x01020304,
                                     .refused_s = 0xf0e0d0c0};
    struct verdict_record got;
    uint8_t bytes[STORE_VALUE_BYTES];
    str_t key = STR("bob@example.com"), value = str_of((const char *)bytes, sizeof bytes);
    (void)state;
    store_encode(key, &r, bytes);
    assert_int_equal(store_decode(key, value, &got), 0);
    assert_memory_equal(&r, &got, sizeof r);
    assert_int_equal(store_decode(STR("bob@example.org"), value, &got), ERR_CORRUPT);
    for (size_t n = 0; n < sizeof bytes; n++)
        assert_int_equal(store_decode(key, str_sub(value, 0, n), &got), ERR_CORRUPT);
    for (unsigned bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_int_not_equal(store_decode(key, value, &got), 0);
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    bytes[0] = 2;
    assert_int_equal(store_decode(key, value, &got), ERR_VERSION);
}

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
    const char *key = "user01000@example.com"; /* every copy of it: older pages too */
    for (char *at = text; (at = memmem(at, (size_t)(text + size - at), key, strlen(key))); at++)
        overwrite(b, at - text + (off_t)strlen(key) + 9, "\xEE", 1);
    free(text);
    open_bed(b);
    assert_int_equal(set_aside_count(b), 0);
    assert_int_equal(stats(b).damaged, 1);
    assert_true(b->notes.n > 0);
    assert_false(cached(b, 1000, &got));
    assert_true(cached(b, 1001, &got));
    check_usable(b);
}

static void test_cannot_be_made(void **state)
{
    struct bed *b = *state;
    snprintf(b->directory, sizeof b->directory, "%s/not/there", b->root);
    assert_int_equal(try_open(b, CAPACITY), -ENOENT);
    assert_null(b->store);
    verdict_cache_destroy(b->cache);
}

/* --- many threads --- */

static void *put_many(void *arg)
{
    struct bed *b = arg;
    static atomic_uint ids;
    uint32_t base = atomic_fetch_add(&ids, 1) * 500;
    for (uint32_t i = 0; i < 500; i++)
        assert_true(put(b, base + i, good(now_s())));
    assert_int_equal(flush(b), 0);
    return NULL;
}

static bool count_one(void *ctx, str_t key, const struct verdict_record *r)
{
    (void)key;
    (void)r;
    (*(uint32_t *)ctx)++;
    return true;
}

static void test_threads(void **state)
{
    struct bed *b = *state;
    pthread_t threads[6];
    uint32_t count = 0;
    open_bed(b);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, put_many, b), 0);
    for (int i = 0; i < 20; i++) { /* readers beside them */
        count = 0;
        assert_int_equal(verdict_store_each(b->store, STR_NONE, STR_NONE, UINT32_MAX, count_one, &count), 0);
        assert_true(count <= 3000);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    count = 0;
    assert_int_equal(verdict_store_each(b->store, STR_NONE, STR_NONE, UINT32_MAX, count_one, &count), 0);
    assert_int_equal(count, 3000);
    close_bed(b);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_restart),
        TEST(test_close_without_start),
        TEST(test_too_many_wait),
        TEST(test_longest_key),
        TEST(test_full),
        TEST(test_old_records_go),
        TEST(test_listing),
        TEST(test_paging),
        cmocka_unit_test(test_glob),
        cmocka_unit_test(test_record_bytes),
        TEST(test_kill),
        TEST(test_damage),
        TEST(test_salvage),
        TEST(test_random_damage),
        TEST(test_other_files),
        TEST(test_damaged_value),
        TEST(test_cannot_be_made),
        TEST(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
