/* tests/unit/verify/test_store.c: tests of the verdict store: restarts, bounds, pins, listing, threads. */
#include "bed.h"

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
        TEST(test_cannot_be_made),
        TEST(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
