/* One connection's way through the addresses of a target. */
#include <setjmp.h>
#include <stdarg.h>

#include "nexthop/attempt.h"
#include "nexthop/settings.h"

#include <cmocka.h>

static struct candidates three(void)
{
    struct candidates c = {.list = calloc(3, sizeof(struct candidate)), .count = 3, .generation = 1};
    assert_non_null(c.list);
    for (unsigned i = 0; i < 3; i++) {
        c.list[i].at.port = (uint16_t)(i + 1);
        snprintf(c.list[i].host, sizeof c.list[i].host, "mx%u.example", i + 1);
    }
    return c;
}

/* The test has a reference of its own: nothing is ever freed. */
static struct hop_access plain = {.refs = 1, .level = TLS_MAY};

static void test_each_address_once(void **state)
{
    struct candidates c = three();
    struct attempt t = {0};
    for (unsigned i = 1; i <= 3; i++) {
        assert_true(attempt_next(&t, &c, &plain, false, 1000));
        assert_int_equal(t.at.port, i);
        assert_string_equal(t.host, c.list[i - 1].host);
        assert_non_null(strrchr(t.relay, ':'));
        assert_ptr_equal(attempt_candidate(&t, &c), &c.list[i - 1]);
        assert_int_equal(attempt_failed(&t, &c, false, 1000), true);
    }
    assert_false(attempt_next(&t, &c, &plain, false, 1000));
    candidates_free(&c);
}

/* What failed lately is left alone by others, but for want of anything else. */
static void test_failed_ones_come_last(void **state)
{
    struct candidates c = three();
    struct attempt one = {0}, two = {0}, three_ = {0};
    assert_true(attempt_next(&one, &c, &plain, false, 1000));
    (void)attempt_failed(&one, &c, false, 1000);
    assert_true(attempt_next(&two, &c, &plain, false, 1000));
    assert_int_equal(two.at.port, 2);
    assert_int_equal(attempt_failed(&two, &c, true, 1000), false); /* a server was there */
    for (unsigned i = 0; i < 3; i++)
        c.list[i].failed_until_ms = 5000;
    assert_false(attempt_next(&three_, &c, &plain, false, 1000));
    assert_true(attempt_next(&three_, &c, &plain, true, 1000));
    assert_int_equal(three_.at.port, 1);
    candidates_free(&c);
}

static void test_a_new_list_is_tried_anew_but_not_for_ever(void **state)
{
    struct candidates c = three(), fresh;
    struct attempt t = {0};
    for (unsigned n = 0; n < ATTEMPT_TRIES_MAX; n++) {
        assert_true(attempt_next(&t, &c, &plain, false, 1000));
        assert_int_equal(t.at.port, 1);
        fresh = three();
        candidates_replace(&c, &fresh, 60, 1000);
        assert_null(fresh.list);
        assert_null(attempt_candidate(&t, &c));
        assert_int_equal(attempt_failed(&t, &c, false, 1000), false);
    }
    assert_false(attempt_next(&t, &c, &plain, false, 1000));
    candidates_free(&c);
}

static void test_how_long_addresses_serve(void **state)
{
    static const struct {
        uint32_t ttl_s;
        uint64_t fresh_ms;
    } rows[] = {{0, 30000}, {29, 30000}, {60, 60000}, {86400, 3600000}, {UINT32_MAX, 3600000}};
    struct candidates c = {0}, fresh;
    assert_false(candidates_fresh(&c, 0));
    assert_false(candidates_extend(&c, 0)); /* there are none */
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        fresh = three();
        candidates_replace(&c, &fresh, rows[i].ttl_s, 1000);
        assert_true(candidates_fresh(&c, 1000 + rows[i].fresh_ms - 1));
        assert_false(candidates_fresh(&c, 1000 + rows[i].fresh_ms));
    }
    assert_true(candidates_extend(&c, 5000000)); /* DNS does not answer */
    assert_true(candidates_fresh(&c, 5059999));
    assert_false(candidates_fresh(&c, 5060000));
    candidates_free(&c);
}

/* RFC 7435: where TLS is a bonus, one failed handshake costs no mail. Where it is required it is. */
static void test_tls(void **state)
{
    struct candidates c = three();
    struct tls_context *any = (struct tls_context *)(void *)&c; /* only compared */
    struct hop_access may = {.refs = 1, .level = TLS_MAY, .tls = any};
    struct hop_access require = {.refs = 1, .level = TLS_REQUIRE, .tls = any};
    struct attempt t = {0}, other = {0};
    assert_true(attempt_next(&t, &c, &may, false, 1000));
    assert_ptr_equal(t.tls, any);
    assert_int_equal(t.level, SMTPC_TLS_MAY);
    attempt_tls_failed(&t, &c, false);
    assert_true(t.tls_broke);
    assert_int_equal(attempt_failed(&t, &c, false, 1000), false);
    assert_true(attempt_next(&t, &c, &may, false, 1000));
    assert_int_equal(t.at.port, 1);
    assert_null(t.tls);
    assert_false(t.tls_broke);
    assert_true(attempt_next(&other, &c, &require, false, 1000));
    assert_ptr_equal(other.tls, any);
    assert_int_equal(other.level, SMTPC_TLS_REQUIRE);
    attempt_tls_failed(&other, &c, false);
    assert_false(other.tls_broke);
    attempt_end(&t);
    attempt_end(&other);
    assert_int_equal(may.refs + require.refs, 2);
    candidates_free(&c);
}

