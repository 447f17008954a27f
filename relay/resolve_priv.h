/* relay/resolve_priv.h: from a route's hosts, or a domain, to the endpoints to try, in order (RFC 5321 5.1,
 * RFC 7505). The decisions are pure functions; resolve_start runs them over the DNS thread. */
#ifndef RELAY_RESOLVE_PRIV_H
#define RELAY_RESOLVE_PRIV_H

#include "relay/relay_priv.h"

/* What is to be resolved; strings belong to whoever filled it. */
struct target_host {
    str_t name;
    bool is_ip, is_mx;
    struct ip ip;
    uint16_t port;
};
struct target {
    bool is_dns; /* the recipient's own domain decides: its "does not exist" is final; a configured host's is
                    not */
    struct target_host *hosts;
    size_t host_count;
};

struct candidate {
    struct endpoint at;
    char host[DNS_NAME_MAX + 1];
    uint64_t failed_until_ms; /* others first until then; monotonic */
    bool tls_broken;          /* opportunistic TLS failed here: in the clear next time */
};
struct candidates {
    struct candidate *list; /* owned */
    uint32_t count;
};

enum resolution_kind { RESOLVED, RESOLVE_LATER, RESOLVE_NEVER };
struct resolution {
    enum resolution_kind kind;
    struct candidates candidates; /* moved to the receiver */
    uint32_t ttl_s;
    struct answer answer; /* of LATER and NEVER; text valid during the call */
};

/* --- pure --- */

/* Drops the exchangers that are not better than us: those with our own preference or a worse one (RFC
 * 5321 5.1). Returns how many stay; *looped when we are among them. `q` is an answered DNS_MX query, sorted
 * by preference. */
uint32_t mx_better_than_us(const struct dns_query *q, str_t hostname, bool *looped);

enum lookup {
    LOOKUP_MX,
    LOOKUP_IMPLICIT /* the domain's own address, for want of MX */,
    LOOKUP_EXCHANGER,
    LOOKUP_HOST
};
/* What a failed lookup means for the mail; answer->text is static. */
enum resolution_kind resolve_judge(bool is_dns, enum lookup lookup, err_t err, struct answer *answer);

/* --- over the DNS thread --- */

/* 0: nothing had to be asked, *now is the result. ERR_PENDING: `done` follows, from the loop; `t` stays until
 * then. -ENOMEM. */
err_t resolve_start(struct relay *r, const struct target *t, void (*done)(void *ctx, struct resolution *res),
                    void *ctx, struct resolve **out, struct resolution *now) WARN_UNUSED;
void candidates_free(struct candidates *c);

#endif
