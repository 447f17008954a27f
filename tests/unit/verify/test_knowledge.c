/* tests/unit/verify/test_knowledge.c: cache and store as one: pins, forgetting, reading. */
#include "bed.h"

#include <pthread.h>

#include "verify/knowledge.h"

static struct knowledge of(const struct bed *b)
{
    return (struct knowledge){b->cache, b->store};
}

static struct verdict_record replace(void *ctx, struct verdict_record old)
{
    return *(const struct verdict_record *)ctx;
}

static void learn(const struct bed *b, const char *key, enum verdict v, uint32_t age_s)
{
    struct knowledge k = of(b);
    struct verdict_record r = {.state = (uint8_t)v, .checked_s = now_s() - age_s};
    struct knowledge_change c = knowledge_change(&k, str_cstr(key), now_s(), replace, &r);
    assert_true(c.is_remembered);
    assert_int_equal(c.is_stored, b->store != NULL);
    assert_int_equal(c.after.state, v);
}

static struct verdict_record known(const struct bed *b, const char *key)
{
    struct verdict_record r = {0};
    (void)verdict_cache_peek(b->cache, str_cstr(key), &r);
    return r;
}

static bool append(void *ctx, str_t key, const struct verdict_record *r)
{
    gbuf_str(ctx, key);
    gbuf_cstr(ctx, r->pin == PIN_GOOD ? "+ " : r->pin ? "- " : " ");
    return true;
}

static void assert_stored(const struct bed *b, struct knowledge_filter f, const char *want)
{
    struct knowledge k = of(b);
    struct gbuf got = {0};
    assert_int_equal(knowledge_sync(&k), 0);
    assert_int_equal(knowledge_each(&k, &f, STR_NONE, append, &got), 0);
    gbuf_put(&got, "", 1);
    assert_string_equal(got.p, want);
    gbuf_free(&got);
}

static void some(const struct bed *b)
{
    learn(b, "a@one.example", VERDICT_GOOD, 10);
    learn(b, "b@one.example", VERDICT_UNKNOWN, 4000);
    learn(b, "c@two.example", VERDICT_DISABLED, 20);
    learn(b, "d@sub.two.example", VERDICT_GOOD, 8000);
}

static void test_pins_outlast_everything(void **state)
{
    struct bed *b = *state;
    uint64_t count;
    open_bed(b);
    some(b);
    struct knowledge k = of(b);
    struct knowledge_change c = knowledge_pin(&k, STR("a@one.example"), PIN_UNKNOWN);
    assert_true(c.is_remembered && c.is_stored);
    assert_int_equal(c.before.pin, PIN_NONE);
    assert_int_equal(c.after.state, VERDICT_GOOD);
    assert_true(knowledge_pin(&k, STR("new@one.example"), PIN_GOOD).is_stored);
    assert_true(knowledge_pin(&k, STR("new@one.example"), PIN_GOOD).is_stored); /* as it was */
    assert_int_equal(knowledge_forget_all(&k, &(struct knowledge_filter){0}, &count), 0);
    assert_int_equal(count, 4);
    (void)knowledge_forget(&k, STR("new@one.example"));
    assert_stored(b, (struct knowledge_filter){0}, "a@one.example- new@one.example+ ");
    close_bed(b);
    open_bed(b);
    assert_int_equal(known(b, "a@one.example").pin, PIN_UNKNOWN);
    assert_int_equal(known(b, "a@one.example").state, VERDICT_NONE);
    assert_int_equal(known(b, "new@one.example").pin, PIN_GOOD);
    k = of(b);
    assert_int_equal(knowledge_pin(&k, STR("a@one.example"), PIN_NONE).after.pin, PIN_NONE);
    assert_stored(b, (struct knowledge_filter){0}, "new@one.example+ ");
    close_bed(b);
}

static void test_what_is_forgotten(void **state)
{
    static const struct {
        struct knowledge_filter filter;
        uint64_t count;
        const char *left;
    } rows[] = {
        {{.older_s = 0}, 4, ""},
        {{.refusals = true}, 2, "a@one.example d@sub.two.example "},
        {{.good = true}, 2, "b@one.example c@two.example "},
        {{.domain = STR("two.example")}, 1, "a@one.example b@one.example d@sub.two.example "},
        {{.older_s = 3600}, 2, "a@one.example c@two.example "},
        {{.newer_s = 3600}, 2, "b@one.example d@sub.two.example "},
        {{.domain = STR("one.example"), .older_s = 3600},
         1,
         "a@one.example c@two.example d@sub.two.example "},
        {{.domain = STR("none.example")}, 0, "a@one.example b@one.example c@two.example d@sub.two.example "},
        {{.pinned = true}, 0, "a@one.example b@one.example c@two.example d@sub.two.example "},
    };
    struct bed *b = *state;
    open_bed(b);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct knowledge k = of(b);
        uint64_t count;
        some(b);
        assert_int_equal(knowledge_count(&k, &rows[i].filter), rows[i].count);
        assert_int_equal(knowledge_forget_all(&k, &rows[i].filter, &count), 0);
        if (count != rows[i].count)
            fail_msg("row %zu: %llu", i, (unsigned long long)count);
        assert_stored(b, (struct knowledge_filter){0}, rows[i].left);
    }
    close_bed(b);
}

