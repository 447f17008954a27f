/* The engine as a client sees it: dialogue, limits, waits, shutdown, reload. */
#include <errno.h>

#include "peer.h"

static void test_greeting_and_extensions(void **state)
{
    struct peer *h = peer_new(STRANGER, "");
    h->tls_offered = true;
    peer_start(h);
    assert_string_equal(peer_heard(h), "220 mx.example.com ESMTP Postern\r\n");
    assert_string_equal(peer_say(h, "EHLO client.example\r\n"), "250-mx.example.com greets [198.51.100.7]\r\n"
                                                                "250-STARTTLS\r\n"
                                                                "250-PIPELINING\r\n"
                                                                "250-SIZE 20971520\r\n"
                                                                "250-8BITMIME\r\n"
                                                                "250-CHUNKING\r\n"
                                                                "250-SMTPUTF8\r\n"
                                                                "250-LIMITS RCPTMAX=1000\r\n"
                                                                "250 ENHANCEDSTATUSCODES\r\n");
    assert_string_equal(peer_say(h, "HELO client.example\r\n"), "250 mx.example.com\r\n");
    peer_free(h);

    h = peer_new("2001:db8::1", "limits: { message_size: 0 }\n");
    peer_start(h);
    const char *text = peer_say(h, "EHLO [IPv6:2001:db8::1]\r\n");
    assert_non_null(strstr(text, "greets [IPv6:2001:db8::1]\r\n"));
    assert_non_null(strstr(text, "250-SIZE\r\n"));
    assert_null(strstr(text, "STARTTLS"));
    peer_free(h);
}

/* One session; each line and how its reply begins. */
static void test_dialogue(void **state)
{
    static const char *const lines[][2] = {
        {"MAIL FROM:<a@b.example>\r\n", "503 5.5.1 Say EHLO"},
        {"RCPT TO:<bob@example.com>\r\n", "503 5.5.1 Say EHLO"},
        {"DATA\r\n", "503 5.5.1 Say EHLO"},
        {"NOOP\r\n", "250 2.0.0"},
        {"HELP\r\n", "214 2.0.0"},
        {"EHLO\r\n", "501 5.5.4"},
        {"EHLO a\x01\r\n", "501 5.5.4"},
        {"EHLO Meeting room PC\r\n", "250-mx"},
        {"EHLO client_1\r\n", "250-mx"},
        {"RCPT TO:<bob@example.com>\r\n", "503 5.5.1 Say MAIL"},
        {"DATA\r\n", "503 5.5.1 Say MAIL"},
        {"FROB\r\n", "500 5.5.2"},
        {"\r\n", "500 5.5.2"},
        {"VRFY bob\r\n", "252 2.0.0"},
        {"VRFY\r\n", "501 5.5.4"},
        {"STARTTLS\r\n", "502 5.5.1"},
        {"RSET now\r\n", "501 5.5.4"},
        {"MAIL FROM:<a@b.example> SIZE=20971521\r\n", "552 5.3.4"},
        {"MAIL FROM:<a@b.example> FROB=1\r\n", "555 5.5.4"},
        {"MAIL FROM:<j\xC3\xB6@b.example>\r\n", "553 5.6.7"},
        {"MAIL FROM:<a@b.example> SIZE=20971520\r\n", "250 2.1.0"},
        {"MAIL FROM:<a@b.example>\r\n", "503 5.5.1 Sender"},
        {"DATA\r\n", "554 5.5.1"},
        {"RCPT TO:<>\r\n", "501 5.1.3"},
        {"RCPT TO:<x@elsewhere.example>\r\n", "554 5.7.1"},
        {"RCPT TO:<j\xC3\xB6@example.com>\r\n", "553 5.6.7"},
        {"DATA now\r\n", "501 5.5.4"},
        {"rcpt to: <Bob@EXAMPLE.com>\r\n", "250 2.1.5"},
        {"RCPT TO:<bob..b.@example.com>\r\n", "250 2.1.5"},
        {"RSET\r\n", "250 2.0.0"},
        {"DATA\r\n", "503 5.5.1 Say MAIL"},
        {"MAIL FROM:<>\r\n", "250 2.1.0"},
        {"EHLO again\r\n", "250-mx"},
        {"RCPT TO:<bob@example.com>\r\n", "503 5.5.1 Say MAIL"},
        {"QUIT\r\n", "221 2.0.0"},
    };
    struct peer *h = peer_new(STRANGER, "limits: { errors: 1000 }\n");
    peer_start(h);
    peer_heard(h);
    for (size_t i = 0; i < COUNT_OF(lines); i++)
        assert_says(h, lines[i][0], lines[i][1]);
    assert_int_equal(h->closes, 1);
    assert_int_equal(h->why, CLOSE_quit);
    assert_string_equal(peer_say(h, "NOOP\r\n"), "");
    peer_free(h);
}

