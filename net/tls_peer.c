/* net/tls_peer.c: is this peer's certificate one that we know? By pin, or by who signed it for which name. */
#include <errno.h>

#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "net/tls_priv.h"

const char *tls_trust_name(enum tls_trust t)
{
    static const char *const names[] = {[TLS_TRUST_NONE] = "none",
                                        [TLS_TRUST_UNKNOWN] = "unknown",
                                        [TLS_TRUST_OK] = "ok",
                                        [TLS_TRUST_PIN] = "pin"};
    return (unsigned)t < COUNT_OF(names) ? names[t] : "none";
}

/* --- pins --- */

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

err_t tls_pin_parse(str_t text, struct tls_pin *out)
{
    bool is_key = str_starts(text, STR("spki:"));
    size_t digits = 0;
    *out = (struct tls_pin){.is_key = is_key};
    if (!is_key && !str_starts(text, STR("cert:")))
        return ERR_SYNTAX;
    for (size_t i = 5; i < text.n; i++) {
        int value = hex_value(text.p[i]);
        if (text.p[i] == ':' && digits && digits % 2 == 0 && i + 1 < text.n && text.p[i - 1] != ':')
            continue;
        if (value < 0 || digits == 2 * sizeof out->sha256)
            return ERR_SYNTAX;
        out->sha256[digits / 2] = (uint8_t)(out->sha256[digits / 2] << 4 | value);
        digits++;
    }
    return digits == 2 * sizeof out->sha256 ? 0 : ERR_SYNTAX;
}

void tls_sha256(const void *p, size_t n, uint8_t out[32])
{
    SHA256(p, n, out);
}

bool tls_pin_of(X509 *x, bool is_key, struct tls_pin *out)
{
    uint8_t *der = NULL;
    int n = is_key ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der) : i2d_X509(x, &der);
    if (n <= 0)
        return false;
    out->is_key = is_key;
    SHA256(der, (size_t)n, out->sha256);
    OPENSSL_free(der);
    return true;
}

bool tls_pin_matches(const struct tls_pin *pin, X509 *x)
{
    struct tls_pin shown;
    return tls_pin_of(x, pin->is_key, &shown) &&
           !CRYPTO_memcmp(shown.sha256, pin->sha256, sizeof shown.sha256);
}

/* Before a byte of ours is sent under the server's key. */
enum ssl_verify_result_t tls_check_pins(SSL *ssl, uint8_t *alert)
{
    const struct tls_context *t = tls_session_context(ssl);
    STACK_OF(X509) *chain = SSL_get_peer_full_cert_chain(ssl);
    X509 *x = chain && sk_X509_num(chain) ? sk_X509_value(chain, 0) : NULL;
    for (size_t i = 0; x && i < t->pin_count; i++)
        if (tls_pin_matches(&t->pins[i], x))
            return ssl_verify_ok;
    tls_session_no_pin_fits(ssl, x);
    *alert = SSL_AD_BAD_CERTIFICATE;
    return ssl_verify_invalid;
}

/* --- rules --- */

/* Certificates are looked at after the handshake, by the rules: whoever comes with one that we do not know is
 * what it would be without. The library has checked that it has the key. */
static enum ssl_verify_result_t take_any(SSL *ssl, uint8_t *alert)
{
    return ssl_verify_ok;
}

static struct tls_client_rule *new_rule(struct tls_context *t, int tag, struct sbuf *error)
{
    must(t->is_server && tag >= 0);
    if (!t->rules)
        t->rules = calloc(TLS_RULES_MAX, sizeof *t->rules);
    if (!t->rules) {
        sbuf_cstr(error, "out of memory");
        return NULL;
    }
    if (t->rule_count == TLS_RULES_MAX) {
        sbuf_printf(error, "more than %d rules for client certificates", TLS_RULES_MAX);
        return NULL;
    }
    SSL_CTX_set_custom_verify(t->ctx, SSL_VERIFY_PEER, take_any);
    struct tls_client_rule *r = &t->rules[t->rule_count++];
    r->tag = tag;
    return r;
}

