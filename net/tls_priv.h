/* net/tls_priv.h: what the parts of TLS share: contexts (policy), identities (certificates and their choice),
 * peers (what is known of the other side's certificate), tickets, sessions (bytes). */
#ifndef NET_TLS_PRIV_H
#define NET_TLS_PRIV_H

#include <limits.h>

#include <openssl/pool.h>
#include <openssl/ssl.h>

#include "net/tls.h"

#define TLS_IDENTITY_MAX 64 /* certificates of a context */
#define TLS_CHAIN_MAX    16 /* certificates of a chain */
#define TLS_NAMES_MAX    256
#define TLS_RULES_MAX    64
#define TLS_NAME_BYTES   254 /* with its NUL */

/* A chain with its key. */
struct tls_identity {
    EVP_PKEY *key; /* owned */
    CRYPTO_BUFFER *chain[TLS_CHAIN_MAX];
    size_t chain_count;
    bool is_ecdsa;
    uint16_t group;     /* ECDSA: of its curve */
    uint16_t algorithm; /* ECDSA: what TLS 1.3 signs with on that curve */
    str_t names[TLS_NAMES_MAX];
    size_t name_count;
    int64_t not_after_s;
    str_t file; /* owned, as the names are */
};

struct tls_client_rule {
    int tag;
    struct tls_pin pin;
    X509_STORE *store; /* owned; NULL: the pin decides */
    char name[TLS_NAME_BYTES];
};

struct tls_context {
    SSL_CTX *ctx;  /* owned */
    unsigned refs; /* atomic */
    bool is_server, verify;
    struct tls_identity *identities[TLS_IDENTITY_MAX]; /* owned */
    size_t identity_count;
    struct tls_client_rule *rules; /* owned, TLS_RULES_MAX; servers only */
    size_t rule_count;
    struct tls_pin *pins; /* owned; clients only */
    size_t pin_count;
    struct tls_kept *kept; /* owned; clients that resume only */
};

/* What a ClientHello says that the library does not tell later. */
struct tls_hello {
    bool ecdsa_1_2; /* it offers ECDSA to TLS 1.2 */
    bool p256, p384, p521;
};

/* tls_context.c */
/* The oldest entry of the library's error queue in plain words ("wrong version number"); empties the queue.
 */
void tls_queue_text(struct sbuf *out);
bool tls_queue_says(int lib, int reason);
/* The path with its NUL; says in words why the file cannot be read, which the library would not. */
err_t tls_readable(str_t file, char path[PATH_MAX], struct sbuf *error);
void tls_describe_bad_pem(const char *path, const char *what, struct sbuf *error);

/* tls_identity.c */
err_t tls_identity_load(struct tls_identity **out, str_t cert_file, str_t key_file, struct sbuf *error);
void tls_identity_free(struct tls_identity *id); /* NULL is fine */
int64_t tls_end_of(const X509 *x);               /* seconds since 1970 */
bool tls_identity_has_name(const struct tls_identity *id, str_t name);
void tls_hello_read(struct tls_hello *out, const SSL_CLIENT_HELLO *hello);
/* The one for this client; NULL: the context has none. */
const struct tls_identity *tls_identity_choose(const struct tls_context *t, str_t asked,
                                               const struct tls_hello *hello, uint16_t version,
                                               const uint16_t *algorithms, size_t algorithm_count);

/* tls_peer.c */
enum ssl_verify_result_t tls_check_pins(SSL *ssl, uint8_t *alert);
enum ssl_verify_result_t tls_check_chain(SSL *ssl, uint8_t *alert);
err_t tls_load_store(X509_STORE **out, str_t ca_file, struct sbuf *error);
bool tls_pin_of(X509 *x, bool is_key, struct tls_pin *out);
bool tls_pin_matches(const struct tls_pin *pin, X509 *x);
enum tls_trust tls_client_judge(const struct tls_context *t, const SSL *ssl, int *tag);

/* tls_tickets.c: one ring of keys for the whole process. */
int tls_ticket_key(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *hmac, int encrypt);
#define TICKET_PERIOD_S                                                                                      \
    UINT32_C(43200) /* a key makes tickets for this long, and is good for as long again                      \
                     */

struct ticket_key {
    uint8_t name[SSL_TICKET_KEY_NAME_LEN], hmac[32], aes[16];
};
struct ticket_keys {
    struct ticket_key now, before;
    uint64_t made_ns; /* of `now`; 0: there are none yet */
    bool has_before;
};
/* Brings them up to the time. */
void ticket_keys_turn(struct ticket_keys *k, uint64_t now_ns);
/* By the name in a ticket; NULL: unknown or over. *old: the client should get a new one. */
const struct ticket_key *ticket_keys_find(const struct ticket_keys *k, const uint8_t *name, bool *old);

/* tls_kept.c */
err_t tls_kept_create(struct tls_context *t); /* when it is known what the context wants of servers */
void tls_kept_destroy(struct tls_kept *k);    /* NULL is fine */
/* The newest; the caller's. NULL: there is none. */
SSL_SESSION *tls_kept_take(struct tls_kept *k, const uint8_t key[32]);
void tls_kept_forget(struct tls_kept *k, const uint8_t key[32]);

/* tls.c */
const uint8_t *tls_session_kept_key(SSL *ssl); /* NULL: the session is not to be kept */
struct tls_hello *tls_session_hello(SSL *ssl);
/* For the text of the error. */
void tls_session_no_pin_fits(SSL *ssl, X509 *shown);
void tls_session_not_trusted(SSL *ssl, long verdict); /* X509_V_ERR_... */
const struct tls_context *tls_session_context(SSL *ssl);

#endif
