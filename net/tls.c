/* net/tls.c: sessions. The library reads and writes through a BIO over two buffers of the session, so that it
 * never sees a socket; what it cannot read yet is "try again", what it writes is always taken. */
#include "net/tls.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

#include <openssl/base.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509.h>

#include "core/ip.h"
#include "net/tls_priv.h"

#define HOST_NAME_MAX_BYTES 253

/* Bytes p[at..n) are waiting. Freed when empty: an idle session holds no buffer. */
struct bytes {
    uint8_t *p; /* owned */
    size_t at, n, cap;
};

struct tls_session {
    struct tls_context *context; /* a reference */
    SSL *ssl;                    /* owned; owns the BIO */
    struct bytes in, out;        /* ciphertext */
    bool established, broken, out_of_memory;
    bool has_peer, tried_kept;
    uint8_t kept_key[32];   /* clients: of the server's name, then of its address too */
    struct tls_hello hello; /* of the client, while the server chooses */
    struct tls_info info;
    long verdict; /* X509_V_ERR_... of the server's certificate; 0: it is fine */
    char server_name[TLS_NAME_BYTES], error[192];
    char shown_pin[sizeof "spki:" + 64 + 1]; /* of a server that none of the pins fits */
};

static err_t bytes_put(struct bytes *b, const void *p, size_t n)
{
    if (b->at > 0 && b->n + n > b->cap) {
        memmove(b->p, b->p + b->at, b->n - b->at);
        b->n -= b->at;
        b->at = 0;
    }
    if (b->n + n > b->cap) {
        size_t cap = MAX(b->n + n, 2 * b->cap);
        uint8_t *grown = realloc(b->p, cap);
        if (!grown)
            return -ENOMEM;
        b->p = grown;
        b->cap = cap;
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
    return 0;
}

static void bytes_taken(struct bytes *b, size_t n)
{
    must(n <= b->n - b->at);
    b->at += n;
    if (b->at == b->n) {
        free(b->p);
        *b = (struct bytes){0};
    }
}

/* --- the BIO --- */

static int bio_read(BIO *bio, char *out, int cap)
{
    struct tls_session *s = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    size_t n = MIN(s->in.n - s->in.at, cap > 0 ? (size_t)cap : 0);
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(out, s->in.p + s->in.at, n);
    bytes_taken(&s->in, n);
    return (int)n;
}

static int bio_write(BIO *bio, const char *p, int n)
{
    struct tls_session *s = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (n <= 0)
        return 0;
    if (bytes_put(&s->out, p, (size_t)n)) {
        s->out_of_memory = true;
        return -1;
    }
    return n;
}

static long bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method; /* for the life of the process; NULL if there was no memory for it */

static void bio_method_make(void)
{
    bio_method = BIO_meth_new(0, "session buffers");
    if (!bio_method)
        return;
    BIO_meth_set_read(bio_method, bio_read);
    BIO_meth_set_write(bio_method, bio_write);
    BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

/* --- life --- */

/* Names for SNI (RFC 6066 3: no addresses, no trailing dot) and for the check of the certificate. */
static err_t set_peer_name(struct tls_session *s, str_t name)
{
    char host[HOST_NAME_MAX_BYTES + 1];
    struct ip ip;
    X509_VERIFY_PARAM *param = SSL_get0_param(s->ssl);

    if (str_ends(name, STR(".")))
        name.n--;
    if (name.n == 0 || name.n > HOST_NAME_MAX_BYTES || memchr(name.p, '\0', name.n))
        return s->context->verify ? ERR_TLS : 0; /* nothing to check against is no check */
    memcpy(host, name.p, name.n);
    host[name.n] = '\0';
    if (!ip_parse(name, &ip)) {
        size_t skip = ip_is_v4(&ip) ? 12 : 0; /* of the mapped form */
        return X509_VERIFY_PARAM_set1_ip(param, ip.b + skip, sizeof ip.b - skip) ? 0 : -ENOMEM;
    }
    return SSL_set_tlsext_host_name(s->ssl, host) && X509_VERIFY_PARAM_set1_host(param, host, name.n)
               ? 0
               : -ENOMEM;
}

err_t tls_session_create(struct tls_session **out, struct tls_context *t, str_t server_name)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    *out = NULL;
    pthread_once(&once, bio_method_make);
    ERR_clear_error();

    struct tls_session *s = calloc(1, sizeof *s);
    BIO *bio = bio_method ? BIO_new(bio_method) : NULL;
    SSL *ssl = SSL_new(t->ctx);
    if (!s || !bio || !ssl) {
        free(s);
        BIO_free(bio);
        SSL_free(ssl);
        return -ENOMEM;
    }
    BIO_set_data(bio, s);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_app_data(ssl, s);
    s->ssl = ssl;
    s->context = tls_context_ref(t);
    err_t err = 0;
    if (t->is_server) {
        SSL_set_accept_state(ssl);
    } else {
        SSL_set_connect_state(ssl);
        err = set_peer_name(s, server_name);
        tls_sha256(server_name.p, server_name.n, s->kept_key);
    }
    if (err) {
        tls_session_destroy(s);
        return err;
    }
    *out = s;
    return 0;
}

void tls_session_destroy(struct tls_session *s)
{
    if (!s)
        return;
    SSL_free(s->ssl);
    tls_context_unref(s->context);
    free(s->in.p);
    free(s->out.p);
    free(s);
}

/* --- going on from an earlier session --- */

void tls_session_peer(struct tls_session *s, str_t peer)
{
    uint8_t words[sizeof s->kept_key + 32];
    struct tls_kept *kept = s->context->kept;
    if (!kept)
        return;
    memcpy(words, s->kept_key, sizeof s->kept_key);
    tls_sha256(peer.p, peer.n, words + sizeof s->kept_key);
    tls_sha256(words, sizeof words, s->kept_key);
    s->has_peer = true;
    SSL_SESSION *session = tls_kept_take(kept, s->kept_key);
    s->tried_kept = session && SSL_set_session(s->ssl, session);
    SSL_SESSION_free(session);
}

bool tls_session_forget(struct tls_session *s)
{
    if (s->has_peer)
        tls_kept_forget(s->context->kept, s->kept_key);
    return s->tried_kept;
}

const uint8_t *tls_session_kept_key(SSL *ssl)
{
    const struct tls_session *s = SSL_get_app_data(ssl);
    return s->has_peer ? s->kept_key : NULL;
}

/* --- bytes --- */

/* Keeps the first reason: what follows a failure only says that there was one. */
static err_t fail(struct tls_session *s)
{
    struct sbuf text = {s->error, 0, sizeof s->error - 1, false};
    if (!s->broken) {
        s->broken = true;
        if (s->out_of_memory) {
            sbuf_cstr(&text, "out of memory");
        } else if (s->shown_pin[0]) {
            sbuf_printf(&text, "none of the pins fits the certificate: it has %s", s->shown_pin);
        } else if (s->verdict) {
            sbuf_printf(&text, "the certificate is not trusted: %s",
                        X509_verify_cert_error_string(s->verdict));
        } else {
            tls_queue_text(&text);
        }
        s->error[text.n] = '\0';
    }
    ERR_clear_error();
    return s->out_of_memory ? -ENOMEM : ERR_TLS;
}

err_t tls_feed(struct tls_session *s, const uint8_t *p, size_t n)
{
    return n ? bytes_put(&s->in, p, n) : 0;
}

static void take_info(struct tls_session *s)
{
    const char *name = SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name);
    const char *group = SSL_get_curve_name(SSL_get_curve_id(s->ssl));
    if (name && strlen(name) < sizeof s->server_name)
        snprintf(s->server_name, sizeof s->server_name, "%s", name);
    s->info = (struct tls_info){
        .version = SSL_get_version(s->ssl),
        .cipher = SSL_CIPHER_standard_name(SSL_get_current_cipher(s->ssl)),
        .group = group ? group : "",
        .server_name = s->server_name,
        .resumed = SSL_session_reused(s->ssl),
        .tag = -1,
    };
    if (s->context->is_server)
        s->info.trust =
            s->context->rule_count ? tls_client_judge(s->context, s->ssl, &s->info.tag) : TLS_TRUST_NONE;
    else if (s->context->pin_count)
        s->info.trust = TLS_TRUST_PIN;
    else if (s->context->verify)
        s->info.trust = TLS_TRUST_OK;
}