err_t tls_context_add_client_pin(struct tls_context *t, const struct tls_pin *pin, int tag,
                                 struct sbuf *error)
{
    struct tls_client_rule *r = new_rule(t, tag, error);
    if (!r)
        return ERR_CONFIG;
    r->pin = *pin;
    return 0;
}

/* As the library would do it by itself; but what it does by itself it does not do again when a session is
 * resumed. */
enum ssl_verify_result_t tls_check_chain(SSL *ssl, uint8_t *alert)
{
    STACK_OF(X509) *chain = SSL_get_peer_full_cert_chain(ssl);
    X509_STORE *store = SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl));
    X509_STORE_CTX *check = X509_STORE_CTX_new();
    long verdict = X509_V_ERR_UNSPECIFIED;
    if (check && chain && sk_X509_num(chain) &&
        X509_STORE_CTX_init(check, store, sk_X509_value(chain, 0), chain) &&
        X509_STORE_CTX_set_default(check, "ssl_server") &&
        X509_VERIFY_PARAM_set1(X509_STORE_CTX_get0_param(check), SSL_get0_param(ssl)))
        verdict = X509_verify_cert(check) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(check);
    X509_STORE_CTX_free(check);
    ERR_clear_error();
    if (verdict == X509_V_OK)
        return ssl_verify_ok;
    tls_session_not_trusted(ssl, verdict);
    *alert = (uint8_t)SSL_alert_from_verify_result(verdict);
    return ssl_verify_invalid;
}

err_t tls_load_store(X509_STORE **out, str_t ca_file, struct sbuf *error)
{
    char path[PATH_MAX];
    err_t err = tls_readable(ca_file, path, error);
    *out = NULL;
    if (err)
        return err;
    X509_STORE *store = X509_STORE_new();
    ERR_clear_error();
    if (store && X509_STORE_load_locations(store, path, NULL)) {
        *out = store;
        return 0;
    }
    X509_STORE_free(store);
    tls_describe_bad_pem(path, "CA certificate", error);
    return ERR_CONFIG;
}

err_t tls_context_add_client_name(struct tls_context *t, str_t ca_file, str_t name, int tag,
                                  struct sbuf *error)
{
    X509_STORE *store;
    if (!name.n || name.n >= TLS_NAME_BYTES) {
        sbuf_cstr(error, "no name that a certificate could have");
        return ERR_CONFIG;
    }
    err_t err = tls_load_store(&store, ca_file, error);
    if (err)
        return err;
    struct tls_client_rule *r = new_rule(t, tag, error);
    if (!r) {
        X509_STORE_free(store);
        return ERR_CONFIG;
    }
    r->store = store;
    memcpy(r->name, name.p, name.n);
    return 0;
}

/* --- judging --- */

static bool is_signed_for(const struct tls_client_rule *r, X509 *x, STACK_OF(X509) * chain)
{
    X509_STORE_CTX *check = X509_STORE_CTX_new();
    bool ok = check && X509_STORE_CTX_init(check, r->store, x, chain);
    if (ok) {
        X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(check);
        ok = X509_STORE_CTX_set_default(check, "ssl_client") &&
             X509_VERIFY_PARAM_set1_host(param, r->name, strlen(r->name)) && X509_verify_cert(check) == 1;
    }
    X509_STORE_CTX_free(check);
    ERR_clear_error();
    return ok;
}

enum tls_trust tls_client_judge(const struct tls_context *t, const SSL *ssl, int *tag)
{
    STACK_OF(X509) *chain = SSL_get_peer_full_cert_chain(ssl);
    *tag = -1;
    if (!chain || !sk_X509_num(chain))
        return TLS_TRUST_NONE;
    X509 *x = sk_X509_value(chain, 0);
    for (size_t i = 0; i < t->rule_count; i++) {
        const struct tls_client_rule *r = &t->rules[i];
        if (r->store ? !is_signed_for(r, x, chain) : !tls_pin_matches(&r->pin, x))
            continue;
        *tag = r->tag;
        return r->store ? TLS_TRUST_OK : TLS_TRUST_PIN;
    }
    return TLS_TRUST_UNKNOWN;
}
