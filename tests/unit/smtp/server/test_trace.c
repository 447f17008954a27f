/* Received: and the headers that trusted clients leave out. */
#include "peer.h"

static void test_received(void **state)
{
    struct peer *h = peer_in_data(STRANGER, "");
    peer_say(h, "Subject: x\r\n\r\nbody\r\n.\r\n");
    assert_string_equal(h->trace, "Received: from client.example ([198.51.100.7])\r\n"
                                  "\tby mx.example.com with ESMTP id 128GGYHYYK08N\r\n"
                                  "\tfor <bob@example.com>;\r\n"
                                  "\tTue, 24 Nov 2026 04:14:26 +0000\r\n");
    peer_free(h);
}

struct with_case {
    const char *hello, *mail, *with;
    bool tls;
};

static void test_with_keywords(void **state)
{
    static const struct with_case cases[] = {
        {"HELO c\r\n", "MAIL FROM:<a@b.example>\r\n", " with SMTP id ", false},
        {"EHLO c\r\n", "MAIL FROM:<a@b.example>\r\n", " with ESMTP id ", false},
        {"EHLO c\r\n", "MAIL FROM:<a@b.example>\r\n",
         " with ESMTPS id 128GGYHYYK08N (version=TLSv1.3 cipher=X verify=none);", true},
        {"EHLO c\r\n", "MAIL FROM:<a@b.example> SMTPUTF8\r\n", " with UTF8SMTP id ", false},
        {"EHLO c\r\n", "MAIL FROM:<a@b.example> SMTPUTF8\r\n",
         " with UTF8SMTPS id 128GGYHYYK08N (version=TLSv1.3 cipher=X verify=none);", true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct peer *h = peer_new("2001:db8::7", "");
        h->tls_offered = true;
        peer_start(h);
        if (cases[i].tls) {
            peer_feed(h, STR("EHLO c\r\nSTARTTLS\r\n"));
            peer_secured(h, "X");
        }
        peer_feed(h, str_cstr(cases[i].hello));
        peer_feed(h, str_cstr(cases[i].mail));
        peer_feed(h, STR("RCPT TO:<bob@example.com>\r\nRCPT TO:<eve@example.com>\r\nDATA\r\nx\r\n.\r\n"));
        assert_starts(h->trace, "Received: from c ([IPv6:2001:db8::7])\r\n");
        assert_non_null(strstr(h->trace, cases[i].with));
        assert_null(strstr(h->trace, "for <")); /* two recipients: none is named */
        peer_free(h);
    }
}

static void test_helo_cannot_forge(void **state)
{
    struct peer *h = peer_new(STRANGER, "");
    peer_start(h);
    peer_feed(h, STR("EHLO a(b);<c>\"\\,@[x]\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n.\r\n"));
    assert_starts(h->trace, "Received: from a?b???c?????[x] ([198.51.100.7])\r\n");
    peer_free(h);
}

static void test_everything_at_its_longest(void **state)
{
    struct peer *h = peer_new("2001:db8:1111:2222:3333:4444:5555:6666", "");
    char text[2048], name[256];
    h->tls_offered = true;
    peer_start(h);
    peer_feed(h, STR("EHLO c\r\nSTARTTLS\r\n"));
    peer_secured(h, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256_AND_MORE");
    memset(name, 'l', 255);
    name[255] = '\0';
    snprintf(text, sizeof text,
             "EHLO %s\r\nMAIL FROM:<%s@example.com>\r\nRCPT TO:<%s@example.com>\r\nDATA\r\nx\r\n.\r\n", name,
             name, name);
    peer_feed(h, str_cstr(text));
    assert_int_equal(h->commits, 1);
    assert_non_null(strstr(h->trace, "+0000\r\n"));
    peer_free(h);
}

static void test_missing_headers_of_trusted_clients(void **state)
{
    static const struct {
        const char *client, *content;
        bool date, message_id;
    } cases[] = {
        {TRUSTED, "Subject: x\r\n\r\n.\r\n", true, true},
        {TRUSTED, "Subject: x\r\ndate: y\r\n\r\n.\r\n", false, true},
        {TRUSTED, "MESSAGE-ID: <z>\r\n\r\nDate: body\r\n.\r\n", true, false},
        {TRUSTED, "Date: y\r\nMessage-Id: <z>\r\n\r\n.\r\n", false, false},
        {TRUSTED, "From root Tue Nov 24 04:14:26 2026\r\nDate: y\r\n\r\n.\r\n", false, false},
        {TRUSTED, "\r\nno headers\r\n.\r\n", false, false},
        {TRUSTED, ".\r\n", false, false},
        {STRANGER, "Subject: x\r\n\r\n.\r\n", false, false},
        {EDGE, "Subject: x\r\n\r\n.\r\n", false, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct peer *h = peer_in_data(cases[i].client, "");
        peer_feed(h, str_cstr(cases[i].content));
        assert_int_equal(h->commits, 1);
        const char *date = strstr(h->trace, "\r\nDate: Tue, 24 Nov 2026 04:14:26 +0000\r\n");
        const char *message_id = strstr(h->trace, "\r\nMessage-ID: <128GGYHYYK08N@mx.example.com>\r\n");
        assert_int_equal(date != NULL, cases[i].date);
        assert_int_equal(message_id != NULL, cases[i].message_id);
        peer_free(h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_received),
        cmocka_unit_test(test_with_keywords),
        cmocka_unit_test(test_helo_cannot_forge),
        cmocka_unit_test(test_everything_at_its_longest),
        cmocka_unit_test(test_missing_headers_of_trusted_clients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
