/* net/tls_identity.c: a server's certificates: read, and chosen by what a client asks for and can use. */
#include <errno.h>
#include <stdlib.h>

#include <openssl/bytestring.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "net/tls_priv.h"

#define RSA_BITS_MIN 2048

void tls_identity_free(struct tls_identity *id)
{
    if (!id)
        return;
    EVP_PKEY_free(id->key);
    for (size_t i = 0; i < id->chain_count; i++)
        CRYPTO_BUFFER_free(id->chain[i]);
    for (size_t i = 0; i < id->name_count; i++)
        free((char *)(uintptr_t)id->names[i].p);
    free((char *)(uintptr_t)id->file.p);
    free(id);
}

/* --- reading --- */

static str_t copy_lower(str_t s)
{
    char *p = malloc(s.n + 1);
    if (!p)
        return STR_NONE;
    for (size_t i = 0; i < s.n; i++)
        p[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] | 0x20) : s.p[i];
    p[s.n] = '\0';
    return str_of(p, s.n);
}

static void add_name(struct tls_identity *id, str_t name)
{
    if (!name.n || name.n >= TLS_NAME_BYTES || memchr(name.p, '\0', name.n) ||
        id->name_count == TLS_NAMES_MAX)
        return;
    str_t copy = copy_lower(name);
    if (copy.p)
        id->names[id->name_count++] = copy;
}

static str_t asn1_text(const ASN1_STRING *s)
{
    return str_of((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

/* RFC 6125 6.4.4: the common name counts only where there are no others. */
static void take_names(struct tls_identity *id, X509 *x)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    for (size_t i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *one = sk_GENERAL_NAME_value(names, i);
        if (one->type == GEN_DNS)
            add_name(id, asn1_text(one->d.dNSName));
    }
    if (!names) {
        X509_NAME *subject = X509_get_subject_name(x);
        int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
        if (at >= 0)
            add_name(id, asn1_text(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at))));
    }
    GENERAL_NAMES_free(names);
}

int64_t tls_end_of(const X509 *x)
{
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    int days, seconds;
    bool ok = epoch && ASN1_TIME_diff(&days, &seconds, epoch, X509_get0_notAfter(x));
    ASN1_TIME_free(epoch);
    return ok ? (int64_t)days * 86400 + seconds : INT64_MAX;
}

static bool take_certificate(struct tls_identity *id, X509 *x)
{
    uint8_t *der = NULL;
    int n = i2d_X509(x, &der);
    if (n <= 0)
        return false;
    CRYPTO_BUFFER *buffer = CRYPTO_BUFFER_new(der, (size_t)n, NULL);
    OPENSSL_free(der);
    if (!buffer)
        return false;
    id->chain[id->chain_count++] = buffer;
    id->not_after_s = MIN(id->not_after_s, tls_end_of(x));
    return true;
}

static err_t take_key_kind(struct tls_identity *id, const char *path, struct sbuf *error)
{
    static const struct {
        int nid;
        uint16_t group, algorithm;
    } curves[] = {{NID_X9_62_prime256v1, SSL_CURVE_SECP256R1, SSL_SIGN_ECDSA_SECP256R1_SHA256},
                  {NID_secp384r1, SSL_CURVE_SECP384R1, SSL_SIGN_ECDSA_SECP384R1_SHA384},
                  {NID_secp521r1, SSL_CURVE_SECP521R1, SSL_SIGN_ECDSA_SECP521R1_SHA512}};
    const RSA *rsa = EVP_PKEY_get0_RSA(id->key);
    const EC_KEY *ec = EVP_PKEY_get0_EC_KEY(id->key);
    ERR_clear_error();
    if (rsa && RSA_bits(rsa) >= RSA_BITS_MIN)
        return 0;
    if (rsa) {
        sbuf_printf(error, "%s: an RSA key of %u bits is too short; make one of %d bits or more", path,
                    RSA_bits(rsa), RSA_BITS_MIN);
        return ERR_CONFIG;
    }
    for (size_t i = 0; ec && i < COUNT_OF(curves); i++) {
        if (EC_GROUP_get_curve_name(EC_KEY_get0_group(ec)) != curves[i].nid)
            continue;
        id->is_ecdsa = true;
        id->group = curves[i].group;
        id->algorithm = curves[i].algorithm;
        return 0;
    }
    sbuf_printf(error, "%s: the key is of a kind that mail servers do not know; use ECDSA on P-256, or RSA",
                path);
    return ERR_CONFIG;
}

