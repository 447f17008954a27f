/* tests/unit/smtp/proto/test_command.c: tests of smtp/proto/command.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp/proto/command.h"

static void test_verbs(void **state)
{
    static const struct {
        str_t line;
        enum cmd_id id;
        const char *arg;
    } cases[] = {
        {STR("EHLO mail.example.com"), CMD_ehlo, "mail.example.com"},
        {STR("ehlo\tx"), CMD_ehlo, "x"},
        {STR("MAIL FROM:<a@b>"), CMD_mail, "FROM:<a@b>"},
        {STR("mail  from:<a@b> "), CMD_mail, "from:<a@b>"},
        {STR("DATA"), CMD_data, ""},
        {STR("QUIT  "), CMD_quit, ""},
        {STR("StartTLS"), CMD_starttls, ""},
        {STR("NOOP some thing"), CMD_noop, "some thing"},
        {STR(""), CMD_unknown, ""},
        {STR(" QUIT"), CMD_unknown, "QUIT"},
        {STR("QUITX"), CMD_unknown, ""},
        {STR("QUI"), CMD_unknown, ""},
        {STR("QUIT\0"), CMD_unknown, ""},
        {STR("GET / HTTP/1.1"), CMD_unknown, "/ HTTP/1.1"},
        {STR("\xFF\xFE\x00"), CMD_unknown, ""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct command c;
        command_parse(cases[i].line, &c);
        if (c.id != cases[i].id)
            fail_msg("case %zu: got %s", i, cmd_verb(c.id));
        assert_true(str_eq(c.arg, str_cstr(cases[i].arg)));
    }
    struct command c;
    command_parse(STR("rset"), &c);
    assert_int_equal(c.flags, CMD_PRE_HELO | CMD_JUNK | CMD_NO_ARG);
    assert_string_equal(cmd_verb(CMD_starttls), "STARTTLS");
    assert_string_equal(cmd_verb(CMD_unknown), "unknown");
}

#define TAKEN R_COUNT

struct mail_case {
    str_t arg;
    enum reply_id refuse; /* TAKEN: taken */
    struct mail_params want;
};

#define TEN     "0123456789"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

static const struct mail_case mail_cases[] = {
    {STR("FROM:<a@b>"), TAKEN, {0}},
    {STR("from: \t<a@b>"), TAKEN, {0}},
    {STR("FROM:<>"), TAKEN, {0}},
    {STR("FROM:<a@b> SIZE=0"), TAKEN, {.has_size = true}},
    {STR("FROM:<a@b> size=12345 body=8bitmime smtputf8"),
     TAKEN,
     {.has_size = true, .size = 12345, .body = BODY_8BITMIME, .smtputf8 = true}},
    {STR("FROM:<a@b>\tBODY=7BIT  "), TAKEN, {0}},
    {STR("FROM:<a@b> SIZE=18446744073709551615"), TAKEN, {.has_size = true, .size = UINT64_MAX}},
    {STR("FROM:<a@b> SIZE=99999999999999999999"), TAKEN, {.has_size = true, .size = UINT64_MAX}},
    {STR("FROM:<j\xC3\xB6@b> SMTPUTF8"), TAKEN, {.smtputf8 = true}},
    {STR("FROM:<a@b> SIZE=100000000000000000000"), R_bad_syntax},
    {STR("FROM:<a@b> SIZE=-1"), R_bad_syntax},
    {STR("FROM:<a@b> SIZE="), R_bad_syntax},
    {STR("FROM:<a@b> SIZE"), R_bad_syntax},
    {STR("FROM:<a@b> SIZE=1 SIZE=1"), R_bad_syntax},
    {STR("FROM:<a@b> BODY=7BIT BODY=7BIT"), R_bad_syntax},
    {STR("FROM:<a@b> SMTPUTF8 smtputf8"), R_bad_syntax},
    {STR("FROM:<a@b> SMTPUTF8=yes"), R_bad_syntax},
    {STR("FROM:<a@b> BODY=BINARYMIME"), R_no_binarymime},
    {STR("FROM:<a@b> BODY"), R_bad_syntax},
    {STR("FROM:<a@b> AUTH=<>"), R_bad_command_parameter},
    {STR("FROM:<a@b> RET=HDRS ENVID=QQ314159"),
     TAKEN,
     {.has_dsn = true, .ret = RET_HDRS, .envid = STR("QQ314159")}},
    {STR("FROM:<> ret=full envid=a+2Bb+20c"),
     TAKEN,
     {.has_dsn = true, .ret = RET_FULL, .envid = STR("a+2Bb+20c")}},
    {STR("FROM:<a@b> RET=BODY"), R_bad_syntax},
    {STR("FROM:<a@b> RET"), R_bad_syntax},
    {STR("FROM:<a@b> RET=FULL RET=FULL"), R_bad_syntax},
    {STR("FROM:<a@b> ENVID"), R_bad_syntax},
    {STR("FROM:<a@b> ENVID=a ENVID=b"), R_bad_syntax},
    {STR("FROM:<a@b> ENVID=a+"), R_bad_syntax},
    {STR("FROM:<a@b> ENVID=a+2"), R_bad_syntax},
    {STR("FROM:<a@b> ENVID=a+2b"), R_bad_syntax}, /* lower case */
    {STR("FROM:<a@b> ENVID=a+0Db"), R_bad_syntax},
    {STR("FROM:<a@b> SMTPUTF8 ENVID=\xC3\xB6"), R_bad_syntax},
    {STR("FROM:<a@b> ENVID=" HUNDRED), TAKEN, {.has_dsn = true, .envid = STR(HUNDRED)}},
    {STR("FROM:<a@b> ENVID=" HUNDRED "x"), R_bad_syntax},
    {STR("FROM:<a@b> ="), R_bad_syntax},
    {STR("FROM:<a@b> =x"), R_bad_syntax},
    {STR("FROM:<a@b> -X=1"), R_bad_syntax},
    {STR("FROM:<a@b> X==1"), R_bad_syntax},
    {STR("FROM:<a@b> SIZE=1\0"), R_bad_syntax},
    {STR("FROM:<a@b> X=\x01"), R_bad_syntax},
    {STR("FROM:<a@b>SIZE=1"), R_bad_syntax},
    {STR("FROM <a@b>"), R_bad_syntax},
    {STR("TO:<a@b>"), R_bad_syntax},
    {STR(""), R_bad_syntax},
    {STR("FROM:"), R_bad_sender},
    {STR("FROM:a@b"), R_bad_sender},
    {STR("FROM:<a@b"), R_bad_sender},
    {STR("FROM:<a@b\r>"), R_bad_sender},
    {STR("FROM:<postmaster>"), R_bad_sender},
    {STR("FROM:<j\xC3\xB6@b>"), R_needs_smtputf8},
    {STR("FROM:<a@m\xC3\xBC.example> BODY=8BITMIME"), R_needs_smtputf8},
};

