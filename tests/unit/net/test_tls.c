/* Two sessions talk to each other in memory; certificates are made here. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "net/tls.h"

static char directory[64];
static char error_text[1024];

/* One of a few names in the test's directory, as a path. */
static str_t path_of(const char *name)
{
    static char paths[8][PATH_MAX];
    static unsigned turn;
    char *p = paths[turn++ % COUNT_OF(paths)];
    snprintf(p, PATH_MAX, "%s/%s", directory, name);
    return str_cstr(p);
}

static struct sbuf fresh_error(void)
{
    memset(error_text, 0, sizeof error_text);
    return (struct sbuf){error_text, 0, sizeof error_text - 1, false};
}

static EVP_PKEY *make_key(void)
{
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    EVP_PKEY *key = EVP_PKEY_new();
    assert_non_null(ec);
    assert_true(EC_KEY_generate_key(ec));
    assert_true(EVP_PKEY_assign_EC_KEY(key, ec));
    return key;
}

static void write_identity(const char *cert_name, const char *key_name)
{
    EVP_PKEY *key = make_key();
    X509 *x = X509_new();
    assert_true(X509_set_version(x, 2));
    assert_true(ASN1_INTEGER_set(X509_get_serialNumber(x), 1));
    assert_non_null(X509_gmtime_adj(X509_get_notBefore(x), -3600));
    assert_non_null(X509_gmtime_adj(X509_get_notAfter(x), 86400));
    assert_true(X509_set_pubkey(x, key));
    X509_NAME *name = X509_get_subject_name(x);
    assert_true(
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0));
    assert_true(X509_set_issuer_name(x, name));
    char names[] = "DNS:mx.example.test,IP:192.0.2.1";
    X509_EXTENSION *san = X509V3_EXT_nconf_nid(NULL, NULL, NID_subject_alt_name, names);
    assert_non_null(san);
    assert_true(X509_add_ext(x, san, -1));
    X509_EXTENSION_free(san);
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);

    FILE *f = fopen(path_of(cert_name).p, "w");
    assert_non_null(f);
    assert_true(PEM_write_X509(f, x));
    fclose(f);
    f = fopen(path_of(key_name).p, "w");
    assert_non_null(f);
    assert_true(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL));
    fclose(f);
    X509_free(x);
    EVP_PKEY_free(key);
}