static void test_recipients(void **state)
{
    struct peer *h = peer_new(STRANGER, "limits: { recipients: 3 }\n");
    peer_start(h);
    peer_say(h, "EHLO x\r\nMAIL FROM:<a@B.example>\r\n");
    assert_says(h, "RCPT TO:<@relay.example:\"bob\"@Example.COM>\r\n", "250 2.1.5");
    assert_string_equal(h->asked, "bob@example.com|bob|example.com|a@b.example");
    assert_says(h, "RCPT TO:<bob@example.com>\r\n", "250 2.1.5"); /* again: not asked, stored once */
    assert_int_equal(h->rcpts_asked, 1);
    assert_says(h, "RCPT TO:<Bob@example.com>\r\n", "250 2.1.5"); /* another mailbox */
    h->verdict = R_unknown_user;
    assert_says(h, "RCPT TO:<nobody@example.com>\r\n", "550 5.1.1");
    h->verdict = R_rcpt_ok;
    assert_says(h, "RCPT TO:<postMASTER>\r\n", "250 2.1.5");
    assert_says(h, "RCPT TO:<one.more@example.com>\r\n", "452 4.5.3");
    assert_says(h, "RCPT TO:<bob@example.com>\r\n", "250 2.1.5");
    peer_say(h, "DATA\r\nSubject: x\r\n\r\n.\r\n");
    assert_int_equal(h->commits, 1);
    assert_int_equal(h->rcpt_count, 3);
    assert_starts(h->rcpts, "bob@example.com Bob@example.com postmaster@");
    assert_string_equal(h->sender, "a@b.example");
    peer_free(h);
}

/* RFC 6531: a domain's two forms are one. */
static void test_domains_in_other_scripts(void **state)
{
    struct peer *h = peer_new(
        STRANGER, "  - { name: xn--mnchen-3ya.example, local: true, route: { hosts: [10.0.0.6] } }\n");
    peer_start(h);
    peer_say(h, "EHLO x\r\n");
    assert_says(h, "MAIL FROM:<a@b\xEF\xBC\x9E\xE3\x80\x80x.example> SMTPUTF8\r\n", "501 5.1.7"); /* "b> x" */
    peer_say(h, "MAIL FROM:<a@b\xC3\xBC"
                "cher.example> SMTPUTF8\r\n");
    assert_says(h, "RCPT TO:<bob@M\xC3\xBCnchen.example>\r\n", "250 2.1.5");
    assert_string_equal(h->asked,
                        "bob@xn--mnchen-3ya.example|bob|xn--mnchen-3ya.example|a@xn--bcher-kva.example");
    assert_says(h, "RCPT TO:<bob@XN--mnchen-3ya.example>\r\n", "250 2.1.5");
    assert_says(h, "RCPT TO:<j\xC3\xB6rg@m\xC3\xBCnchen.example>\r\n", "250 2.1.5");
    assert_says(h, "RCPT TO:<bob@m\xC3\xBCnster.example>\r\n", "554 5.7.1");
    assert_says(h,
                "RCPT TO:<bob@example\xE3\x80\x82"
                "com>\r\n",
                "250 2.1.5"); /* UTS 46: that is a dot */
    peer_say(h, "DATA\r\n.\r\n");
    assert_string_equal(h->rcpts,
                        "bob@xn--mnchen-3ya.example j\xC3\xB6rg@xn--mnchen-3ya.example bob@example.com ");
    peer_free(h);
}

/* RFC 3461; the parameters are kept until the decision, which may come later. */
static void test_dsn_for_trusted_clients(void **state)
{
    struct peer *h = peer_new(TRUSTED, "");
    peer_start(h);
    assert_non_null(strstr(peer_say(h, "EHLO x\r\n"), "250-DSN\r\n"));
    assert_says(h, "MAIL FROM:<a@b.example> RET=NONE\r\n", "501 5.5.4");
    assert_says(h, "MAIL FROM:<a@b.example> RET=HDRS ENVID=id+2B1\r\n", "250 2.1.0");
    assert_says(h, "RCPT TO:<bob@example.com> NOTIFY=NEVER,DELAY\r\n", "501 5.5.4");
    assert_says(h, "RCPT TO:<bob@example.com> ORCPT=utf-8;j\xC3\xB6@b.example\r\n", "553 5.6.7");
    h->hold_rcpt = true;
    peer_say(h, "RCPT TO:<bob@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o+2Bx@b.example\r\nRCPT "
                "TO:<eve@example.com>\r\n");
    peer_settle(h);
    h->hold_rcpt = false;
    peer_say(h, "DATA\r\nx\r\n.\r\n");
    assert_int_equal(h->commits, 1);
    assert_string_equal(h->dsn, "2 id+2B1|10 rfc822;o+2Bx@b.example|0 ");
    assert_says(h, "MAIL FROM:<a@b.example>\r\n", "250 2.1.0");
    assert_says(h, "RCPT TO:<bob@example.com>\r\n", "250 2.1.5");
    peer_say(h, "DATA\r\nx\r\n.\r\n");
    assert_string_equal(h->dsn, "0 |0 ");
    peer_free(h);
}