static void test_mail(void **state)
{
    for (size_t i = 0; i < COUNT_OF(mail_cases); i++) {
        const struct mail_case *c = &mail_cases[i];
        struct address a;
        struct mail_params params;
        enum reply_id refuse = TAKEN;
        err_t err = command_parse_mail(c->arg, &a, &params, &refuse);
        if ((err == 0) != (c->refuse == TAKEN) || refuse != c->refuse)
            fail_msg("\"" STR_FMT "\": error %d, reply %d", STR_ARG(c->arg), err,
                     refuse == TAKEN ? 0 : reply_def(refuse)->code);
        if (err)
            continue;
        assert_int_equal(params.has_size, c->want.has_size);
        assert_true(params.size == c->want.size);
        assert_int_equal(params.body, c->want.body);
        assert_int_equal(params.smtputf8, c->want.smtputf8);
        assert_int_equal(params.has_dsn, c->want.has_dsn);
        assert_int_equal(params.ret, c->want.ret);
        assert_true(str_eq(params.envid, c->want.envid));
    }
}

static void test_rcpt(void **state)
{
    static const struct {
        str_t arg;
        enum reply_id refuse;
        uint8_t notify;
        str_t orcpt;
    } cases[] = {
        {STR("TO:<a@b>"), TAKEN},
        {STR("to: <a@b> "), TAKEN},
        {STR("TO:<Postmaster>"), TAKEN},
        {STR("TO:<@relay.example:a@b>"), TAKEN},
        {STR("TO:<j\xC3\xB6@b>"), TAKEN},
        {STR("TO:<a@b> NOTIFY=NEVER"), TAKEN, NOTIFY_NEVER},
        {STR("TO:<a@b> notify=success,Failure,DELAY"), TAKEN, NOTIFY_SUCCESS | NOTIFY_FAILURE | NOTIFY_DELAY},
        {STR("TO:<a@b> ORCPT=rfc822;a+2Bc@b NOTIFY=DELAY"), TAKEN, NOTIFY_DELAY, STR("rfc822;a+2Bc@b")},
        {STR("TO:<a@b> ORCPT=utf-8;j\xC3\xB6\\x{2B}@b"), TAKEN, 0, STR("utf-8;j\xC3\xB6\\x{2B}@b")},
        {STR("TO:<a@b> ORCPT=rfc822;" HUNDRED HUNDRED HUNDRED HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN
             "012"),
         TAKEN, 0, STR("rfc822;" HUNDRED HUNDRED HUNDRED HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN "012")},
        {STR("TO:<a@b> ORCPT=rfc822;" HUNDRED HUNDRED HUNDRED HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN
             "0123"),
         R_bad_syntax},
        {STR("TO:<a@b> AUTH=x"), R_bad_command_parameter},
        {STR("TO:<a@b> NOTIFY="), R_bad_syntax},
        {STR("TO:<a@b> NOTIFY"), R_bad_syntax},
        {STR("TO:<a@b> NOTIFY=NEVER,DELAY"), R_bad_syntax},
        {STR("TO:<a@b> NOTIFY=SUCCESS,"), R_bad_syntax},
        {STR("TO:<a@b> NOTIFY=ALWAYS"), R_bad_syntax},
        {STR("TO:<a@b> NOTIFY=DELAY NOTIFY=DELAY"), R_bad_syntax},
        {STR("TO:<a@b> ORCPT"), R_bad_syntax},
        {STR("TO:<a@b> ORCPT=a@b"), R_bad_syntax},
        {STR("TO:<a@b> ORCPT=;a@b"), R_bad_syntax},
        {STR("TO:<a@b> ORCPT=rfc822;"), R_bad_syntax},
        {STR("TO:<a@b> ORCPT=rfc 822;a@b"), R_bad_syntax},
        {STR("TO:<a@b> ORCPT=rfc822;a+0A@b"), R_bad_syntax},
        {STR("TO:<a@b> ORCPT=rfc822;\xC3\xB6@b"), R_bad_syntax},
        {STR("TO:<a@b> ORCPT=utf-8;a+2B@b"), R_bad_syntax},
        {STR("TO:<a@b> ORCPT=rfc822;a@b ORCPT=rfc822;a@b"), R_bad_syntax},
        {STR("TO:<a@b>x"), R_bad_syntax},
        {STR("FROM:<a@b>"), R_bad_syntax},
        {STR("TO:<>"), R_bad_rcpt},
        {STR("TO:a@b"), R_bad_rcpt},
        {STR("TO:<a>"), R_bad_rcpt},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct address a;
        enum reply_id refuse = TAKEN;
        struct rcpt_params params;
        err_t err = command_parse_rcpt(cases[i].arg, &a, &params, &refuse);
        if ((err == 0) != (cases[i].refuse == TAKEN) || refuse != cases[i].refuse)
            fail_msg("\"" STR_FMT "\"", STR_ARG(cases[i].arg));
        if (err)
            continue;
        assert_int_equal(params.notify, cases[i].notify);
        assert_true(str_eq(params.orcpt, cases[i].orcpt));
        assert_int_equal(params.has_dsn, params.notify || params.orcpt.p);
    }
}

