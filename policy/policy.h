/* policy/policy.h: the compiled, immutable answer to "who is this client", "may this recipient be taken", "where does it go".
 * Built aside from a config at boot and reload, swapped by pointer, read by all workers without locks (daemon/ retires old
 * ones by ck_epoch). */
#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H

#include "core/config.h"
#include "smtp/proto/address.h"
#include "smtp/proto/reply.h"

/* A trusted network may relay anywhere. The edge is treated as a stranger for what it may send, but never limited. */
enum client_class { CLASS_STRANGER, CLASS_EDGE, CLASS_TRUSTED };
const char *client_class_name(enum client_class c);

struct policy;

/* Looks a host name up at build time (boot, reload): fills up to `max` addresses, returns how many; 0 = not found. Blocking. */
struct policy_resolver {
    size_t (*resolve)(void *ctx, str_t name, struct ip *out, size_t max);
    void *ctx;
};

/* Keeps a reference to `c` (config_free comes with policy_free). Coherence errors go to `d` and refuse:
 *   a local domain without a route in edge mode (its mail would go back to the edge: a loop); the edge inside the trusted
 *   networks (its mail would not be checked); a route or edge that is one of our own listeners; domain entries given twice.
 * Warnings: no local domains (nothing comes in), no trusted networks (nothing goes out), a name that does not resolve. */
err_t policy_build(struct policy **out, struct config *c, const struct policy_resolver *r, struct diag *d) WARN_UNUSED;
void policy_free(struct policy *p);
const struct config *policy_config(const struct policy *p);

enum client_class policy_classify(const struct policy *p, const struct ip *client); /* edge before trusted before stranger */
bool policy_domain_is_local(const struct policy *p, str_t domain); /* listed, or under a listed "*.domain"; any case */

/* May this client send to this recipient? R_rcpt_ok or the refusal. `postmaster` without a domain is always taken (RFC 5321 4.5.1)
 * and stands for postmaster@hostname; *rewritten gets the address to use then (else absent), in the snapshot's memory. */
enum reply_id policy_check_rcpt(const struct policy *p, enum client_class c, const struct address *rcpt, str_t *rewritten);

/* Where mail for a recipient goes. Precedence: address, exact domain, longest wildcard, then the destination mode. */
enum route_kind { ROUTE_HOSTS, ROUTE_DNS };
struct route {
    enum route_kind kind;
    str_t key; /* canonical text; equal keys are one destination: "10.0.0.5:25", "[2001:db8::5]:2526,mx2.example.com:25",
                  "mx:edge.example.net:25", "lmtp:…", or the domain itself for ROUTE_DNS */
    const struct cfg_route *hosts; /* ROUTE_HOSTS; lives as long as the snapshot: copy what outlives it */
    str_t domain;                  /* ROUTE_DNS: view of the question's domain, lower-cased in `lower` */
    char lower[256];
};
/* 0; ERR_NOT_FOUND: no way to deliver it (bad domain). An address literal's route is the literal itself, port 25. */
err_t policy_route(const struct policy *p, const struct address *rcpt, struct route *out) WARN_UNUSED;

#endif