static void write_text(const char *name, const char *text)
{
    FILE *f = fopen(path_of(name).p, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int setup(void **state)
{
    snprintf(directory, sizeof directory, "/tmp/postern-tls-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    write_identity("cert.pem", "key.pem");
    write_identity("other-cert.pem", "other-key.pem");
    write_text("empty.pem", "");
    write_text("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    return 0;
}

static int teardown(void **state)
{
    static const char *const names[] = {"cert.pem",      "key.pem",   "other-cert.pem",
                                        "other-key.pem", "empty.pem", "garbage.pem"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        unlink(path_of(names[i]).p);
    return rmdir(directory);
}

/* --- a pair of sessions --- */

struct pair {
    struct tls_context *server_context, *client_context;
    struct tls_session *server, *client;
};

static struct pair pair_open(bool verify, str_t server_name)
{
    struct pair p;
    struct sbuf error = fresh_error();
    assert_int_equal(tls_context_server(&p.server_context, &error), 0);
    assert_int_equal(
        tls_context_add_identity(p.server_context, path_of("cert.pem"), path_of("key.pem"), &error), 0);
    assert_int_equal(
        tls_context_client(&p.client_context, &(struct tls_client_options){.verify = verify}, &error), 0);
    assert_int_equal(tls_session_create(&p.server, p.server_context, STR_NONE), 0);
    assert_int_equal(tls_session_create(&p.client, p.client_context, server_name), 0);
    return p;
}

static void pair_close(struct pair *p)
{
    tls_session_destroy(p->server);
    tls_session_destroy(p->client);
    tls_context_unref(p->server_context);
    tls_context_unref(p->client_context);
}

/* Moves all ciphertext that waits, in pieces of at most `piece` bytes; false when there was none. */
static bool move(struct tls_session *from, struct tls_session *to, size_t piece)
{
    bool moved = false;
    for (;;) {
        str_t out = tls_output(from);
        if (out.n == 0)
            return moved;
        size_t n = MIN(out.n, piece);
        assert_int_equal(tls_feed(to, (const uint8_t *)out.p, n), 0);
        tls_output_taken(from, n);
        moved = true;
        if (piece == 1) { /* every prefix of the stream is a state of its own */
            err_t err = tls_handshake(to);
            assert_true(err == 0 || err == ERR_PENDING);
        }
    }
}

/* Until both are done or one fails; the last results. */
static void shake_hands(struct pair *p, size_t piece, err_t *client, err_t *server)
{
    *client = *server = ERR_PENDING;
    for (int round = 0; round < 20; round++) {
        *client = tls_handshake(p->client);
        move(p->client, p->server, piece);
        *server = tls_handshake(p->server);
        move(p->server, p->client, piece);
        if (*client != ERR_PENDING && *server != ERR_PENDING)
            return;
    }
}

static void shake_hands_well(struct pair *p, size_t piece)
{
    err_t client, server;
    shake_hands(p, piece, &client, &server);
    assert_int_equal(client, 0);
    assert_int_equal(server, 0);
}

static void assert_text_arrives(struct tls_session *from, struct tls_session *to, str_t text, size_t piece)
{
    uint8_t got[256];
    assert_true(text.n <= sizeof got);
    assert_int_equal(tls_write(from, text.p, text.n), 0);
    move(from, to, piece);
    assert_int_equal(tls_read(to, got, sizeof got), text.n);
    assert_memory_equal(got, text.p, text.n);
    assert_int_equal(tls_read(to, got, sizeof got), 0);
}

/* --- tests --- */

static void test_talks(void **state)
{
    static const size_t pieces[] = {1, 5, 100, 100000};
    for (size_t i = 0; i < COUNT_OF(pieces); i++) {
        struct pair p = pair_open(false, STR("mx.example.test"));
        uint8_t byte;
        assert_int_equal(tls_read(p.server, &byte, 1), 0); /* before the handshake there is nothing */
        assert_int_equal(tls_write(p.server, "x", 1), ERR_TLS);
        shake_hands_well(&p, pieces[i]);
        const struct tls_info *info = tls_session_info(p.client);
        assert_string_equal(info->version, "TLSv1.3");
        assert_non_null(info->cipher);
        assert_int_equal(info->trust, TLS_TRUST_NONE);
        assert_text_arrives(p.client, p.server, STR("EHLO client.example.test\r\n"), pieces[i]);
        assert_text_arrives(p.server, p.client, STR("250 OK\r\n"), pieces[i]);
        pair_close(&p);
    }
}

static void test_close_notify(void **state)
{
    struct pair p = pair_open(false, STR_NONE);
    uint8_t got[16];
    shake_hands_well(&p, 1000);
    assert_int_equal(tls_write(p.client, "QUIT\r\n", 6), 0);
    tls_shutdown(p.client);
    move(p.client, p.server, 1000);
    assert_int_equal(tls_read(p.server, got, sizeof got), 6);
    assert_int_equal(tls_read(p.server, got, sizeof got), ERR_EOF);
    assert_int_equal(tls_read(p.server, got, sizeof got), ERR_EOF);
    /* The other direction still works. */
    assert_text_arrives(p.server, p.client, STR("221 bye\r\n"), 1000);
    tls_shutdown(p.server);
    tls_shutdown(p.server);
    move(p.server, p.client, 1000);
    assert_int_equal(tls_read(p.client, got, sizeof got), ERR_EOF);
    pair_close(&p);
}

static void test_big_transfer(void **state)
{
    enum { BYTES = 3 * 1024 * 1024 + 17 };
    struct pair p = pair_open(false, STR_NONE);
    uint8_t *sent = malloc(BYTES), *got = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++)
        sent[i] = (uint8_t)(i * 31 + (i >> 9));
    shake_hands_well(&p, 4096);
    assert_int_equal(tls_write(p.client, sent, BYTES), 0);
    size_t n = 0;
    for (;;) {
        str_t out = tls_output(p.client);
        if (out.n == 0)
            break;
        size_t piece = MIN(out.n, 16384);
        assert_int_equal(tls_feed(p.server, (const uint8_t *)out.p, piece), 0);
        tls_output_taken(p.client, piece);
        ptrdiff_t more;
        while ((more = tls_read(p.server, got + n, MIN(BYTES - n, 7000))) > 0)
            n += (size_t)more;
        assert_int_equal(more, 0);
    }
    assert_int_equal(n, BYTES);
    assert_memory_equal(sent, got, BYTES);
    free(sent);
    free(got);
    pair_close(&p);
}

static void test_garbage_instead_of_hello(void **state)
{
    static const struct {
        str_t bytes;
        const char *text;
    } cases[] = {
        {STR("GET / HTTP/1.0\r\n\r\n"), "http"},
        {STR("EHLO mail.example.test\r\nMAIL FROM:<>\r\n"), "version"},
        {STR("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"), ""},
        {STR("\x15\x03\x01\x00\x02\x02\x28"), "alert"},
        {STR("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80"), ""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct pair p = pair_open(false, STR_NONE);
        uint8_t got[8];
        assert_int_equal(tls_feed(p.server, (const uint8_t *)cases[i].bytes.p, cases[i].bytes.n), 0);
        assert_int_equal(tls_handshake(p.server), ERR_TLS);
        assert_true(tls_error_text(p.server)[0] != '\0');
        assert_non_null(strstr(tls_error_text(p.server), cases[i].text));
        assert_int_equal(tls_handshake(p.server), ERR_TLS); /* and stays so */
        assert_int_equal(tls_read(p.server, got, sizeof got), ERR_TLS);
        assert_int_equal(tls_write(p.server, "x", 1), ERR_TLS);
        tls_shutdown(p.server);
        pair_close(&p);
    }
}

static void test_damaged_record(void **state)
{
    struct pair p = pair_open(false, STR_NONE);
    uint8_t got[64], record[128];
    shake_hands_well(&p, 1000);
    assert_int_equal(tls_write(p.client, "hello", 5), 0);
    str_t out = tls_output(p.client);
    assert_true(out.n <= sizeof record);
    memcpy(record, out.p, out.n);
    record[out.n - 1] ^= 1;
    assert_int_equal(tls_feed(p.server, record, out.n), 0);
    assert_int_equal(tls_read(p.server, got, sizeof got), ERR_TLS);
    assert_true(tls_output(p.server).n > 0); /* the alert */
    move(p.server, p.client, 1000);
    assert_int_equal(tls_read(p.client, got, sizeof got), ERR_TLS);
    assert_non_null(strstr(tls_error_text(p.client), "alert"));
    pair_close(&p);
}

static void test_session_outlives_context(void **state)
{
    struct pair p = pair_open(false, STR_NONE);
    struct tls_context *held = tls_context_ref(p.server_context);
    tls_context_unref(held);
    tls_context_unref(p.server_context);
    tls_context_unref(p.client_context);
    p.server_context = p.client_context = NULL;
    shake_hands_well(&p, 100);
    pair_close(&p);
}

static void test_verification(void **state)
{
    static const struct {
        const char *store; /* in the test's directory; NULL: the system's */
        const char *name;
        bool good;
    } cases[] = {
        {NULL, "mx.example.test", false}, /* self-signed */
        {"other-cert.pem", "mx.example.test", false},
        {"empty.pem", "mx.example.test", false}, /* no store: nothing is trusted */
        {"cert.pem", "mx.example.test", true},
        {"cert.pem", "mx.example.test.", true},
        {"cert.pem", "MX.example.TEST", true},
        {"cert.pem", "mx2.example.test", false},
        {"cert.pem", "192.0.2.1", true},
        {"cert.pem", "192.0.2.2", false},
        {"cert.pem", "2001:db8::1", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        if (cases[i].store)
            setenv("SSL_CERT_FILE", path_of(cases[i].store).p, 1);
        else
            unsetenv("SSL_CERT_FILE");
        struct pair p = pair_open(true, str_cstr(cases[i].name));
        err_t client, server;
        shake_hands(&p, 1000, &client, &server);
        assert_int_equal(client, cases[i].good ? 0 : ERR_TLS);
        assert_int_equal(tls_session_info(p.client)->trust, cases[i].good ? TLS_TRUST_OK : TLS_TRUST_NONE);
        if (!cases[i].good) {
            assert_non_null(strstr(tls_error_text(p.client), "not trusted"));
            uint8_t got[8];
            if (!server)
                assert_int_equal(tls_read(p.server, got, sizeof got), ERR_TLS); /* the alert */
        }
        pair_close(&p);
    }
    unsetenv("SSL_CERT_FILE");
}

static void test_verification_needs_a_name(void **state)
{
    static const str_t names[] = {{NULL, 0}, {"", 0}, {".", 1}, {"mx\0.example.test", 16}};
    struct tls_context *t;
    struct tls_session *s;
    struct sbuf error = fresh_error();
    assert_int_equal(tls_context_client(&t, &(struct tls_client_options){.verify = true}, &error), 0);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        assert_int_equal(tls_session_create(&s, t, names[i]), ERR_TLS);
        assert_null(s);
    }
    tls_session_destroy(NULL);
    tls_context_unref(t);
    tls_context_unref(NULL);
}

static void test_bad_files(void **state)
{
    static const struct {
        const char *cert, *key;
        err_t err;
        const char *text; /* what the error must name */
    } cases[] = {
        {"absent.pem", "key.pem", -ENOENT, "absent.pem: No such file"},
        {"cert.pem", "absent.pem", -ENOENT, "absent.pem: No such file"},
        {".", "key.pem", -EISDIR, "Is a directory"},
        {"cert.pem", "other-key.pem", ERR_CONFIG, "other-key.pem: the key does not belong"},
        {"cert.pem", "cert.pem", ERR_CONFIG, "cert.pem: there is no private key"},
        {"key.pem", "key.pem", ERR_CONFIG, "key.pem: there is no certificate"},
        {"empty.pem", "key.pem", ERR_CONFIG, "empty.pem: there is no certificate"},
        {"garbage.pem", "key.pem", ERR_CONFIG, "garbage.pem: not a usable certificate"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct tls_context *t;
        struct sbuf error = fresh_error();
        assert_int_equal(tls_context_server(&t, &error), 0);
        assert_int_equal(tls_context_add_identity(t, path_of(cases[i].cert), path_of(cases[i].key), &error),
                         cases[i].err);
        tls_context_unref(t);
        if (!strstr(error_text, cases[i].text))
            fail_msg("\"%s\" does not say \"%s\"", error_text, cases[i].text);
    }
    struct tls_context *t;
    struct sbuf error = fresh_error();
    assert_int_equal(tls_context_server(&t, &error), 0);
    assert_int_equal(tls_context_add_identity(t, STR_NONE, STR_NONE, &error), -EINVAL);
    tls_context_unref(t);
}

/* A client of the library that can only do 1.1 is refused; one that can only do 1.2 is served. */
static void test_versions(void **state)
{
    static const struct {
        uint16_t version;
        bool good;
    } cases[] = {{TLS1_VERSION, false}, {TLS1_1_VERSION, false}, {TLS1_2_VERSION, true}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct pair p = pair_open(false, STR_NONE);
        SSL_CTX *ctx = SSL_CTX_new(TLS_method());
        assert_true(SSL_CTX_set_min_proto_version(ctx, cases[i].version));
        assert_true(SSL_CTX_set_max_proto_version(ctx, cases[i].version));
        SSL *ssl = SSL_new(ctx);
        BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
        SSL_set_bio(ssl, in, out);
        SSL_set_connect_state(ssl);
        err_t server = ERR_PENDING;
        for (int round = 0; round < 4 && server == ERR_PENDING; round++) {
            const uint8_t *bytes;
            size_t n;
            (void)SSL_do_handshake(ssl);
            assert_true(BIO_mem_contents(out, &bytes, &n));
            assert_int_equal(tls_feed(p.server, bytes, n), 0);
            BIO_reset(out);
            server = tls_handshake(p.server);
            str_t answer = tls_output(p.server);
            if (answer.n)
                BIO_write(in, answer.p, (int)answer.n);
            tls_output_taken(p.server, answer.n);
        }
        assert_int_equal(server, cases[i].good ? 0 : ERR_TLS);
        if (cases[i].good) {
            assert_string_equal(tls_session_info(p.server)->version, "TLSv1.2");
            assert_non_null(strstr(tls_session_info(p.server)->cipher, "ECDHE"));
        } else {
            assert_non_null(strstr(tls_error_text(p.server), "unsupported protocol"));
        }
        SSL_free(ssl);
        SSL_CTX_free(ctx);
        pair_close(&p);
    }
}

static void test_library(void **state)
{
    assert_non_null(strstr(tls_library(), "BoringSSL"));
    assert_ptr_equal(tls_library(), tls_library());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_talks),          cmocka_unit_test(test_close_notify),
        cmocka_unit_test(test_big_transfer),   cmocka_unit_test(test_garbage_instead_of_hello),
        cmocka_unit_test(test_damaged_record), cmocka_unit_test(test_session_outlives_context),
        cmocka_unit_test(test_verification),   cmocka_unit_test(test_verification_needs_a_name),
        cmocka_unit_test(test_bad_files),      cmocka_unit_test(test_versions),
        cmocka_unit_test(test_library),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
