/* net/dns.h: libunbound on a thread of its own; queries and answers go through mailboxes. */
#ifndef NET_DNS_H
#define NET_DNS_H

#include "core/config.h"
#include "core/ip.h"
#include "core/mailbox.h"
#include "net/loop.h"

struct dns; /* one per process; shared */

#define DNS_ADDRESSES_MAX 16
#define DNS_MX_MAX        16
#define DNS_NAME_MAX      255

enum dns_kind { DNS_ADDRESS, DNS_MX };

/* Embedded in its owner, which keeps it alive until `answered` ran (or dns_cancel returned true). */
struct dns_query {
    /* Asked: set by the owner. */
    enum dns_kind kind;
    char name[DNS_NAME_MAX + 1]; /* A-labels, no trailing dot */
    void (*answered)(struct dns_query *q); /* on the loop that asked */

    /* Answered. err: 0, ERR_DNS_NXDOMAIN, ERR_DNS_NODATA, ERR_DNS_TEMP, ERR_DNS_BOGUS, ERR_NULL_MX (RFC 7505). */
    err_t err;
    bool secure; /* DNSSEC-validated */
    uint32_t ttl_s;
    uint32_t count;
    struct ip addresses[DNS_ADDRESSES_MAX]; /* DNS_ADDRESS: AAAA and A; IPv6 first as RFC 6724 has it, v4 and v6 alternate */
    struct {
        uint16_t preference;
        char host[DNS_NAME_MAX + 1];
    } mx[DNS_MX_MAX]; /* DNS_MX: ascending preference, equal ones shuffled (RFC 5321 5.1) */

    /* dns-private */
    struct mail mail;
    struct loop *loop;
    struct link link;
    uint64_t asked_ns;
    uint32_t parts_pending;
    void *resolver_private[4];
};

err_t dns_start(struct dns **out, const struct config *c, struct sbuf *error) WARN_UNUSED;
void dns_stop(struct dns *d); /* answers what is outstanding with ERR_DNS_TEMP, joins the thread */
/* From a loop's thread; `answered` comes later, never from inside this call. */
void dns_ask(struct dns *d, struct loop *l, struct dns_query *q);
/* From any thread without a loop (boot, reload): blocks. */
void dns_ask_blocking(struct dns *d, struct dns_query *q);

#endif
