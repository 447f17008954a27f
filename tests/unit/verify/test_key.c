/* tests/unit/verify/test_key.c: tests of verify/key.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "verify/verdict.h"

#define O_UMLAUT   "\xC3\xB6"  /* composed */
#define O_SPLIT    "o\xCC\x88" /* the same, decomposed */
#define O_CAPITAL  "\xC3\x96"
#define SHARP_S    "\xC3\x9F"
#define U_UMLAUT   "\xC3\xBC"
#define NOT_EQUAL  "\xE2\x89\xA0" /* one character */
#define EQUAL_LINE "=\xCC\xB8"    /* the same, decomposed */

static const struct {
    const char *address;
    bool fold;
    char separator;
    const char *want; /* NULL: none */
} cases[] = {
    {"bob@example.com", true, 0, "bob@example.com"},
    {"Bob@EXAMPLE.Com", true, 0, "bob@example.com"},
    {"Bob@EXAMPLE.Com", false, 0, "Bob@example.com"},
    {"bob+lists@example.com", true, 0, "bob+lists@example.com"},
    {"bob+lists@example.com", true, '+', "bob@example.com"},
    {"Bob+Lists@example.com", false, '+', "Bob@example.com"},
    {"bob+a+b@example.com", true, '+', "bob@example.com"},
    {"bob-lists@example.com", true, '-', "bob@example.com"},
    {"bob-lists@example.com", true, '+', "bob-lists@example.com"},
    {"+lists@example.com", true, '+', "+lists@example.com"},
    {"bob+@example.com", true, '+', "bob@example.com"},
    /* quotes are spelling, unless they must be there */
    {"\"bob\"@example.com", true, 0, "bob@example.com"},
    {"\"b\\ob\"@example.com", true, 0, "bob@example.com"},
    {"\"bob+x\"@example.com", true, '+', "bob@example.com"},
    {"\"Bob +x\"@example.com", true, '+', "\"bob +x\"@example.com"},
    {"\"a@b\"@example.com", true, 0, "\"a@b\"@example.com"},
    {"\"\"@example.com", true, '+', "\"\"@example.com"},
    /* domains */
    {"bob@m" U_UMLAUT "nchen.example", true, 0, "bob@xn--mnchen-3ya.example"},
    {"bob@XN--MNCHEN-3YA.example", true, 0, "bob@xn--mnchen-3ya.example"},
    {"bob@[192.0.2.1]", true, 0, "bob@[192.0.2.1]"},
    {"bob@[ipv6:2001:DB8::1]", true, 0, "bob@[IPv6:2001:db8::1]"},
    /* one name, one key */
    {"j" O_UMLAUT "rg@example.com", true, 0, "j" O_UMLAUT "rg@example.com"},
    {"j" O_SPLIT "rg@example.com", true, 0, "j" O_UMLAUT "rg@example.com"},
    {"j" O_SPLIT "rg@example.com", false, 0, "j" O_UMLAUT "rg@example.com"},
    {"J" O_CAPITAL "RG@example.com", true, 0, "j" O_UMLAUT "rg@example.com"},
    {"J" O_CAPITAL "RG@example.com", false, 0, "J" O_CAPITAL "RG@example.com"},
    {"gro" SHARP_S "@example.com", true, 0, "gross@example.com"},
    {"gro" SHARP_S "@example.com", false, 0, "gro" SHARP_S "@example.com"},
    {"j" O_UMLAUT "rg+x@example.com", true, '+', "j" O_UMLAUT "rg@example.com"},
    {"a" EQUAL_LINE "b@example.com", true, '=', "a" NOT_EQUAL "b@example.com"},
    {"a" NOT_EQUAL "b@example.com", true, '=', "a" NOT_EQUAL "b@example.com"},
};

static void test_keys(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char room[VERIFY_KEY_MAX];
        struct sbuf buf = SBUF_ON(room);
        struct verdict_key_rules rules = {cases[i].fold, cases[i].separator};
        struct address a;
        assert_int_equal(address_parse_mailbox(str_cstr(cases[i].address), &a), 0);
        str_t key = verdict_key(&a, &rules, &buf);
        if (!str_eq(key, str_cstr(cases[i].want)))
            fail_msg("case %zu: \"" STR_FMT "\", want \"%s\"", i, STR_ARG(key), cases[i].want);
        /* a key is its own key */
        if (address_parse_mailbox(key, &a) == 0) {
            char again_room[VERIFY_KEY_MAX];
            struct sbuf again = SBUF_ON(again_room);
            assert_true(str_eq(verdict_key(&a, &rules, &again), key));
        }
    }
}

static size_t domain_of_200(char *p)
{
    size_t n = 0;
    for (int i = 0; i < 4; i++) {
        memset(p + n, 'b', 49);
        n += 49;
        p[n++] = i < 3 ? '.' : 'b';
    }
    return n;
}

static void test_no_key(void **state)
{
    char room[VERIFY_KEY_MAX], text[600], small[10];
    const struct verdict_key_rules rules = {.fold_case = true};
    struct sbuf buf = SBUF_ON(room), tight = SBUF_ON(small);
    struct address null = {.is_null = true}, postmaster = {.local = STR("postmaster")}, a;
    (void)state;
    assert_null(verdict_key(&null, &rules, &buf).p);
    assert_null(verdict_key(&postmaster, &rules, &buf).p);
    assert_int_equal(address_parse_mailbox(STR("bob@example.com"), &a), 0);
    assert_null(verdict_key(&a, &rules, &tight).p);

    /* U+0149 folds to two characters, three bytes for two: 254 become 381, and with the domain it is too long
     */
    size_t n = 0;
    for (; n < 254; n += 2)
        memcpy(text + n, "\xC5\x89", 2);
    text[n++] = '@';
    n += domain_of_200(text + n);
    assert_int_equal(address_parse_mailbox(str_of(text, n), &a), 0);
    assert_null(verdict_key(&a, &rules, &buf).p);
}

/* The longest address that there is fits. */
static void test_longest(void **state)
{
    char room[VERIFY_KEY_MAX], text[600];
    const struct verdict_key_rules rules = {.fold_case = true};
    struct sbuf buf = SBUF_ON(room);
    struct address a;
    size_t n = ADDRESS_LOCAL_MAX;
    (void)state;
    memset(text, 'A', n);
    text[n++] = '@';
    for (int i = 0; i < 4; i++) {
        memset(text + n, 'b', 60);
        n += 60;
        text[n++] = '.';
    }
    memcpy(text + n, "example", 7);
    n += 7;
    assert_int_equal(address_parse_mailbox(str_of(text, n), &a), 0);
    str_t key = verdict_key(&a, &rules, &buf);
    assert_int_equal(key.n, n);
    assert_int_equal(key.p[0], 'a');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_no_key),
        cmocka_unit_test(test_longest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
