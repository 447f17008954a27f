/* nexthop/resolve.h: from a route's hosts, or a domain, to the endpoints to try, in order (RFC 5321 5.1, RFC
 * 7505). The decisions are pure functions; resolve_start runs them over the DNS thread. Loop thread only. */
#ifndef NEXTHOP_RESOLVE_H
#define NEXTHOP_RESOLVE_H

#include "nexthop/answer.h"
#include "nexthop/settings.h"
#include "nexthop/target.h"

struct resolve;

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

enum lookup_kind {
    LOOKUP_MX,
    LOOKUP_IMPLICIT /* the domain's own address, for want of MX */,
    LOOKUP_EXCHANGER,
    LOOKUP_HOST
};
/* What a failed lookup means for the mail; answer->text is static. */
enum resolution_kind resolve_judge(bool is_dns, enum lookup_kind lookup, err_t err, struct answer *answer);

/* --- over the DNS thread --- */

/* Embedded in whoever asks. */
struct resolver {
    struct loop *loop;
    struct dns *dns;                     /* NULL: no name can be asked for */
    const struct hop_settings *settings; /* may change between calls, and while a question is out */
    uint32_t pending;          /* lookups whose `done` is to come; the DNS thread has their memory */
    struct kept_answer answer; /* private: of a resolution that needed no question */
};
/* 0: nothing had to be asked, *now is the result. ERR_PENDING: `done` follows, from the loop; `t` stays until
 * then. -ENOMEM. */
err_t resolve_start(struct resolver *r, const struct target *t,
                    void (*done)(void *ctx, struct resolution *res), void *ctx, struct resolve **out,
                    struct resolution *now) WARN_UNUSED;

#endif
