/* Clients that go on from an earlier session: with whom, how often, and what is still looked at. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/tls_priv.h"
#include "tests/unit/net/certs.h"

#define HOST STR("mx.example.test")
#define PEER STR("192.0.2.1:25")

static char directory[64], cert_file[PATH_MAX], key_file[PATH_MAX];
static struct cert theirs;
static struct tls_context *server;

static int setup(void **state)
{
    char text[256];
    struct sbuf error = SBUF_ON(text);
    snprintf(directory, sizeof directory, "/tmp/postern-tls-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    snprintf(cert_file, sizeof cert_file, "%s/cert.pem", directory);
    snprintf(key_file, sizeof key_file, "%s/key.pem", directory);
    theirs = cert_make(
        &(struct cert_spec){.names = "DNS:mx.example.test,DNS:mx2.example.test", .ends_in_s = 3600});
    cert_write(&theirs, cert_file, key_file);
    if (tls_context_server(&server, &error))
        return -1;
    return tls_context_add_identity(server, str_cstr(cert_file), str_cstr(key_file), &error);
}

static int teardown(void **state)
{
    tls_context_unref(server);
    cert_free(&theirs);
    unlink(cert_file);
    unlink(key_file);
    return rmdir(directory);
}

/* --- a client's context, and its sessions --- */

static struct tls_context *client_of(const struct tls_client_options *opt)
{
    char text[256];
    struct sbuf error = SBUF_ON(text);
    struct tls_context *t;
    assert_int_equal(tls_context_client(&t, opt, &error), 0);
    return t;
}

static struct tls_context *any_server(void)
{
    return client_of(&(struct tls_client_options){.resumes = true});
}

static struct tls_context *pinned_server(void)
{
    struct tls_pin pin = {.is_key = true};
    assert_true(tls_pin_of(theirs.x, true, &pin));
    return client_of(&(struct tls_client_options){.resumes = true, .pins = &pin, .pin_count = 1});
}

static struct tls_context *verified_server(void)
{
    return client_of(
        &(struct tls_client_options){.resumes = true, .verify = true, .ca_file = str_cstr(cert_file)});
}

static void move(struct tls_session *from, struct tls_session *to)
{
    str_t out = tls_output(from);
    assert_int_equal(tls_feed(to, (const uint8_t *)out.p, out.n), 0);
    tls_output_taken(from, out.n);
}

/* A whole session: handshake, a word of the server's with which tickets come, the end. */
static err_t talk(struct tls_context *client, str_t name, str_t peer, struct tls_info *info)
{
    struct tls_session *c, *s;
    uint8_t got[8];
    assert_int_equal(tls_session_create(&s, server, STR_NONE), 0);
    assert_int_equal(tls_session_create(&c, client, name), 0);
    tls_session_peer(c, peer);
    err_t ours = ERR_PENDING, other = ERR_PENDING;
    for (int round = 0; round < 10 && (ours == ERR_PENDING || (!ours && other == ERR_PENDING)); round++) {
        ours = tls_handshake(c);
        move(c, s);
        other = tls_handshake(s);
        move(s, c);
    }
    if (!ours) {
        assert_int_equal(other, 0);
        assert_int_equal(tls_write(s, "220", 3), 0);
        move(s, c);
        assert_int_equal(tls_read(c, got, sizeof got), 3);
    } else {
        (void)tls_session_forget(c);
    }
    *info = *tls_session_info(c);
    info->server_name = NULL; /* the session's */
    tls_session_destroy(c);
    tls_session_destroy(s);
    return ours;
}

static bool resumes(struct tls_context *client, str_t name, str_t peer)
{
    struct tls_info info;
    assert_int_equal(talk(client, name, peer, &info), 0);
    return info.resumed;
}

static void only_version(struct tls_context *client, uint16_t version)
{
    assert_true(SSL_CTX_set_min_proto_version(client->ctx, version) &&
                SSL_CTX_set_max_proto_version(client->ctx, version));
}

static const uint16_t versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

/* --- tests --- */

static void with_the_trust_of_a_full_handshake(void **state)
{
    struct tls_context *(*const kinds[])(void) = {any_server, pinned_server, verified_server};
    static const enum tls_trust trust[] = {TLS_TRUST_NONE, TLS_TRUST_PIN, TLS_TRUST_OK};
    for (size_t i = 0; i < COUNT_OF(kinds) * COUNT_OF(versions); i++) {
        struct tls_context *client = kinds[i / 2]();
        struct tls_info info;
        only_version(client, versions[i % 2]);
        for (int n = 0; n < 5; n++) {
            assert_int_equal(talk(client, HOST, PEER, &info), 0);
            assert_int_equal(info.resumed, n > 0);
            assert_int_equal(info.trust, trust[i / 2]);
        }
        tls_context_unref(client);
    }
}

