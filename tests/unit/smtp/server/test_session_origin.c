/* Who the client really is: XCLIENT, XFORWARD, the edge's Received line. */
#include "peer.h"

#define EHLO    "EHLO edge.example.net\r\n"
#define MESSAGE "MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"

static void assert_real(const struct peer *h, enum origin_step step, const char *ip)
{
    struct ip want;
    assert_int_equal(h->envelope.real.step, step);
    assert_int_equal(ip_parse(str_cstr(ip), &want), 0);
    assert_true(ip_eq(&want, &h->envelope.real.ip));
}

static void test_offered_to_whom_it_is_allowed(void **state)
{
    struct peer *h = peer_new(EDGE, "");
    peer_start(h);
    peer_heard(h);
    const char *said = peer_say(h, EHLO);
    assert_non_null(strstr(said, "250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n"));
    assert_non_null(strstr(said, "250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n"));
    peer_free(h);
    h = peer_new(STRANGER, "");
    peer_start(h);
    peer_heard(h);
    assert_null(strstr(peer_say(h, EHLO), "XCLIENT"));
    assert_says(h, "XCLIENT ADDR=10.1.2.3\r\n", "550 5.7.0");
    assert_says(h, "XFORWARD ADDR=10.1.2.3\r\n", "550 5.7.0");
    peer_free(h);
    h = peer_new(EDGE, "hide: { edge: [XCLIENT] }\n");
    peer_start(h);
    peer_heard(h);
    assert_null(strstr(peer_say(h, EHLO), "XCLIENT"));
    assert_says(h, "XCLIENT ADDR=10.1.2.3\r\n", "550 5.7.0");
    peer_free(h);
    h = peer_new(STRANGER, "xclient_networks: [198.51.100.0/24]\n");
    peer_start(h);
    peer_heard(h);
    assert_says(h, "XCLIENT ADDR=203.0.113.9\r\n", "220 ");
    peer_free(h);
}

static void test_xclient_starts_again(void **state)
{
    struct peer *h = peer_new(EDGE, "");
    peer_start(h);
    peer_heard(h);
    peer_say(h, EHLO);
    assert_says(h, "XCLIENT ADDR=nonsense\r\n", "501 5.5.4");
    assert_says(h, "XCLIENT NAME=mail.example.org ADDR=" STRANGER " PORT=4321\r\n",
                "220 mx.example.com ESMTP");
    assert_int_equal(h->named_class, CLASS_STRANGER);
    assert_int_equal(h->named.port, 4321);
    assert_says(h, "MAIL FROM:<>\r\n", "503 5.5.1 Say EHLO");
    assert_non_null(strstr(peer_say(h, "EHLO client.example\r\n"), "greets [" STRANGER "]"));
    assert_says(h, "XCLIENT ADDR=10.1.2.3\r\n", "550 5.7.0"); /* it is a stranger now */
    assert_says(h, "MAIL FROM:<a@b.example>\r\n", "250 ");
    assert_says(h, "RCPT TO:<x@elsewhere.example>\r\n", "554 5.7.1");
    assert_says(h, "RCPT TO:<bob@example.com>\r\nDATA\r\n", "250 ");
    peer_say(h, "Subject: x\r\n\r\n.\r\n");
    assert_real(h, ORIGIN_XCLIENT, STRANGER);
    assert_starts(h->trace, "Received: from client.example (mail.example.org [198.51.100.7])\r\n\t(client "
                            "[198.51.100.7] by xclient)\r\n\tby ");
    peer_free(h);
}

static void test_xclient_not_in_a_transaction(void **state)
{
    struct peer *h = peer_new(EDGE, "");
    peer_start(h);
    peer_heard(h);
    peer_say(h, EHLO "MAIL FROM:<>\r\n");
    assert_says(h, "XCLIENT ADDR=" STRANGER "\r\n", "503 5.5.1");
    assert_says(h, "XFORWARD ADDR=" STRANGER "\r\n", "503 5.5.1");
    peer_free(h);
}

static void test_xclient_unavailable_is_a_stranger(void **state)
{
    struct peer *h = peer_new(EDGE, "");
    peer_start(h);
    peer_heard(h);
    assert_says(h, "XCLIENT ADDR=[UNAVAILABLE] HELO=h.example PROTO=ESMTP\r\n", "220 ");
    assert_int_equal(h->named_class, CLASS_STRANGER);
    assert_says(h, "MAIL FROM:<>\r\n", "250 "); /* HELO was told */
    peer_free(h);
}