/* A server that stumbles over a ticket costs neither mail nor TLS: a full handshake comes first. */
static void test_a_full_handshake_before_clear_text(void **state)
{
    static const enum tls_level levels[] = {TLS_MAY, TLS_REQUIRE, TLS_VERIFY, TLS_PIN};
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        struct candidates c = three();
        struct tls_context *any = (struct tls_context *)(void *)&c; /* only compared */
        struct hop_access access = {.refs = 1, .level = levels[i], .tls = any};
        struct attempt t = {0};
        assert_true(attempt_next(&t, &c, &access, false, 1000));
        attempt_tls_failed(&t, &c, true);
        assert_int_equal(attempt_failed(&t, &c, false, 1000), false);
        assert_true(attempt_next(&t, &c, &access, false, 1000));
        assert_int_equal(t.at.port, 1);
        assert_ptr_equal(t.tls, any);
        attempt_tls_failed(&t, &c, false);
        assert_int_equal(t.tls_broke, levels[i] == TLS_MAY);
        attempt_end(&t);
        candidates_free(&c);
    }
}

/* --- a server that loses what is pipelined --- */

static void ignore_bytes(void *host, const char *p, size_t n)
{
}

static void ignore_outcome(void *host, struct smtpc_tx *tx, uint32_t index, bool accepted,
                           enum smtpc_stage at, const struct smtp_reply *reply)
{
}

static void ignore_tx(void *host, struct smtpc_tx *tx)
{
}

static void ignore(void *host)
{
}

/* An engine that has said MAIL, RCPT and DATA, or only MAIL. */
static struct smtpc *engine_with(const struct smtpc_options *o, const char *ehlo, struct smtpc_tx *tx)
{
    static const struct smtpc_host host = {
        .send = ignore_bytes, .rcpt_done = ignore_outcome, .tx_done = ignore_tx, .ready = ignore};
    struct smtpc *c;
    assert_int_equal(smtpc_create(&c, &host, NULL, o), 0);
    smtpc_start(c);
    smtpc_input(c, (const uint8_t *)"220 x\r\n", 7);
    smtpc_input(c, (const uint8_t *)ehlo, strlen(ehlo));
    smtpc_deliver(c, tx);
    return c;
}

static void test_pipelining(void **state)
{
    static const struct {
        const char *ehlo;
        bool timed_out, done, tells;
    } rows[] = {
        {"250-x\r\n250 PIPELINING\r\n", true, true, true},
        {"250-x\r\n250 PIPELINING\r\n", true, false, true},
        {"250-x\r\n250 PIPELINING\r\n", false, false, true},
        {"250-x\r\n250 PIPELINING\r\n", false, true, false},
        {"250 x\r\n", true, false, false}, /* one command was out */
    };
    const struct envelope_rcpt rcpt = {.address = STR("bob@example.com")};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct candidates c = three();
        struct attempt t = {0};
        struct smtpc_tx tx = {.sender = STR("a@example.net"), .rcpts = &rcpt, .rcpt_count = 1};
        assert_true(attempt_next(&t, &c, &plain, false, 1000));
        struct smtpc_options o = attempt_options(&t, "gw.example.com", false);
        struct smtpc *engine = engine_with(&o, rows[i].ehlo, &tx);
        assert_int_equal(attempt_pipelining_failed(&t, &c, engine, rows[i].timed_out, rows[i].done),
                         rows[i].tells);
        assert_false(
            attempt_pipelining_failed(&t, &c, engine, rows[i].timed_out, rows[i].done)); /* no news */
        smtpc_destroy(engine);
        attempt_end(&t);

        t = (struct attempt){0};
        assert_true(attempt_next(&t, &c, &plain, false, 1000));
        o = attempt_options(&t, "gw.example.com", false);
        engine = engine_with(&o, rows[i].ehlo, &tx);
        assert_int_equal(smtpc_has_pipelined(engine), !rows[i].tells && strstr(rows[i].ehlo, "PIPE") != NULL);
        smtpc_destroy(engine);
        attempt_end(&t);
        candidates_free(&c);
    }
}

static void test_time_left(void **state)
{
    assert_int_equal(stage_left_ms(1000, 1000, 500), 500);
    assert_int_equal(stage_left_ms(2500, 1000, 500), 500);
    assert_int_equal(stage_left_ms(2600, 1000, 500), 400); /* it drips, and gets nowhere */
    assert_int_equal(stage_left_ms(3000, 1000, 500), 0);
    assert_int_equal(stage_left_ms(9000, 1000, 500), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipelining),
        cmocka_unit_test(test_each_address_once),
        cmocka_unit_test(test_failed_ones_come_last),
        cmocka_unit_test(test_a_new_list_is_tried_anew_but_not_for_ever),
        cmocka_unit_test(test_how_long_addresses_serve),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_a_full_handshake_before_clear_text),
        cmocka_unit_test(test_time_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
