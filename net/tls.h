/* net/tls.h: BoringSSL as a byte transformer: ciphertext in, plaintext out; never touches a socket.
 * Contexts are shared by all threads and counted; a session belongs to one loop. */
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

/* Server: PEM chain and key files. TLS 1.2 and 1.3 only. Errors come as text in `error`. */
err_t tls_context_server(struct tls_context **out, str_t cert_file, str_t key_file, struct sbuf *error) WARN_UNUSED;
/* Client: `verify` checks chain and name against the system's store; without it any certificate will do. */
err_t tls_context_client(struct tls_context **out, bool verify, struct sbuf *error) WARN_UNUSED;
struct tls_context *tls_context_ref(struct tls_context *t);
void tls_context_unref(struct tls_context *t); /* NULL is fine */

err_t tls_session_create(struct tls_session **out, struct tls_context *t, str_t server_name) WARN_UNUSED;
void tls_session_destroy(struct tls_session *s);
/* Ciphertext from the peer, all of it taken. */
err_t tls_feed(struct tls_session *s, const uint8_t *p, size_t n) WARN_UNUSED;
/* Drives the handshake: 0 = done, ERR_PENDING = needs more from the peer, else failed (tls_error_text). */
err_t tls_handshake(struct tls_session *s) WARN_UNUSED;
/* Plaintext out: > 0 bytes; 0 = nothing now; ERR_EOF = close_notify; other negative = broken. */
ptrdiff_t tls_read(struct tls_session *s, uint8_t *out, size_t cap);
err_t tls_write(struct tls_session *s, const void *p, size_t n) WARN_UNUSED; /* all taken */
void tls_shutdown(struct tls_session *s);                                    /* queues close_notify */
/* Ciphertext to send: a view valid until the next call on the session; then tell how much was taken. */
str_t tls_output(const struct tls_session *s);
void tls_output_taken(struct tls_session *s, size_t n);
const struct tls_info *tls_session_info(const struct tls_session *s);
const char *tls_error_text(const struct tls_session *s);
const char *tls_library(void); /* "BoringSSL ..." for --version, boot line and metrics */

#endif
