/* nexthop/target.h: a route's servers: what is to be resolved, the addresses that came out, which of them to
 * try, and how. Pure; one thread. */
#ifndef NEXTHOP_TARGET_H
#define NEXTHOP_TARGET_H

#include "core/arena.h"
#include "net/dns.h"
#include "net/tls.h"
#include "policy/policy.h"
#include "smtp/client/client.h"

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
/* All memory from the arena, so that it outlives the route's snapshot. False: out of memory. */
bool target_copy(struct target *out, const struct route *route, struct arena *a) WARN_UNUSED;

struct candidate {
    struct endpoint at;
    char host[DNS_NAME_MAX + 1];
    uint64_t failed_until_ms; /* others first until then; monotonic */
    bool tls_broken;          /* opportunistic TLS failed here: in the clear next time */
    bool lock_step;           /* it loses what is pipelined, whatever it says: a command at a time */
};
#define CANDIDATES_MAX 16 /* `tried` below has a bit for each */
struct candidates {
    struct candidate *list; /* owned */
    uint32_t count;
    uint32_t generation;     /* counts what was put in place of what */
    uint64_t fresh_until_ms; /* then DNS is asked again; monotonic. 0: ask */
};
void candidates_free(struct candidates *c);
/* Takes what is in `fresh`, which DNS allows to be used for ttl_s: half a minute to an hour of it is. */
void candidates_replace(struct candidates *c, struct candidates *fresh, uint32_t ttl_s, uint64_t now_ms);
bool candidates_fresh(const struct candidates *c, uint64_t now_ms);
/* DNS is in trouble. True: the old addresses go on serving for a while. False: there are none. */
bool candidates_extend(struct candidates *c, uint64_t now_ms);

/* The next one to try: in order, those that did not fail lately first; with nothing else to hope for, the
 * others too. -1: none. */
int candidates_pick(const struct candidates *c, uint32_t tried, bool failed_too, uint64_t now_ms);
/* It could not be used: others first for a while. True: with others to turn to nobody would notice that it is
 * missing, so it should be said (once a while). */
bool candidates_failed(const struct candidates *c, struct candidate *one, uint64_t now_ms);

/* What the route's level comes to with this candidate; *tls: NULL in the clear. */
void candidate_tls(const struct candidate *to, const struct hop_access *access, struct tls_context **tls,
                   enum smtpc_tls *level);
/* RFC 6066 3: SNI carries names, not addresses. A certificate can be checked against an address, though. */
str_t candidate_server_name(str_t host, const struct hop_access *access);

#endif
