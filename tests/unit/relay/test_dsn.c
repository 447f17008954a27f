/* Reports against golden files (tests/golden/dsn, read by tests/scenario/test_dsn_golden.py with another MIME
 * parser too). POSTERN_GOLDEN_WRITE=1 writes them anew: read the difference before you commit it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/err.h"
#include "relay/dsn.h"

#define HEADERS                                                                                              \
    "Received: from client.example (client.example [192.0.2.9]) by gw.example\r\n\twith ESMTP id 1; Tue, "   \
    "24 Nov 2026 "                                                                                           \
    "04:14:26 +0000\r\nFrom: a@b.example\r\nTo: x@y.example\r\nSubject: hello\r\nMessage-ID: "               \
    "<1@b.example>\r\n"

#define BASE                                                                                                 \
    .hostname = STR("gw.example"), .to = STR("a@b.example"), .queue_id = STR("00000000002A"),                \
    .now_ms = UINT64_C(1795493666000), .arrived_ms = UINT64_C(1795407266000), .id = 0x2B,                    \
    .original = STR(HEADERS)

static const struct dsn_rcpt unknown_user[] = {
    {.address = STR("x@y.example"),
     .status = {5, 1, 1},
     .reply_code = 550,
     .remote_mta = STR("mx.y.example"),
     .diagnostic = STR("No such user here")},
};

static const struct dsn_rcpt several[] = {
    {.address = STR("x@y.example"),
     .status = {5, 2, 2},
     .reply_code = 552,
     .remote_mta = STR("mx.y.example"),
     .diagnostic = STR("Mailbox full")},
    {.address = STR("\"z z\"@y.example"),
     .reply_code = 554,
     .remote_mta = STR("[192.0.2.1]"),
     .diagnostic = STR("")},
    {.address = STR("w@y.example"),
     .status = {4, 4, 2},
     .diagnostic = STR("mx.y.example[192.0.2.1]:25: timed out (greeting)")},
    {.address = STR("v@nowhere.example"),
     .status = {5, 1, 2},
     .diagnostic = STR("the domain does not exist")},
    {.address = STR("u@y.example")},
};

static const struct dsn_rcpt hostile[] = {
    {.address = STR("x@y.example"),
     .status = {5, 7, 1},
     .reply_code = 550,
     .remote_mta = STR("mx.y.example\r\nX-Evil: 1"),
     .diagnostic = STR("see\n.\r\n.\r\nMAIL "
                       "FROM:<evil@example>\r\n--=_report_000000000000002b_0--\r\n\x1B[31m\x00\xFF\xC2\x9B "
                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                       "aaaaaaaaaaaaaaaaaaaaa"
                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                       "aaaaaaaaaaaaaaaaaaaaa"
                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                       "aaaaaaaaaaaaaaaaaaaaa")},
};

static const struct dsn_rcpt utf8[] = {
    {.address = STR("j\xC3\xB6rg+x@m\xC3\xBCnchen.example"),
     .status = {5, 1, 1},
     .reply_code = 550,
     .remote_mta = STR("mx.y.example"),
     .diagnostic = STR("Kein Postfach f\xC3\xBCr j\xC3\xB6rg")},
};

static const struct dsn_rcpt delayed[] = {
    {.address = STR("x@y.example"),
     .orcpt = STR("rfc822;o+2Bx@y.example"),
     .action = DSN_DELAYED,
     .status = {4, 7, 1},
     .reply_code = 451,
     .remote_mta = STR("mx.y.example"),
     .diagnostic = STR("Greylisted, come again"),
     .last_attempt_ms = UINT64_C(1795493660000)},
    {.address = STR("z@y.example"),
     .action = DSN_DELAYED,
     .diagnostic = STR("mx.y.example[192.0.2.1]:25: timed out (greeting)"),
     .last_attempt_ms = UINT64_C(1795493661000)},
};

static const struct dsn_rcpt relayed[] = {
    {.address = STR("x@y.example"),
     .orcpt = STR("rfc822;list+20name@y.example"),
     .action = DSN_RELAYED,
     .status = {2, 0, 0},
     .reply_code = 250,
     .remote_mta = STR("mx.y.example"),
     .diagnostic = STR("queued as 4711"),
     .last_attempt_ms = UINT64_C(1795493660000)},
};

static const struct dsn_rcpt delivered[] = {
    {.address = STR("x@y.example"),
     .action = DSN_DELIVERED,
     .status = {2, 1, 5},
     .reply_code = 250,
     .remote_mta = STR("store.y.example"),
     .diagnostic = STR("Saved")},
    {.address = STR("z@y.example"),
     .action = DSN_DELIVERED}, /* by an earlier process: nothing more is known */
};

static const struct dsn_rcpt mixed[] = {
    {.address = STR("gone@y.example"), .action = DSN_RELAYED},
    {.address = STR("late@y.example"),
     .action = DSN_DELAYED,
     .status = {4, 4, 1},
     .diagnostic = STR("no answer")},
    {.address = STR("x@y.example"), .status = {5, 1, 1}, .reply_code = 550},
};

static const struct dsn_rcpt utf8_original[] = {
    {.address = STR("xn@y.example"),
     .orcpt = STR("utf-8;j\xC3\xB6rg\\x{2B}x@y.example"),
     .status = {5, 1, 1},
     .reply_code = 550},
};

#define WHOLE                                                                                                \
    HEADERS "\r\n..stuffed\r\n--=_report_000000000000002b_0--\r\nGr\xC3\xBC\xC3\x9F"                         \
            "e\r\n"

struct golden {
    const char *name;
    struct dsn dsn;
};

