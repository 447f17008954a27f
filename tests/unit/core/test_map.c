/* tests/unit/core/test_map.c: growth, replacement, removal with shifting back, iteration. */
#include "core/map.h"
#include "unit.h"

static int values[4096];

static void map64_basics(void **state)
{
    struct map64 m = {0};
    assert_null(map64_get(&m, 0));
    assert_null(map64_remove(&m, 0));
    assert_int_equal(map64_put(&m, 0, &values[0]), 0);
    assert_int_equal(map64_put(&m, UINT64_MAX, &values[1]), 0);
    assert_ptr_equal(map64_get(&m, 0), &values[0]);
    assert_ptr_equal(map64_get(&m, UINT64_MAX), &values[1]);
    assert_int_equal(map64_put(&m, 0, &values[2]), 0);
    assert_int_equal(m.used_count, 2);
    assert_ptr_equal(map64_remove(&m, 0), &values[2]);
    assert_null(map64_get(&m, 0));
    assert_null(map64_remove(&m, 0));
    assert_ptr_equal(map64_get(&m, UINT64_MAX), &values[1]);
    map64_free(&m);
    assert_int_equal(m.cap, 0);
    assert_null(map64_get(&m, UINT64_MAX));
}

/* Against a plain array, through growth and many removals in runs that wrap around. */
static void map64_like_an_array(void **state)
{
    struct map64 m = {0};
    void *model[COUNT_OF(values)] = {0};
    size_t count = 0;
    uint64_t x = 12345; /* a fixed sequence; the map's own seed differs from run to run */
    for (int step = 0; step < 60000; step++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407U;
        size_t key = x >> 40 & (COUNT_OF(values) - 1);
        bool is_put = step < 20000 ? x >> 60 < 12 : x >> 60 < 6;
        if (is_put) {
            count += !model[key];
            model[key] = &values[x >> 20 & (COUNT_OF(values) - 1)];
            assert_int_equal(map64_put(&m, key, model[key]), 0);
        } else {
            count -= model[key] != NULL;
            assert_ptr_equal(map64_remove(&m, key), model[key]);
            model[key] = NULL;
        }
        assert_int_equal(m.used_count, count);
    }
    for (size_t key = 0; key < COUNT_OF(values); key++)
        assert_ptr_equal(map64_get(&m, key), model[key]);
    for (size_t key = 0; key < COUNT_OF(values); key++)
        assert_ptr_equal(map64_remove(&m, key), model[key]);
    assert_int_equal(m.used_count, 0);
    map64_free(&m);
}

static void smap_basics(void **state)
{
    struct smap m = {0};
    assert_null(smap_get(&m, STR("a")));
    assert_null(smap_remove(&m, STR("a")));
    assert_int_equal(smap_put(&m, STR(""), &values[0]), 0);
    assert_int_equal(smap_put(&m, STR("a"), &values[1]), 0);
    assert_int_equal(smap_put(&m, STR("A"), &values[2]), 0);
    assert_ptr_equal(smap_get(&m, STR_NONE), &values[0]);
    assert_ptr_equal(smap_get(&m, STR("a")), &values[1]);
    assert_ptr_equal(smap_get(&m, STR("A")), &values[2]);
    smap_free(&m);
}

static void smap_folds_case(void **state)
{
    struct smap m = {.fold_case = true};
    assert_int_equal(smap_put(&m, STR("Example.COM"), &values[0]), 0);
    assert_ptr_equal(smap_get(&m, STR("example.com")), &values[0]);
    static const char other_bytes[] = "EXAMPLE.com";
    assert_int_equal(smap_put(&m, str_cstr(other_bytes), &values[1]), 0);
    assert_int_equal(m.used_count, 1);
    size_t at = 0;
    str_t key;
    void *value;
    assert_true(smap_next(&m, &at, &key, &value));
    assert_ptr_equal(key.p, other_bytes); /* the key goes with its value */
    assert_false(smap_next(&m, &at, &key, &value));
    assert_ptr_equal(smap_remove(&m, STR("eXaMpLe.com")), &values[1]);
    smap_free(&m);
    assert_true(m.fold_case);
}

static void smap_grows_and_shrinks(void **state)
{
    struct smap m = {0};
    static char keys[COUNT_OF(values)][12];
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        int n = snprintf(keys[i], sizeof keys[i], "user%zu", i);
        assert_int_equal(smap_put(&m, str_of(keys[i], (size_t)n), &values[i]), 0);
    }
    for (size_t i = 0; i < COUNT_OF(values); i += 2)
        assert_ptr_equal(smap_remove(&m, str_cstr(keys[i])), &values[i]);
    for (size_t i = 0; i < COUNT_OF(values); i++)
        assert_ptr_equal(smap_get(&m, str_cstr(keys[i])), i % 2 ? &values[i] : NULL);
    size_t at = 0, seen = 0;
    str_t key;
    void *value;
    while (smap_next(&m, &at, &key, &value)) {
        size_t i = (size_t)((int *)value - values);
        assert_str(key, keys[i]);
        seen++;
    }
    assert_int_equal(seen, COUNT_OF(values) / 2);
    assert_int_equal(m.used_count, seen);
    smap_free(&m);
    at = 0;
    assert_false(smap_next(&m, &at, &key, &value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map64_basics),
        cmocka_unit_test(map64_like_an_array),
        cmocka_unit_test(smap_basics),
        cmocka_unit_test(smap_folds_case),
        cmocka_unit_test(smap_grows_and_shrinks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
