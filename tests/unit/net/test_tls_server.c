/* What a server decides: which certificate, whose ticket, who a client is. The client is the library's own.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/sha.h>

#include "core/clock.h"
#include "net/tls_priv.h"
#include "tests/unit/net/certs.h"

static char directory[64];
static struct cert first_ec, first_rsa, second_ec, ca, client_good, client_other, client_ended;

static str_t path_of(const char *name)
{
    static char paths[8][PATH_MAX];
    static unsigned turn;
    char *p = paths[turn++ % COUNT_OF(paths)];
    snprintf(p, PATH_MAX, "%s/%s", directory, name);
    return str_cstr(p);
}

static const struct {
    const char *name;
    struct cert *cert;
    struct cert_spec spec;
} made[] = {
    {"first-ec", &first_ec, {.names = "DNS:gw.example.test,DNS:*.wild.test"}},
    {"first-rsa", &first_rsa, {.rsa_bits = 2048, .names = "DNS:gw.example.test,DNS:*.wild.test"}},
    {"second-ec", &second_ec, {.names = "DNS:Second.Example.test", .ends_in_s = 3600}},
    {"ca", &ca, {.is_ca = true}},
    {"client-good", &client_good, {.names = "DNS:edge.example.test", .by = &ca}},
    {"client-other", &client_other, {.names = "DNS:edge.example.test"}}, /* signed by itself */
    {"client-ended", &client_ended, {.names = "DNS:edge.example.test", .by = &ca, .ends_in_s = -3600}},
};

static str_t file_of(const char *name, const char *what)
{
    char text[64];
    snprintf(text, sizeof text, "%s-%s.pem", name, what);
    return path_of(text);
}

static int setup(void **state)
{
    snprintf(directory, sizeof directory, "/tmp/postern-tls-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    for (size_t i = 0; i < COUNT_OF(made); i++) {
        *made[i].cert = cert_make(&made[i].spec);
        cert_write(made[i].cert, file_of(made[i].name, "cert").p, file_of(made[i].name, "key").p);
    }
    return 0;
}

static int teardown(void **state)
{
    for (size_t i = 0; i < COUNT_OF(made); i++) {
        unlink(file_of(made[i].name, "cert").p);
        unlink(file_of(made[i].name, "key").p);
        cert_free(made[i].cert);
    }
    return rmdir(directory);
}

static struct tls_context *server_of(const char *names)
{
    char text[256];
    struct sbuf error = SBUF_ON(text);
    struct tls_context *t;
    str_t name, rest = str_cstr(names);
    assert_int_equal(tls_context_server(&t, &error), 0);
    while (rest.n) {
        char one[32];
        str_cut(rest, ' ', &name, &rest);
        snprintf(one, sizeof one, STR_FMT, STR_ARG(name));
        assert_int_equal(tls_context_add_identity(t, file_of(one, "cert"), file_of(one, "key"), &error), 0);
    }
    return t;
}

/* --- a client --- */

struct client {
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *in, *out;
    struct tls_session *server;
    err_t server_err;
};

static SSL_SESSION *got_session;

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION_free(got_session);
    got_session = session;
    return 1;
}

static void client_open(struct client *c, uint16_t version, const char *name)
{
    c->ctx = SSL_CTX_new(TLS_method());
    assert_true(SSL_CTX_set_min_proto_version(c->ctx, version) &&
                SSL_CTX_set_max_proto_version(c->ctx, version));
    SSL_CTX_set_verify(c->ctx, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_CLIENT);
    SSL_CTX_sess_set_new_cb(c->ctx, keep_session);
    c->ssl = SSL_new(c->ctx);
    c->in = BIO_new(BIO_s_mem());
    c->out = BIO_new(BIO_s_mem());
    SSL_set_bio(c->ssl, c->in, c->out);
    SSL_set_connect_state(c->ssl);
    if (name)
        assert_true(SSL_set_tlsext_host_name(c->ssl, name));
}

