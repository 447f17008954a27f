/* tests/unit/core/test_buf.c: bounded and growable buffers. */
#include "core/str.h"
#include "unit.h"

static void sbuf_appends(void **state)
{
    char room[64];
    struct sbuf b = SBUF_ON(room);
    sbuf_cstr(&b, "a");
    sbuf_str(&b, STR("bc"));
    sbuf_str(&b, STR_NONE);
    sbuf_char(&b, '-');
    sbuf_u64(&b, 0);
    sbuf_char(&b, ' ');
    sbuf_u64(&b, UINT64_MAX);
    sbuf_printf(&b, " %d%s", 7, "");
    assert_str(sbuf_view(&b), "abc-0 18446744073709551615 7");
    assert_false(b.overflow);
}

static void sbuf_overflow_is_for_ever(void **state)
{
    char room[4];
    struct sbuf b = SBUF_ON(room);
    sbuf_cstr(&b, "abcd"); /* exactly full is no overflow */
    assert_false(b.overflow);
    sbuf_put(&b, NULL, 0);
    sbuf_printf(&b, "%s", "");
    assert_false(b.overflow);
    sbuf_char(&b, 'e');
    assert_true(b.overflow);
    assert_str(sbuf_view(&b), "abcd");

    b = (struct sbuf){room, 0, sizeof room, false};
    sbuf_cstr(&b, "abcdef");
    assert_true(b.overflow);
    assert_str(sbuf_view(&b), "abcd"); /* a prefix */

    b = (struct sbuf){room, 0, sizeof room, false};
    sbuf_printf(&b, "%d", 12345);
    assert_true(b.overflow);
    assert_str(sbuf_view(&b), "123");
    sbuf_char(&b, 'x'); /* would fit, but leave a gap */
    assert_str(sbuf_view(&b), "123");

    struct sbuf none = {NULL, 0, 0, false};
    sbuf_printf(&none, "x");
    assert_true(none.overflow);
    assert_int_equal(none.n, 0);
}

static void gbuf_grows(void **state)
{
    struct gbuf b = {0};
    for (int i = 0; i < 10000; i++)
        gbuf_printf(&b, "%04d ", i);
    gbuf_str(&b, STR_NONE);
    assert_int_equal(b.n, 50000);
    assert_false(b.overflow);
    assert_str(str_sub(gbuf_view(&b), 49995, 5), "9999 ");
    gbuf_free(&b);
    assert_null(b.p);
    gbuf_cstr(&b, "again");
    assert_str(gbuf_view(&b), "again");
    gbuf_free(&b);
}

static void gbuf_stops_at_max(void **state)
{
    struct gbuf b = {.max = 10};
    gbuf_cstr(&b, "0123456789");
    assert_false(b.overflow);
    gbuf_cstr(&b, "x");
    assert_true(b.overflow);
    assert_str(gbuf_view(&b), "0123456789");
    gbuf_free(&b);

    gbuf_cstr(&b, "01234567");
    gbuf_cstr(&b, "89abc");
    assert_true(b.overflow);
    assert_str(gbuf_view(&b), "0123456789"); /* cut */
    gbuf_free(&b);

    gbuf_printf(&b, "%s", "0123456789abc");
    assert_true(b.overflow);
    assert_str(gbuf_view(&b), "012345678");
    assert_true(b.cap <= 10);
    gbuf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sbuf_appends),
        cmocka_unit_test(sbuf_overflow_is_for_ever),
        cmocka_unit_test(gbuf_grows),
        cmocka_unit_test(gbuf_stops_at_max),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