static void test_helo(void **state)
{
    static const struct {
        str_t arg;
        bool loose, strict;
    } cases[] = {
        {STR("mail.example.com"), true, true},
        {STR("localhost"), true, true},
        {STR("[192.0.2.1]"), true, true},
        {STR("[IPv6:::1]"), true, true},
        {STR("192.0.2.1"), true, true}, /* a domain as far as the grammar goes */
        {STR("my_pc"), true, true},
        {STR("[192.0.2.999]"), true, false},
        {STR("a(b)"), true, false},
        {STR("Meeting room PC"), true, false},
        {STR("B\xFCro-PC"), true, false},
        {STR("m\xC3\xBC.example"), true, false}, /* RFC 6531 3.7.1 wants A-labels */
        {STR(""), false, false},
        {STR("a\0"), false, false},
        {STR("a\x7F"), false, false},
        {STR("a\tb"), false, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_equal(helo_valid(cases[i].arg, false), cases[i].loose);
        assert_int_equal(helo_valid(cases[i].arg, true), cases[i].strict);
    }
    char big[256];
    memset(big, 'a', sizeof big);
    assert_true(helo_valid(str_of(big, 255), false));
    assert_false(helo_valid(str_of(big, 256), false));
}

static void test_bdat(void **state)
{
    static const struct {
        const char *arg;
        uint64_t octets;
        bool good, is_last;
    } cases[] = {
        {"0", 0, true, false},
        {"1000", 1000, true, false},
        {"1000 LAST", 1000, true, true},
        {"0 last", 0, true, true},
        {"7 \t Last", 7, true, true},
        {"00000000000000000007", 7, true, false},
        {"99999999999999999999 LAST", UINT64_MAX, true, true},
        {"999999999999999999999", 0, false, false},
        {"", 0, false, false},
        {"LAST", 0, false, false},
        {"1 LAST 1", 0, false, false},
        {"1LAST", 0, false, false},
        {"+1", 0, false, false},
        {"0x1", 0, false, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint64_t octets = 1;
        bool is_last = false;
        assert_int_equal(command_parse_bdat(str_cstr(cases[i].arg), &octets, &is_last) == 0, cases[i].good);
        if (cases[i].good)
            assert_true(octets == cases[i].octets && is_last == cases[i].is_last);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verbs), cmocka_unit_test(test_mail), cmocka_unit_test(test_rcpt),
        cmocka_unit_test(test_helo),  cmocka_unit_test(test_bdat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