/* More than the store's ring takes at once, and some that the cache does not have. */
static void test_many(void **state)
{
    struct bed *b = *state;
    char room[64];
    uint64_t count;
    open_bed(b);
    for (uint32_t i = 0; i < CAPACITY; i++)
        learn(b, key_of(room, sizeof room, i).p, i % 2 ? VERDICT_GOOD : VERDICT_UNKNOWN, 0);
    struct knowledge k = of(b);
    assert_int_equal(knowledge_sync(&k), 0);
    verdict_cache_destroy(b->cache);
    assert_int_equal(verdict_cache_create(&b->cache, CAPACITY), 0);
    k = of(b);
    (void)knowledge_pin(&k, key_of(room, sizeof room, 7), PIN_UNKNOWN);
    assert_int_equal(
        knowledge_forget_all(&k, &(struct knowledge_filter){.domain = STR("example.com")}, &count), 0);
    assert_int_equal(count, 0);
    assert_stored(b, (struct knowledge_filter){0}, "user00007@example.com- ");
    close_bed(b);
}

static void test_without_a_store(void **state)
{
    struct bed *b = *state;
    uint64_t count;
    assert_int_equal(verdict_cache_create(&b->cache, CAPACITY), 0);
    struct knowledge k = of(b);
    some(b);
    assert_false(knowledge_pin(&k, STR("a@one.example"), PIN_GOOD).is_stored);
    assert_int_equal(knowledge_sync(&k), ERR_NOT_FOUND);
    assert_int_equal(knowledge_each(&k, &(struct knowledge_filter){0}, STR_NONE, append, NULL),
                     ERR_NOT_FOUND);
    assert_int_equal(
        knowledge_forget_all(&k, &(struct knowledge_filter){.domain = STR("one.example")}, &count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(known(b, "a@one.example").pin, PIN_GOOD);
    verdict_cache_destroy(b->cache);
    b->cache = NULL;
}

static bool take_one(void *ctx, str_t key, const struct verdict_record *r)
{
    append(ctx, key, r);
    return false;
}

static void test_pages(void **state)
{
    struct bed *b = *state;
    struct gbuf got = {0};
    open_bed(b);
    some(b);
    struct knowledge k = of(b);
    assert_int_equal(knowledge_sync(&k), 0);
    struct knowledge_filter f = {.good = true};
    assert_int_equal(knowledge_each(&k, &f, STR("a@one.example"), take_one, &got), 0);
    assert_int_equal(knowledge_each(&k, &f, STR("d@sub.two.example"), take_one, &got), 0);
    gbuf_put(&got, "", 1);
    assert_string_equal(got.p, "d@sub.two.example ");
    gbuf_free(&got);
    close_bed(b);
}

/* --- an administrator against workers that learn --- */

#define ROUNDS 2000

struct learner {
    const struct bed *bed;
    atomic_bool over;
};

static struct verdict_record learned(void *ctx, struct verdict_record old)
{
    const uint32_t *i = ctx;
    return (struct verdict_record){
        .state = (uint8_t)(VERDICT_GOOD + *i % 2), .checked_s = now_s() - *i % 5, .pin = old.pin};
}

static void *keep_learning(void *arg)
{
    struct learner *l = arg;
    struct knowledge k = of(l->bed);
    for (uint32_t i = 0; !atomic_load(&l->over); i++)
        (void)knowledge_change(&k, STR("x@one.example"), now_s(), learned, &i);
    return NULL;
}

/* What is on disk in the end is what the cache had last, pin included. */
static void test_disk_follows_the_cache(void **state)
{
    struct bed *b = *state;
    struct learner l = {.bed = b};
    pthread_t threads[2];
    open_bed(b);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, keep_learning, &l), 0);
    struct knowledge k = of(b);
    for (unsigned i = 0; i < ROUNDS; i++)
        (void)knowledge_pin(&k, STR("x@one.example"), i % 2 ? PIN_GOOD : PIN_NONE);
    atomic_store(&l.over, true);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        pthread_join(threads[i], NULL);
    /* so much is learned that some was dropped: who pins is told, and comes again */
    while (!knowledge_pin(&k, STR("x@one.example"), PIN_UNKNOWN).is_stored ||
           !knowledge_pin(&k, STR("x@one.example"), PIN_GOOD).is_stored)
        assert_int_equal(knowledge_sync(&k), 0);
    struct verdict_record last = known(b, "x@one.example");
    close_bed(b);
    open_bed(b);
    struct verdict_record got = known(b, "x@one.example");
    assert_memory_equal(&got, &last, sizeof got);
    close_bed(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pins_outlast_everything, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_a_store, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_disk_follows_the_cache, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
