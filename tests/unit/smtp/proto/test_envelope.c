/* tests/unit/smtp/proto/test_envelope.c: tests of smtp/proto/envelope.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp/proto/envelope.h"

static void round_trip(const struct envelope *e)
{
    char mem[1024];
    struct sbuf out = SBUF_ON(mem);
    struct envelope got;
    envelope_encode(e, &out);
    assert_false(out.overflow);
    assert_int_equal(envelope_decode(sbuf_view(&out), &got), 0);
    assert_true(str_eq(got.sender, e->sender) && got.sender.p);
    assert_true(str_eq(got.helo, e->helo) && !got.helo.p == !e->helo.p);
    assert_int_equal(got.body, e->body);
    assert_int_equal(got.smtputf8, e->smtputf8);
    assert_int_equal(got.is_dsn, e->is_dsn);
    assert_int_equal(got.dot_free, e->dot_free);
    assert_int_equal(got.client_class, e->client_class);
    assert_int_equal(got.ret, e->ret);
    assert_true(str_eq(got.envid, e->envid));
    assert_memory_equal(got.client.b, e->client.b, sizeof got.client.b);
}

static void test_round_trip(void **state)
{
    struct envelope e = {.sender = STR("a@b"), .helo = STR("mail.example.com"), .client_class = 2};
    for (size_t i = 0; i < sizeof e.client.b; i++)
        e.client.b[i] = (uint8_t)(i * 17);
    round_trip(&e);
    e.body = BODY_8BITMIME;
    e.smtputf8 = true;
    round_trip(&e);
    e.ret = RET_HDRS;
    e.envid = STR("a+2Bb");
    round_trip(&e);
    round_trip(&(struct envelope){.sender = STR(""), .is_dsn = true});
    round_trip(&(struct envelope){.sender = STR(""), .dot_free = true});
}

static void test_rcpt(void **state)
{
    char mem[64], big[64];
    struct sbuf out = SBUF_ON(mem);
    struct envelope_rcpt r = {.address = STR("\"a b\"@c")}, got;
    envelope_rcpt_encode(&r, &out);
    assert_int_equal(envelope_rcpt_decode(sbuf_view(&out), &got), 0);
    assert_true(str_eq(got.address, r.address));
    for (size_t n = 0; n < out.n; n++)
        assert_int_equal(envelope_rcpt_decode(str_of(out.p, n), &got), ERR_CORRUPT);
    out.n = 0;
    r.notify = NOTIFY_SUCCESS | NOTIFY_DELAY;
    r.orcpt = STR("rfc822;a+20b@c");
    envelope_rcpt_encode(&r, &out);
    assert_int_equal(envelope_rcpt_decode(sbuf_view(&out), &got), 0);
    assert_int_equal(got.notify, r.notify);
    assert_true(str_eq(got.orcpt, r.orcpt));
    memset(big, 'x', sizeof big);
    r.address = str_of(big, sizeof big);
    envelope_rcpt_encode(&r, &out);
    assert_true(out.overflow);
}

struct blob_case {
    str_t blob;
    err_t want;
};

static void test_decode(void **state)
{
    static const struct blob_case cases[] = {
        {STR(""), ERR_CORRUPT},
        {STR("\x01"), ERR_CORRUPT}, /* no sender */
        {STR("\x02\x01\0\0"), ERR_VERSION},
        {STR("\0\x01\0\0"), ERR_VERSION},
        {STR("\x01\x01\0\0"), 0},
        {STR("\x01\x01\0\0\x01\0\0"), ERR_CORRUPT}, /* twice */
        {STR("\x01\x01\x05\0abc"), ERR_CORRUPT},    /* cut */
        {STR("\x01\x01\0"), ERR_CORRUPT},
        {STR("\x01\x01\0\0\xF0\x02\0xy"), 0},             /* unknown, optional */
        {STR("\x01\x01\0\0\x70\x02\0xy"), ERR_VERSION},   /* unknown, not optional */
        {STR("\x01\x01\0\0\x02\x01\0\x02"), ERR_CORRUPT}, /* no such body type */
        {STR("\x01\x01\0\0\x02\0\0"), ERR_CORRUPT},
        {STR("\x01\x01\0\0\x03\x01\0\x04"), ERR_CORRUPT}, /* no such flag */
        {STR("\x01\x01\0\0\x87\x01\0\x03"), ERR_CORRUPT}, /* no such RET */
        {STR("\x01\x01\0\0\x85\x04\0\x7F\0\0\x01"), ERR_CORRUPT},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct envelope e;
        err_t err = envelope_decode(cases[i].blob, &e);
        if (err != cases[i].want)
            fail_msg("case %zu: %d", i, err);
    }
}

static void test_too_long_for_a_field(void **state)
{
    static char mem[UINT16_MAX + 100], sender[UINT16_MAX + 1];
    struct sbuf out = SBUF_ON(mem);
    memset(sender, 'x', sizeof sender);
    struct envelope e = {.sender = str_of(sender, sizeof sender)};
    envelope_encode(&e, &out);
    assert_true(out.overflow);
    out = SBUF_ON(mem);
    e.sender.n--;
    envelope_encode(&e, &out);
    assert_false(out.overflow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_rcpt),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_too_long_for_a_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
