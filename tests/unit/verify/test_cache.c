/* tests/unit/verify/test_cache.c: tests of verify/cache.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "verify/cache.h"

#define NOW 1000000000U
#define DAY 86400U

static str_t key_of(char *room, size_t cap, uint32_t i)
{
    return str_of(room, (size_t)snprintf(room, cap, "user%u@example.com", i));
}

static struct verdict_record replace(void *ctx, struct verdict_record old)
{
    (void)old;
    return *(const struct verdict_record *)ctx;
}

static bool put_at(struct verdict_cache *c, uint32_t i, struct verdict_record r, uint32_t now_s)
{
    char room[64];
    return verdict_cache_update(c, key_of(room, sizeof room, i), now_s, replace, &r, NULL);
}

static bool put(struct verdict_cache *c, uint32_t i, enum verdict v)
{
    return put_at(c, i, (struct verdict_record){.state = (uint8_t)v, .checked_s = NOW}, NOW);
}

static bool get(struct verdict_cache *c, uint32_t i, struct verdict_record *out)
{
    char room[64];
    return verdict_cache_get(c, key_of(room, sizeof room, i), NOW, out);
}

static struct verdict_cache *make(uint32_t capacity)
{
    struct verdict_cache *c;
    assert_int_equal(verdict_cache_create(&c, capacity), 0);
    return c;
}

static struct verdict_cache_stats stats(const struct verdict_cache *c)
{
    struct verdict_cache_stats s;
    verdict_cache_stats(c, &s);
    return s;
}

static void test_put_get_remove(void **state)
{
    struct verdict_cache *c = make(100);
    struct verdict_record r = {.state = VERDICT_GOOD,
                               .source = SOURCE_DELIVERY,
                               .pin = PIN_UNKNOWN,
                               .suspect = 1,
                               .checked_s = 0xfedcba98,
                               .refused_s = 0x89abcdef},
                          got;
    (void)state;
    assert_false(get(c, 1, &got));
    assert_true(put_at(c, 1, r, NOW));
    assert_true(get(c, 1, &got));
    assert_memory_equal(&got, &r, sizeof r);
    assert_false(put_at(c, 1, r, NOW)); /* the same again */
    assert_int_equal(stats(c).entries, 1);
    assert_int_equal(stats(c).good, 1);
    assert_int_equal(stats(c).pinned, 1);

    r.pin = PIN_NONE;
    r.state = VERDICT_DISABLED;
    assert_true(put_at(c, 1, r, NOW));
    assert_int_equal(stats(c).good, 0);
    assert_int_equal(stats(c).unknown, 1);
    assert_int_equal(stats(c).pinned, 0);

    assert_true(put(c, 1, VERDICT_NONE));
    assert_false(get(c, 1, &got));
    assert_false(put(c, 1, VERDICT_NONE));
    assert_int_equal(stats(c).entries, 0);
    assert_int_equal(stats(c).unknown, 0);
    verdict_cache_destroy(c);
}

static void test_capacity_is_exact(void **state)
{
    static const uint32_t capacities[] = {1, 15, 16, 17, 100, 1000};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(capacities); i++) {
        struct verdict_cache *c = make(capacities[i]);
        struct verdict_record got;
        for (uint32_t k = 0; k < 5000; k++) {
            assert_true(put(c, k, VERDICT_UNKNOWN));
            assert_true(get(c, k, &got)); /* the newest always has room */
            assert_true(stats(c).entries <= capacities[i]);
        }
        /* twice the places: next to nothing went before the end was reached */
        assert_int_equal(stats(c).entries, capacities[i]);
        assert_int_equal(stats(c).evictions, 5000 - capacities[i]);
        uint32_t there = 0;
        for (uint32_t k = 0; k < 5000; k++)
            there += get(c, k, &got);
        assert_int_equal(there, capacities[i]);
        verdict_cache_destroy(c);
    }
}

/* A flood of unknown addresses costs other unknown ones their place. */
static void test_good_ones_outlive_a_flood(void **state)
{
    struct verdict_cache *c = make(1000);
    struct verdict_record got;
    uint32_t lost = 0;
    (void)state;
    for (uint32_t k = 0; k < 500; k++)
        assert_true(put(c, k, VERDICT_GOOD));
    for (uint32_t k = 1000; k < 20000; k++)
        put(c, k, VERDICT_UNKNOWN);
    for (uint32_t k = 0; k < 500; k++)
        lost += !get(c, k, &got);
    /* lost: only in a set that held nothing but good ones */
    assert_true(lost <= 50);
    assert_true(stats(c).good >= 450);
    verdict_cache_destroy(c);
}