/* All certificates of the file, own one first; *own is the caller's. */
static err_t read_chain(struct tls_identity *id, const char *path, X509 **own, struct sbuf *error)
{
    FILE *f = fopen(path, "re");
    X509 *x = NULL;
    bool ok = f != NULL;
    *own = NULL;
    ERR_clear_error();
    while (ok && id->chain_count < TLS_CHAIN_MAX && (x = PEM_read_X509_AUX(f, NULL, NULL, NULL))) {
        ok = take_certificate(id, x);
        if (*own)
            X509_free(x);
        else
            *own = x;
    }
    if (f)
        fclose(f);
    /* The end of the file looks like one without a certificate. */
    if (ok && *own && (x || tls_queue_says(ERR_LIB_PEM, PEM_R_NO_START_LINE))) {
        ERR_clear_error();
        return 0;
    }
    tls_describe_bad_pem(path, "certificate", error);
    return ERR_CONFIG;
}

static err_t read_key(struct tls_identity *id, const char *path, struct sbuf *error)
{
    FILE *f = fopen(path, "re");
    ERR_clear_error();
    if (f)
        id->key = PEM_read_PrivateKey(f, NULL, NULL, (void *)(uintptr_t) ""); /* never asks for a password */
    if (f)
        fclose(f);
    if (id->key)
        return take_key_kind(id, path, error);
    tls_describe_bad_pem(path, "private key", error);
    return ERR_CONFIG;
}

static err_t load(struct tls_identity *id, str_t cert_file, str_t key_file, struct sbuf *error)
{
    char cert[PATH_MAX], key[PATH_MAX];
    X509 *own;
    err_t err = tls_readable(cert_file, cert, error);
    if (!err)
        err = tls_readable(key_file, key, error);
    if (!err)
        err = read_chain(id, cert, &own, error);
    if (err)
        return err;
    err = read_key(id, key, error);
    if (!err && !X509_check_private_key(own, id->key)) {
        sbuf_printf(error, "%s: the key does not belong to the first certificate in %s", key, cert);
        err = ERR_CONFIG;
    }
    ERR_clear_error();
    if (!err)
        take_names(id, own);
    X509_free(own);
    return err;
}

err_t tls_identity_load(struct tls_identity **out, str_t cert_file, str_t key_file, struct sbuf *error)
{
    struct tls_identity *id = calloc(1, sizeof *id);
    *out = NULL;
    if (!id) {
        sbuf_cstr(error, "out of memory");
        return -ENOMEM;
    }
    id->not_after_s = INT64_MAX;
    id->file = str_of(strndup(cert_file.p ? cert_file.p : "", cert_file.n), cert_file.n);
    err_t err = id->file.p ? load(id, cert_file, key_file, error) : -ENOMEM;
    if (err) {
        tls_identity_free(id);
        return err;
    }
    *out = id;
    return 0;
}

/* --- choosing --- */

/* "*.example.com" is for one label. */
static bool name_matches(str_t pattern, str_t name)
{
    if (!str_starts(pattern, STR("*.")))
        return str_ieq(pattern, name);
    ptrdiff_t dot = str_find(name, '.');
    return dot > 0 && str_ieq(str_sub(pattern, 1, pattern.n), str_sub(name, (size_t)dot, name.n));
}

bool tls_identity_has_name(const struct tls_identity *id, str_t name)
{
    for (size_t i = 0; i < id->name_count; i++)
        if (name_matches(id->names[i], name))
            return true;
    return false;
}