static void test_xclient_may_be_turned_away(void **state)
{
    struct peer *h = peer_new(EDGE, "");
    h->named_reply = R_too_many_sessions;
    peer_start(h);
    peer_heard(h);
    assert_says(h, "XCLIENT ADDR=" STRANGER "\r\n", "421 4.7.0");
    assert_int_equal(h->why, CLOSE_limit);
    peer_free(h);
}

static void test_xforward_is_for_one_message(void **state)
{
    struct peer *h = peer_new(EDGE, "");
    peer_start(h);
    peer_heard(h);
    peer_say(h, EHLO);
    assert_says(h, "XFORWARD NAME=mail.example.org ADDR=" STRANGER "\r\n", "250 ");
    assert_says(h, "XFORWARD HELO=client.example PROTO=ESMTP SOURCE=REMOTE IDENT=4X\r\n", "250 ");
    peer_say(h, MESSAGE "Subject: x\r\n\r\n.\r\n");
    assert_real(h, ORIGIN_XFORWARD, STRANGER);
    assert_string_equal(h->real_helo, "client.example");
    assert_int_equal(h->envelope.client_class, CLASS_EDGE); /* for the log only */
    peer_say(h, MESSAGE "Subject: y\r\n\r\n.\r\n");
    assert_int_equal(h->envelope.real.step, ORIGIN_UNKNOWN);
    peer_free(h);
}

static void say_message(struct peer *h, const char *headers)
{
    peer_say(h, MESSAGE);
    peer_say(h, headers);
    peer_say(h, "Subject: x\r\n\r\n.\r\n");
}

static const char edges_line[] = "Received: from c.example (n.example [198.51.100.7])\r\n\tby "
                                 "edge.example.net (Postfix) with ESMTP id 1;\r\n\tTue\r\n";
static const char filters_line[] = "Received: from localhost (localhost [127.0.0.1])\r\n\tby "
                                   "edge.example.net (Postfix) with ESMTP id 2; Tue\r\n";
static const char forged_line[] =
    "Received: from c (n [203.0.113.66]) by edge.example.net (Postfix) id 3; Tue\r\n";
static const char others_line[] =
    "Received: from c (n [203.0.113.77]) by other.example (Postfix) id 3; Tue\r\n";

static void test_the_edges_own_line(void **state)
{
    static const struct {
        const char *first, *second, *third, *ip; /* NULL: unknown */
    } rows[] = {
        {edges_line, forged_line, "", STRANGER},
        {"X-Virus: no\r\n", edges_line, "", STRANGER},
        {filters_line, edges_line, "", STRANGER},
        {others_line, forged_line, "", NULL},
        {filters_line, others_line, "", NULL},
        {filters_line, filters_line, "", NULL},
        {"", "", "", NULL},
        {"X-A: b\r\nnonsense\r\n", edges_line, "", NULL},
    };
    for (size_t step = 0; step < 8; step += 7) {
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
            char headers[1024];
            struct peer *h = peer_new(EDGE, "");
            h->step_bytes = step;
            peer_start(h);
            peer_say(h, EHLO);
            snprintf(headers, sizeof headers, "%s%s%s", rows[i].first, rows[i].second, rows[i].third);
            say_message(h, headers);
            assert_int_equal(h->commits, 1);
            assert_real(h, rows[i].ip ? ORIGIN_RECEIVED : ORIGIN_UNKNOWN,
                        rows[i].ip ? rows[i].ip : "0.0.0.0");
            peer_free(h);
        }
    }
}

/* What the host is told of these lines, which it believes or not. */
static void test_kinds_of_lines(void **state)
{
    static const char made_there[] = "Received: by edge.example.net (Postfix, from userid 0) id 4; Tue\r\n";
    static const char long_line[] = "X-Long: ";
    static const struct {
        const char *first, *second;
        enum edge_line_kind kind;
        unsigned hops;
    } rows[] = {
        {edges_line, forged_line, EDGE_LINE_TELLS, 0},
        {filters_line, edges_line, EDGE_LINE_TELLS, 1},
        {others_line, edges_line, EDGE_LINE_OTHERS, 0},
        {"", "", EDGE_LINE_OTHERS, 0},
        {made_there, forged_line, EDGE_LINE_OWN, 0},
        {filters_line, others_line, EDGE_LINE_OWN, 0}, /* sent on the edge itself */
        {filters_line, made_there, EDGE_LINE_OWN, 0},
        {filters_line, "", EDGE_LINE_OWN, 0},
        {long_line, edges_line, EDGE_LINE_OWN, 0}, /* nobody looked that far */
    };
    static char headers[40000], filler[32768];
    memset(filler, 'x', sizeof filler - 1);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct peer *h = peer_new(EDGE, "limits: { header_size: 64KiB }\n");
        peer_start(h);
        peer_say(h, EHLO);
        bool is_long = rows[i].first == long_line;
        snprintf(headers, sizeof headers, "%s%s%s%s", rows[i].first, is_long ? filler : "",
                 is_long ? "\r\n" : "", rows[i].second);
        say_message(h, headers);
        assert_int_equal(h->commits, 1);
        if (h->edge_line.kind != rows[i].kind ||
            (rows[i].kind == EDGE_LINE_TELLS && h->edge_line.hops != rows[i].hops))
            fail_msg("row %zu: kind %d", i, h->edge_line.kind);
        peer_free(h);
    }
}

