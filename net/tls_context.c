/* net/tls_context.c: policy and the trust store: what is shared by sessions. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "core/log.h"
#include "net/tls_priv.h"

#define SYSTEM_STORE "/etc/ssl/certs/ca-certificates.crt"

static const char CIPHERS_1_2[] = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                                  "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                                  "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/* P-384 stands last: a TLS 1.2 client takes no ECDSA certificate on a curve that it does not list. */
static const int GROUPS[] = {NID_X25519, NID_X9_62_prime256v1, NID_secp384r1};

void tls_queue_text(struct sbuf *out)
{
    uint32_t code = ERR_peek_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    if (!reason)
        reason = "unknown error";
    for (; *reason; reason++) {
        char c = *reason == '_' ? ' ' : *reason;
        sbuf_char(out, c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c);
    }
    ERR_clear_error();
}

static err_t context_create(struct tls_context **out, bool is_server, struct sbuf *error)
{
    ERR_clear_error();
    struct tls_context *t = calloc(1, sizeof *t);
    if (t)
        t->ctx = SSL_CTX_new(TLS_method());
    if (!t || !t->ctx) {
        free(t);
        sbuf_cstr(error, "out of memory");
        return -ENOMEM;
    }
    t->refs = 1;
    t->is_server = is_server;
    /* Tickets carry the resumption state; a cache of the library's would only cost memory. */
    SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF);
    if (!SSL_CTX_set_min_proto_version(t->ctx, TLS1_2_VERSION) ||
        !SSL_CTX_set_max_proto_version(t->ctx, TLS1_3_VERSION) ||
        !SSL_CTX_set_strict_cipher_list(t->ctx, CIPHERS_1_2) ||
        !SSL_CTX_set1_curves(t->ctx, GROUPS, COUNT_OF(GROUPS))) {
        sbuf_cstr(error, "the TLS library refuses our settings: ");
        tls_queue_text(error);
        tls_context_unref(t);
        return ERR_TLS;
    }
    *out = t;
    return 0;
}

err_t tls_readable(str_t file, char path[PATH_MAX], struct sbuf *error)
{
    err_t err = 0;
    if (file.n == 0 || file.n >= PATH_MAX || memchr(file.p, '\0', file.n)) {
        err = -EINVAL;
    } else {
        memcpy(path, file.p, file.n);
        path[file.n] = '\0';
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        char c;
        if (fd < 0 || read(fd, &c, 1) < 0)
            err = -errno;
        if (fd >= 0)
            close(fd);
    }
    struct stat st;
    if (!err && (stat(path, &st) < 0 || !S_ISREG(st.st_mode))) {
        sbuf_printf(error, STR_FMT ": is no regular file",
                    STR_ARG(file)); /* it would be waited for, perhaps for ever */
        return ERR_CONFIG;
    }
    if (err)
        sbuf_printf(error, "cannot read " STR_FMT ": %s", STR_ARG(file), strerror(-err));
    return err;
}

bool tls_queue_says(int lib, int reason)
{
    uint32_t code = ERR_peek_error();
    return ERR_GET_LIB(code) == lib && ERR_GET_REASON(code) == reason;
}

void tls_describe_bad_pem(const char *path, const char *what, struct sbuf *error)
{
    if (tls_queue_says(ERR_LIB_PEM, PEM_R_NO_START_LINE)) {
        sbuf_printf(error, "%s: there is no %s in PEM form in it", path, what);
        ERR_clear_error();
        return;
    }
    sbuf_printf(error, "%s: not a usable %s: ", path, what);
    tls_queue_text(error);
}

/* --- server --- */

static enum ssl_select_cert_result_t on_hello(const SSL_CLIENT_HELLO *hello)
{
    tls_hello_read(tls_session_hello(hello->ssl), hello);
    return ssl_select_cert_success;
}

/* After the name and the algorithms are known, before cipher and key are chosen. */
static int choose_identity(SSL *ssl, void *arg)
{
    const struct tls_context *t = tls_session_context(ssl);
    const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const uint16_t *algorithms;
    size_t count = SSL_get0_peer_verify_algorithms(ssl, &algorithms);
    const struct tls_identity *id = tls_identity_choose(t, str_cstr(asked), tls_session_hello(ssl),
                                                        (uint16_t)SSL_version(ssl), algorithms, count);
    SSL_certs_clear(ssl);
    return id &&
           SSL_set_chain_and_key(ssl, (CRYPTO_BUFFER *const *)id->chain, id->chain_count, id->key, NULL);
}

err_t tls_context_server(struct tls_context **out, struct sbuf *error)
{
    static const uint8_t session_context[] = "postern"; /* RFC 5077: tickets are for this service alone */
    *out = NULL;
    err_t err = context_create(out, true, error);
    if (err)
        return err;
    SSL_CTX *ctx = (*out)->ctx;
    SSL_CTX_set_select_certificate_cb(ctx, on_hello);
    SSL_CTX_set_cert_cb(ctx, choose_identity, NULL);
    SSL_CTX_set_tlsext_ticket_key_cb(ctx, tls_ticket_key);
    SSL_CTX_set_timeout(ctx, TICKET_PERIOD_S);
    SSL_CTX_set_session_psk_dhe_timeout(ctx, TICKET_PERIOD_S);
    must(SSL_CTX_set_session_id_context(ctx, session_context, sizeof session_context - 1));
    return 0;
}

