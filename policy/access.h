/* policy/access.h: how the servers of a route are spoken to: TLS and credentials, made of a configuration and
 * the files that it names. Immutable, counted; any thread. */
#ifndef POLICY_ACCESS_H
#define POLICY_ACCESS_H

#include "core/config.h"
#include "net/tls.h"

struct hop_access {
    unsigned refs; /* atomic */
    enum tls_level level;
    struct tls_context *tls; /* owned; NULL: level is off */
    str_t name;              /* for SNI, and that the certificate must have; absent: the host's */
    bool chunking;           /* BDAT may be used */
    bool sends_eight_bit;    /* also where the server does not offer 8BITMIME */
    bool has_auth;
    enum auth_mechanism mechanism;
    str_t user, password;
    uint8_t digest[32]; /* equal: the same words in the file, and the same password */
    char texts[];       /* owns what the views are of */
};
struct hop_access *hop_access_ref(struct hop_access *a);
void hop_access_unref(struct hop_access *a); /* NULL is fine */
/* False: connections made by the one are not as the other wants them. NULL is off. */
bool hop_access_same(const struct hop_access *a, const struct hop_access *b);

#endif
