/* net/tls_context.c: policy, certificates and the trust store: all that reads files and is shared by
 * sessions. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
    /* Tickets carry the resumption state; a cache of our own would only cost memory. */
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

/* The path with its NUL; says in words why the file cannot be read, which the library would not. */
static err_t readable(str_t file, char path[PATH_MAX], struct sbuf *error)
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
    if (err)
        sbuf_printf(error, "cannot read " STR_FMT ": %s", STR_ARG(file), strerror(-err));
    return err;
}

static bool queue_says(int lib, int reason)
{
    uint32_t code = ERR_peek_error();
    return ERR_GET_LIB(code) == lib && ERR_GET_REASON(code) == reason;
}

static void describe_bad_pem(const char *path, const char *what, struct sbuf *error)
{
    if (queue_says(ERR_LIB_PEM, PEM_R_NO_START_LINE)) {
        sbuf_printf(error, "%s: there is no %s in PEM form in it", path, what);
        ERR_clear_error();
        return;
    }
    sbuf_printf(error, "%s: not a usable %s: ", path, what);
    tls_queue_text(error);
}

static err_t load_identity(struct tls_context *t, str_t cert_file, str_t key_file, struct sbuf *error)
{
    char cert[PATH_MAX], key[PATH_MAX];
    err_t err = readable(cert_file, cert, error);
    if (!err)
        err = readable(key_file, key, error);
    if (err)
        return err;
    ERR_clear_error();
    if (!SSL_CTX_use_certificate_chain_file(t->ctx, cert)) {
        describe_bad_pem(cert, "certificate", error);
        return ERR_CONFIG;
    }
    if (!SSL_CTX_use_PrivateKey_file(t->ctx, key, SSL_FILETYPE_PEM) || !SSL_CTX_check_private_key(t->ctx)) {
        if (queue_says(ERR_LIB_X509, X509_R_KEY_VALUES_MISMATCH) ||
            queue_says(ERR_LIB_X509, X509_R_KEY_TYPE_MISMATCH)) {
            sbuf_printf(error, "%s: the key does not belong to the first certificate in %s", key, cert);
            ERR_clear_error();
        } else {
            describe_bad_pem(key, "private key", error);
        }
        return ERR_CONFIG;
    }
    return 0;
}

err_t tls_context_server(struct tls_context **out, str_t cert_file, str_t key_file, struct sbuf *error)
{
    struct tls_context *t;
    *out = NULL;
    err_t err = context_create(&t, true, error);
    if (err)
        return err;
    err = load_identity(t, cert_file, key_file, error);
    if (err) {
        tls_context_unref(t);
        return err;
    }
    *out = t;
    return 0;
}

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

err_t tls_context_client(struct tls_context **out, bool verify, struct sbuf *error)
{
    *out = NULL;
    err_t err = context_create(out, false, error);
    if (err)
        return err;
    (*out)->verify = verify;
    SSL_CTX_set_verify((*out)->ctx, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (verify)
        load_trust((*out)->ctx);
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
    SSL_CTX_free(t->ctx);
    free(t);
}