static void test_dsn_is_hidden_from_others(void **state)
{
    static const struct {
        const char *client, *config;
        bool offered;
    } cases[] = {{STRANGER, "", false},
                 {"192.0.2.10", "", false},
                 {"192.0.2.10", "dsn: { offer: { edge: true } }\n", true},
                 {STRANGER, "dsn: { offer: { stranger: true } }\n", true},
                 {TRUSTED, "dsn: { offer: { trusted: false } }\n", false}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        bool offered = cases[i].offered;
        struct peer *h = peer_new(cases[i].client, cases[i].config);
        peer_start(h);
        assert_int_equal(strstr(peer_say(h, "EHLO x\r\n"), "DSN") != NULL, offered);
        assert_says(h, "MAIL FROM:<a@b.example> RET=NONE\r\n", offered ? "501 5.5.4" : "555 5.5.4");
        assert_says(h, "MAIL FROM:<a@b.example> ENVID=1\r\n", offered ? "250 2.1.0" : "555 5.5.4");
        if (!offered)
            assert_says(h, "MAIL FROM:<a@b.example>\r\n", "250 2.1.0");
        assert_says(h, "RCPT TO:<bob@example.com> NOTIFY=FAILURE\r\n", offered ? "250 2.1.5" : "555 5.5.4");
        assert_says(h, "RCPT TO:<eve@example.com> ORCPT=x\r\n", offered ? "501 5.5.4" : "555 5.5.4");
        peer_free(h);
    }
}

static void test_a_thousand_recipients_twice(void **state)
{
    struct peer *h = peer_new(TRUSTED, "");
    char line[64];
    peer_start(h);
    peer_say(h, "EHLO x\r\nMAIL FROM:<a@b.example>\r\n");
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 1000; i++) {
            snprintf(line, sizeof line, "RCPT TO:<user%u@example.com>\r\n", i);
            assert_says(h, line, "250 2.1.5");
        }
    }
    assert_says(h, "RCPT TO:<user1000@example.com>\r\n", "452 4.5.3");
    assert_int_equal(h->rcpts_asked, 1000);
    peer_say(h, "DATA\r\nSubject: x\r\n\r\n.\r\n");
    assert_int_equal(h->rcpt_count, 1000);
    peer_free(h);
}

static void test_line_endings_of_commands(void **state)
{
    static const struct {
        str_t bytes;
        const char *strict, *normalise;
    } cases[] = {
        {STR("NOOP\n"), "500 5.5.2 Bare", "250 2.0.0"},
        {STR("NOOP\r\r\n"), "500 5.5.2 Bare", "500 5.5.2 Command"},
        {STR("NOOP a\rb\r\n"), "500 5.5.2 Bare", "501 5.5.4"},
        {STR("NOOP\rNOOP\r\n"), "500 5.5.2 Bare", "500 5.5.2 Command"},
        {STR("NOOP a\tb\r\n"), "250 2.0.0", "250 2.0.0"},
        {STR("NOOP \0\r\n"), "501 5.5.4", "501 5.5.4"},
        {STR("NO\0OP\r\n"), "500 5.5.2 Command", "500 5.5.2 Command"},
        {STR("NOOP \x1b[0m\r\n"), "501 5.5.4", "501 5.5.4"},
        {STR("NOOP \x7f\r\n"), "501 5.5.4", "501 5.5.4"},
    };
    struct peer *strict = peer_new(TRUSTED, ""),
                *normalise = peer_new(TRUSTED, "line_endings: { trusted: normalise }\n");
    peer_start(strict);
    peer_start(normalise);
    peer_heard(strict);
    peer_heard(normalise);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        peer_feed(strict, cases[i].bytes);
        assert_starts(peer_heard(strict), cases[i].strict);
        peer_feed(normalise, cases[i].bytes);
        assert_starts(peer_heard(normalise), cases[i].normalise);
    }
    peer_free(strict);
    peer_free(normalise);
}