int tls_session_client_tag(const struct tls_session *s, const struct tls_context *rules)
{
    int tag = -1;
    if (s->established)
        (void)tls_client_judge(rules, s->ssl, &tag);
    return tag;
}

err_t tls_handshake(struct tls_session *s)
{
    if (s->established)
        return 0;
    if (s->broken)
        return ERR_TLS;
    ERR_clear_error(); /* the queue belongs to the thread, not to the session */
    int rc = SSL_do_handshake(s->ssl);
    if (rc == 1) {
        s->established = true;
        take_info(s);
        return 0;
    }
    return SSL_get_error(s->ssl, rc) == SSL_ERROR_WANT_READ ? ERR_PENDING : fail(s);
}

ptrdiff_t tls_read(struct tls_session *s, uint8_t *out, size_t cap)
{
    if (s->broken)
        return ERR_TLS;
    if (!s->established || cap == 0)
        return 0;
    ERR_clear_error();
    int n = SSL_read(s->ssl, out, (int)MIN(cap, (size_t)INT32_MAX));
    if (n > 0)
        return n;
    switch (SSL_get_error(s->ssl, n)) {
    case SSL_ERROR_WANT_READ: return 0;
    case SSL_ERROR_ZERO_RETURN: return ERR_EOF;
    default: return fail(s);
    }
}

