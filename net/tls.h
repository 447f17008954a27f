/* net/tls.h: BoringSSL as a byte transformer: ciphertext in, plaintext out; never touches a socket.
 * Contexts are shared by all threads and counted; a session belongs to one loop.
 * TLS 1.2 and 1.3 (RFC 8996 retires the rest); for 1.2 only ECDHE with AEAD ciphers. */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "core/err.h"
#include "core/str.h"

struct tls_context; /* counted; certificates and policy */
struct tls_session;

/* A certificate, or the key in it, by SHA-256: of the whole DER, or of its SubjectPublicKeyInfo. */
struct tls_pin {
    bool is_key;
    uint8_t sha256[32];
};
void tls_sha256(const void *p, size_t n, uint8_t out[32]);
/* "spki:HEX" or "cert:HEX", with or without colons between the bytes. */
err_t tls_pin_parse(str_t text, struct tls_pin *out) WARN_UNUSED;

/* What is known of the peer's certificate. */
enum tls_trust {
    TLS_TRUST_NONE,    /* it has none, or nobody looked at it */
    TLS_TRUST_UNKNOWN, /* a client's, and no rule knows it */
    TLS_TRUST_OK,      /* chain and name are good */
    TLS_TRUST_PIN,     /* it, or its key, is one that was listed */
};
const char *tls_trust_name(enum tls_trust t); /* for logs and Received: "none", "unknown", "ok", "pin" */

struct tls_info { /* texts are static or live as long as the session */
    const char *version, *cipher, *group;
    const char *server_name; /* that the client asked for (SNI); "" if none */
    enum tls_trust trust;
    int tag; /* of the rule that knows the client (tls_context_add_client_*); -1: none */
    bool resumed;
};

/* A context is put together by one thread, and shared when it is done. Errors come as text in `error`, which
 * names the file: -errno if it cannot be read, ERR_CONFIG if what is in it will not do. */
err_t tls_context_server(struct tls_context **out, struct sbuf *error) WARN_UNUSED;
/* PEM files: a chain, own certificate first, and its key; ECDSA or RSA. A client that asks for a name gets a
 * certificate that has it; one that asks for none, or for a name that none has, the first one, or one that
 * has the same name. Of those, one whose key it can use, ECDSA before RSA. */
err_t tls_context_add_identity(struct tls_context *t, str_t cert_file, str_t key_file,
                               struct sbuf *error) WARN_UNUSED;
/* From the first of these rules on, clients are asked for a certificate (they need not have one). The first
 * rule that knows it gives `tag` (>= 0). */
err_t tls_context_add_client_pin(struct tls_context *t, const struct tls_pin *pin, int tag,
                                 struct sbuf *error) WARN_UNUSED;
/* Signed by a CA of the file, for this name. */
err_t tls_context_add_client_name(struct tls_context *t, str_t ca_file, str_t name, int tag,
                                  struct sbuf *error) WARN_UNUSED;
/* When the first of the certificates ends, its chain included, seconds since 1970; INT64_MAX: there are none.
 */
struct tls_expiry {
    str_t file; /* of the certificate; the context's */
    int64_t not_after_s;
};
size_t tls_context_expiries(const struct tls_context *t, struct tls_expiry *out, size_t max);
struct tls_client_options {
    /* Chain and name are checked; without it, and without pins, any certificate will do. */
    bool verify;
    /* PEM, instead of the system's store (SSL_CERT_FILE in the environment, else Debian's ca-certificates). A
     * system store that is missing is logged and every verification fails: only routes that ask for it
     * suffer. */
    str_t ca_file;
    const struct tls_pin *pins; /* one must fit, and nothing else counts; copied */
    size_t pin_count;
    str_t cert_file, key_file; /* PEM, what we show; absent: nothing */
    bool resumes;              /* sessions go on from earlier ones with the same server (tls_session_peer) */
};
/* All files are read here, never later. opt: NULL is fine: any certificate will do. */
err_t tls_context_client(struct tls_context **out, const struct tls_client_options *opt,
                         struct sbuf *error) WARN_UNUSED;
struct tls_context *tls_context_ref(struct tls_context *t);
void tls_context_unref(struct tls_context *t); /* NULL is fine */

/* The session takes a reference. server_name (clients: SNI and the name to verify; a host name or an address)
 * may be absent, but not for a context that verifies: ERR_TLS. */
err_t tls_session_create(struct tls_session **out, struct tls_context *t, str_t server_name) WARN_UNUSED;
void tls_session_destroy(struct tls_session *s); /* NULL is fine */
/* Clients, before the handshake: whom it is with, an address and port. In a context that resumes: from an
 * earlier session with the same, under the same server_name; and what the server gives for later is kept. */
void tls_session_peer(struct tls_session *s, str_t peer);
/* The handshake failed: nothing that was kept of this peer is used again. True: it was tried with some, so
 * that it may go well without. */
bool tls_session_forget(struct tls_session *s);
/* Ciphertext from the peer, all of it taken. The caller bounds what it feeds while it does not read. */
err_t tls_feed(struct tls_session *s, const uint8_t *p, size_t n) WARN_UNUSED;
/* Drives the handshake: 0 = done, ERR_PENDING = needs more from the peer, else failed (tls_error_text); then
 * an alert may wait in tls_output(). */
err_t tls_handshake(struct tls_session *s) WARN_UNUSED;
/* Plaintext out: > 0 bytes; 0 = nothing now; ERR_EOF = close_notify; other negative = broken. Reading can
 * make output (key updates, alerts). */
ptrdiff_t tls_read(struct tls_session *s, uint8_t *out, size_t cap);
err_t tls_write(struct tls_session *s, const void *p,
                size_t n) WARN_UNUSED;    /* all taken; after the handshake only */
void tls_shutdown(struct tls_session *s); /* queues close_notify */
/* Ciphertext to send: a view valid until the next call on the session; then tell how much was taken. */
str_t tls_output(const struct tls_session *s);
void tls_output_taken(struct tls_session *s, size_t n);
const struct tls_info *tls_session_info(const struct tls_session *s); /* after the handshake */
/* A client's certificate by the rules of another server context, as a reload brings: its tag, or -1. */
int tls_session_client_tag(const struct tls_session *s, const struct tls_context *rules);
const char *tls_error_text(const struct tls_session *s); /* "" while nothing is wrong */
const char *tls_library(void); /* "BoringSSL ..." for --version, boot line and metrics; static */

#endif