static void client_run(struct client *c, struct tls_context *server)
{
    uint8_t byte;
    assert_int_equal(tls_session_create(&c->server, server, STR_NONE), 0);
    c->server_err = ERR_PENDING;
    for (int round = 0; round < 6; round++) {
        const uint8_t *bytes;
        size_t n;
        if (SSL_in_init(c->ssl))
            (void)SSL_do_handshake(c->ssl);
        else
            (void)SSL_read(c->ssl, &byte, 1); /* takes tickets */
        assert_true(BIO_mem_contents(c->out, &bytes, &n));
        assert_int_equal(tls_feed(c->server, bytes, n), 0);
        BIO_reset(c->out);
        if (c->server_err == ERR_PENDING) {
            c->server_err = tls_handshake(c->server);
            if (!c->server_err) /* the library sends the tickets of 1.3 with the first words */
                assert_int_equal(tls_write(c->server, "250", 3), 0);
        }
        str_t answer = tls_output(c->server);
        if (answer.n)
            BIO_write(c->in, answer.p, (int)answer.n);
        tls_output_taken(c->server, answer.n);
    }
}

static void client_close(struct client *c)
{
    tls_session_destroy(c->server);
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
}

/* --- certificates --- */

static void certificate_by_name_and_key(void **state)
{
    static const struct {
        const char *have, *name;
        uint16_t version;
        const char *ciphers;    /* of 1.2 */
        const char *algorithms; /* NULL: all */
        const struct cert *got;
    } cases[] = {
        {"first-ec", NULL, TLS1_3_VERSION, NULL, NULL, &first_ec},
        {"first-rsa first-ec", NULL, TLS1_3_VERSION, NULL, NULL, &first_ec},
        {"first-ec first-rsa", NULL, TLS1_3_VERSION, NULL, "rsa_pss_rsae_sha256", &first_rsa},
        {"first-ec first-rsa", NULL, TLS1_2_VERSION, NULL, NULL, &first_ec},
        {"first-ec first-rsa", NULL, TLS1_2_VERSION, "ECDHE-RSA-AES128-GCM-SHA256", NULL, &first_rsa},
        {"first-ec first-rsa", NULL, TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256", NULL, &first_ec},
        {"first-rsa second-ec", NULL, TLS1_3_VERSION, NULL, NULL, &first_rsa}, /* the first's name */
        {"first-rsa second-ec", "nobody.test", TLS1_3_VERSION, NULL, NULL, &first_rsa},
        {"first-rsa second-ec", "second.example.TEST", TLS1_3_VERSION, NULL, NULL, &second_ec},
        {"second-ec first-rsa first-ec", "gw.example.test", TLS1_3_VERSION, NULL, NULL, &first_ec},
        {"second-ec first-rsa", "a.wild.test", TLS1_3_VERSION, NULL, NULL, &first_rsa},
        {"second-ec first-rsa", "a.b.wild.test", TLS1_3_VERSION, NULL, NULL, &second_ec},
        {"second-ec first-rsa", "wild.test", TLS1_3_VERSION, NULL, NULL, &second_ec},
        /* better a certificate of another name than none that it can use */
        {"first-rsa second-ec", "second.example.test", TLS1_2_VERSION, "ECDHE-RSA-AES128-GCM-SHA256", NULL,
         &first_rsa},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct tls_context *server = server_of(cases[i].have);
        struct client c;
        client_open(&c, cases[i].version, cases[i].name);
        if (cases[i].ciphers)
            assert_true(SSL_set_strict_cipher_list(c.ssl, cases[i].ciphers));
        if (cases[i].algorithms) {
            uint16_t pss = SSL_SIGN_RSA_PSS_RSAE_SHA256;
            assert_true(SSL_set_verify_algorithm_prefs(c.ssl, &pss, 1));
        }
        client_run(&c, server);
        if (c.server_err)
            fail_msg("case %zu: %s", i, tls_error_text(c.server));
        X509 *x = SSL_get_peer_certificate(c.ssl);
        assert_non_null(x);
        if (X509_cmp(x, cases[i].got->x))
            fail_msg("case %zu: another certificate", i);
        X509_free(x);
        assert_string_equal(tls_session_info(c.server)->server_name, cases[i].name ? cases[i].name : "");
        client_close(&c);
        tls_context_unref(server);
    }
}

static void a_context_without_certificates_fails_politely(void **state)
{
    struct tls_context *server = server_of("");
    struct client c;
    client_open(&c, TLS1_3_VERSION, NULL);
    client_run(&c, server);
    assert_int_equal(c.server_err, ERR_TLS);
    client_close(&c);
    tls_context_unref(server);
}

static void short_rsa_keys_are_refused(void **state)
{
    struct cert c = cert_make(&(struct cert_spec){.rsa_bits = 1024});
    char text[256] = "";
    struct sbuf error = {text, 0, sizeof text - 1, false};
    struct tls_context *t = server_of("");
    cert_write(&c, path_of("short-cert.pem").p, path_of("short-key.pem").p);
    assert_int_equal(tls_context_add_identity(t, path_of("short-cert.pem"), path_of("short-key.pem"), &error),
                     ERR_CONFIG);
    assert_non_null(strstr(text, "1024 bits is too short"));
    unlink(path_of("short-cert.pem").p);
    unlink(path_of("short-key.pem").p);
    cert_free(&c);
    tls_context_unref(t);
}

static void expiry(void **state)
{
    struct tls_context *t = server_of("first-ec second-ec");
    struct tls_expiry ends[4];
    assert_int_equal(tls_context_expiries(t, ends, COUNT_OF(ends)), 2);
    int64_t now_s = (int64_t)(clock_wall_ns() / NS_PER_S);
    assert_in_range(ends[0].not_after_s - now_s, 80000, 86400);
    assert_in_range(ends[1].not_after_s - now_s, 0, 3600);
    assert_true(str_ends(ends[1].file, STR("second-ec-cert.pem")));
    tls_context_unref(t);
}

/* --- tickets --- */

static void tickets_are_good_in_every_context(void **state)
{
    static const uint16_t versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        struct tls_context *one = server_of("first-ec"), *other = server_of("second-ec");
        struct client c;
        client_open(&c, versions[i], NULL);
        client_run(&c, one);
        assert_int_equal(c.server_err, 0);
        assert_false(tls_session_info(c.server)->resumed);
        client_close(&c);
        assert_non_null(got_session);
        client_open(&c, versions[i], NULL);
        assert_true(SSL_set_session(c.ssl, got_session));
        client_run(&c, other);
        assert_int_equal(c.server_err, 0);
        if (!tls_session_info(c.server)->resumed)
            fail_msg("not resumed, version %zu err %d", i, c.server_err);
        client_close(&c);
        SSL_SESSION_free(got_session);
        got_session = NULL;
        tls_context_unref(one);
        tls_context_unref(other);
    }
}

