/* Message content: line endings, dots, limits, a host without room. */
#include "peer.h"

static void test_content_is_kept_as_it_came(void **state)
{
    struct peer *h = peer_in_data(STRANGER, "");
    assert_says(h, "Subject: x\r\n\r\n..\r\n...dots\r\n.\r\n", "250 2.0.0 OK: queued as ");
    assert_string_equal(h->body, "Subject: x\r\n\r\n..\r\n...dots\r\n");
    peer_say(h, "MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n");
    assert_says(h, ".\r\n", "250 2.0.0 OK: queued as "); /* nothing at all is a message too */
    assert_int_equal(h->body_n, 0);
    assert_string_equal(h->sender, "");
    peer_free(h);
}

static const char *const smuggling[] = {
    "\n.\n",         "\n.\r\n",   "\r.\r",       "\r\n.\n",     "\r\n.\r",      "\r.\r\n",
    "\r\r\n.\r\r\n", "\n\n.\r\n", "\r\n.\r\r\n", "\n.\r",       "\r.\n",        "\r\r.\r\r",
    "\n\r.\r\n",     "\n.\n\r",   "\r\n\r.\r\n", "\r\n\n.\r\n", "\r\n.\r.\r\n", "\r\n..\n.\r\n"};

/* Only CRLF.CRLF ends DATA, and what follows something like it is never a command. */
static void test_smuggling(void **state)
{
    for (size_t i = 0; i < COUNT_OF(smuggling); i++) {
        for (size_t step = 0; step < 4; step++) {
            struct peer *h = peer_in_data(STRANGER, "");
            h->step_bytes = step;
            peer_feed(h, STR("Subject: outer\r\n\r\nbody"));
            peer_feed(h, str_cstr(smuggling[i]));
            assert_string_equal(
                peer_say(h, "MAIL FROM:<evil@b.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"), "");
            assert_string_equal(
                peer_say(h, "\r\n.\r\nNOOP\r\n"),
                "550 5.5.2 Bare CR or LF in the message; end lines with CRLF\r\n250 2.0.0 OK\r\n");
            assert_int_equal(h->aborts, 1);
            assert_int_equal(h->commits, 0);
            peer_free(h);
        }
    }
}

/* What is stored has no bare CR or LF, and no line of it ends the message for the next server. */
static void test_normalised_smuggling(void **state)
{
    for (size_t i = 0; i < COUNT_OF(smuggling); i++) {
        for (size_t step = 0; step < 4; step++) {
            struct peer *h = peer_in_data(TRUSTED, "line_endings: { trusted: normalise }\n");
            h->step_bytes = step;
            h->room = step & 1 ? 0 : SIZE_MAX;
            h->room_step = 1;
            peer_feed(h, STR("Subject: outer\r\n\r\nbody"));
            peer_feed(h, str_cstr(smuggling[i]));
            peer_feed(h, STR("MAIL FROM:<evil@b.example>\r\n.\r\nNOOP\r\n"));
            peer_settle(h);
            const char *text = peer_heard(h);
            assert_starts(text, "250 2.0.0 OK: queued");
            assert_non_null(strstr(text, "\r\n250 2.0.0 OK\r\n"));
            assert_null(strstr(h->body, "\r\n.\r\n"));
            assert_non_null(strstr(h->body, "evil@b.example"));
            for (size_t k = 0; k < h->body_n; k++) {
                assert_true(h->body[k] != '\n' || (k > 0 && h->body[k - 1] == '\r'));
                assert_true(h->body[k] != '\r' || h->body[k + 1] == '\n');
            }
            assert_string_equal(h->body + h->body_n - 2, "\r\n");
            peer_free(h);
        }
    }
}

static void test_large_content_through_a_narrow_door(void **state)
{
    static char content[100000];
    size_t n = 0;
    while (n < sizeof content - 200)
        n += (size_t)snprintf(content + n, sizeof content - n, "%s%zu\r\n", n % 7 ? "" : "..", n);
    for (unsigned normalise = 0; normalise < 2; normalise++) {
        struct peer *h = peer_in_data(TRUSTED, normalise ? "line_endings: { trusted: normalise }\n" : "");
        h->room = 0;
        h->room_step = 999;
        h->step_bytes = 4096;
        peer_feed(h, str_of(content, n));
        peer_feed(h, STR(".\r\n"));
        peer_settle(h);
        assert_int_equal(h->commits, 1);
        assert_int_equal(h->body_n, n);
        assert_memory_equal(h->body, content, n);
        peer_free(h);
    }
}

