/* The engine and recipients whose decision is not the policy's alone: those seen ahead, refused for good,
 * thrown away. */
#include <errno.h>

#include "peer.h"

/* RFC 2920: what is pipelined behind a recipient that is being decided is known early, once each, and
 * answered in its turn. */
static void test_recipients_ahead(void **state)
{
    struct peer *h = peer_new(STRANGER, "");
    h->hold_rcpt = true;
    peer_start(h);
    peer_say(h, "EHLO x\r\nMAIL FROM:<a@b.example>\r\n");
    peer_say(
        h, "RCPT TO:<a@example.com>\r\nRCPT TO:<B@EXAMPLE.com>\r\nrcpt to:<no@where.example>\r\n"
           "RCPT TO:<broken\r\nRCPT TO:<c@example.com>\r\nDATA\r\nRCPT TO:<d@example.com>\r\nRCPT TO:<e@exa");
    assert_string_equal(h->ahead, "B@example.com c@example.com ");
    smtpd_rcpt_decided(h->s, R_unknown_user, STR("AB12"));
    peer_pump(h);
    assert_string_equal(h->ahead, "B@example.com c@example.com ");
    assert_string_equal(peer_heard(h), "550 5.1.1 No such user here: AB12\r\n");
    smtpd_rcpt_decided(h->s, R_rcpt_ok, STR_NONE);
    peer_pump(h); /* the denied and the broken one, and c */
    smtpd_rcpt_decided(h->s, R_rcpt_temp, STR_NONE);
    peer_pump(h);
    const char *heard = peer_heard(h);
    for (const char *code = "250 554 501 450 354 "; *code; code += 4) {
        assert_memory_equal(heard, code, 4);
        heard = strchr(heard, '\n') + 1;
    }
    assert_string_equal(heard, "");
    peer_free(h);
}

/* The host takes no more for now: what it did not take comes again, and nothing twice that it took. */
static void test_no_further_ahead(void **state)
{
    struct peer *h = peer_new(STRANGER, "");
    h->hold_rcpt = true;
    h->ahead_max = 2;
    peer_start(h);
    peer_say(h, "EHLO x\r\nMAIL FROM:<a@b.example>\r\n"
                "RCPT TO:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<c@example.com>\r\n"
                "RCPT TO:<d@example.com>\r\n");
    assert_string_equal(h->ahead, "b@example.com c@example.com "); /* c was not taken */
    h->ahead_max = 0;
    smtpd_rcpt_decided(h->s, R_rcpt_ok, STR_NONE);
    peer_pump(h);
    assert_string_equal(h->ahead, "b@example.com c@example.com c@example.com d@example.com ");
    peer_settle(h);
    assert_int_equal(h->rcpts_asked, 4);
    peer_free(h);
}

/* The sender of our own probes: exists for whoever asks, and its mail goes nowhere. */
static void test_recipients_that_discard(void **state)
{
    struct peer *h = peer_new(STRANGER, "");
    peer_start(h);
    peer_say(h, "EHLO x\r\nMAIL FROM:<>\r\n");
    assert_starts(peer_say(h, "RCPT TO:<discard@elsewhere.example>\r\n"), "250 2.1.5 ");
    assert_starts(peer_say(h, "DATA\r\n"), "354 ");
    assert_starts(peer_say(h, "x\r\n.\r\n"), "250 2.0.0 OK: thrown away");
    assert_int_equal(h->commits, 0);
    assert_int_equal(h->aborts, 1);
    peer_say(h, "MAIL FROM:<>\r\nRCPT TO:<discard@elsewhere.example>\r\nRCPT "
                "TO:<bob@example.com>\r\nDATA\r\nx\r\n.\r\n");
    assert_int_equal(h->commits, 1);
    assert_int_equal(h->rcpt_count, 1);
    peer_free(h);
}

static void test_too_many_unknown_recipients(void **state)
{
    struct peer *h = peer_new(STRANGER, "");
    h->verdict = R_too_many_unknown;
    peer_start(h);
    peer_say(h, "EHLO x\r\nMAIL FROM:<a@b.example>\r\n");
    assert_starts(peer_say(h, "RCPT TO:<a@example.com>\r\n"), "421 4.7.0 ");
    assert_int_equal(h->closes, 1);
    assert_int_equal(h->why, CLOSE_harvest);
    peer_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recipients_ahead),
        cmocka_unit_test(test_no_further_ahead),
        cmocka_unit_test(test_recipients_that_discard),
        cmocka_unit_test(test_too_many_unknown_recipients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
