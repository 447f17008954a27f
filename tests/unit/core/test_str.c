/* tests/unit/core/test_str.c: views, numbers, UTF-8, hashing. */
#include "core/str.h"
#include "unit.h"

static void equality(void **state)
{
    assert_true(str_eq(STR(""), STR_NONE));
    assert_true(str_eq(STR_NONE, STR_NONE));
    assert_true(str_ieq(STR("MaIl"), STR("mAiL")));
    assert_false(str_ieq(STR("mail"), STR("mai")));
    assert_false(str_ieq(STR("@"), STR("`")));       /* 0x40 and 0x60 */
    assert_false(str_ieq(STR("["), STR("{")));       /* just above Z */
    assert_false(str_ieq(STR("\xc4"), STR("\xe4"))); /* not ASCII: not folded */
    assert_false(str_ieq(STR("a\0b"), STR("a\0c"))); /* does not stop at NUL */
    assert_true(str_cstr(NULL).p == NULL);
}

static void prefixes_and_suffixes(void **state)
{
    assert_true(str_starts(STR("RCPT TO"), STR("RCPT")));
    assert_true(str_starts(STR("x"), STR_NONE));
    assert_true(str_starts(STR_NONE, STR_NONE));
    assert_false(str_starts(STR("RC"), STR("RCPT")));
    assert_true(str_istarts(STR("rcpt"), STR("RC")));
    assert_true(str_ends(STR("a.example"), STR(".example")));
    assert_true(str_iends(STR("a.EXAMPLE"), STR(".example")));
    assert_false(str_ends(STR("example"), STR(".example")));
    assert_true(str_ends(STR_NONE, STR_NONE));
}

static void order(void **state)
{
    assert_int_equal(str_cmp(STR_NONE, STR("")), 0);
    assert_true(str_cmp(STR("a"), STR("b")) < 0);
    assert_true(str_cmp(STR("ab"), STR("a")) > 0);
    assert_true(str_cmp(STR_NONE, STR("a")) < 0);
    assert_true(str_cmp(STR("\xff"), STR("a")) > 0); /* as bytes */
}

static void pieces(void **state)
{
    assert_str(str_trim(STR(" \t x y\t ")), "x y");
    assert_str(str_trim(STR(" \t ")), "");
    assert_str(str_trim(STR("\r\nx")), "\r\nx"); /* line ends are not blanks */
    assert_str(str_sub(STR("abcdef"), 2, 3), "cde");
    assert_str(str_sub(STR("abc"), 2, SIZE_MAX), "c");
    assert_str(str_sub(STR("abc"), 9, 1), "");
    assert_true(str_sub(STR_NONE, 1, 1).p == NULL);
    assert_int_equal(str_find(STR("a@b@c"), '@'), 1);
    assert_int_equal(str_rfind(STR("a@b@c"), '@'), 3);
    assert_int_equal(str_find(STR_NONE, '@'), -1);
    assert_int_equal(str_rfind(STR("abc"), '@'), -1);
}

static void cut(void **state)
{
    str_t head, tail;
    assert_true(str_cut(STR("k=v=w"), '=', &head, &tail));
    assert_str(head, "k");
    assert_str(tail, "v=w");
    assert_true(str_cut(STR("="), '=', &head, &tail));
    assert_int_equal(head.n, 0);
    assert_int_equal(tail.n, 0);
    assert_non_null(tail.p); /* empty, not absent */
    assert_false(str_cut(STR("kv"), '=', &head, &tail));
    assert_str(head, "kv");
    assert_null(tail.p);
}

static void numbers(void **state)
{
    static const struct {
        str_t text;
        bool ok;
        uint64_t value;
    } cases[] = {
        {STR("0"), true, 0},
        {STR("007"), true, 7},
        {STR("18446744073709551615"), true, UINT64_MAX},
        {STR("18446744073709551616"), false, 0},
        {STR("99999999999999999999"), false, 0},
        {STR("184467440737095516150"), false, 0},
        {STR(""), false, 0},
        {STR("-1"), false, 0},
        {STR("+1"), false, 0},
        {STR(" 1"), false, 0},
        {STR("1 "), false, 0},
        {STR("1\0"), false, 0},
        {STR("0x10"), false, 0},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint64_t v = 42;
        assert_int_equal(str_to_u64(cases[i].text, &v), cases[i].ok ? 0 : ERR_SYNTAX);
        assert_true(v == (cases[i].ok ? cases[i].value : 42)); /* untouched on errors */
    }
}

