/* tests/unit/smtp/proto/test_idna.c: tests of smtp/proto/idna.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp/proto/address.h"

static void test_names(void **state)
{
    static const struct {
        const char *in, *want;
    } cases[] = {
        {"example.com", "example.com"},
        {"Mail.EXAMPLE.com", "mail.example.com"},
        {"m\xC3\xBCnchen.example", "xn--mnchen-3ya.example"},
        {"B\xC3\xBC"
         "cher.example",
         "xn--bcher-kva.example"},
        {"www.b\xC3\xBC"
         "cher.EXAMPLE",
         "www.xn--bcher-kva.example"},
        {"fa\xC3\x9F.de", "xn--fa-hia.de"},
        {"\xD0\xBF\xD1\x80\xD0\xB8\xD0\xBC\xD0\xB5\xD1\x80.\xD1\x80\xD1\x84", "xn--e1afmkfd.xn--p1ai"},
        {"\xE3\x83\x86\xE3\x82\xB9\xE3\x83\x88", "xn--zckzah"},
        /* RFC 3492 7.1 (B), (L) and (Q) */
        {"\xE4\xBB\x96\xE4\xBB\xAC\xE4\xB8\xBA\xE4\xBB\x80\xE4\xB9\x88\xE4\xB8\x8D\xE8\xAF\xB4\xE4\xB8\xAD"
         "\xE6\x96\x87",
         "xn--ihqwcrb4cv8a8dqg056pqjye"},
        {"3\xE5\xB9\xB4"
         "B\xE7\xB5\x84\xE9\x87\x91\xE5\x85\xAB\xE5\x85\x88\xE7\x94\x9F",
         "xn--3b-ww4c5e180e575a65lsy2b"},
        {"\xE3\x83\x91\xE3\x83\x95\xE3\x82\xA3\xE3\x83\xBC"
         "de\xE3\x83\xAB\xE3\x83\xB3\xE3\x83\x90",
         "xn--de-jg4avhby1noc0d"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char mem[512];
        struct sbuf b = SBUF_ON(mem);
        assert_true(domain_valid(str_cstr(cases[i].in)));
        assert_true(domain_to_ascii(str_cstr(cases[i].in), &b));
        if (!str_eq(sbuf_view(&b), str_cstr(cases[i].want)))
            fail_msg("%s: " STR_FMT, cases[i].want, STR_ARG(sbuf_view(&b)));
    }
}

static void test_too_long(void **state)
{
    char in[600] = "", mem[600];
    struct sbuf b = SBUF_ON(mem);
    for (size_t i = 0; i < 60; i++)
        memcpy(in + i, "a", 2);
    assert_true(domain_to_ascii(str_cstr(in), &b));
    memcpy(in + 59, "\xC3\xBC", 3); /* 60 code points, and 65 letters as an A-label */
    b.n = 0;
    assert_false(domain_to_ascii(str_cstr(in), &b));
    for (size_t i = 0; i < 64; i++)
        memcpy(in + 2 * i, "\xC3\xBC", 3);
    b.n = 0;
    assert_false(domain_to_ascii(str_cstr(in), &b));

    struct sbuf name = SBUF_ON(in); /* labels that are fine, and too many of them */
    for (size_t i = 0; i < 25; i++)
        sbuf_cstr(&name, "m\xC3\xBCnchen.");
    sbuf_cstr(&name, "de");
    assert_true(domain_valid(sbuf_view(&name)));
    b.n = 0;
    assert_false(domain_to_ascii(sbuf_view(&name), &b));
    b = (struct sbuf){.p = mem, .cap = 10};
    assert_false(domain_to_ascii(STR("mail.example.com"), &b));
}

/* UTS 46 maps full-width and compatibility characters to what they look like, syntax of SMTP included. */
static void test_what_mapping_brings_in(void **state)
{
    static const char *const names[] = {
        "a\xEF\xBC\x9E\xE3\x80\x80size=1.example", /* "a> size=1" */
        "a\xEF\xBC\xA0other.example",              /* "a@other" */
        "\xEF\xBC\xBB"
        "192.0.2.1\xEF\xBC\xBD",         /* "[192.0.2.1]" */
        "\xE2\x84\x80.example",          /* "a/c" */
        "\xC2\xAD.example",              /* nothing at all */
        "b\xC3\xBC.example\xE3\x80\x82", /* a dot at the end */
        "a\xE3\x80\x82\xE3\x80\x82"
        "b\xC3\xBC",
    };
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char mem[512];
        struct sbuf b = SBUF_ON(mem);
        if (domain_to_ascii(str_cstr(names[i]), &b))
            fail_msg("case %zu: " STR_FMT, i, STR_ARG(sbuf_view(&b)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_too_long),
                                       cmocka_unit_test(test_what_mapping_brings_in)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
