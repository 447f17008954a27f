/* smtp/proto/proxy_header.h: what a load balancer says of its client before anything else: the PROXY
 * protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt). Pure, incremental: it takes the header's
 * bytes and not one more, as what stands behind may be SMTP or TLS. */
#ifndef SMTP_PROTO_PROXY_HEADER_H
#define SMTP_PROTO_PROXY_HEADER_H

#include "core/ip.h"

#define PROXY_V1_BYTES_MAX 107  /* CRLF included */
#define PROXY_V2_BYTES_MAX 4096 /* behind the fixed part: addresses and TLVs, which are skipped */

enum proxy_kind {
    PROXY_LOCAL,   /* the balancer speaks for itself: a health check */
    PROXY_UNKNOWN, /* for somebody whose address it does not tell */
    PROXY_TCP
};

struct proxy_reader { /* zero-init is the start */
    uint8_t bytes[PROXY_V1_BYTES_MAX];
    uint8_t n;
    uint16_t skip; /* bytes that are still to come and mean nothing to us */
    /* When it is done: */
    enum proxy_kind kind;
    struct endpoint client; /* PROXY_TCP: who connected to the balancer */
};

/* Returns bytes consumed. *done: the header is over. ERR_SYNTAX in *err, as soon as it is clear, when this is
 * none; the reader is of no use then. */
size_t proxy_read(struct proxy_reader *r, const uint8_t *p, size_t n, bool *done, err_t *err);

#endif