static void utf8(void **state)
{
    static const str_t good[] = {STR(""),
                                 STR("plain"),
                                 STR("gr\xc3\xbc\xc3\x9f"),
                                 STR("\xe2\x82\xac"),
                                 STR("\xed\x9f\xbf"),
                                 STR("\xee\x80\x80"),
                                 STR("\xf0\x90\x80\x80"),
                                 STR("\xf4\x8f\xbf\xbf"),
                                 STR("\0")};
    static const str_t bad[] = {STR("\x80"),             /* alone */
                                STR("\xc3"),             /* cut */
                                STR("\xe2\x82"),         /* cut */
                                STR("\xc0\x80"),         /* overlong NUL */
                                STR("\xc1\xbf"),         /* overlong */
                                STR("\xe0\x9f\xbf"),     /* overlong */
                                STR("\xf0\x8f\xbf\xbf"), /* overlong */
                                STR("\xed\xa0\x80"),     /* surrogate */
                                STR("\xed\xbf\xbf"),     /* surrogate */
                                STR("\xf4\x90\x80\x80"), /* above U+10FFFF */
                                STR("\xf5\x80\x80\x80"),
                                STR("\xff"),
                                STR("\xc3\x28"),
                                STR("ok\xe2\x28\xa1")};
    for (size_t i = 0; i < COUNT_OF(good); i++)
        assert_true(str_is_utf8(good[i]));
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(str_is_utf8(bad[i]));
    assert_true(str_is_ascii(STR("a\x7f")));
    assert_false(str_is_ascii(STR("a\x80")));
    assert_true(str_is_ascii(STR_NONE));
}

static void hashing(void **state)
{
    assert_true(str_hash(STR("a")) == str_hash(STR("a")));
    assert_true(str_hash(STR("a")) != str_hash(STR("b")));
    assert_true(str_hash(STR("")) != str_hash(STR("\0"))); /* the length counts */
    assert_true(str_hash(STR_NONE) == str_hash(STR("")));
    assert_true(str_hash(STR("A")) != str_hash(STR("a")));

    struct hash128 a = str_hash128(STR("a")), again = str_hash128(STR("a")), b = str_hash128(STR("b"));
    assert_true(a.lo == again.lo && a.hi == again.hi);
    assert_true(a.lo != b.lo && a.hi != b.hi && a.lo != a.hi);

    /* str_ihash() follows str_ieq() for every byte at every place of a word. */
    char text[17];
    for (int c = 0; c < 256; c++) {
        for (size_t at = 0; at < sizeof text; at++) {
            memset(text, 'x', sizeof text);
            text[at] = (char)c;
            str_t s = str_of(text, sizeof text);
            char folded[17];
            memcpy(folded, text, sizeof text);
            if (c >= 'A' && c <= 'Z')
                folded[at] = (char)(c + 32);
            assert_true(str_ihash(s) == str_ihash(str_of(folded, sizeof folded)));
            folded[at] = (char)(c ^ 0x20);
            str_t other = str_of(folded, sizeof folded);
            assert_true((str_ihash(s) == str_ihash(other)) == str_ieq(s, other));
        }
    }
}

/* Of every length: each byte counts, none outside is read (the sanitizer sees the end of the copy), and where
 * the string stands does not matter. */
static void hashing_lengths(void **state)
{
    for (size_t n = 1; n <= 33; n++) {
        char *text = malloc(n), *shifted = malloc(n + 1);
        memset(text, 'x', n);
        memcpy(shifted + 1, text, n);
        struct hash128 all = str_hash128(str_of(text, n)), same = str_hash128(str_of(shifted + 1, n));
        assert_true(all.lo == same.lo && all.hi == same.hi);
        assert_true(str_hash(str_of(text, n)) == str_hash(str_of(shifted + 1, n)));
        for (size_t at = 0; at < n; at++) {
            text[at] = 'y';
            struct hash128 other = str_hash128(str_of(text, n));
            assert_true(other.lo != all.lo && other.hi != all.hi);
            assert_true(str_ihash(str_of(text, n)) != str_ihash(str_of(shifted + 1, n)));
            text[at] = 'x';
        }
        free(text);
        free(shifted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equality),
        cmocka_unit_test(prefixes_and_suffixes),
        cmocka_unit_test(order),
        cmocka_unit_test(pieces),
        cmocka_unit_test(cut),
        cmocka_unit_test(numbers),
        cmocka_unit_test(utf8),
        cmocka_unit_test(hashing),
        cmocka_unit_test(hashing_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