err_t tls_context_add_identity(struct tls_context *t, str_t cert_file, str_t key_file, struct sbuf *error)
{
    must(t->is_server);
    if (t->identity_count == TLS_IDENTITY_MAX) {
        sbuf_printf(error, "more than %d certificates", TLS_IDENTITY_MAX);
        return ERR_CONFIG;
    }
    err_t err = tls_identity_load(&t->identities[t->identity_count], cert_file, key_file, error);
    if (!err)
        t->identity_count++;
    return err;
}

size_t tls_context_expiries(const struct tls_context *t, struct tls_expiry *out, size_t max)
{
    size_t n = MIN(t->identity_count, max);
    for (size_t i = 0; i < n; i++)
        out[i] = (struct tls_expiry){t->identities[i]->file, t->identities[i]->not_after_s};
    return n;
}

/* --- client --- */

/* One file, read at boot: a directory of hashed names would be searched on a worker in mid-handshake. */
static void load_trust(SSL_CTX *ctx)
{
    const char *own = getenv("SSL_CERT_FILE");
    const char *file = own && *own ? own : SYSTEM_STORE;
    ERR_clear_error();
    if (SSL_CTX_load_verify_locations(ctx, file, NULL))
        return;
    ERR_clear_error();
    char text[256];
    struct sbuf b = SBUF_ON(text);
    sbuf_printf(
        &b, "%s gives no CA certificates (package ca-certificates): routes with tls: verify will fail", file);
    LOG(boot_note, LF_STR("text", sbuf_view(&b)));
}

static err_t set_trust(struct tls_context *t, const struct tls_client_options *opt, struct sbuf *error)
{
    X509_STORE *store;
    t->verify = opt->verify;
    SSL_CTX_set_verify(t->ctx, SSL_VERIFY_NONE, NULL);
    if (opt->pin_count) {
        t->pins = calloc(opt->pin_count, sizeof *t->pins);
        if (!t->pins)
            return -ENOMEM;
        memcpy(t->pins, opt->pins, opt->pin_count * sizeof *t->pins);
        t->pin_count = opt->pin_count;
        SSL_CTX_set_custom_verify(t->ctx, SSL_VERIFY_PEER, tls_check_pins);
        return 0;
    }
    if (!opt->verify)
        return 0;
    SSL_CTX_set_custom_verify(t->ctx, SSL_VERIFY_PEER, tls_check_chain);
    if (!opt->ca_file.n) {
        load_trust(t->ctx);
        return 0;
    }
    err_t err = tls_load_store(&store, opt->ca_file, error);
    if (!err)
        SSL_CTX_set_cert_store(t->ctx, store);
    return err;
}

static err_t set_own(struct tls_context *t, const struct tls_client_options *opt, struct sbuf *error)
{
    if (!opt->cert_file.n)
        return 0;
    err_t err = tls_identity_load(&t->identities[0], opt->cert_file, opt->key_file, error);
    if (err)
        return err;
    const struct tls_identity *id = t->identities[0];
    t->identity_count = 1;
    if (SSL_CTX_set_chain_and_key(t->ctx, (CRYPTO_BUFFER *const *)id->chain, id->chain_count, id->key, NULL))
        return 0;
    sbuf_printf(error, STR_FMT ": ", STR_ARG(opt->cert_file));
    tls_queue_text(error);
    return ERR_CONFIG;
}

err_t tls_context_client(struct tls_context **out, const struct tls_client_options *opt, struct sbuf *error)
{
    static const struct tls_client_options any;
    struct tls_context *t;
    *out = NULL;
    if (!opt)
        opt = &any;
    err_t err = context_create(&t, false, error);
    if (err)
        return err;
    err = set_trust(t, opt, error);
    if (!err)
        err = set_own(t, opt, error);
    if (!err && opt->resumes)
        err = tls_kept_create(t);
    if (err) {
        tls_context_unref(t);
        return err;
    }
    *out = t;
    return 0;
}

struct tls_context *tls_context_ref(struct tls_context *t)
{
    __atomic_fetch_add(&t->refs, 1, __ATOMIC_RELAXED);
    return t;
}

void tls_context_unref(struct tls_context *t)
{
    if (!t || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; i < t->identity_count; i++)
        tls_identity_free(t->identities[i]);
    for (size_t i = 0; i < t->rule_count; i++)
        X509_STORE_free(t->rules[i].store);
    free(t->rules);
    free(t->pins);
    tls_kept_destroy(t->kept);
    SSL_CTX_free(t->ctx);
    free(t);
}
