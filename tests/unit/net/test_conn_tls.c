/* TLS on connections: STARTTLS, large transfers, pauses, failures, closing. */
#include "ends.h"

#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

static struct tls_context *server_context, *client_context;

static void write_identity(const char *cert_path, const char *key_path)
{
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    EVP_PKEY *key = EVP_PKEY_new();
    assert_true(ec && EC_KEY_generate_key(ec) && EVP_PKEY_assign_EC_KEY(key, ec));
    X509 *x = X509_new();
    assert_true(X509_set_version(x, 2));
    assert_true(ASN1_INTEGER_set(X509_get_serialNumber(x), 1));
    assert_non_null(X509_gmtime_adj(X509_get_notBefore(x), -3600));
    assert_non_null(X509_gmtime_adj(X509_get_notAfter(x), 86400));
    assert_true(X509_set_pubkey(x, key));
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    FILE *f = fopen(cert_path, "w");
    assert_true(f && PEM_write_X509(f, x) && fclose(f) == 0);
    f = fopen(key_path, "w");
    assert_true(f && PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) && fclose(f) == 0);
    X509_free(x);
    EVP_PKEY_free(key);
}

static int make_contexts(void **state)
{
    char dir[] = "/tmp/test_conn_tls.XXXXXX", cert[64], key[64], text[512];
    struct sbuf error = SBUF_ON(text);
    assert_non_null(mkdtemp(dir));
    snprintf(cert, sizeof cert, "%s/cert.pem", dir);
    snprintf(key, sizeof key, "%s/key.pem", dir);
    write_identity(cert, key);
    err_t err = tls_context_server(&server_context, &error);
    if (!err)
        err = tls_context_add_identity(server_context, str_cstr(cert), str_cstr(key), &error);
    if (!err)
        err = tls_context_client(&client_context, NULL, &error);
    unlink(cert);
    unlink(key);
    rmdir(dir);
    return err;
}

static int drop_contexts(void **state)
{
    tls_context_unref(server_context);
    tls_context_unref(client_context);
    return 0;
}

/* The server starts TLS at the first byte 'S', the client at the first byte 'G' ("STARTTLS", "GO"). */
static size_t server_data(struct conn *c, const uint8_t *p, size_t n)
{
    struct end *e = conn_ctx(c);
    if (e->secured_count > 0)
        return on_data(c, p, n);
    assert_int_equal(p[0], 'S'); /* nothing of the clear text behind it is ever offered */
    conn_write(c, "GO", 2);
    conn_starttls(c, server_context, STR_NONE);
    return 1;
}

static size_t client_data(struct conn *c, const uint8_t *p, size_t n)
{
    struct end *e = conn_ctx(c);
    if (e->secured_count > 0)
        return on_data(c, p, n);
    assert_memory_equal(p, "GO", 2);
    assert_int_equal(n, 2);
    conn_starttls(c, client_context, STR("mx.example.test"));
    return n;
}

static struct conn_ref body;
static unsigned body_released;

static void body_release(struct conn_ref *ref)
{
    body_released++;
}

/* Small writes, the body by reference, FIN. */
static void client_secured(struct conn *c, err_t err)
{
    on_secured(c, err);
    if (err || conn_closing(c))
        return;
    assert_non_null(conn_tls(c)->version);
    conn_write(c, body.p, 100);
    conn_write(c, (const uint8_t *)body.p + 100, 23);
    body.p = (const uint8_t *)body.p + 123;
    conn_write_ref(c, &body);
    assert_int_equal(conn_pending_bytes(c) >= 123 + body.n, true);
    conn_finish(c, 60000);
}

static const struct conn_ops server_ops = {
    .data = server_data, .eof = on_eof, .drained = on_drained, .secured = on_secured, .closed = on_closed};
static const struct conn_ops client_ops = {.data = client_data,
                                           .eof = on_eof,
                                           .drained = on_drained,
                                           .secured = client_secured,
                                           .closed = on_closed};

static void tls_transfer(struct end *server, size_t n)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    struct end client = {0};
    uint8_t *bytes = pattern_bytes(n + 123);
    body = (struct conn_ref){bytes, n, body_release};
    body_released = 0;
    server->check = true;
    server->finish_at_eof = true;
    end_init(&client, &w);
    conn_open(client.c, w.l, fds[0], &client_ops, &client);
    end_init(server, &w);
    conn_open(server->c, w.l, fds[1], &server_ops, server);
    conn_write(client.c, "S", 1);
    run(&w);
    assert_int_equal(client.secured_count, 1);
    assert_int_equal(server->secured_count, 1);
    assert_int_equal(client.secured_err, 0);
    assert_int_equal(server->secured_err, 0);
    assert_int_equal(body_released, 1);
    assert_int_equal(client.closed_err, server->close_at ? client.closed_err : 0);
    free(bytes);
}

