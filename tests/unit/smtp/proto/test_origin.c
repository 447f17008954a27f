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
    const char *formats;
};

static const struct line lines[] = {
    {"from helo.example (mail.example.org [198.51.100.7])\r\n\t(using TLSv1.3 with cipher X (256/256 "
     "bits))\r\n\t(No client certificate "
     "requested)\r\n\tby edge.example.net (Postfix) with ESMTPS id 4X\r\n\tfor <bob@example.com>; Tue, 24 "
     "Nov 2026 04:14:26 +0000",
     "198.51.100.7", "mail.example.org", "helo.example", "edge.example.net", "postfix"},
    {"from h (unknown [IPv6:2001:db8::7]) by e (Postfix) with SMTP id 1; d", "2001:db8::7", "unknown", "h",
     "e", "postfix"},
    {"from h (ident@n.example [198.51.100.7] (may be forged)) by e (8.17.1/8.17.1) with ESMTP id 2; d",
     "198.51.100.7", "n.example", "h", "e", "sendmail"},
    {"from n.example ([198.51.100.7]:35689 helo=h.example)\r\n\tby e with esmtps (TLS1.3) (Exim "
     "4.96)\r\n\t(envelope-from <a@b>) id 3; d",
     "198.51.100.7", "", "h.example", "e", "exim"},
    {"from n.example ([198.51.100.7] helo=[192.168.1.5]) by e with esmtp (Exim 4.96) id 3; d", "198.51.100.7",
     "", "[192.168.1.5]", "e", "exim"},
    {"from [198.51.100.7] (helo=h.example) by e with esmtp (Exim 4.96) id 3; d", "198.51.100.7", "",
     "h.example", "e", "exim"},
    {"from [198.51.100.7] by e with esmtp (Exim 4.96) id 3; d", "198.51.100.7", "", "[198.51.100.7]", "e",
     "exim"},
    {"from n.example ([2001:db8::7]) by e with esmtp (Exim 4.96) id 3; d", "2001:db8::7", "", "n.example",
     "e", "sendmail or exim"},
    {"from h.example (198.51.100.7) by E.example.net (10.0.0.3) with Microsoft SMTP\r\n Server "
     "(version=TLS1_2) id 15.1; d",
     "198.51.100.7", "", "h.example", "E.example.net", "exchange or qmail"},
    {"from h.example ([198.51.100.7])\r\n\tby e with ESMTP id 019; d", "198.51.100.7", "", "h.example", "e",
     "sendmail or exim"},
    {"from h (n [198.51.100.7])\r\n\tby e (OpenSMTPD) with ESMTPS id 1 (TLSv1.3:X:256:NO)\r\n\tfor "
     "<b@c>;\r\n\tTue",
     "198.51.100.7", "n", "h", "e", "opensmtpd"},
    {"from h (NXDOMAIN [198.51.100.7])\r\n\tby e (Haraka/3.1.6) with ESMTP id 1\r\n\tenvelope-from "
     "<>;\r\n\tTue",
     "198.51.100.7", "NXDOMAIN", "h", "e", "haraka"},
    {"from esa-c.example ([198.51.100.7])\r\n  by esa.example with ESMTP/TLS/ECDHE-RSA-AES256-GCM-SHA384; d",
     "198.51.100.7", "", "esa-c.example", "esa.example", "sendmail or exim"},
    {"from h (n [198.51.100.7]) by barracuda.example with ESMTP id 1 (version=TLSv1.2 bits=256); d",
     "198.51.100.7", "n", "h", "barracuda.example", "postfix or sendmail"},
    {"from h (n [198.51.100.7]) by mx0a.example (PPS) with ESMTPS id 1; d", "198.51.100.7", "n", "h",
     "mx0a.example", "postfix or sendmail"},
    {"from unknown (HELO h.example) (198.51.100.7) by e with SMTP; d", "198.51.100.7", "unknown", "h.example",
     "e", "qmail"},
    {"from n.example (HELO [10.0.0.1]) (me@198.51.100.7) by e with ESMTPS; d", "198.51.100.7", "n.example",
     "[10.0.0.1]", "e", "qmail"},
    {"from n.example (10.0.0.1@198.51.100.7) by e with SMTP; d", NULL},
    {"from n (HELO h) by e with SMTP; d", NULL},
    {"from n (HELO h (10.0.0.1)) (198.51.100.7) by e with SMTP; d", NULL},
    {"from n (HELO h) (x (198.51.100.7)) by e with SMTP; d", NULL},
    {"from h ([198.51.100.7]) by e (Postfix) with SMTP id 1; d", NULL}, /* it never writes so */
    {"from h (n [198.51.100.7] (may be forged)) by e (OpenSMTPD) id 1; d", NULL},
    /* What a client may try: in HELO, ident, reverse name. */
    {"from [127.0.0.1] (n.example [198.51.100.7]) by e (Postfix) with SMTP id 1; d", "198.51.100.7",
     "n.example", "[127.0.0.1]", "e", "postfix"},
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
        struct received_line got;
        char formats[64];
        struct sbuf b = SBUF_ON(formats);
        struct ip ip;
        err_t err = received_parse(str_cstr(l->value), &got);
        if (!err != !!l->ip)
            fail_msg("%s: %s", err ? "refused" : "taken", l->value);
        if (err)
            continue;
        assert_int_equal(ip_parse(str_cstr(l->ip), &ip), 0);
        if (!ip_eq(&ip, &got.client.ip))
            fail_msg("another address: %s", l->value);
        assert_str(str_of(got.client.name, got.client.name_n), l->name);
        assert_str(str_of(got.client.helo, got.client.helo_n), l->helo);
        assert_str(got.by, l->by);
        received_formats_put(got.formats, &b);
        assert_str(sbuf_view(&b), l->formats);
    }
}

/* What a product calls itself is told apart; what changes by itself is not. */
static void test_label(void **state)
{
    static const struct {
        const char *comment, *same;
        bool differs;
    } rows[] = {
        {"(Postfix)", "(Postfix, from x)", false},
        {"(PPS)", "(XYZ)", true},
        {"(8.17.1/8.17.1)", "(8.18.1/8.18.1)", false},
        {"(fe80::1%12)", "(10.1.2.3)", false},
        {"(PPS)", "", true},
        {"(PPS/1.2)", "(PPS/1.3)", false},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char text[2][128];
        struct received_line got[2];
        for (size_t k = 0; k < 2; k++) {
            snprintf(text[k], sizeof text[k], "from h (n [198.51.100.7]) by e %s id 1; d",
                     k ? rows[i].same : rows[i].comment);
            assert_int_equal(received_parse(str_cstr(text[k]), &got[k]), 0);
        }
        if ((got[0].label != got[1].label) != rows[i].differs)
            fail_msg("%s, %s", rows[i].comment, rows[i].same);
    }
}

static void test_by(void **state)
{
    assert_str(received_by(STR("by e.example (Postfix, from userid 0) id 1; d")), "e.example");
    assert_str(received_by(STR("from strange words (by x) BY e (c); by z")), "e");
    assert_str(received_by(STR("from by (n [198.51.100.7]) by e; d")), "e");
    assert_false(received_by(STR("from h (by e); d by e")).p);
    assert_false(received_by(STR("from h by (x) e")).p);
    assert_false(received_by(STR("")).p);
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
                                       cmocka_unit_test(test_label), cmocka_unit_test(test_by),
                                       cmocka_unit_test(test_find)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