static void ticket_keys_turn_over(void **state)
{
    const uint64_t period = TICKET_PERIOD_S * NS_PER_S;
    struct ticket_keys k = {0};
    uint8_t first[SSL_TICKET_KEY_NAME_LEN], second[SSL_TICKET_KEY_NAME_LEN];
    bool old;
    assert_null(ticket_keys_find(&k, first, &old));
    ticket_keys_turn(&k, 1000);
    memcpy(first, k.now.name, sizeof first);
    ticket_keys_turn(&k, 1000 + period - 1);
    assert_memory_equal(first, k.now.name, sizeof first);
    assert_ptr_equal(ticket_keys_find(&k, first, &old), &k.now);
    assert_false(old);
    ticket_keys_turn(&k, 1000 + period);
    memcpy(second, k.now.name, sizeof second);
    assert_memory_not_equal(first, second, sizeof first);
    assert_ptr_equal(ticket_keys_find(&k, first, &old), &k.before);
    assert_true(old);
    ticket_keys_turn(&k, 1000 + 2 * period);
    assert_null(ticket_keys_find(&k, first, &old));
    assert_non_null(ticket_keys_find(&k, second, &old));
    ticket_keys_turn(&k, 1000 + 5 * period); /* nobody came for a long time */
    assert_null(ticket_keys_find(&k, second, &old));
}

/* --- who a client is --- */

static struct tls_pin pin_of(const struct cert *c, bool is_key)
{
    struct tls_pin pin = {.is_key = is_key};
    uint8_t *der = NULL;
    int n = is_key ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(c->x), &der) : i2d_X509(c->x, &der);
    SHA256(der, (size_t)n, pin.sha256);
    OPENSSL_free(der);
    return pin;
}

