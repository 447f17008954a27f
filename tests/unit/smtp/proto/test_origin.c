/* XCLIENT, XFORWARD, and the Received: lines of servers in front of us, forged ones too. */
#include "../../core/unit.h"
#include "smtp/proto/origin.h"

static void test_xclient(void **state)
{
    struct client_attrs a;
    struct origin o = {0};
    assert_int_equal(
        xclient_parse(STR("NAME=mx.example.net ADDR=IPV6:2001:db8::7 PORT=25 PROTO=ESMTP HELO=a+2Bb"), &a),
        0);
    assert_int_equal(a.port, 25);
    assert_true(a.esmtp);
    origin_take(&o, &a);
    assert_str(str_of(o.name, o.name_n), "mx.example.net");
    assert_str(str_of(o.helo, o.helo_n), "a+b");
    assert_int_equal(xclient_parse(STR("NAME=[UNAVAILABLE] ADDR=[TEMPUNAVAIL]"), &a), 0);
    origin_take(&o, &a);
    assert_int_equal(o.name_n, 0);
    struct ip nobody = origin_no_address();
    assert_true(ip_eq(&o.ip, &nobody));
    assert_int_equal(xclient_parse(STR("HELO=a+0D+0A+00"), &a), 0);
    origin_take(&o, &a);
    assert_str(str_of(o.helo, o.helo_n), "a???");
    static const char *const bad[] = {"",
                                      "ADDR",
                                      "ADDR=",
                                      "ADDR=nonsense",
                                      "ADDR=2001:db8::7",
                                      "ADDR=IPV6:192.0.2.1",
                                      "ADDR=[::1]",
                                      "PORT=65536",
                                      "PROTO=LMTP",
                                      "IDENT=x",
                                      "NAME=a NAME=b",
                                      "NAME=a+2",
                                      "FOO=a",
                                      "DESTADDR=here",
                                      "DESTPORT=-1",
                                      "=x",
                                      "ADDR=192.0.2.1 x"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (xclient_parse(str_cstr(bad[i]), &a) != ERR_SYNTAX)
            fail_msg("taken: %s", bad[i]);
    assert_int_equal(xforward_parse(STR("IDENT=A1 SOURCE=REMOTE"), &a), 0);
    assert_int_equal(xforward_parse(STR("LOGIN=me"), &a), ERR_SYNTAX);
    assert_int_equal(xforward_parse(STR("SOURCE=HERE"), &a), ERR_SYNTAX);
}

struct line {
    const char *value, *ip, *name, *helo, *by; /* ip NULL: refused */
};

static const struct line lines[] = {
    {"from helo.example (mail.example.org [198.51.100.7])\r\n\t(using TLSv1.3 with cipher X (256/256 "
     "bits))\r\n\t(No client certificate "
     "requested)\r\n\tby edge.example.net (Postfix) with ESMTPS id 4X\r\n\tfor <bob@example.com>; Tue, 24 "
     "Nov 2026 04:14:26 +0000",
     "198.51.100.7", "mail.example.org", "helo.example", "edge.example.net"},
    {"from h (unknown [IPv6:2001:db8::7]) by e (Postfix) with SMTP id 1; d", "2001:db8::7", "unknown", "h",
     "e"},
    {"from h (ident@n.example [198.51.100.7] (may be forged)) by e (8.17.1/8.17.1) with ESMTP id 2; d",
     "198.51.100.7", "n.example", "h", "e"},
    {"from n.example ([198.51.100.7]:35689 helo=h.example)\r\n\tby e with esmtps (TLS1.3) (Exim "
     "4.96)\r\n\t(envelope-from <a@b>) id 3; d",
     "198.51.100.7", "", "h.example", "e"},
    {"from n.example ([198.51.100.7] helo=[192.168.1.5]) by e with esmtp (Exim 4.96) id 3; d", "198.51.100.7",
     "", "[192.168.1.5]", "e"},
    {"from [198.51.100.7] (helo=h.example) by e with esmtp (Exim 4.96) id 3; d", "198.51.100.7", "",
     "h.example", "e"},
    {"from [198.51.100.7] by e with esmtp (Exim 4.96) id 3; d", "198.51.100.7", "", "[198.51.100.7]", "e"},
    {"from n.example ([2001:db8::7]) by e with esmtp (Exim 4.96) id 3; d", "2001:db8::7", "", "n.example",
     "e"},
    {"from h.example (198.51.100.7) by E.example.net (10.0.0.3) with Microsoft SMTP\r\n Server "
     "(version=TLS1_2) id 15.1; d",
     "198.51.100.7", "", "h.example", "E.example.net"},
    {"from h.example ([198.51.100.7])\r\n\tby e with ESMTP id 019; d", "198.51.100.7", "", "h.example", "e"},
    /* What a client may try: in HELO, ident, reverse name. */
    {"from [127.0.0.1] (n.example [198.51.100.7]) by e (Postfix) with SMTP id 1; d", "198.51.100.7",
     "n.example", "[127.0.0.1]", "e"},
    {"from [127.0.0.1] (helo=x@n.example [198.51.100.7]) by e (8.17/8.17) id 1; d", NULL},
    {"from h ([10.0.0.1]@n.example [198.51.100.7]) by e (8.17/8.17) id 1; d", NULL},
    {"from h (x [10.0.0.1] [198.51.100.7]) by e (8.17/8.17) id 1; d", NULL},
    {"from h ([10.0.0.1] [198.51.100.7]) by e id 1; d", NULL},
    {"from h by e (n.example [198.51.100.7]) by e2 id 1; d", NULL},
    {"from h x (n.example [198.51.100.7]) by e id 1; d", NULL},
    {"from (n [10.0.0.1]) by e id 1; d", NULL},
    {"from \"h (n [10.0.0.1]) by e\" (n [198.51.100.7]) by e id 1; d", NULL},
    {"from h (n\\) [198.51.100.7]) by e id 1; d", NULL},
    {"from h (n [198.51.100.7] by e id 1; d", NULL},
    {"from h (n [198.51.100.7]); by e id 1", NULL},
    {"from h (n [198.51.100.700]) by e; d", NULL},
    {"from h (n [198.51.100.7]:70000) by e; d", NULL},
    {"from h () by e; d", NULL},
    {"from h by e; d", NULL},
    {"by e (Postfix, from userid 1000) id 1; d", NULL},
    {"from h (n [198.51.100.7]) by (e) x; d", NULL},
    {"from h (n [198.51.100.7]) by; d", NULL},
    {"", NULL},
};

static void test_received(void **state)
{
    for (size_t i = 0; i < COUNT_OF(lines); i++) {
        const struct line *l = &lines[i];
        struct origin o;
        struct ip ip;
        str_t by = STR_NONE;
        err_t err = received_parse(str_cstr(l->value), &o, &by);
        if (!err != !!l->ip)
            fail_msg("%s: %s", err ? "refused" : "taken", l->value);
        if (err)
            continue;
        assert_int_equal(ip_parse(str_cstr(l->ip), &ip), 0);
        if (!ip_eq(&ip, &o.ip))
            fail_msg("another address: %s", l->value);
        assert_str(str_of(o.name, o.name_n), l->name);
        assert_str(str_of(o.helo, o.helo_n), l->helo);
        assert_str(by, l->by);
    }
}

static void test_find(void **state)
{
    str_t headers = STR("X-Spam: no\r\nReceived: one\r\n\tmore\r\nSubject: x\r\nreceived: "
                        "two\r\n\r\nReceived: three\r\n\r\n");
    assert_true(str_starts(received_find(headers, 0), STR("one\r\n\tmore")));
    assert_true(str_starts(received_find(headers, 1), STR("two")));
    assert_false(received_find(headers, 2).p); /* that is text */
    assert_false(received_find(STR("Received: cut off\r\n"), 0).p);
    assert_false(received_find(STR("nonsense\r\nReceived: a\r\nX: y\r\n"), 0).p);
    assert_false(received_find(STR_NONE, 0).p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_xclient), cmocka_unit_test(test_received),
                                       cmocka_unit_test(test_find)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
