/* net/tls_tickets.c: the keys of session tickets (RFC 5077 4, RFC 8446 4.6.1). All workers and all
 * generations of the configuration have the same, so that a client may come back to another worker, or after
 * a reload.
 *
 * Who has a key can read what was resumed with it, so a key lives for two periods and is then overwritten. A
 * lock, as handshakes are rare and cost a thousand times what it does. */
#include <pthread.h>
#include <string.h>

#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <openssl/rand.h>

#include "core/clock.h"
#include "net/tls_priv.h"

#define PERIOD_NS (TICKET_PERIOD_S * NS_PER_S)

void ticket_keys_turn(struct ticket_keys *k, uint64_t now_ns)
{
    if (k->made_ns && now_ns - k->made_ns < PERIOD_NS)
        return;
    k->has_before = k->made_ns && now_ns - k->made_ns < 2 * PERIOD_NS;
    if (k->has_before)
        k->before = k->now;
    else
        OPENSSL_cleanse(&k->before, sizeof k->before);
    RAND_bytes((uint8_t *)&k->now, sizeof k->now);
    k->made_ns = MAX(now_ns, 1);
}

const struct ticket_key *ticket_keys_find(const struct ticket_keys *k, const uint8_t *name, bool *old)
{
    *old = false;
    if (k->made_ns && !memcmp(name, k->now.name, sizeof k->now.name))
        return &k->now;
    *old = true;
    return k->has_before && !memcmp(name, k->before.name, sizeof k->before.name) ? &k->before : NULL;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ticket_keys keys;

int tls_ticket_key(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *hmac, int encrypt)
{
    struct ticket_key k;
    bool old = false;
    pthread_mutex_lock(&lock);
    ticket_keys_turn(&keys, clock_mono_ns());
    const struct ticket_key *found = encrypt ? &keys.now : ticket_keys_find(&keys, name, &old);
    if (found)
        k = *found;
    pthread_mutex_unlock(&lock);
    if (!found)
        return 0;
    bool ok;
    if (encrypt) {
        memcpy(name, k.name, sizeof k.name);
        RAND_bytes(iv, 16);
        ok = EVP_EncryptInit_ex(cipher, EVP_aes_128_cbc(), NULL, k.aes, iv);
    } else {
        ok = EVP_DecryptInit_ex(cipher, EVP_aes_128_cbc(), NULL, k.aes, iv);
    }
    ok = ok && HMAC_Init_ex(hmac, k.hmac, sizeof k.hmac, EVP_sha256(), NULL);
    OPENSSL_cleanse(&k, sizeof k);
    return !ok ? -1 : old ? 2 : 1;
}
