/* tests/unit/net/certs.h: certificates made by the test, in memory and as files. */
#ifndef TESTS_UNIT_NET_CERTS_H
#define TESTS_UNIT_NET_CERTS_H

#include <stdio.h>

#include <openssl/bn.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

struct cert_spec {
    bool is_ca;
    int rsa_bits;          /* 0: ECDSA on P-256 */
    const char *names;     /* "DNS:mx.example.test"; NULL: only the common name "test" */
    long ends_in_s;        /* 0: a day */
    const struct cert *by; /* who signs; NULL: itself */
};

struct cert {
    EVP_PKEY *key;
    X509 *x;
};

static inline EVP_PKEY *cert_make_key(int rsa_bits)
{
    EVP_PKEY *key = EVP_PKEY_new();
    if (rsa_bits) {
        RSA *rsa = RSA_new();
        BIGNUM *e = BN_new();
        assert_true(BN_set_word(e, RSA_F4) && RSA_generate_key_ex(rsa, rsa_bits, e, NULL));
        assert_true(EVP_PKEY_assign_RSA(key, rsa));
        BN_free(e);
    } else {
        EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
        assert_true(ec && EC_KEY_generate_key(ec) && EVP_PKEY_assign_EC_KEY(key, ec));
    }
    return key;
}

static inline void cert_extend(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_nconf_nid(NULL, NULL, nid, (char *)(uintptr_t)value);
    assert_true(e && X509_add_ext(x, e, -1));
    X509_EXTENSION_free(e);
}

static inline struct cert cert_make(const struct cert_spec *spec)
{
    struct cert c = {cert_make_key(spec->rsa_bits), X509_new()};
    const struct cert *by = spec->by ? spec->by : &c;
    static long serial;
    assert_true(X509_set_version(c.x, 2));
    assert_true(ASN1_INTEGER_set(X509_get_serialNumber(c.x), ++serial));
    assert_non_null(X509_gmtime_adj(X509_get_notBefore(c.x), -86400));
    assert_non_null(X509_gmtime_adj(X509_get_notAfter(c.x), spec->ends_in_s ? spec->ends_in_s : 86400));
    assert_true(X509_set_pubkey(c.x, c.key));
    assert_true(X509_NAME_add_entry_by_txt(X509_get_subject_name(c.x), "CN", MBSTRING_ASC,
                                           (const unsigned char *)(spec->is_ca ? "ca" : "test"), -1, -1, 0));
    assert_true(X509_set_issuer_name(c.x, X509_get_subject_name(by->x)));
    if (spec->names)
        cert_extend(c.x, NID_subject_alt_name, spec->names);
    if (spec->is_ca)
        cert_extend(c.x, NID_basic_constraints, "critical,CA:TRUE");
    assert_true(X509_sign(c.x, by->key, EVP_sha256()) > 0);
    return c;
}

static inline void cert_write(const struct cert *c, const char *cert_path, const char *key_path)
{
    FILE *f = fopen(cert_path, "w");
    assert_true(f && PEM_write_X509(f, c->x) && fclose(f) == 0);
    f = fopen(key_path, "w");
    assert_true(f && PEM_write_PrivateKey(f, c->key, NULL, NULL, 0, NULL, NULL) && fclose(f) == 0);
}

static inline void cert_free(struct cert *c)
{
    X509_free(c->x);
    EVP_PKEY_free(c->key);
}

#endif
