/* policy/policy.h: the compiled, immutable answer to "who is this client", "may this recipient be taken",
 * "where does it go". Built aside from a config at boot and reload, swapped by pointer, read by all workers
 * without locks (daemon/ retires old ones by ck_epoch). */
#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H

#include "core/config.h"
#include "policy/access.h"
#include "smtp/proto/address.h"
#include "smtp/proto/reply.h"

/* A trusted network may relay anywhere. The edge is treated as a stranger for what it may send, but never
 * limited. */
enum client_class { CLASS_STRANGER, CLASS_EDGE, CLASS_TRUSTED };
const char *client_class_name(enum client_class c);

struct policy;

/* Looks a host name up at build time (boot, reload): fills up to `max` addresses, returns how many; 0 = not
 * found. Blocking. */
struct policy_resolver {
    size_t (*resolve)(void *ctx, str_t name, struct ip *out, size_t max);
    void *ctx;
    /* Optional: is this an address of this machine? NULL: only loopback is known to be. */
    bool (*is_own)(void *ctx, const struct ip *ip);
};

/* Takes `c` in every case (config_free comes with policy_free, or at once on an error). Coherence errors go
 * to `d` and refuse (ERR_CONFIG): a local domain without a route in edge mode, or with the edge as its route
 * (its mail would go back: a loop); the edge inside the trusted networks (its mail would not be checked); a
 * route or edge that is one of our own listeners; domain entries or listeners given twice; two routes to the
 * same hosts that differ in their limits. Warnings: no local domains (nothing comes in), no trusted networks
 * (nothing goes out), everybody trusted (an open relay), an entry without effect, a name that does not
 * resolve (as a network it matches nobody until the next build). */
err_t policy_build(struct policy **out, struct config *c, const struct policy_resolver *r,
                   struct diag *d) WARN_UNUSED;
void policy_free(struct policy *p);
const struct config *policy_config(const struct policy *p);

enum client_class policy_classify(const struct policy *p,
                                  const struct ip *client); /* edge before trusted before stranger */
/* May it say who the client is, by XCLIENT and XFORWARD? */
bool policy_may_name_client(const struct policy *p, enum client_class c, const struct ip *client);
/* Listed, or under a listed "*.domain"; the most specific entry that says `local` decides. Any case; never
 * for literals and never for names outside ASCII: their A-label form, which address_canonical gives, is
 * listed. */
bool policy_domain_is_local(const struct policy *p, str_t domain);

/* May this client send to this recipient? R_rcpt_ok or the refusal. Only trusted clients may route in the
 * local part ('%', '!' or '@'). `postmaster` without a domain is always taken (RFC 5321 4.5.1), and so is
 * postmaster@hostname when hostname is no local domain; *rewritten gets the address to use then (else
 * absent), in the snapshot's memory. That is the first of these that can be delivered: `postmaster` of the
 * file as written there; postmaster@hostname if hostname is local; postmaster@ the first listed local domain
 * (no wildcard) with a route, or any such in dns mode; else postmaster@hostname, by the destination mode. */
enum reply_id policy_check_rcpt(const struct policy *p, enum client_class c, const struct address *rcpt,
                                str_t *rewritten);

/* How a recipient of a local domain is verified: the settings of the entry for the address, else for the
 * exact domain, else for the longest wildcard above it, else of the top of the file. Live as long as the
 * snapshot. */
const struct cfg_verify *policy_verify(const struct policy *p, const struct address *rcpt);

/* The name of the entry of `domains` that it comes under, its own or "*.above.it", as it stands there;
 * absent: none. Lives as long as the snapshot. */
str_t policy_listed_domain(const struct policy *p, str_t domain);

/* Where mail for a recipient goes. Precedence: address, exact domain, longest wildcard, then the destination
 * mode. */
enum route_kind { ROUTE_HOSTS, ROUTE_DNS };
struct route {
    enum route_kind kind;
    /* Canonical text; equal keys are one destination: "10.0.0.5:25", "[2001:db8::5]:2526,mx2.example.com:25",
     * "mx:edge.example.net:25", "lmtp:...", or the domain itself for ROUTE_DNS. A TLS level other than may
     * stands in front ("tls-verify:mx:..."): what must be encrypted shares no connection with what need not
     * be. Pins, certificates and credentials are behind it as a number that stands for them
     * ("tls-pin#1a2b3c4d:"). */
    str_t key;
    struct hop_access *access;     /* the snapshot's: take a reference for what outlives it */
    const struct cfg_route *hosts; /* ROUTE_HOSTS; lives as long as the snapshot: copy what outlives it */
    str_t domain; /* ROUTE_DNS: in `lower`: the question's domain lower-cased, or an address literal
                     "[192.0.2.1]", "[IPv6:2001:db8::1]" (no lookup, port 25); views move with the struct: do
                     not copy it */
    char lower[256];
};
/* 0; ERR_NOT_FOUND: no way to deliver it (bad domain; in dns mode also a name outside ASCII, or a literal
 * that is ourselves). In dns mode an address literal's route is the literal itself, port 25; in edge mode all
 * goes to the edge. Bare `postmaster` goes where policy_check_rcpt's rewritten address goes. */
err_t policy_route(const struct policy *p, const struct address *rcpt, struct route *out) WARN_UNUSED;
/* Whom to ask about a recipient: its verification's own route, else as policy_route. */
err_t policy_verify_route(const struct policy *p, const struct address *rcpt, struct route *out) WARN_UNUSED;

#endif