/* One set of 16 places, so that the order can be seen. */
static void test_order_of_eviction(void **state)
{
    struct verdict_cache *c = make(6);
    struct verdict_record got;
    (void)state;
    put_at(c, 0, (struct verdict_record){.pin = PIN_UNKNOWN}, NOW - 40 * DAY);
    put_at(c, 1, (struct verdict_record){.state = VERDICT_GOOD, .checked_s = NOW - 2 * DAY}, NOW - 2 * DAY);
    put_at(c, 2, (struct verdict_record){.state = VERDICT_GOOD, .checked_s = NOW - DAY}, NOW - DAY);
    put_at(c, 3, (struct verdict_record){.state = VERDICT_GOOD, .checked_s = NOW - 31 * DAY}, NOW - 31 * DAY);
    put_at(c, 4, (struct verdict_record){.state = VERDICT_UNKNOWN, .checked_s = NOW - 900}, NOW - 900);
    put_at(c, 5, (struct verdict_record){.state = VERDICT_UNKNOWN, .checked_s = NOW - 800}, NOW - 800);
    assert_true(get(c, 4, &got)); /* used: 5 is now the colder one */
    static const uint32_t order[] = {3, 5, 4, 1, 2};
    for (uint32_t i = 0; i < COUNT_OF(order); i++) {
        /* what comes in is pinned, so that it does not go itself */
        assert_true(put_at(c, 100 + i, (struct verdict_record){.pin = PIN_GOOD}, NOW));
        if (get(c, order[i], &got))
            fail_msg("entry %u is still there at step %u", order[i], i);
    }
    assert_true(get(c, 0, &got));
    /* all are pinned */
    assert_false(put(c, 200, VERDICT_GOOD));
    assert_int_equal(stats(c).refused, 1);
    assert_int_equal(stats(c).entries, 6);
    assert_int_equal(stats(c).pinned, 6);
    verdict_cache_destroy(c);
}

static void load(struct verdict_cache *c, uint32_t i, struct verdict_record r)
{
    char room[64];
    verdict_cache_load(c, key_of(room, sizeof room, i), &r, NOW);
}

static void test_load_drops_only_what_is_older(void **state)
{
    struct verdict_cache *c = make(2);
    struct verdict_record got;
    (void)state;
    load(c, 1, (struct verdict_record){.state = VERDICT_GOOD, .checked_s = NOW - 100});
    load(c, 2, (struct verdict_record){.state = VERDICT_GOOD, .checked_s = NOW - 200});
    load(c, 3, (struct verdict_record){.state = VERDICT_GOOD, .checked_s = NOW - 300});
    assert_false(get(c, 3, &got));
    load(c, 4, (struct verdict_record){.state = VERDICT_GOOD, .checked_s = NOW - 150});
    assert_true(get(c, 4, &got));
    assert_false(get(c, 2, &got));
    load(c, 5, (struct verdict_record){.pin = PIN_GOOD});
    assert_true(get(c, 5, &got));
    load(c, 6, (struct verdict_record){0});
    assert_false(get(c, 6, &got));
    load(c, 5, (struct verdict_record){.pin = PIN_UNKNOWN});
    assert_true(get(c, 5, &got));
    assert_int_equal(got.pin, PIN_GOOD);
    verdict_cache_destroy(c);
}

static void test_memory_per_entry(void **state)
{
    static const uint32_t capacities[] = {1000, 100000, 1000000};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(capacities); i++) {
        struct verdict_cache *c = make(capacities[i]);
        assert_true(stats(c).bytes / capacities[i] < 80);
        verdict_cache_destroy(c);
    }
}

/* --- threads --- */

#define THREADS 8
#define KEYS    64U /* two to a set of the table below, and others beside them: all meet everywhere */
#define ROUNDS  20000U

struct crowd {
    struct verdict_cache *c;
    atomic_uint increments[KEYS];
    atomic_bool wrong;
};

/* All fields tell the same number, so that a torn record is seen. */
static struct verdict_record numbered(uint32_t n)
{
    return (struct verdict_record){.state = (uint8_t)(1 + n % 3),
                                   .source = (uint8_t)(n % 3),
                                   .pin = (uint8_t)(1 + n % 2),
                                   .suspect = (uint8_t)(n % 2),
                                   .checked_s = n,
                                   .refused_s = n};
}

static struct verdict_record next_number(void *ctx, struct verdict_record old)
{
    (void)ctx;
    return numbered(old.checked_s + 1);
}

static struct verdict_record unknown_now(void *ctx, struct verdict_record old)
{
    (void)ctx;
    (void)old;
    return (struct verdict_record){.state = VERDICT_UNKNOWN, .checked_s = NOW};
}

static void *hammer(void *arg)
{
    struct crowd *w = arg;
    static atomic_uint ids;
    uint32_t x = 7919 * (1 + atomic_fetch_add(&ids, 1));
    for (uint32_t i = 0; i < ROUNDS; i++) {
        char room[64];
        struct verdict_record r, want;
        x = x * 1664525 + 1013904223;
        uint32_t k = (x >> 8) % KEYS;
        str_t key = key_of(room, sizeof room, k);
        if (x >> 30 == 0) {
            if (verdict_cache_update(w->c, key, NOW, next_number, NULL, &r))
                atomic_fetch_add(&w->increments[k], 1);
        } else if (x >> 30 == 1) { /* pressure: others that come and go */
            key = key_of(room, sizeof room, 1000 + (x >> 4) % 500);
            (void)verdict_cache_update(w->c, key, NOW, unknown_now, NULL, NULL);
        } else if (verdict_cache_get(w->c, key, NOW + i, &r)) {
            want = numbered(r.checked_s);
            if (memcmp(&r, &want, sizeof r) != 0)
                atomic_store(&w->wrong, true);
        }
    }
    return NULL;
}

