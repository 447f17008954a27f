/* net/tls_kept.c: what servers gave us to resume their sessions with, kept by a client's context: so for one
 * way of looking at certificates, and gone with it. Under the digest of the server's address and of the name
 * that it was asked for; what was got as one name is never shown as another.
 *
 * A resumed session does not show a certificate again: the one of then is looked at again instead
 * (SSL_CTX_set_reverify_on_resume), by the context's rules and today's date. A lock, as handshakes are rare
 * and cost a thousand times what it does. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <openssl/x509.h>

#include "net/tls_priv.h"

#define KEPT_MAX          256 /* of a context; some 4 KiB each, with the server's chain */
#define KEPT_PER_PEER_MAX 4   /* TLS 1.3: each is for one use, and connections come in groups */

struct kept {
    uint8_t key[32];
    SSL_SESSION *session; /* owned; NULL: free */
    uint64_t turn;        /* when it was put here */
};

struct tls_kept {
    pthread_mutex_t lock;
    uint64_t turns;
    struct kept list[KEPT_MAX];
};

/* Where this one goes: in the place of what it renews, or of the oldest of too many, else of nothing. */
static struct kept *place_for(struct tls_kept *k, const uint8_t key[32])
{
    struct kept *oldest = &k->list[0], *oldest_of_peer = NULL;
    size_t of_peer = 0;
    for (struct kept *e = k->list; e < k->list + KEPT_MAX; e++) {
        if (e->session && !memcmp(e->key, key, sizeof e->key)) {
            if (!SSL_SESSION_should_be_single_use(e->session))
                return e;
            of_peer++;
            if (!oldest_of_peer || e->turn < oldest_of_peer->turn)
                oldest_of_peer = e;
        }
        if (oldest->session && (!e->session || e->turn < oldest->turn))
            oldest = e;
    }
    return of_peer >= KEPT_PER_PEER_MAX ? oldest_of_peer : oldest;
}

static void put(struct tls_kept *k, const uint8_t key[32], SSL_SESSION *session)
{
    pthread_mutex_lock(&k->lock);
    struct kept *e = place_for(k, key);
    SSL_SESSION *was = e->session;
    memcpy(e->key, key, sizeof e->key);
    e->session = session;
    e->turn = ++k->turns;
    pthread_mutex_unlock(&k->lock);
    SSL_SESSION_free(was);
}

SSL_SESSION *tls_kept_take(struct tls_kept *k, const uint8_t key[32])
{
    struct kept *newest = NULL;
    SSL_SESSION *session = NULL;
    pthread_mutex_lock(&k->lock);
    for (struct kept *e = k->list; e < k->list + KEPT_MAX; e++)
        if (e->session && !memcmp(e->key, key, sizeof e->key) && (!newest || e->turn > newest->turn))
            newest = e;
    if (newest) {
        session = newest->session;
        if (SSL_SESSION_should_be_single_use(session))
            newest->session = NULL;
        else
            SSL_SESSION_up_ref(session);
    }
    pthread_mutex_unlock(&k->lock);
    return session;
}

void tls_kept_forget(struct tls_kept *k, const uint8_t key[32])
{
    pthread_mutex_lock(&k->lock);
    for (struct kept *e = k->list; e < k->list + KEPT_MAX; e++) {
        if (!e->session || memcmp(e->key, key, sizeof e->key))
            continue;
        SSL_SESSION_free(e->session);
        e->session = NULL;
    }
    pthread_mutex_unlock(&k->lock);
}

/* Not longer than the certificates that it stands for, so that the server is asked for its new ones in time.
 */
static void end_with_chain(const SSL *ssl, SSL_SESSION *session)
{
    STACK_OF(X509) *chain = SSL_get_peer_full_cert_chain(ssl);
    uint64_t made_s = SSL_SESSION_get_time(session);
    for (size_t i = 0; chain && i < sk_X509_num(chain); i++) {
        int64_t end_s = tls_end_of(sk_X509_value(chain, i)), left_s = end_s - (int64_t)made_s;
        if (left_s < (int64_t)SSL_SESSION_get_timeout(session))
            (void)SSL_SESSION_set_timeout(session, (uint32_t)MAX(left_s, 0));
    }
}

/* 1: the session is ours. */
static int on_new(SSL *ssl, SSL_SESSION *session)
{
    const struct tls_context *t = tls_session_context(ssl);
    const uint8_t *key = tls_session_kept_key(ssl);
    if (!key || !SSL_SESSION_is_resumable(session))
        return 0;
    if (t->verify)
        end_with_chain(ssl, session);
    put(t->kept, key, session);
    return 1;
}

err_t tls_kept_create(struct tls_context *t)
{
    t->kept = calloc(1, sizeof *t->kept);
    if (!t->kept)
        return -ENOMEM;
    pthread_mutex_init(&t->kept->lock, NULL);
    SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(t->ctx, on_new);
    SSL_CTX_set_timeout(t->ctx, TICKET_PERIOD_S);
    SSL_CTX_set_session_psk_dhe_timeout(t->ctx, TICKET_PERIOD_S);
    SSL_CTX_set_reverify_on_resume(t->ctx, t->verify || t->pin_count);
    return 0;
}

void tls_kept_destroy(struct tls_kept *k)
{
    if (!k)
        return;
    for (struct kept *e = k->list; e < k->list + KEPT_MAX; e++)
        SSL_SESSION_free(e->session);
    pthread_mutex_destroy(&k->lock);
    free(k);
}