static const struct golden goldens[] = {
    {"unknown-user", {BASE, .rcpts = unknown_user, .rcpt_count = COUNT_OF(unknown_user)}},
    {"several", {BASE, .rcpts = several, .rcpt_count = COUNT_OF(several)}},
    {"hostile",
     {.hostname = STR("gw.example"),
      .to = STR("a@b.example"),
      .queue_id = STR("00000000002A"),
      .now_ms = UINT64_C(1795493666000),
      .arrived_ms = UINT64_C(1795407266000),
      .id = 0x2B,
      .rcpts = hostile,
      .rcpt_count = COUNT_OF(hostile),
      .original = STR("--=_report_000000000000002b_0--: x\r\nSubject: \xFF\x00\r\n..stuffed: "
                      "y\r\n.\r\nX-Cut: in the mid")}},
    {"utf8",
     {.hostname = STR("gw.example"),
      .to = STR("\xC3\xA4@b.example"),
      .queue_id = STR("00000000002A"),
      .now_ms = UINT64_C(1795493666000),
      .arrived_ms = UINT64_C(1795407266000),
      .id = 0x2B,
      .rcpts = utf8,
      .rcpt_count = COUNT_OF(utf8),
      .original = STR("Subject: Gr\xC3\xBC\xC3\x9F"
                      "e\r\n\r\nnot the body\r\n"),
      .smtputf8 = true}},
    {"delayed",
     {BASE, .retry_until_ms = UINT64_C(1795839266000), .rcpts = delayed, .rcpt_count = COUNT_OF(delayed)}},
    {"relayed", {BASE, .envid = STR("QQ+2B314"), .rcpts = relayed, .rcpt_count = COUNT_OF(relayed)}},
    {"delivered", {BASE, .rcpts = delivered, .rcpt_count = COUNT_OF(delivered)}},
    {"mixed",
     {BASE, .retry_until_ms = UINT64_C(1795839266000), .rcpts = mixed, .rcpt_count = COUNT_OF(mixed)}},
    {"double-bounce", {BASE, .untold = STR(""), .rcpts = unknown_user, .rcpt_count = COUNT_OF(unknown_user)}},
    {"unreachable-sender",
     {BASE, .untold = STR("evil@nowhere.example"), .rcpts = unknown_user,
      .rcpt_count = COUNT_OF(unknown_user)}},
    {"utf8-original-recipient",
     {BASE, .smtputf8 = true, .rcpts = utf8_original, .rcpt_count = COUNT_OF(utf8_original)}},
    {"whole",
     {.hostname = STR("gw.example"),
      .to = STR("a@b.example"),
      .queue_id = STR("00000000002A"),
      .now_ms = UINT64_C(1795493666000),
      .arrived_ms = UINT64_C(1795407266000),
      .id = 0x2B,
      .rcpts = unknown_user,
      .rcpt_count = COUNT_OF(unknown_user),
      .original = STR(WHOLE),
      .is_whole = true}},
    {"no-headers",
     {.hostname = STR("gw.example"),
      .to = STR("a@b.example"),
      .queue_id = STR("00000000002A"),
      .id = 0x2B,
      .rcpts = unknown_user,
      .rcpt_count = COUNT_OF(unknown_user)}},
};

/* Whatever goes in: CRLF lines of <= 998 bytes, none a lone dot, no controls. */
static void check_wire_form(str_t text)
{
    size_t line = 0;
    assert_true(str_ends(text, STR("\r\n")));
    for (size_t i = 0; i < text.n; i++) {
        unsigned char ch = (unsigned char)text.p[i];
        assert_true(ch >= ' ' || ch == '\t' || ch == '\r' || ch == '\n');
        assert_true((ch == '\n') == (i > 0 && text.p[i - 1] == '\r'));
        if (ch != '\n')
            continue;
        assert_true(i - line <= 998 + 1);
        assert_false(i - line == 2 && text.p[line] == '.');
        line = i + 1;
    }
}

static void write_file(const char *path, str_t text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text.p, 1, text.n, f), text.n);
    assert_int_equal(fclose(f), 0);
}

static void compare_file(const char *path, str_t text)
{
    static char want[65536];
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s", path);
    size_t n = fread(want, 1, sizeof want, f);
    fclose(f);
    if (!str_eq(str_of(want, n), text))
        fail_msg("%s differs from:\n" STR_FMT, path, STR_ARG(text));
}

static void test_goldens(void **state)
{
    for (size_t i = 0; i < COUNT_OF(goldens); i++) {
        char path[1024];
        struct gbuf out = {0};
        dsn_write(&goldens[i].dsn, &out);
        assert_false(out.overflow);
        check_wire_form(gbuf_view(&out));
        snprintf(path, sizeof path, "%s/golden/dsn/%s.eml", TESTS_DIR, goldens[i].name);
        if (getenv("POSTERN_GOLDEN_WRITE"))
            write_file(path, gbuf_view(&out));
        compare_file(path, gbuf_view(&out));
        gbuf_free(&out);
    }
}

static void test_long_lines(void **state)
{
    static char headers[5000], text[4000];
    struct dsn_rcpt r = {.address = STR("x@y"), .reply_code = 550, .remote_mta = str_of(text, sizeof text)};
    struct gbuf out = {0};
    memcpy(headers, "Subject: ", 9);
    for (size_t i = 9; i < sizeof headers; i++)
        headers[i] = i % 2 ? '\xC3' : '\xB6';
    memcpy(headers + sizeof headers - 2, "\r\n", 2);
    memset(text, 'x', sizeof text);
    r.diagnostic = str_of(text, sizeof text);
    struct dsn d = {.hostname = STR("gw.example"),
                    .to = STR("a@b"),
                    .rcpts = &r,
                    .rcpt_count = 1,
                    .original = str_of(headers, sizeof headers)};
    dsn_write(&d, &out);
    check_wire_form(gbuf_view(&out));
    gbuf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_long_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