static void test_long_lines(void **state)
{
    char line[4096];
    for (size_t step = 0; step < 700; step += 233) {
        struct peer *h = peer_new(STRANGER, "limits: { line_length: 2048 }\n");
        h->step_bytes = step;
        peer_start(h);
        peer_heard(h);
        memset(line, 'x', sizeof line);
        memcpy(line, "NOOP ", 5);
        memcpy(line + 2046, "\r\n", 3);
        assert_says(h, line, "250 2.0.0"); /* as long as may be */
        memset(line + 2046, 'x', 4);
        memcpy(line + 2047, "\r\n", 3);
        assert_says(h, line, "500 5.5.2");
        memset(line + 2047, 'x', sizeof line - 2047);
        memcpy(line + sizeof line - 3, "\r\n", 3);
        assert_string_equal(peer_say(h, line),
                            "500 5.5.2 Line too long\r\n"); /* once, all of it is swallowed */
        assert_says(h, "NOOP\r\n", "250 2.0.0");
        peer_free(h);
    }
}

#define WHOLE_SESSION                                                                                        \
    "EHLO client.example\r\n"                                                                                \
    "MAIL FROM:<a@b.example> SIZE=100\r\nRCPT TO:<bob@example.com>\r\nRCPT TO:<x@elsewhere.example>\r\n"     \
    "RCPT TO:<eve@example.com>\r\nDATA\r\n"                                                                  \
    "Subject: one\r\n\r\n..stuffed\r\n.x\r\n\r\n.\r\n"                                                       \
    "MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n.\r\n"                                             \
    "RSET\r\nNOOP\r\nQUIT\r\n"

static const char whole_codes[] = "250 250 250 554 250 354 250 250 250 354 250 250 250 221 ";

/* The codes of the last lines of all replies but the greeting. */
static void codes_of(const char *text, char *out, size_t cap)
{
    struct sbuf b = {.p = out, .cap = cap - 1};
    str_t line, rest = str_cstr(text);
    for (bool first = true; rest.n; first = false) {
        str_cut(rest, '\n', &line, &rest);
        assert_true(line.n > 4 && line.p[line.n - 1] == '\r');
        if (!first && line.p[3] == ' ')
            sbuf_printf(&b, STR_FMT " ", STR_ARG(str_sub(line, 0, 3)));
    }
    out[b.n] = '\0';
}

/* However the bytes are cut, and however slow the host is, the replies are the same and in order. */
static void test_every_split_and_every_wait(void **state)
{
    char codes[512];
    for (size_t step = 1; step < sizeof WHOLE_SESSION; step += step < 40 ? 1 : 17) {
        for (unsigned how = 0; how < 8; how++) {
            struct peer *h = peer_new(STRANGER, "");
            h->step_bytes = step;
            h->hold_rcpt = how & 1;
            h->hold_commit = how & 2;
            h->room = how & 4 ? 0 : SIZE_MAX;
            h->room_step = how & 4 ? 1 + step % 5 : 0;
            peer_start(h);
            peer_feed(h, STR(WHOLE_SESSION));
            peer_settle(h);
            codes_of(h->out, codes, sizeof codes);
            assert_string_equal(codes, whole_codes);
            assert_int_equal(h->commits, 2);
            assert_int_equal(h->begins, 2);
            assert_int_equal(h->in_n, 0);
            peer_free(h);
        }
    }
}

static void test_nothing_is_answered_while_waiting(void **state)
{
    struct peer *h = peer_new(STRANGER, "");
    h->hold_rcpt = h->hold_commit = true;
    peer_start(h);
    peer_say(h, "EHLO x\r\nMAIL FROM:<a@b.example>\r\n");
    assert_int_equal(smtpd_timeout_ms(h->s), 300000);
    assert_string_equal(peer_say(h, "RCPT TO:<bob@example.com>\r\nDATA\r\n"), "");
    assert_true(smtpd_waiting(h->s));
    assert_int_equal(smtpd_timeout_ms(h->s), 0);
    assert_int_equal(h->in_n, 6);
    smtpd_rcpt_decided(h->s, R_rcpt_ok, STR_NONE);
    peer_pump(h);
    assert_starts(peer_heard(h), "250 2.1.5 Recipient OK\r\n354 ");
    assert_int_equal(smtpd_timeout_ms(h->s), 180000);
    assert_string_equal(peer_say(h, "x\r\n.\r\nQUIT\r\n"), "");
    assert_int_equal(h->commits, 1);
    assert_int_equal(h->closes, 0);
    smtpd_committed(h->s, 0);
    peer_pump(h);
    assert_string_equal(peer_heard(h), "250 2.0.0 OK: queued as 128GGYHYYK08N\r\n221 2.0.0 Bye\r\n");
    peer_free(h);
}

