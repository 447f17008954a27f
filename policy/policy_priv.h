/* policy/policy_priv.h: the compiled policy, and the steps of its making. */
#ifndef POLICY_POLICY_PRIV_H
#define POLICY_POLICY_PRIV_H

#include "core/map.h"
#include "policy/netset.h"
#include "policy/policy.h"

#define RESOLVED_MAX 16 /* addresses kept of one name */
#define POLICY_ARENA_BYTES_MAX                                                                               \
    ((size_t)64 << 20) /* route keys and rules of a file of 1 MiB are far smaller */

/* One entry of `domains`, with what it inherits. */
struct rule {
    const struct cfg_domain *source;
    bool local;
    const struct cfg_route *route;   /* NULL: the destination mode decides */
    str_t key;                       /* of the route */
    struct hop_access *access;       /* of the route, in policy->accesses */
    const struct cfg_verify *verify; /* NULL: that of the top of the file */
    str_t verify_key;                /* of verify's own route */
    struct hop_access *verify_access;
};

struct policy {
    struct config *config; /* owned */
    struct arena arena;    /* owns rules, keys and texts below */
    struct netset edge, trusted, xclient;
    struct rule *rules;             /* one per config->domains, same order */
    struct smap domains, wildcards; /* name (of a wildcard: behind "*.") -> rule; case folded */
    struct smap addresses;          /* canonical address -> rule */
    size_t wildcard_bytes_max;      /* longest name in `wildcards`: longer suffixes are not looked up */
    str_t destination_key;          /* DEST_EDGE */
    str_t verify_key;               /* of config->verify.route */
    struct smap accesses;           /* words -> struct hop_access, counted */
    struct hop_access *destination_access, *verify_access, *dns_access; /* in `accesses` */
    str_t postmaster;                  /* what bare <postmaster> stands for */
    struct address postmaster_address; /* views into `postmaster` */
};

/* While building. All its memory is the policy's arena. */
struct resolved {
    struct ip ips[RESOLVED_MAX];
    size_t count;
};

struct known_network { /* a network with where it was said; names have one per address */
    struct cidr cidr;
    struct mark mark;
    str_t text;
};

struct networks {
    struct known_network *items;
    size_t count;
};

struct builder {
    struct policy *p;
    const struct config *config;
    const struct policy_resolver *resolver;
    struct diag *diag;
    struct smap names;    /* name -> struct resolved */
    struct smap contexts; /* words -> struct tls_context, counted */
    unsigned errors_before;
    struct networks edge, trusted, xclient;
    err_t err; /* -ENOMEM sticks */
};

/* Asked once per name. Never NULL: an empty answer when nothing is known or b->err is set. */
const struct resolved *resolve_name(struct builder *b, str_t name);
/* access.c */
struct hop_access *find_access(struct builder *b, const struct cfg_route *r); /* NULL: an error was said */
void route_access_tag(const struct cfg_route *r, struct gbuf *out);  /* for keys; nothing: as always */
void access_maps_free(struct smap *contexts, struct smap *accesses); /* NULL is fine */
void build_networks(struct builder *b);
void build_rules(struct builder *b);
void build_postmaster(struct builder *b);
void check_coherence(struct builder *b);

bool is_own_listener(const struct config *c, const struct policy_resolver *resolver, const struct ip *ip,
                     uint16_t port);
/* The entry of the address itself; NULL: none. */
const struct rule *find_address_rule(const struct policy *p, const struct address *a);
err_t route_by_hosts(struct route *out, const struct cfg_route *hosts, str_t key, struct hop_access *access);
bool rule_is_deliverable(const struct policy *p, const struct rule *rule);
/* The entry of the domain itself, else of the longest "*.domain" above it, else NULL. */
const struct rule *find_rule(const struct policy *p, str_t domain);
/* The rule of the longest "*.domain" above `name`, never one for `name` itself; NULL: none. */
const struct rule *find_wildcard(const struct policy *p, str_t name);

#endif