err_t tls_write(struct tls_session *s, const void *p, size_t n)
{
    const uint8_t *at = p;
    if (s->broken || !s->established)
        return ERR_TLS;
    ERR_clear_error();
    while (n > 0) {
        int done = SSL_write(s->ssl, at, (int)MIN(n, (size_t)INT32_MAX));
        if (done <= 0)
            return fail(s);
        at += done;
        n -= (size_t)done;
    }
    return 0;
}

void tls_shutdown(struct tls_session *s)
{
    if (s->broken || !s->established)
        return;
    ERR_clear_error();
    if (SSL_shutdown(s->ssl) < 0)
        ERR_clear_error(); /* closed both ways already, or out of memory: the peer sees FIN anyway */
}

str_t tls_output(const struct tls_session *s)
{
    if (!s->out.p)
        return STR_NONE;
    return str_of((const char *)s->out.p + s->out.at, s->out.n - s->out.at);
}

void tls_output_taken(struct tls_session *s, size_t n)
{
    bytes_taken(&s->out, n);
}

/* --- what is known --- */

struct tls_hello *tls_session_hello(SSL *ssl)
{
    struct tls_session *s = SSL_get_app_data(ssl);
    return &s->hello;
}

void tls_session_no_pin_fits(SSL *ssl, X509 *shown)
{
    struct tls_session *s = SSL_get_app_data(ssl);
    struct sbuf out = {s->shown_pin, 0, sizeof s->shown_pin - 1, false};
    struct tls_pin pin;
    if (!shown || !tls_pin_of(shown, true, &pin))
        return;
    sbuf_cstr(&out, "spki:");
    for (size_t i = 0; i < sizeof pin.sha256; i++)
        sbuf_printf(&out, "%02x", pin.sha256[i]);
}

void tls_session_not_trusted(SSL *ssl, long verdict)
{
    struct tls_session *s = SSL_get_app_data(ssl);
    s->verdict = verdict;
}

const struct tls_context *tls_session_context(SSL *ssl)
{
    const struct tls_session *s = SSL_get_app_data(ssl);
    return s->context;
}

const struct tls_info *tls_session_info(const struct tls_session *s)
{
    return &s->info;
}

const char *tls_error_text(const struct tls_session *s)
{
    return s->error;
}

static char library_text[256];

/* The library has no version of its own to tell: the API number it was built against and the file that was
 * loaded tell Debian's build from one of the administrator's own. */
static void library_describe(void)
{
    struct sbuf b = {library_text, 0, sizeof library_text - 1, false};
    Dl_info where;
    sbuf_printf(&b, "BoringSSL API %d", BORINGSSL_API_VERSION);
    if (dladdr((const void *)(uintptr_t)SSL_new, &where) && where.dli_fname &&
        strstr(where.dli_fname, "libssl"))
        sbuf_printf(&b, " (%s)", where.dli_fname);
    library_text[b.n] = '\0';
}

const char *tls_library(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, library_describe);
    return library_text;
}
