/* net/dns_priv.h: inside of DNS: what libunbound says (dns_answer.c, pure), how it is set up
 * (dns_resolver.c), and the thread that asks it (dns.c). */
#ifndef NET_DNS_PRIV_H
#define NET_DNS_PRIV_H

#include <unbound.h>

#include "core/list.h"
#include "net/dns.h"

enum { DNS_TYPE_A = 1, DNS_TYPE_MX = 15, DNS_TYPE_AAAA = 28, DNS_CLASS_IN = 1 };

/* One question to libunbound; an address query has two of them. */
struct dns_part {
    struct lookup *lookup; /* the one it is in */
    int rrtype, async_id;
    bool pending;
    err_t err;
    bool secure;
    uint32_t ttl_s;
    uint32_t count;
    struct ip addresses[DNS_ADDRESSES_MAX];
};

/* --- dns_answer.c --- */

/* Letters, digits, '-' and '_' in labels of 1 to 63, at most 253 in all. */
bool dns_name_valid(const char *name);
/* What the answer as a whole means; 0: it has data. */
err_t dns_judge(int ub_err, const struct ub_result *r);
void dns_take_addresses(struct dns_part *p, const struct ub_result *r);
/* Sorts, shuffles and, past DNS_MX_MAX, keeps the best. */
void dns_take_mx(struct dns_query *q, const struct ub_result *r);
/* A part that failed does not hurt one that has addresses. */
void dns_merge_addresses(struct dns_query *q, const struct dns_part *v6, const struct dns_part *v4);

/* --- dns_resolver.c --- */

struct dns_settings {
    bool has_resolver, use_hosts_file;
    char resolver[80]; /* libunbound's form: address@port */
};

void dns_settings_take(struct dns_settings *s, const struct config *c);
/* A context with its worker thread. `notes`: log what an administrator should know. */
err_t dns_resolver_open(struct ub_ctx **out, const struct dns_settings *s, bool notes,
                        struct sbuf *error) WARN_UNUSED;

#endif