static void test_starttls(void **state)
{
    struct peer *h = peer_new(STRANGER, "");
    h->tls_offered = true;
    peer_start(h);
    peer_heard(h);
    assert_says(h, "STARTTLS\r\n", "503 5.5.1 Say EHLO");
    peer_say(h, "EHLO x\r\nMAIL FROM:<a@b.example>\r\n");
    assert_says(h, "STARTTLS\r\n", "503 5.5.1 Not during");
    peer_say(h, "RSET\r\n");
    assert_string_equal(peer_say(h, "STARTTLS\r\nMAIL FROM:<evil@b.example>\r\n"),
                        "220 2.0.0 Ready to start TLS\r\n");
    assert_true(h->tls_due);
    assert_int_equal(h->in_n, 28); /* injected in the clear: the host throws it away */
    assert_int_equal(smtpd_timeout_ms(h->s), 300000);
    h->in_n = 0;
    h->tls_due = false;
    peer_secured(h, "TLS_AES_128_GCM_SHA256");
    assert_says(h, "MAIL FROM:<a@b.example>\r\n", "503 5.5.1 Say EHLO");
    const char *text = peer_say(h, "EHLO y\r\n");
    assert_starts(text, "250-mx");
    assert_null(strstr(text, "STARTTLS"));
    assert_says(h, "STARTTLS\r\n", "503 5.5.1 TLS");
    peer_free(h);

    h = peer_new(STRANGER, "");
    h->tls_offered = true;
    peer_start(h);
    peer_say(h, "EHLO x\r\nSTARTTLS\r\n");
    smtpd_timeout(h->s); /* no clear text into a handshake */
    assert_string_equal(peer_heard(h), "");
    assert_int_equal(h->why, CLOSE_timeout);
    smtpd_secured(h->s, NULL);
    assert_int_equal(h->closes, 1);
    peer_free(h);
}

static void test_errors_end_a_session(void **state)
{
    static const struct {
        const char *client;
        unsigned errors;
    } cases[] = {{STRANGER, 20}, {TRUSTED, 200}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct peer *h = peer_new(cases[i].client, "");
        peer_start(h);
        peer_heard(h);
        for (unsigned n = 1; n < cases[i].errors; n++)
            assert_string_equal(peer_say(h, "FROB\r\n"), "500 5.5.2 Command not recognised\r\n");
        assert_int_equal(h->closes, 0);
        assert_string_equal(peer_say(h, "FROB\r\nFROB\r\n"), "421 4.7.0 Too many errors\r\n");
        assert_int_equal(h->why, CLOSE_errors);
        assert_int_equal(h->in_n, 0);
        peer_free(h);
    }
}

/* As Postfix: past the soft limit each command waits, whatever it is, until a message makes up for it. */
static void test_errors_slow_a_stranger_down(void **state)
{
    static const char config[] = "strangers: { errors: 3, error_delay: 2s }\n";
    struct peer *h = peer_new(STRANGER, config);
    h->hold_delay = true;
    peer_start(h);
    peer_say(h, "EHLO x\r\n");
    assert_string_equal(peer_say(h, "FROB\r\nFROB\r\nNOOP\r\nFROB\r\n"),
                        "500 5.5.2 Command not recognised\r\n500 5.5.2 Command not recognised\r\n"
                        "250 2.0.0 OK\r\n500 5.5.2 Command not recognised\r\n");
    assert_int_equal(h->delays, 0);
    for (unsigned n = 1; n <= 3; n++) { /* byte by byte or at once: one wait a command */
        assert_string_equal(peer_say(h, n == 1 ? "NO" : "NOOP\r\n"), "");
        assert_int_equal(h->delays, n);
        assert_int_equal(h->delay_ms, 2000);
        assert_int_equal(smtpd_timeout_ms(h->s), 0);
        peer_settle(h);
        assert_string_equal(n == 1 ? peer_say(h, "OP\r\n") : peer_heard(h), "250 2.0.0 OK\r\n");
    }
    peer_feed(h, STR("MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"));
    peer_settle(h);
    assert_int_equal(h->delays, 6);
    assert_non_null(strstr(peer_heard(h), "354 "));
    assert_starts(peer_say(h, "x\r\n.\r\n"), "250 2.0.0 OK: queued"); /* content waits for nothing */
    assert_says(h, "NOOP\r\n", "250");
    assert_int_equal(h->delays, 6);
    peer_say(h, "FROB\r\nFROB\r\nFROB\r\n");
    assert_string_equal(peer_say(h, "NOOP\r\n"), "");
    smtpd_shutdown(h->s, false);
    assert_starts(peer_heard(h), "421 ");
    smtpd_resume(h->s); /* too late */
    assert_string_equal(peer_heard(h), "");
    peer_free(h);
    static const char *const others[] = {EDGE, TRUSTED};
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        h = peer_new(others[i], config);
        h->hold_delay = true;
        peer_start(h);
        for (unsigned n = 0; n < 19; n++)
            peer_say(h, "FROB\r\n");
        assert_says(h, "NOOP\r\n", "250");
        assert_int_equal(h->delays, 0);
        peer_free(h);
    }
    h = peer_new(STRANGER, "strangers: { errors: 0 }\n");
    h->hold_delay = true;
    peer_start(h);
    for (unsigned n = 0; n < 19; n++)
        peer_say(h, "FROB\r\n");
    assert_says(h, "NOOP\r\n", "250");
    peer_free(h);
}