static void clients_by_certificate(void **state)
{
    static const struct {
        const struct cert *shown; /* NULL: none */
        enum tls_trust trust;
        int tag;
    } cases[] = {
        {NULL, TLS_TRUST_NONE, -1},
        {&client_good, TLS_TRUST_OK, 1},
        {&client_other, TLS_TRUST_UNKNOWN, -1},
        {&client_ended, TLS_TRUST_UNKNOWN, -1},
        {&second_ec, TLS_TRUST_PIN, 7},
        {&first_rsa, TLS_TRUST_PIN, 8},
    };
    char text[256];
    struct sbuf error = SBUF_ON(text);
    struct tls_context *server = server_of("first-ec"), *without = server_of("first-ec");
    struct tls_pin by_key = pin_of(&second_ec, true), whole = pin_of(&first_rsa, false);
    assert_int_equal(
        tls_context_add_client_name(server, file_of("ca", "cert"), STR("edge.example.test"), 1, &error), 0);
    assert_int_equal(tls_context_add_client_pin(server, &by_key, 7, &error), 0);
    assert_int_equal(tls_context_add_client_pin(server, &whole, 8, &error), 0);
    assert_int_equal(
        tls_context_add_client_name(server, file_of("ca", "cert"), STR("other.example.test"), 2, &error), 0);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
            struct client c;
            client_open(&c, (uint16_t)version, NULL);
            if (cases[i].shown)
                assert_true(SSL_use_certificate(c.ssl, cases[i].shown->x) &&
                            SSL_use_PrivateKey(c.ssl, cases[i].shown->key));
            client_run(&c, server);
            assert_int_equal(c.server_err, 0);
            assert_int_equal(tls_session_info(c.server)->trust, cases[i].trust);
            assert_int_equal(tls_session_info(c.server)->tag, cases[i].tag);
            assert_int_equal(tls_session_client_tag(c.server, server), cases[i].tag);
            assert_int_equal(tls_session_client_tag(c.server, without),
                             -1); /* a reload took the rules away */
            client_close(&c);
            if (!got_session)
                fail_msg("case %zu, version %x", i, version); /* a resumed session is the same client */
            client_open(&c, (uint16_t)version, NULL);
            assert_true(SSL_set_session(c.ssl, got_session));
            client_run(&c, server);
            if (!tls_session_info(c.server)->resumed)
                fail_msg("not resumed case %zu, version %x", i, version);
            assert_int_equal(tls_session_info(c.server)->tag, cases[i].tag);
            client_close(&c);
            SSL_SESSION_free(got_session);
            got_session = NULL;
        }
    }
    tls_context_unref(server);
    tls_context_unref(without);
}

static void pins_as_text(void **state)
{
#define HEX31 "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e"
    static const struct {
        const char *text;
        bool good, is_key;
    } cases[] = {
        {"spki:" HEX31 "ff", true, true},
        {"cert:" HEX31 "FF", true, false},
        {"cert:00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:"
         "ff",
         true, false},
        {"cert:" HEX31 ":ff", true, false},
        {"cert:" HEX31, false, false},
        {"cert:" HEX31 "ff00", false, false},
        {"cert:" HEX31 "f", false, false},
        {"cert:" HEX31 "fg", false, false},
        {"cert:" HEX31 "::ff", false, false},
        {"cert:" HEX31 "ff:", false, false},
        {"cert::" HEX31 "ff", false, false},
        {"sha256:" HEX31 "ff", false, false},
        {"spki:", false, false},
        {"", false, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct tls_pin pin;
        if ((tls_pin_parse(str_cstr(cases[i].text), &pin) == 0) != cases[i].good)
            fail_msg("%s", cases[i].text);
        if (!cases[i].good)
            continue;
        assert_int_equal(pin.is_key, cases[i].is_key);
        for (uint8_t n = 0; n < 32; n++)
            assert_int_equal(pin.sha256[n], n == 31 ? 0xff : n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(certificate_by_name_and_key),
        cmocka_unit_test(a_context_without_certificates_fails_politely),
        cmocka_unit_test(short_rsa_keys_are_refused),
        cmocka_unit_test(expiry),
        cmocka_unit_test(tickets_are_good_in_every_context),
        cmocka_unit_test(ticket_keys_turn_over),
        cmocka_unit_test(clients_by_certificate),
        cmocka_unit_test(pins_as_text),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