static void test_transfer(void **state)
{
    static const size_t sizes[] = {0, 1, 16384, 3 << 20};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        int64_t ok = metric_read(M_tls_ok_in);
        struct end server = {0};
        tls_transfer(&server, sizes[i]);
        assert_int_equal(server.got, sizes[i] + 123);
        assert_int_equal(server.eof_count, 1);
        assert_int_equal(server.closed_err, 0);
        assert_int_equal(metric_read(M_tls_ok_in) - ok, 2); /* neither end dialed */
    }
}

static void test_backpressure(void **state)
{
    struct end refuses = {.refuse = 5}, slow = {.take_max = 5000},
               by_byte = {.take_max = 1, .resume_in_data = true};
    tls_transfer(&refuses, 1 << 20);
    assert_int_equal(refuses.got, (1 << 20) + 123);
    tls_transfer(&slow, 1 << 20);
    assert_int_equal(slow.got, (1 << 20) + 123);
    assert_int_equal(slow.eof_count, 1);
    tls_transfer(&by_byte, 3000);
    assert_int_equal(by_byte.got, 3123);
}

static void test_close_in_callbacks(void **state)
{
    static const enum event events[] = {AT_SECURED, AT_DATA, AT_EOF};
    for (size_t i = 0; i < COUNT_OF(events); i++) {
        struct end server = {.close_at = events[i]};
        tls_transfer(&server, 1000);
        assert_int_equal(server.closed_count, 1);
        assert_int_equal(server.closed_err, -EBADMSG);
    }
}

/* CVE-2011-0411: commands in the clear behind STARTTLS are not carried over; here they break the handshake.
 */
static void test_injection(void **state)
{
    static const char *const clear[] = {"STARTTLS\r\nRSET\r\n", "S"};
    for (size_t i = 0; i < COUNT_OF(clear); i++) {
        struct world w;
        make_world(&w, &small);
        int fds[2];
        tcp_pair(fds);
        struct end server = {0};
        end_init(&server, &w);
        conn_open(server.c, w.l, fds[1], &server_ops, &server);
        int64_t failed = metric_read(M_tls_failed_in);
        send_all(fds[0], clear[i], strlen(clear[i]));
        send_all(fds[0], "MAIL FROM:<evil@example.test>\r\n", 31);
        shutdown(fds[0], SHUT_WR);
        run(&w);
        assert_int_equal(server.got, 0);
        assert_int_equal(server.secured_count, 1);
        assert_int_not_equal(server.secured_err, 0);
        assert_int_equal(server.closed_err, server.secured_err);
        assert_int_equal(metric_read(M_tls_failed_in) - failed, 1);
        char buf[8];
        assert_int_equal(recv(fds[0], buf, 2, 0), 2); /* the clear reply still came first */
        assert_memory_equal(buf, "GO", 2);
        close(fds[0]);
    }
}

/* The peer speaks no TLS at all. */
static void test_garbage(void **state)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    struct end client = {0};
    end_init(&client, &w);
    conn_open(client.c, w.l, fds[1], &client_ops, &client);
    conn_starttls(client.c, client_context, STR_NONE);
    send_all(fds[0], "554 no, I will not\r\n", 20);
    shutdown(fds[0], SHUT_WR);
    run(&w);
    assert_int_equal(client.secured_count, 1);
    assert_int_not_equal(client.secured_err, 0);
    assert_int_equal(client.closed_err, client.secured_err);
    assert_int_equal(client.data_count, 0);
    close(fds[0]);
}

/* A close while the handshake is under way: `closed` only. */
static void test_close_in_handshake(void **state)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    struct end client = {0};
    end_init(&client, &w);
    conn_open(client.c, w.l, fds[1], &client_ops, &client);
    conn_starttls(client.c, client_context, STR_NONE);
    assert_null(conn_tls(client.c));
    conn_close(client.c, ERR_TIMEOUT);
    run(&w);
    assert_int_equal(client.secured_count, 0);
    assert_int_equal(client.closed_err, ERR_TIMEOUT);
    close(fds[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transfer),
        cmocka_unit_test(test_backpressure),
        cmocka_unit_test(test_close_in_callbacks),
        cmocka_unit_test(test_injection),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_close_in_handshake),
    };
    return cmocka_run_group_tests(tests, make_contexts, drop_contexts);
}