/* M30: the edge's probes fail all day in one session, and each has its truthful answer. */
static void test_the_edge_may_err_for_ever(void **state)
{
    struct peer *h = peer_new(EDGE, "limits: { errors: 1, junk_commands: 1 }\n");
    peer_start(h);
    peer_say(h, "EHLO x\r\n");
    for (unsigned n = 0; n < 1000; n++)
        assert_string_equal(peer_say(h, "MAIL FROM:<>\r\nRCPT TO:<x@elsewhere.example>\r\nRSET\r\n"),
                            "250 2.1.0 Sender OK\r\n554 5.7.1 Relay access denied\r\n250 2.0.0 OK\r\n");
    peer_free(h);
}

/* A list server's session is long, and there is always somebody who has left. */
static void test_a_message_makes_up_for_errors(void **state)
{
    struct peer *h = peer_new(STRANGER, "limits: { errors: 3 }\n");
    struct smtpd_stats st;
    peer_start(h);
    peer_say(h, "EHLO x\r\n");
    for (unsigned round = 0; round < 3; round++) {
        peer_say(h, "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@elsewhere.example>\r\nFROB\r\n");
        assert_says(h, "RCPT TO:<bob@example.com>\r\n", "250 2.1.5");
        peer_say(h, "DATA\r\nx\r\n.\r\n");
    }
    assert_int_equal(h->commits, 3);
    smtpd_stats(h->s, &st);
    assert_int_equal(st.errors, 6); /* of the session, for its log line */
    peer_free(h);
}

static void test_junk_is_an_error_in_the_end(void **state)
{
    struct peer *h = peer_new(STRANGER, "limits: { junk_commands: 5, errors: 2 }\n");
    peer_start(h);
    for (unsigned round = 0; round < 2; round++) {
        peer_say(h, round ? "" : "EHLO x\r\n");
        for (unsigned n = 0; n < 5; n++)
            assert_string_equal(peer_say(h, "NOOP\r\n"), "250 2.0.0 OK\r\n");
        peer_say(
            h,
            "MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nx\r\n.\r\n"); /* wipes it out */
    }
    for (unsigned n = 0; n < 6; n++)
        peer_say(h, "RSET\r\n");
    assert_int_equal(h->closes, 0);
    assert_string_equal(peer_say(h, "NOOP\r\n"), "250 2.0.0 OK\r\n421 4.7.0 Too many errors\r\n");
    assert_int_equal(h->commits, 2);
    peer_free(h);
}

/* A web page or a server can be made to send such requests, with commands in the body, from inside a trusted
 * network. */
static void test_http_gets_no_second_line(void **state)
{
    static const char *const requests[] = {"POST / HTTP/1.1\r\n", "GET /x HTTP/1.0\r\n",
                                           "CONNECT mx:25 HTTP/1.1\r\n"};
    for (size_t i = 0; i < COUNT_OF(requests); i++) {
        struct peer *h = peer_new(TRUSTED, "");
        peer_start(h);
        peer_heard(h);
        peer_feed(h, str_cstr(requests[i]));
        assert_string_equal(peer_say(h, "Host: mx\r\n\r\nEHLO x\r\nMAIL FROM:<a@b.example>\r\n"),
                            "421 4.7.0 This is a mail server\r\n");
        assert_int_equal(h->why, CLOSE_errors);
        peer_free(h);
    }
}

/* 452 and recipients said twice are no errors, but not for ever either. */
static void test_endless_recipients(void **state)
{
    static const char *const rcpts[] = {"RCPT TO:<bob@example.com>\r\n", "RCPT TO:<eve@example.com>\r\n"};
    for (size_t i = 0; i < COUNT_OF(rcpts); i++) {
        struct peer *h = peer_new(STRANGER, "limits: { recipients: 1, errors: 3 }\n");
        unsigned said = 1;
        peer_start(h);
        peer_say(h, "EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\n");
        while (!h->closes && said++ < 100)
            peer_say(h, rcpts[i]);
        assert_int_equal(said, 2 + 3); /* as many again as are taken, and the errors */
        assert_int_equal(h->why, CLOSE_errors);
        peer_free(h);
    }
}

static void test_messages_per_session(void **state)
{
    static const char *const clients[] = {STRANGER, EDGE};
    for (size_t i = 0; i < COUNT_OF(clients); i++) {
        struct peer *h = peer_in_data(clients[i], "limits: { messages_per_session: 1 }\n");
        assert_says(h, "x\r\n.\r\n", "250 2.0.0 OK: queued");
        assert_says(h, "MAIL FROM:<a@b.example>\r\n",
                    i == 0 ? "421 4.7.0" : "250 2.1.0"); /* the edge is never limited */
        assert_int_equal(h->closes, i == 0);
        peer_free(h);
    }
}