static void test_a_line_that_is_doubted_is_not_used(void **state)
{
    struct peer *h = peer_new(EDGE, "");
    h->doubts = true;
    peer_start(h);
    peer_say(h, EHLO);
    say_message(h, edges_line);
    assert_int_equal(h->edge_line.formats, 1u << RECEIVED_POSTFIX);
    assert_real(h, ORIGIN_UNKNOWN, "0.0.0.0");
    assert_null(strstr(h->trace, "198.51.100.7"));
    peer_free(h);
}

/* One message more of the real client, wherever it is learned who that is. */
static void test_shares_are_the_real_clients(void **state)
{
    static const char inner[] =
        "Received: from c.example (n.example [10.1.2.3]) by edge.example.net (Postfix) "
        "id 1; Tue\r\n";
    struct ip stranger;
    assert_int_equal(ip_parse(STR(STRANGER), &stranger), 0);
    struct peer *h = peer_new(EDGE, "");
    peer_start(h);
    peer_say(h, EHLO);
    say_message(h, others_line);
    say_message(h, inner); /* a trusted one */
    assert_int_equal(h->shares, 0);
    assert_int_equal(h->commits, 2);
    say_message(h, edges_line);
    assert_int_equal(h->shares, 1);
    assert_true(ip_eq(&h->share_of, &stranger));
    h->no_share = true;
    peer_heard(h);
    peer_say(h, MESSAGE);
    assert_says(h, edges_line, "");
    assert_says(h, "Subject: x\r\n\r\n.\r\n", "450 4.7.1");
    assert_int_equal(h->commits, 3);
    assert_int_equal(h->aborts, 1);
    say_message(h, others_line); /* the session goes on, and others have their own */
    assert_int_equal(h->commits, 4);
    peer_say(h, "XFORWARD ADDR=" STRANGER "\r\n");
    assert_says(h, "MAIL FROM:<>\r\n", "450 4.7.1");
    peer_say(h, "XFORWARD ADDR=[UNAVAILABLE]\r\n");
    assert_says(h, "MAIL FROM:<>\r\n", "250 ");
    peer_free(h);
    h = peer_new(STRANGER, "");
    h->no_share = true;
    peer_start(h);
    peer_say(h, EHLO);
    assert_says(h, "MAIL FROM:<>\r\n", "450 4.7.1");
    assert_true(ip_eq(&h->share_of, &stranger));
    peer_free(h);
}

static void test_the_edges_name_is_pinned(void **state)
{
    struct peer *h = peer_new(EDGE, "edge_names: [inner.example.net]\n");
    peer_start(h);
    peer_say(h, EHLO);
    say_message(h, edges_line);
    assert_int_equal(h->envelope.real.step, ORIGIN_UNKNOWN);
    say_message(h, "Received: from c ([198.51.100.7]) by INNER.example.net with ESMTP id 1; Tue\r\n");
    assert_real(h, ORIGIN_RECEIVED, STRANGER);
    peer_free(h);
}

static void test_others_lines_are_nobodys_word(void **state)
{
    struct peer *h = peer_new(STRANGER, "");
    peer_start(h);
    peer_say(h, EHLO);
    say_message(h, edges_line);
    assert_int_equal(h->envelope.real.step, ORIGIN_CLIENT);
    peer_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offered_to_whom_it_is_allowed),
        cmocka_unit_test(test_xclient_starts_again),
        cmocka_unit_test(test_xclient_not_in_a_transaction),
        cmocka_unit_test(test_xclient_unavailable_is_a_stranger),
        cmocka_unit_test(test_xclient_may_be_turned_away),
        cmocka_unit_test(test_xforward_is_for_one_message),
        cmocka_unit_test(test_the_edges_own_line),
        cmocka_unit_test(test_kinds_of_lines),
        cmocka_unit_test(test_a_line_that_is_doubted_is_not_used),
        cmocka_unit_test(test_shares_are_the_real_clients),
        cmocka_unit_test(test_the_edges_name_is_pinned),
        cmocka_unit_test(test_others_lines_are_nobodys_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