static void test_refused_content(void **state)
{
    static char lines[20000], hops[4096], header[3000], dots[20000];
    size_t n = 0;
    while (n < 12000)
        n += (size_t)snprintf(dots + n, sizeof dots - n, "..\r\n");
    for (n = 0; n < sizeof lines - 20;)
        n += (size_t)snprintf(lines + n, sizeof lines - n, "0123456789\r\n");
    for (n = 0; n < 51 * 15;)
        n += (size_t)snprintf(hops + n, sizeof hops - n, "Received: hop\r\n");
    memset(header, 'x', sizeof header - 1);
    memcpy(header, "Subject: ", 9);
    const struct {
        const char *content, *reply;
    } cases[] = {
        {lines, "552 5.3.4 Message exceeds"},
        {dots, "250 2.0.0 OK: queued"},   /* 9000 bytes when taken out of the wire's form */
        {header, "250 2.0.0 OK: queued"}, /* longer than headers are looked at */
        {hops, "554 5.4.6"},
        {hops + 15, "250 2.0.0 OK: queued"}, /* one hop fewer */
        {"Subject: x\r\n\r\nReceived: body\r\n", "250 2.0.0 OK: queued"},
        {"nul \x01 and \xFF\r\n", "250 2.0.0 OK: queued"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        for (size_t step = 0; step < 3000; step += 1501) {
            struct peer *h =
                peer_in_data(STRANGER, "limits: { message_size: 10000, header_size: 2048, hops: 50 }\n");
            bool refused = cases[i].reply[0] != '2';
            h->step_bytes = step;
            assert_string_equal(peer_say(h, cases[i].content), "");
            if (refused)
                assert_int_equal(h->aborts, 1); /* at once, not at the dot */
            assert_says(h, "\r\n.\r\nNOOP\r\n", cases[i].reply);
            assert_int_equal(h->aborts, refused);
            assert_int_equal(h->commits, !refused);
            assert_true(smtpd_idle(h->s));
            peer_free(h);
        }
    }
}

/* Clients declare what they could send. What they did send decides which servers can take it. */
static void test_what_the_next_server_must_be_able_to_do(void **state)
{
    static const struct {
        const char *params, *rcpt, *content;
        enum body_type body;
        bool smtputf8;
    } cases[] = {
        {"", "bob", "Subject: x\r\n\r\nplain\r\n", BODY_7BIT, false},
        {" BODY=8BITMIME SMTPUTF8", "bob", "Subject: x\r\n\r\nplain\r\n", BODY_7BIT, false},
        {" BODY=8BITMIME SMTPUTF8", "bob", "Subject: x\r\n\r\n\xC3\xA9\r\n", BODY_8BITMIME, false},
        {" BODY=8BITMIME SMTPUTF8", "bob", "Subject: \xC3\xA9\r\n\r\nplain\r\n", BODY_8BITMIME, true},
        {" BODY=8BITMIME SMTPUTF8", "j\xC3\xB6rg", "Subject: x\r\n\r\nplain\r\n", BODY_7BIT, true},
        {" SMTPUTF8", "bob", "no header\r\n", BODY_7BIT, true}, /* cannot be told */
        {"", "bob", "Subject: x\r\n\r\n\xC3\xA9\r\n", BODY_8BITMIME,
         false}, /* who did not say so sends it too */
        {" BODY=7BIT", "bob", "Subject: \xC3\xA9\r\n\r\nx\r\n", BODY_8BITMIME, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        for (size_t step = 0; step < 2; step++) {
            struct peer *h = peer_new(STRANGER, "");
            char text[256];
            h->step_bytes = step;
            peer_start(h);
            snprintf(text, sizeof text,
                     "EHLO x\r\nMAIL FROM:<a@b.example>%s\r\nRCPT TO:<%s@example.com>\r\nDATA\r\n",
                     cases[i].params, cases[i].rcpt);
            peer_say(h, text);
            peer_say(h, cases[i].content);
            assert_says(h, ".\r\n", "250 ");
            assert_int_equal(h->envelope.body, cases[i].body);
            assert_int_equal(h->envelope.smtputf8, cases[i].smtputf8);
            peer_free(h);
        }
    }
}

static void test_the_whole_content_takes_too_long(void **state)
{
    struct peer *h = peer_in_data(STRANGER, "timeouts: { data_total: 10s }\n");
    h->now_ms += 10000;
    assert_string_equal(peer_say(h, "x\r\n"), "");
    h->now_ms -= 20000; /* the wall clock was set */
    assert_string_equal(peer_say(h, "x\r\n"), "");
    h->now_ms += 20001;
    assert_says(h, "x\r\n", "421 4.4.2");
    assert_int_equal(h->why, CLOSE_timeout);
    assert_int_equal(h->aborts, 1);
    peer_free(h);
}

static void test_a_refused_message_has_its_verdict_before_421(void **state)
{
    struct peer *h = peer_in_data(STRANGER, "limits: { errors: 1 }\n");
    const char *text = peer_say(h, "bare\n\r\n.\r\n");
    assert_starts(text, "550 5.5.2");
    assert_non_null(strstr(text, "\r\n421 4.7.0"));
    peer_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content_is_kept_as_it_came),
        cmocka_unit_test(test_smuggling),
        cmocka_unit_test(test_normalised_smuggling),
        cmocka_unit_test(test_large_content_through_a_narrow_door),
        cmocka_unit_test(test_refused_content),
        cmocka_unit_test(test_what_the_next_server_must_be_able_to_do),
        cmocka_unit_test(test_the_whole_content_takes_too_long),
        cmocka_unit_test(test_a_refused_message_has_its_verdict_before_421),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