static void test_no_room(void **state)
{
    struct peer *h = peer_new(STRANGER, "");
    peer_start(h);
    peer_say(h, "EHLO x\r\n");
    h->space_err = ERR_FULL;
    assert_says(h, "MAIL FROM:<a@b.example> SIZE=77\r\n", "452 4.3.1");
    assert_int_equal(h->space_asked, 77);
    h->space_err = -EIO;
    assert_says(h, "MAIL FROM:<a@b.example>\r\n", "451 4.3.0");
    assert_int_equal(h->space_asked, 0);
    h->space_err = 0;
    peer_say(h, "MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\n");
    h->begin_err = ERR_FULL;
    assert_says(h, "DATA\r\n", "452 4.3.1");
    h->begin_err = 0;
    assert_says(h, "DATA\r\n", "354 ");
    h->commit_err = ERR_FULL;
    assert_says(h, "x\r\n.\r\n", "452 4.3.1");
    h->commit_err = -EIO;
    peer_say(h, "MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n");
    assert_says(h, "x\r\n.\r\n", "451 4.3.0");
    assert_int_equal(h->aborts, 0);
    peer_free(h);
}

enum where_at { AT_COMMAND, AT_MAIL, AT_RCPT, AT_CONTENT, AT_ROOM, AT_COMMIT };

static struct peer *peer_at(enum where_at at)
{
    static const char *const bytes[] = {"EHLO x\r\n",
                                        "MAIL FROM:<a@b.example>\r\n",
                                        "RCPT TO:<bob@example.com>\r\n",
                                        "DATA\r\nline\r\n",
                                        "more\r\n",
                                        "\r\n.\r\n"};
    struct peer *h = peer_new(STRANGER, "");
    h->hold_commit = true;
    h->hold_rcpt = at == AT_RCPT;
    peer_start(h);
    for (unsigned i = 0; i <= at; i++) {
        h->room = at == AT_ROOM && i == AT_ROOM ? 2 : SIZE_MAX;
        peer_feed(h, str_cstr(bytes[i]));
    }
    peer_heard(h);
    return h;
}

static void test_shutdown(void **state)
{
    for (unsigned now = 0; now < 2; now++) {
        for (enum where_at at = AT_COMMAND; at <= AT_COMMIT; at++) {
            struct peer *h = peer_at(at);
            bool at_once = at == AT_COMMAND || (now && at != AT_COMMIT);
            smtpd_shutdown(h->s, now);
            assert_int_equal(h->closes, at_once);
            assert_starts(peer_heard(h), at_once ? "421 4.3.2" : "");
            if (now && (at == AT_CONTENT || at == AT_ROOM))
                assert_int_equal(h->aborts, 1);
            if (at == AT_COMMIT) {
                smtpd_committed(h->s, 0);
                const char *text = peer_heard(h);
                assert_starts(text, "250 2.0.0 OK: queued");
                assert_non_null(strstr(text, "\r\n421 4.3.2"));
            } else if (!at_once && at == AT_MAIL) {
                assert_starts(peer_say(h, "RSET\r\n"), "250 2.0.0 OK\r\n421 4.3.2");
            }
            peer_free(h);
        }
    }
}

static void test_end_of_input_and_timeouts(void **state)
{
    for (enum where_at at = AT_COMMAND; at <= AT_COMMIT; at++) {
        struct peer *h = peer_at(at);
        smtpd_eof(h->s, false);
        bool later = at == AT_RCPT || at == AT_COMMIT; /* half-closed, and a reply is due */
        assert_int_equal(h->closes, !later);
        peer_settle(h);
        assert_int_equal(h->closes, 1);
        assert_int_equal(h->why, CLOSE_eof);
        assert_starts(peer_heard(h), later ? "250 " : "");
        peer_free(h);

        h = peer_at(at);
        smtpd_eof(h->s, true);
        assert_int_equal(h->closes, 1);
        assert_int_equal(h->why, CLOSE_reset);
        assert_int_equal(h->aborts, at == AT_CONTENT || at == AT_ROOM);
        if (at == AT_COMMIT) { /* the message is there, though nobody hears of it */
            struct smtpd_stats st;
            smtpd_committed(h->s, 0);
            smtpd_stats(h->s, &st);
            assert_int_equal(st.messages, 1);
        }
        smtpd_rcpt_decided(h->s, R_rcpt_ok, STR_NONE); /* too late: ignored */
        assert_string_equal(peer_heard(h), "");
        peer_free(h);

        h = peer_at(at);
        smtpd_timeout(h->s);
        assert_int_equal(h->closes, at != AT_COMMIT);
        peer_free(h);
    }
}