static bool is_ecdsa_suite(uint16_t suite)
{
    static const uint16_t suites[] = {0xc02b, 0xc02c, 0xcca9}; /* those of CIPHERS_1_2 */
    for (size_t i = 0; i < COUNT_OF(suites); i++)
        if (suites[i] == suite)
            return true;
    return false;
}

void tls_hello_read(struct tls_hello *out, const SSL_CLIENT_HELLO *hello)
{
    const uint8_t *p;
    size_t n;
    uint16_t value;
    CBS suites, list, groups;

    *out = (struct tls_hello){0};
    CBS_init(&suites, hello->cipher_suites, hello->cipher_suites_len);
    while (CBS_get_u16(&suites, &value))
        out->ecdsa_1_2 |= is_ecdsa_suite(value);
    if (!SSL_early_callback_ctx_extension_get(hello, TLSEXT_TYPE_supported_groups, &p, &n))
        return;
    CBS_init(&list, p, n);
    if (!CBS_get_u16_length_prefixed(&list, &groups))
        return;
    while (CBS_get_u16(&groups, &value)) {
        out->p256 |= value == SSL_CURVE_SECP256R1;
        out->p384 |= value == SSL_CURVE_SECP384R1;
        out->p521 |= value == SSL_CURVE_SECP521R1;
    }
}

static bool is_ecdsa_algorithm(uint16_t a)
{
    return a == SSL_SIGN_ECDSA_SECP256R1_SHA256 || a == SSL_SIGN_ECDSA_SECP384R1_SHA384 ||
           a == SSL_SIGN_ECDSA_SECP521R1_SHA512 || a == SSL_SIGN_ECDSA_SHA1;
}

static bool usable_ecdsa(const struct tls_identity *id, const struct tls_hello *hello, uint16_t version,
                         const uint16_t *algorithms, size_t count)
{
    bool is_1_3 = version >= TLS1_3_VERSION;
    if (!is_1_3) { /* RFC 8422 5.1: the curve is one of the client's */
        bool has_curve = id->group == SSL_CURVE_SECP256R1   ? hello->p256
                         : id->group == SSL_CURVE_SECP384R1 ? hello->p384
                                                            : hello->p521;
        if (!hello->ecdsa_1_2 || !has_curve)
            return false;
    }
    for (size_t i = 0; i < count; i++)
        if (is_1_3 ? algorithms[i] == id->algorithm : is_ecdsa_algorithm(algorithms[i]))
            return true;
    return false;
}

static bool usable_rsa(uint16_t version, const uint16_t *algorithms, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t a = algorithms[i];
        bool is_pss = SSL_is_signature_algorithm_rsa_pss(a);
        if (is_pss || (version < TLS1_3_VERSION && SSL_get_signature_algorithm_key_type(a) == EVP_PKEY_RSA))
            return true;
    }
    return false;
}

/* The name that counts: the client's, or, where it has none that we have, one of the first certificate's. */
static str_t wanted_name(const struct tls_context *t, str_t asked)
{
    for (size_t i = 0; asked.n && i < t->identity_count; i++)
        if (tls_identity_has_name(t->identities[i], asked))
            return asked;
    return t->identity_count && t->identities[0]->name_count ? t->identities[0]->names[0] : STR_NONE;
}

const struct tls_identity *tls_identity_choose(const struct tls_context *t, str_t asked,
                                               const struct tls_hello *hello, uint16_t version,
                                               const uint16_t *algorithms, size_t algorithm_count)
{
    const struct tls_identity *best = NULL;
    str_t name = wanted_name(t, asked);
    int best_score = -1;
    for (size_t i = 0; i < t->identity_count; i++) {
        const struct tls_identity *id = t->identities[i];
        bool usable = id->is_ecdsa ? usable_ecdsa(id, hello, version, algorithms, algorithm_count)
                                   : usable_rsa(version, algorithms, algorithm_count);
        int score = (usable ? 4 : 0) + (name.n && tls_identity_has_name(id, name) ? 2 : 0) + id->is_ecdsa;
        if (score > best_score) {
            best = id;
            best_score = score;
        }
    }
    return best;
}
