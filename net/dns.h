/* net/dns.h: libunbound on a thread of its own; queries and answers go through mailboxes. It caches, follows
 * CNAMEs and reads the hosts file.
 *
 * DNSSEC: with the resolvers of resolv.conf (or none: then from the root servers) answers are validated when
 * Debian's root key is installed (package dns-root-data). With a resolver in the configuration they are not:
 * a private resolver may well serve names that no chain of trust covers, so `secure` stays false.
 *
 * Names must be host names; address literals are the callers' job. */
#ifndef NET_DNS_H
#define NET_DNS_H

#include "core/config.h"
#include "core/ip.h"
#include "core/mailbox.h"
#include "net/loop.h"

struct dns; /* one per process; shared */
struct dns_waiter;

#define DNS_ADDRESSES_MAX 16
#define DNS_MX_MAX        16
#define DNS_NAME_MAX      255

enum dns_kind { DNS_ADDRESS, DNS_MX, DNS_IPV4 };

/* Embedded in its owner, which keeps it alive, and its loop too, until `answered` ran (at most dns.timeout_ms
 * later, or during dns_cancel or dns_stop). It may be asked again from `answered` on. */
struct dns_query {
    /* Asked: set by the owner. */
    enum dns_kind kind;
    char name[DNS_NAME_MAX + 1];           /* A-labels, no trailing dot */
    void (*answered)(struct dns_query *q); /* on the loop that asked; not used by dns_ask_blocking */

    /* Answered. err: 0, ERR_DNS_NXDOMAIN, ERR_DNS_NODATA, ERR_DNS_TEMP, ERR_DNS_BOGUS, ERR_NULL_MX (RFC
     * 7505). A name that cannot exist is ERR_DNS_NXDOMAIN; an MX set without one usable host is ERR_DNS_TEMP.
     */
    err_t err;
    bool secure; /* DNSSEC-validated; never with dns.resolver set */
    uint32_t ttl_s;
    uint32_t count;
    struct ip addresses[DNS_ADDRESSES_MAX]; /* DNS_IPV4: A. DNS_ADDRESS: AAAA and A; IPv6 first as RFC 6724
                                               has it, v4 and v6 alternate */
    struct {
        uint16_t preference;
        char
            host[DNS_NAME_MAX + 1]; /* lower-cased, no trailing dot; letters, digits, '-', '_' and '.' only */
    } mx[DNS_MX_MAX];               /* DNS_MX: ascending preference, equal ones shuffled (RFC 5321 5.1) */

    /* dns-private */
    struct mail mail;
    struct dns *dns;
    struct loop *loop;         /* NULL: dns_ask_blocking */
    struct dns_waiter *waiter; /* dns_ask_blocking; on the asker's stack */
    uint64_t asked_ns;
};

/* Never fails for the network's sake. What an administrator should know (no resolv.conf, DNSSEC or not) is
 * logged as boot_note. */
err_t dns_start(struct dns **out, const struct config *c, struct sbuf *error) WARN_UNUSED;
/* From here on everything, what is outstanding too, is answered with ERR_DNS_TEMP at once: whoever waits for
 * an answer can end. Any thread. */
void dns_cancel(struct dns *d);
/* Answers what is outstanding with ERR_DNS_TEMP, joins the thread. Nobody asks any more by then. NULL is
 * fine. */
void dns_stop(struct dns *d);
/* From a loop's thread; `answered` comes later, never from inside this call. */
void dns_ask(struct dns *d, struct loop *l, struct dns_query *q);
/* From any thread without a loop (boot, reload): blocks, at most about dns.timeout_ms. */
void dns_ask_blocking(struct dns *d, struct dns_query *q);

#endif