static void test_stats(void **state)
{
    struct peer *h = peer_in_data(STRANGER, "");
    struct smtpd_stats st;
    peer_feed(h, STR("half a"));
    smtpd_stats(h->s, &st);
    assert_string_equal(st.where, "after DATA content");
    assert_int_equal(st.reason, CLOSE_COUNT);
    peer_feed(h, STR(" line\r\n.\r\nFROB\r\n"));
    smtpd_eof(h->s, false);
    smtpd_stats(h->s, &st);
    assert_int_equal(st.messages, 1);
    assert_int_equal(st.rcpts, 1);
    assert_int_equal(st.commands, 5);
    assert_int_equal(st.errors, 1);
    assert_int_equal(st.bytes, sizeof TO_DATA - 1 + 22);
    assert_true(str_eq(st.helo, STR("client.example")));
    assert_string_equal(st.where, "after an unknown command");
    assert_string_equal(close_reason_name(st.reason), "eof");
    peer_free(h);
}

static void test_policy_may_change_between_transactions(void **state)
{
    struct peer *h = peer_new(STRANGER, "");
    struct policy *other =
        peer_policy("  - { name: example.org, local: true, route: { hosts: [10.0.0.5] } }\n");
    peer_start(h);
    peer_say(h, "EHLO x\r\nMAIL FROM:<a@b.example>\r\n");
    assert_false(smtpd_idle(h->s));
    assert_says(h, "RCPT TO:<bob@example.org>\r\n", "554 5.7.1");
    smtpd_set_policy(h->s, other, h->tls_offered, CLASS_STRANGER);
    assert_ptr_equal(smtpd_policy(h->s), h->policy);
    assert_says(h, "RCPT TO:<bob@example.org>\r\n", "554 5.7.1");
    assert_says(h, "RSET\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\n",
                "250 2.0.0 OK\r\n250 2.1.0 Sender OK\r\n250 2.1.5");
    assert_ptr_equal(smtpd_policy(h->s), other);
    peer_free(h);
    policy_free(other);
}

/* Trust that was taken back lasts no longer than the transaction, however long the session does. */
static void test_class_follows_the_policy(void **state)
{
    struct peer *h = peer_new(TRUSTED, "");
    struct policy *wary = peer_policy_of("hostname: mx.example.com\n", "");
    peer_start(h);
    peer_say(h, "EHLO x\r\nMAIL FROM:<a@b.example>\r\n");
    smtpd_set_policy(h->s, wary, h->tls_offered, CLASS_STRANGER);
    assert_int_equal(smtpd_class(h->s), CLASS_TRUSTED);
    assert_says(h, "RCPT TO:<x@elsewhere.example>\r\n", "250 2.1.5");
    assert_says(h, "RSET\r\nMAIL FROM:<>\r\nRCPT TO:<x@elsewhere.example>\r\n",
                "250 2.0.0 OK\r\n250 2.1.0 Sender OK\r\n554 5.7.1");
    assert_int_equal(smtpd_class(h->s), CLASS_STRANGER);
    peer_say(h, "RSET\r\n");
    smtpd_set_policy(h->s, h->policy, h->tls_offered, CLASS_STRANGER); /* and at once between transactions */
    assert_int_equal(smtpd_class(h->s), CLASS_TRUSTED);
    peer_free(h);
    policy_free(wary);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greeting_and_extensions),
        cmocka_unit_test(test_dialogue),
        cmocka_unit_test(test_recipients),
        cmocka_unit_test(test_domains_in_other_scripts),
        cmocka_unit_test(test_dsn_for_trusted_clients),
        cmocka_unit_test(test_dsn_is_hidden_from_others),
        cmocka_unit_test(test_a_thousand_recipients_twice),
        cmocka_unit_test(test_line_endings_of_commands),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_every_split_and_every_wait),
        cmocka_unit_test(test_nothing_is_answered_while_waiting),
        cmocka_unit_test(test_starttls),
        cmocka_unit_test(test_errors_end_a_session),
        cmocka_unit_test(test_errors_slow_a_stranger_down),
        cmocka_unit_test(test_the_edge_may_err_for_ever),
        cmocka_unit_test(test_a_message_makes_up_for_errors),
        cmocka_unit_test(test_junk_is_an_error_in_the_end),
        cmocka_unit_test(test_http_gets_no_second_line),
        cmocka_unit_test(test_endless_recipients),
        cmocka_unit_test(test_messages_per_session),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_shutdown),
        cmocka_unit_test(test_end_of_input_and_timeouts),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_policy_may_change_between_transactions),
        cmocka_unit_test(test_class_follows_the_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
