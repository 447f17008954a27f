/* smtp/proto/address.h: RFC 5321 4.1.2 paths, RFC 6531 non-ASCII. Pure; views point into the input unless
 * said. */
#ifndef SMTP_PROTO_ADDRESS_H
#define SMTP_PROTO_ADDRESS_H

#include "core/ip.h"
#include "core/str.h"

#define ADDRESS_LOCAL_MAX  255 /* RFC 5321 says 64 and to take more where possible; Postfix takes more too */
#define ADDRESS_DOMAIN_MAX 255

struct address {
    str_t local;     /* as written, quotes and backslashes included */
    str_t domain;    /* as written; absent for the null path and for bare "postmaster" */
    bool is_null;    /* <> */
    bool is_literal; /* domain is an address literal */
    bool is_utf8;    /* non-ASCII somewhere */
    struct ip ip;    /* is_literal */
};

enum path_kind { PATH_REVERSE, PATH_FORWARD };

/* `s` starts at '<' (blanks before it are skipped); *rest is what follows '>'. Source routes are read and
 * dropped. Only PATH_REVERSE may be null; only PATH_FORWARD may be <postmaster> without a domain (any case).
 */
err_t address_parse_path(str_t s, enum path_kind kind, struct address *out, str_t *rest) WARN_UNUSED;
err_t address_parse_mailbox(str_t s, struct address *out) WARN_UNUSED; /* "user@example.com", whole string */
bool domain_valid(str_t s); /* letters, digits, hyphens, underscores, dots; labels <= 63; UTF-8 allowed */
/* Lower case, and U-labels as A-labels (RFC 5890), so that what is the same to DNS is the same here. `s` is
 * valid. False: longer than DNS allows, or than the buffer. */
bool domain_to_ascii(str_t s, struct sbuf *out);
bool address_literal_valid(str_t s, struct ip *out);
/* The form in which addresses are compared, stored and passed on: domain by domain_to_ascii, local part
 * quoted only where it must be. Returns a copy in `buf`; absent: it has no such form, or no room. */
str_t address_canonical(const struct address *a, struct sbuf *buf);

#endif