/* Pinned entries are never lost, never torn, and every change of one is made; the count never leaves its
 * bound. */
static void test_threads(void **state)
{
    struct crowd w = {.c = make(4 * KEYS)};
    pthread_t threads[THREADS];
    (void)state;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, &w), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_false(atomic_load(&w.wrong));
    for (uint32_t k = 0; k < KEYS; k++) {
        struct verdict_record r;
        unsigned increments = atomic_load(&w.increments[k]);
        assert_int_equal(get(w.c, k, &r), increments > 0);
        if (increments)
            assert_int_equal(r.checked_s, increments);
    }
    struct verdict_cache_stats s = stats(w.c);
    assert_true(s.entries <= s.capacity);
    assert_int_equal(s.pinned, KEYS);
    uint64_t there = 0;
    for (uint32_t k = 0; k < 1500; k++) {
        struct verdict_record r;
        there += get(w.c, k, &r);
    }
    assert_int_equal(there, s.entries);
    verdict_cache_destroy(w.c);
}

/* --- walks --- */

static bool is_good(void *ctx, const struct verdict_entry *e)
{
    return e->record.state == VERDICT_GOOD;
}

static bool is_of(void *ctx, const struct verdict_entry *e)
{
    return e->domain == *(const uint32_t *)ctx;
}

static void count_entry(void *ctx, const struct verdict_entry *e)
{
    ++*(uint64_t *)ctx;
}

static void test_walks(void **state)
{
    struct verdict_cache *c = make(40000); /* no set of it is full, wherever the hash puts them */
    struct verdict_record r = {.state = VERDICT_GOOD, .checked_s = NOW}, got;
    uint64_t count = 0, sample = 0;
    for (uint32_t i = 0; i < 6000; i++)
        assert_true(put(c, i, i % 3 ? VERDICT_GOOD : VERDICT_UNKNOWN));
    assert_true(verdict_cache_update(c, STR("x@other.example"), NOW, replace, &r, NULL));
    assert_true(
        put_at(c, 1, (struct verdict_record){.state = VERDICT_GOOD, .checked_s = NOW, .pin = PIN_GOOD}, NOW));
    verdict_cache_each(c, 0, count_entry, &count);
    assert_int_equal(count, 6001);
    verdict_cache_each(c, 100, count_entry, &sample);
    assert_in_range(sample, 50, 2000); /* a hundred sets of 2500, a few entries each */

    uint32_t domain = verdict_domain(STR("other.example"));
    assert_int_equal(verdict_cache_forget(c, is_of, &domain), 1);
    assert_false(verdict_cache_peek(c, STR("x@other.example"), &got));
    assert_int_equal(verdict_cache_forget(c, is_good, NULL), 4000);
    assert_int_equal(verdict_cache_forget(c, is_good, NULL), 0);
    assert_true(get(c, 1, &got));
    assert_int_equal(got.pin, PIN_GOOD);
    assert_int_equal(got.state, VERDICT_NONE);
    assert_int_equal(stats(c).entries, 2001);
    assert_int_equal(stats(c).good, 0);
    assert_int_equal(stats(c).unknown, 2000);
    assert_int_equal(stats(c).pinned, 1);
    assert_true(put(c, 2, VERDICT_GOOD)); /* what was freed is free */
    verdict_cache_destroy(c);
}

/* Every record that the store may have comes back out of the packed word as it went in. */
static void test_packing(void **state)
{
    struct verdict_cache *c = make(10000);
    for (uint8_t n = 1; n < 3 * 3 * 2 * 4; n++) {
        struct verdict_record want = {.state = n % 4,
                                      .source = n / 4 % 3,
                                      .pin = n / 12 % 3,
                                      .suspect = n / 36,
                                      .checked_s = UINT32_MAX - n,
                                      .refused_s = n},
                              got;
        if (!want.state && !want.pin)
            continue;
        assert_true(put_at(c, n, want, NOW));
        assert_true(get(c, n, &got));
        assert_memory_equal(&got, &want, sizeof got);
    }
    verdict_cache_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_get_remove),
        cmocka_unit_test(test_capacity_is_exact),
        cmocka_unit_test(test_good_ones_outlive_a_flood),
        cmocka_unit_test(test_order_of_eviction),
        cmocka_unit_test(test_load_drops_only_what_is_older),
        cmocka_unit_test(test_memory_per_entry),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_walks),
        cmocka_unit_test(test_packing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
