/* net/tls.h: BoringSSL as a byte transformer: ciphertext in, plaintext out; never touches a socket.
 * Contexts are shared by all threads and counted; a session belongs to one loop.
 * TLS 1.2 and 1.3 (RFC 8996 retires the rest); for 1.2 only ECDHE with AEAD ciphers. */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "core/err.h"
#include "core/str.h"

struct tls_context; /* counted; certificates and policy */
struct tls_session;

struct tls_info { /* texts are static or live as long as the session */
    const char *version, *cipher;
    bool verified;
};

/* Server: PEM chain (own certificate first) and key files. Errors come as text in `error`, which names the
 * file: -errno if it cannot be read, ERR_CONFIG if what is in it will not do. */
err_t tls_context_server(struct tls_context **out, str_t cert_file, str_t key_file,
                         struct sbuf *error) WARN_UNUSED;
/* Client: `verify` checks chain and name against the system's store (SSL_CERT_FILE in the environment, else
 * Debian's ca-certificates; read here, never later); without it any certificate will do. A missing store is
 * logged and every verification fails: only routes that ask for it suffer. */
err_t tls_context_client(struct tls_context **out, bool verify, struct sbuf *error) WARN_UNUSED;
struct tls_context *tls_context_ref(struct tls_context *t);
void tls_context_unref(struct tls_context *t); /* NULL is fine */

/* The session takes a reference. server_name (clients: SNI and the name to verify; a host name or an address)
 * may be absent, but not for a context that verifies: ERR_TLS. */
err_t tls_session_create(struct tls_session **out, struct tls_context *t, str_t server_name) WARN_UNUSED;
void tls_session_destroy(struct tls_session *s); /* NULL is fine */
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
const char *tls_error_text(const struct tls_session *s);              /* "" while nothing is wrong */
const char *tls_library(void); /* "BoringSSL ..." for --version, boot line and metrics; static */

#endif