static void not_unless_asked_to(void **state)
{
    struct tls_context *client = client_of(NULL);
    for (int n = 0; n < 3; n++)
        assert_false(resumes(client, HOST, PEER));
    tls_context_unref(client);
}

/* Another server, another name of the same, another way of looking at certificates: all from the start. */
static void with_the_same_only(void **state)
{
    struct tls_context *client = any_server(), *other = any_server(), *strict = verified_server();
    assert_false(resumes(client, HOST, PEER));
    assert_false(resumes(client, STR("mx2.example.test"), PEER));
    assert_false(resumes(client, STR_NONE, PEER));
    assert_false(resumes(client, HOST, STR("192.0.2.2:25")));
    assert_false(resumes(client, HOST, STR("192.0.2.1:26")));
    assert_false(resumes(other, HOST, PEER));
    assert_false(resumes(strict, HOST, PEER));
    assert_true(resumes(client, HOST, PEER));
    assert_true(resumes(strict, HOST, PEER));
    assert_false(resumes(strict, STR("mx2.example.test"), PEER));
    assert_true(resumes(client, STR_NONE, PEER));
    tls_context_unref(client);
    tls_context_unref(other);
    tls_context_unref(strict);
}

static uint64_t later_s; /* than the clock says */

static void on_time(const SSL *ssl, struct timeval *out)
{
    *out = (struct timeval){.tv_sec = (time_t)((uint64_t)time(NULL) + later_s)};
}

/* The certificate of then is looked at again; when it will not do any more, the next handshake is a full one.
 */
static void the_certificate_of_then_is_judged_anew(void **state)
{
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        struct tls_context *client = verified_server();
        struct tls_info info;
        only_version(client, versions[i]);
        assert_int_equal(talk(client, HOST, PEER, &info), 0);
        X509_VERIFY_PARAM_set_time(SSL_CTX_get0_param(client->ctx), time(NULL) + 7200); /* it has ended */
        assert_int_equal(talk(client, HOST, PEER, &info), ERR_TLS);
        X509_VERIFY_PARAM_set_time(SSL_CTX_get0_param(client->ctx), time(NULL));
        assert_int_equal(talk(client, HOST, PEER, &info), 0);
        assert_false(info.resumed);
        tls_context_unref(client);
    }
}

/* So that a server with a new one is asked for it, and does not have a handshake fail first. */
static void not_for_longer_than_the_certificate_is_good(void **state)
{
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        struct tls_context *client = verified_server();
        only_version(client, versions[i]);
        SSL_CTX_set_current_time_cb(client->ctx, on_time);
        later_s = 0;
        assert_false(resumes(client, HOST, PEER));
        later_s = 3000;
        assert_true(resumes(client, HOST, PEER));
        later_s = 4000;
        assert_false(resumes(client, HOST, PEER));
        tls_context_unref(client);
    }
}

/* However many servers there are; those of lately stay. */
static void bounded(void **state)
{
    struct tls_context *client = any_server();
    char peer[32];
    for (int n = 0; n < 1000; n++) {
        snprintf(peer, sizeof peer, "192.0.2.1:%d", n);
        assert_false(resumes(client, HOST, str_cstr(peer)));
    }
    assert_true(resumes(client, HOST, STR("192.0.2.1:999")));
    assert_false(resumes(client, HOST, STR("192.0.2.1:0")));
    tls_context_unref(client);
}

/* One that does not talk TLS any more: what was kept is not tried twice. */
static void what_failed_is_forgotten(void **state)
{
    struct tls_context *client = any_server();
    struct tls_session *c;
    static const uint8_t alert[] = {0x15, 3, 3, 0, 2, 2, 40};
    assert_false(resumes(client, HOST, PEER));
    for (int n = 0; n < 2; n++) {
        assert_int_equal(tls_session_create(&c, client, HOST), 0);
        tls_session_peer(c, PEER);
        assert_int_equal(tls_handshake(c), ERR_PENDING);
        assert_int_equal(tls_feed(c, alert, sizeof alert), 0);
        assert_int_equal(tls_handshake(c), ERR_TLS);
        assert_int_equal(tls_session_forget(c), n == 0);
        tls_session_destroy(c);
    }
    assert_false(resumes(client, HOST, PEER));
    tls_context_unref(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_the_trust_of_a_full_handshake),
        cmocka_unit_test(not_unless_asked_to),
        cmocka_unit_test(with_the_same_only),
        cmocka_unit_test(the_certificate_of_then_is_judged_anew),
        cmocka_unit_test(not_for_longer_than_the_certificate_is_good),
        cmocka_unit_test(bounded),
        cmocka_unit_test(what_failed_is_forgotten),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
