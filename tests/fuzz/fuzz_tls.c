/* What a client says before there are keys: the library's parser, our look at the ClientHello and the choice
 * of a certificate. The input is bytes from the wire, in pieces: each begins with its length. Nothing comes
 * of it but a handshake that waits or has failed. */
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "net/tls.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static str_t memory_file(char path[32])
{
    int fd = memfd_create("pem", 0);
    must(fd >= 0);
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return str_cstr(path);
}

static struct tls_context *make_server(void)
{
    char cert_path[32], key_path[32], text[256];
    str_t cert = memory_file(cert_path), key = memory_file(key_path);
    struct sbuf error = SBUF_ON(text);
    struct tls_context *t;
    struct tls_pin pin = {0};
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    EVP_PKEY *pkey = EVP_PKEY_new();
    X509 *x = X509_new();
    must(ec && EC_KEY_generate_key(ec) && EVP_PKEY_assign_EC_KEY(pkey, ec) && X509_set_version(x, 2));
    must(X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                                    (const unsigned char *)"gw.example.com", -1, -1, 0));
    must(X509_gmtime_adj(X509_get_notBefore(x), 0) && X509_gmtime_adj(X509_get_notAfter(x), 86400));
    must(X509_set_pubkey(x, pkey) && X509_sign(x, pkey, EVP_sha256()) > 0);
    FILE *f = fopen(cert.p, "w");
    must(f && PEM_write_X509(f, x) && !fclose(f));
    f = fopen(key.p, "w");
    must(f && PEM_write_PrivateKey(f, pkey, NULL, NULL, 0, NULL, NULL) && !fclose(f));
    X509_free(x);
    EVP_PKEY_free(pkey);
    must(!tls_context_server(&t, &error) && !tls_context_add_identity(t, cert, key, &error));
    must(!tls_context_add_client_pin(t, &pin, 1, &error));
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tls_context *server;
    struct tls_session *s;
    struct tls_pin pin;
    uint8_t out[256];
    if (!server)
        server = make_server();
    if (!tls_pin_parse(str_of((const char *)data, size), &pin))
        return 0;
    must(!tls_session_create(&s, server, STR_NONE));
    err_t err = ERR_PENDING;
    for (size_t at = 0; at < size && err == ERR_PENDING;) {
        size_t n = MIN((size_t)data[at] + 1, size - at - 1);
        must(!tls_feed(s, data + at + 1, n));
        err = tls_handshake(s);
        str_t output = tls_output(s);
        tls_output_taken(s, output.n);
        at += n + 1;
    }
    must(err == ERR_PENDING || (err == ERR_TLS && tls_error_text(s)[0]));
    must(tls_read(s, out, sizeof out) <= 0);
    tls_session_destroy(s);
    return 0;
}
