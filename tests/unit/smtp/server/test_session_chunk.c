/* BDAT (RFC 3030): the octets of chunks arrive as they are, and are never taken for commands. */
#include "peer.h"

#define TO_RCPT "EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\n"

static struct peer *peer_at_chunk(const char *client, const char *more_config)
{
    struct peer *h = peer_new(client, more_config);
    peer_start(h);
    peer_feed(h, STR(TO_RCPT));
    assert_non_null(strstr(peer_heard(h), "250 2.1.5 "));
    return h;
}

static void test_chunks_become_one_message(void **state)
{
    static const struct {
        const char *said, *kept;
    } cases[] = {
        {"BDAT 12 LAST\r\nA: b\r\n\r\nhi\r\n", "A: b\r\n\r\nhi\r\n"},
        {"BDAT 6\r\nA: b\r\nbdat 6 last\r\n\r\nhi\r\n", "A: b\r\n\r\nhi\r\n"},
        {"BDAT 5\r\nA: b\rBDAT 7\r\n\n\r\nhi\r\nBDAT 0 LAST\r\n",
         "A: b\r\n\r\nhi\r\n"}, /* CRLF in two chunks */
        {"BDAT 2 LAST\r\nhi", "hi\r\n"},
        {"BDAT 2\r\nhiBDAT 0 LAST\r\n", "hi\r\n"},
        {"BDAT 0 LAST\r\n", ""},
        {"BDAT 0\r\nBDAT 0 LAST\r\n", ""},

        {"BDAT 3 LAST\r\n.\r\n", "..\r\n"},
        {"BDAT 12 LAST\r\na\r\n.\r\nQUIT\r\n", "a\r\n..\r\nQUIT\r\n"},
        {"BDAT 3\r\na\r\nBDAT 1\r\n.BDAT 2 LAST\r\n\r\n", "a\r\n..\r\n"}, /* a dot alone in its chunk */
        {"BDAT 2 LAST\r\n..", "...\r\n"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        for (size_t step = 0; step < 4; step++) {
            for (size_t room = 0; room < 3; room++) {
                struct peer *h = peer_at_chunk(STRANGER, "");
                h->step_bytes = step;
                h->room = room ? 0 : SIZE_MAX;
                h->room_step = room;
                peer_feed(h, str_cstr(cases[i].said));
                peer_feed(h, STR("NOOP\r\n"));
                peer_settle(h);
                const char *text = peer_heard(h);
                assert_non_null(strstr(text, "250 2.0.0 OK: queued as "));
                assert_string_equal(text + strlen(text) - 14, "250 2.0.0 OK\r\n");
                assert_string_equal(h->body, cases[i].kept);
                assert_int_equal(h->commits, 1);
                peer_free(h);
            }
        }
    }
}

static void test_each_chunk_has_its_reply(void **state)
{
    struct peer *h = peer_at_chunk(STRANGER, "");
    assert_string_equal(peer_say(h, "BDAT 3\r\nabc"), "250 2.0.0 OK: 3 octets received\r\n");
    assert_string_equal(peer_say(h, "BDAT 0\r\n"), "250 2.0.0 OK: 0 octets received\r\n");
    assert_says(h, "MAIL FROM:<c@b.example>\r\n", "503 5.5.1 Sender already given");
    assert_says(h, "RCPT TO:<other@example.com>\r\n", "503 5.5.1 The message has begun with BDAT");
    assert_says(h, "DATA\r\n", "503 5.5.1 The message has begun with BDAT");
    assert_says(h, "NOOP\r\n", "250 2.0.0 OK");
    assert_says(h, "BDAT 2 LAST\r\n\r\n", "250 2.0.0 OK: queued as ");
    assert_string_equal(h->body, "abc\r\n");
    peer_free(h);
}

static void test_rset_forgets_the_chunks(void **state)
{
    struct peer *h = peer_at_chunk(STRANGER, "");
    peer_say(h, "BDAT 3\r\nabc");
    assert_says(h, "RSET\r\n", "250 2.0.0 OK");
    assert_int_equal(h->aborts, 1);
    peer_say(h, "MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n");
    assert_says(h, "x\r\n.\r\n", "250 2.0.0 OK: queued as ");
    assert_string_equal(h->body, "x\r\n");
    peer_free(h);
}

/* Whatever the reason, the octets of a refused chunk are skipped. */
static void test_refused_chunks_are_no_commands(void **state)
{
    static const struct {
        const char *before, *reply;
    } cases[] = {
        {"", "503 5.5.1 Say EHLO"},
        {"EHLO c.example\r\n", "503 5.5.1 Say MAIL"},
        {"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\n", "554 5.5.1 No valid"},
        {TO_RCPT "BDAT 2\r\na\n", "503 5.5.1 The message was refused already"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        for (size_t step = 0; step < 3; step++) {
            struct peer *h = peer_new(STRANGER, "");
            h->step_bytes = step;
            peer_start(h);
            peer_feed(h, str_cstr(cases[i].before));
            peer_heard(h);
            const char *text = peer_say(h, "BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
            assert_starts(text, cases[i].reply);
            assert_non_null(strstr(text, "\r\n250 2.0.0 OK\r\n"));
            assert_int_equal(h->closes, 0);
            assert_int_equal(h->commits, 0);
            peer_free(h);
        }
    }
}

static void test_a_chunk_without_a_known_end_closes(void **state)
{
    static const char *const bad[] = {
        "BDAT\r\n",       "BDAT x\r\n",     "BDAT 1 LATE\r\n", "BDAT 1 LAST LAST\r\n", "BDAT -1\r\n",
        "BDAT 1\x01\r\n", "BDAT 1LAST\r\n", "BDAT LAST\r\n",   "BDAT 0x10\r\n"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct peer *h = peer_at_chunk(STRANGER, "");
        assert_says(h, bad[i], "501 5.5.4 Write BDAT");
        assert_int_equal(h->closes, 1);
        assert_string_equal(peer_say(h, "NOOP\r\n"), "");
        peer_free(h);
    }
}

static void test_too_big(void **state)
{
    struct peer *h = peer_at_chunk(STRANGER, "limits: { message_size: 1000, header_size: 1024 }\n");
    char chunk[700];
    memset(chunk, 'x', sizeof chunk);
    peer_feed(h, STR("BDAT 600\r\n"));
    peer_feed(h, str_of(chunk, 600));
    assert_starts(peer_heard(h), "250 ");
    peer_feed(h, STR("BDAT 600 LAST\r\n"));
    peer_feed(h, str_of(chunk, 600));
    assert_starts(peer_heard(h), "552 5.3.4 ");
    assert_int_equal(h->aborts, 1);
    assert_int_equal(h->commits, 0);
    assert_says(h, "MAIL FROM:<a@b.example>\r\n", "250 2.1.0"); /* LAST was the end of it */
    peer_say(h, "RCPT TO:<bob@example.com>\r\n");
    assert_says(h, "BDAT 18446744073709551616 LAST\r\n", "552 5.3.4 "); /* not waited for */
    assert_int_equal(h->closes, 1);
    peer_free(h);
}

static void test_bare_line_endings(void **state)
{
    struct peer *h = peer_at_chunk(STRANGER, "");
    assert_says(h, "BDAT 3\r\na\nb", "550 5.5.2 Bare CR or LF");
    assert_says(h, "BDAT 2 LAST\r\n\r\n", "503 5.5.1 The message was refused already");
    assert_says(h, "RSET\r\n", "250 ");
    peer_say(h, "MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\n");
    assert_says(h, "BDAT 8 LAST\r\na\r\n.\nb\r\n", "550 5.5.2 Bare CR or LF");
    assert_int_equal(h->commits, 0);
    peer_free(h);

    h = peer_at_chunk(TRUSTED, "line_endings: { trusted: normalise }\n");
    assert_says(h, "BDAT 9 LAST\r\na\n.\r\nb\rc\n", "250 2.0.0 OK: queued as ");
    assert_null(strstr(h->body, "\r\n.\r\n"));
    assert_starts(h->body, "a\r\n..\r\nb\r\nc\r\n");
    peer_free(h);
}

static void test_no_space(void **state)
{
    struct peer *h = peer_at_chunk(STRANGER, "");
    h->begin_err = ERR_FULL;
    assert_says(h, "BDAT 6 LAST\r\nQUIT\r\n", "452 4.3.1 ");
    h->begin_err = 0;
    assert_says(h, "BDAT 3 LAST\r\nabc", "250 2.0.0 OK: queued as ");
    peer_free(h);
}

static void test_binary_is_refused_and_eight_bits_are_kept(void **state)
{
    struct peer *h = peer_new(STRANGER, "");
    peer_start(h);
    peer_say(h, "EHLO c.example\r\n");
    assert_says(h, "MAIL FROM:<a@b.example> BODY=BINARYMIME\r\n", "555 5.6.1 BINARYMIME");
    peer_say(h, "MAIL FROM:<a@b.example> BODY=8BITMIME\r\nRCPT TO:<bob@example.com>\r\n");
    assert_says(h, "BDAT 3 LAST\r\n\xc3\xa4\n", "550 5.5.2 ");
    peer_say(h, "MAIL FROM:<a@b.example> BODY=8BITMIME\r\nRCPT TO:<bob@example.com>\r\n");
    assert_says(h, "BDAT 2 LAST\r\n\xc3\xa4", "250 2.0.0 OK: queued as ");
    assert_int_equal(h->envelope.body, BODY_8BITMIME);
    peer_free(h);
}

static void test_time_and_end_of_input_in_a_chunk(void **state)
{
    struct peer *h = peer_at_chunk(STRANGER, "");
    peer_feed(h, STR("BDAT 10 LAST\r\nabc"));
    assert_true(smtpd_timeout_ms(h->s) > 0);
    smtpd_eof(h->s, false);
    assert_int_equal(h->closes, 1);
    assert_int_equal(h->aborts, 1);
    assert_int_equal(h->commits, 0);
    peer_free(h);

    h = peer_new(STRANGER, "");
    peer_start(h);
    peer_feed(h, STR("BDAT 10 LAST\r\nabc"));
    assert_true(smtpd_timeout_ms(h->s) > 0);
    smtpd_timeout(h->s);
    assert_int_equal(h->closes, 1);
    peer_free(h);
}

/* Octets that nobody wants keep a session no longer than those of a message. */
static void test_a_refused_chunk_takes_too_long(void **state)
{
    struct peer *h = peer_new(STRANGER, "timeouts: { data_total: 10s }\n");
    peer_start(h);
    peer_say(h, "EHLO c.example\r\nBDAT 1000000\r\n");
    h->now_ms += 10000;
    assert_string_equal(peer_say(h, "x"), "");
    h->now_ms -= 20000; /* the wall clock was set */
    assert_string_equal(peer_say(h, "x"), "");
    h->now_ms += 20001;
    assert_says(h, "x", "421 4.4.2");
    assert_int_equal(h->why, CLOSE_timeout);
    peer_free(h);
}

/* They cost the client nothing and bring nothing. */
static void test_empty_chunks_are_junk(void **state)
{
    struct peer *h = peer_at_chunk(STRANGER, "limits: { junk_commands: 5, errors: 3 }\n");
    for (unsigned i = 0; i < 7; i++)
        assert_says(h, "BDAT 0\r\n", "250 2.0.0");
    peer_say(h, "BDAT 0\r\n");
    assert_int_equal(h->why, CLOSE_errors);
    assert_int_equal(h->closes, 1);
    peer_free(h);
    h = peer_at_chunk(EDGE, "limits: { junk_commands: 5, errors: 3 }\n");
    for (unsigned i = 0; i < 20; i++)
        assert_says(h, "BDAT 0\r\n", "250 2.0.0");
    assert_says(h, "BDAT 0 LAST\r\n", "250 2.0.0 OK: queued");
    peer_free(h);
}

static void test_hidden_extensions(void **state)
{
    struct peer *h = peer_new(STRANGER, "hide: { stranger: [chunking, SIZE, SMTPUTF8, 8BITMIME, PIPELINING, "
                                        "LIMITS, ENHANCEDSTATUSCODES] }\n");
    peer_start(h);
    peer_heard(h);
    assert_string_equal(peer_say(h, "EHLO c.example\r\n"), "250 mx.example.com greets [198.51.100.7]\r\n");
    assert_says(h, "BDAT 6 LAST\r\nQUIT\r\n", "502 5.5.1 ");
    assert_says(h, "MAIL FROM:<a@b.example> SIZE=1\r\n", "555 5.5.4 ");
    assert_says(h, "MAIL FROM:<a@b.example> BODY=8BITMIME\r\n", "555 5.5.4 ");
    assert_says(h, "MAIL FROM:<a@b.example> SMTPUTF8\r\n", "555 5.5.4 ");
    assert_says(h, "MAIL FROM:<a@b.example>\r\n", "250 2.1.0 ");
    peer_free(h);

    h = peer_new(EDGE,
                 "hide: { stranger: [CHUNKING] }\nlimits: { recipients: 321, messages_per_session: 7 }\n");
    peer_start(h);
    const char *text = peer_say(h, "EHLO c.example\r\n");
    assert_non_null(strstr(text, "\r\n250-CHUNKING\r\n"));
    assert_non_null(strstr(text, "250-LIMITS RCPTMAX=321\r\n")); /* MAILMAX does not hold for the edge */
    peer_free(h);

    h = peer_new(STRANGER, "limits: { recipients: 321, messages_per_session: 7 }\n");
    peer_start(h);
    assert_non_null(strstr(peer_say(h, "EHLO c.example\r\n"), "250-LIMITS RCPTMAX=321 MAILMAX=7\r\n"));
    peer_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_become_one_message),
        cmocka_unit_test(test_each_chunk_has_its_reply),
        cmocka_unit_test(test_rset_forgets_the_chunks),
        cmocka_unit_test(test_refused_chunks_are_no_commands),
        cmocka_unit_test(test_a_chunk_without_a_known_end_closes),
        cmocka_unit_test(test_too_big),
        cmocka_unit_test(test_bare_line_endings),
        cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_binary_is_refused_and_eight_bits_are_kept),
        cmocka_unit_test(test_time_and_end_of_input_in_a_chunk),
        cmocka_unit_test(test_a_refused_chunk_takes_too_long),
        cmocka_unit_test(test_empty_chunks_are_junk),
        cmocka_unit_test(test_hidden_extensions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
