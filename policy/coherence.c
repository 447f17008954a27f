/* policy/coherence.c: does a configuration make sense as a whole? Loops and open doors are found here, before
 * any mail is. */
#include <errno.h>

#include "policy/policy_priv.h"

bool is_own_listener(const struct config *c, const struct policy_resolver *resolver, const struct ip *ip,
                     uint16_t port)
{
    bool own = ip_is_loopback(ip) || (resolver && resolver->is_own && resolver->is_own(resolver->ctx, ip));

    for (size_t i = 0; i < c->listener_count; i++) {
        const struct endpoint *at = &c->listeners[i].at;
        if (at->port != port || !port) /* port 0: a free one, not known yet */
            continue;
        if (ip_eq(&at->ip, ip))
            return true;
        /* 0.0.0.0 is reached by IPv4 only, [::] by IPv6 only (net/listener sets IPV6_V6ONLY). */
        if (own && ip_is_any(&at->ip) && ip_is_v4(&at->ip) == ip_is_v4(ip))
            return true;
    }
    return false;
}

static bool listens_on_port(const struct config *c, uint16_t port)
{
    for (size_t i = 0; i < c->listener_count; i++)
        if (c->listeners[i].at.port == port)
            return true;
    return false;
}

/* Addresses of a host that a route names. MX hosts are found at delivery time, where the hop count guards. */
static struct resolved addresses_of(struct builder *b, const struct cfg_route *route,
                                    const struct cfg_host *h)
{
    if (h->kind == HOST_IP)
        return (struct resolved){.ips = {h->ip}, .count = 1};
    return route->mx ? (struct resolved){.count = 0} : *resolve_name(b, h->name);
}

static void check_host(struct builder *b, const char *key, const struct cfg_route *route,
                       const struct cfg_host *h)
{
    static const char *const advice = "mail would come back for ever; write the address of the next server";
    const struct config *c = b->config;

    if (h->kind == HOST_NAME && str_eq(h->name, c->hostname) && listens_on_port(c, h->port)) {
        diag_error(b->diag, h->mark, "%s: " STR_FMT " is this gateway's own hostname: %s", key,
                   STR_ARG(h->name), advice);
        return;
    }
    struct resolved r = addresses_of(b, route, h);
    for (size_t i = 0; i < r.count; i++) {
        char text[64];
        struct sbuf at = SBUF_ON(text);
        if (!is_own_listener(c, b->resolver, &r.ips[i], h->port))
            continue;
        endpoint_format(&(struct endpoint){.ip = r.ips[i], .port = h->port}, &at);
        diag_error(b->diag, h->mark, "%s: " STR_FMT " (" STR_FMT ") is one of our own listeners: %s", key,
                   STR_ARG(h->name), STR_ARG(sbuf_view(&at)), advice);
        return;
    }
    bool said = route == &c->destination && !c->has_edge_networks; /* by build_default_edge */
    if (!r.count && !route->mx && !said)
        diag_warning(b->diag, h->mark,
                     "%s: " STR_FMT " does not resolve; until it does, its mail waits in the queue", key,
                     STR_ARG(h->name));
}

/* Is a host of this route the edge that we send to? */
static const struct cfg_host *find_edge_host(struct builder *b, const struct cfg_route *route)
{
    const struct cfg_route *edge = &b->config->destination;
    struct resolved theirs = addresses_of(b, edge, &edge->hosts[0]);

    for (size_t i = 0; i < route->host_count; i++) {
        const struct cfg_host *h = &route->hosts[i];
        if (h->port != edge->hosts[0].port)
            continue;
        if (h->kind == HOST_NAME && edge->hosts[0].kind == HOST_NAME && str_eq(h->name, edge->hosts[0].name))
            return h;
        struct resolved ours = addresses_of(b, route, h);
        for (size_t j = 0; j < ours.count; j++)
            for (size_t k = 0; k < theirs.count; k++)
                if (ip_eq(&ours.ips[j], &theirs.ips[k]))
                    return h;
    }
    return NULL;
}

static str_t domain_part(str_t address)
{
    return str_sub(address, (size_t)str_rfind(address, '@') + 1, address.n);
}

/* Whom to ask: never ourselves, and not the edge, which would ask us. */
static void check_verify(struct builder *b, const struct cfg_verify *v)
{
    for (size_t i = 0; i < v->route.host_count; i++)
        check_host(b, "hosts", &v->route, &v->route.hosts[i]);
    const struct cfg_host *h =
        b->config->destination_mode == DEST_EDGE && v->has_route ? find_edge_host(b, &v->route) : NULL;
    if (h)
        diag_error(b->diag, h->mark,
                   "hosts: " STR_FMT
                   " is the edge (destination.host), which would ask us in turn; write the server that has "
                   "the mailboxes",
                   STR_ARG(h->name));
}

static void check_rule(struct builder *b, const struct rule *rule)
{
    const struct cfg_domain *d = rule->source;
    bool edge_mode = b->config->destination_mode == DEST_EDGE;

    if (!d->has_route && !d->has_verify && (!d->has_local || d->is_address))
        diag_warning(b->diag, d->mark,
                     "name: " STR_FMT " has no effect: it has no route, no verify%s; write one",
                     STR_ARG(d->name), d->is_address ? "" : " and no local");
    if (rule->local && !rule->route && edge_mode)
        diag_error(b->diag, d->mark,
                   "name: " STR_FMT
                   " is local and has no route, so its mail would go back to the edge; write route: { hosts: "
                   "[10.0.0.5] } in this entry",
                   STR_ARG(d->name));
    if (d->has_verify)
        check_verify(b, &d->verify);
    if (!d->has_route)
        return;
    for (size_t i = 0; i < d->route.host_count; i++)
        check_host(b, "hosts", &d->route, &d->route.hosts[i]);
    bool local = rule->local || (d->is_address && policy_domain_is_local(b->p, domain_part(d->name)));
    const struct cfg_host *h = local && edge_mode ? find_edge_host(b, &d->route) : NULL;
    if (h)
        diag_error(b->diag, h->mark,
                   "hosts: " STR_FMT " is the edge (destination.host), and " STR_FMT
                   " is local: its mail would go back to the edge; write its internal server",
                   STR_ARG(h->name), STR_ARG(d->name));
}

static void compare_limit(struct builder *b, const struct cfg_route *route, const struct cfg_route *first,
                          const char *key, str_t here, str_t there)
{
    if (!str_eq(here, there))
        diag_error(b->diag, route->mark,
                   "%s: the same hosts have " STR_FMT " here and " STR_FMT
                   " in the route on line %d; write the same in both",
                   key, STR_ARG(here), STR_ARG(there), first->mark.line);
}

/* One key is one destination with one set of limits (relay/); two for it could not both be kept. */
static void compare_limits(struct builder *b, const struct cfg_route *route, const struct cfg_route *first)
{
    char here_text[32], there_text[32];
    struct sbuf here = SBUF_ON(here_text), there = SBUF_ON(there_text);
    sbuf_u64(&here, route->connections_max);
    sbuf_u64(&there, first->connections_max);
    compare_limit(b, route, first, "connections", sbuf_view(&here), sbuf_view(&there));
    here.n = there.n = 0;
    sbuf_u64(&here, route->messages_max);
    sbuf_u64(&there, first->messages_max);
    compare_limit(b, route, first, "messages_per_connection", sbuf_view(&here), sbuf_view(&there));
    here.n = there.n = 0;
    cfg_rate_format(&route->rate, &here);
    cfg_rate_format(&first->rate, &there);
    compare_limit(b, route, first, "rate", sbuf_view(&here), sbuf_view(&there));
}

static void check_limits(struct builder *b)
{
    const struct policy *p = b->p;
    struct smap seen = {0};

    if (p->destination_key.n &&
        smap_put(&seen, p->destination_key, (void *)(uintptr_t)&b->config->destination))
        b->err = -ENOMEM;
    for (size_t i = 0; i < b->config->domain_count; i++) {
        const struct rule *rule = &p->rules[i];
        if (!rule->source->has_route)
            continue;
        const struct cfg_route *first = smap_get(&seen, rule->key);
        if (first)
            compare_limits(b, rule->route, first);
        else if (smap_put(&seen, rule->key, (void *)(uintptr_t)rule->route))
            b->err = -ENOMEM;
    }
    smap_free(&seen);
}

/* The edge would be believed like an internal server: nothing that it brings would be checked, and it could
 * relay anywhere. */
static void check_edge_not_trusted(struct builder *b)
{
    for (size_t i = 0; i < b->trusted.count; i++) {
        const struct known_network *t = &b->trusted.items[i];
        for (size_t j = 0; j < b->edge.count; j++) {
            const struct known_network *e = &b->edge.items[j];
            if (!cidr_overlap(&t->cidr, &e->cidr))
                continue;
            diag_error(b->diag, t->mark,
                       "trusted_networks: " STR_FMT " includes the edge " STR_FMT
                       " (line %d), whose mail would then not be checked; list only internal networks",
                       STR_ARG(t->text), STR_ARG(e->text), e->mark.line);
            break; /* one complaint for each entry */
        }
    }
}

static void check_open_relay(struct builder *b)
{
    for (size_t i = 0; i < b->config->trusted_network_count; i++) {
        const struct cfg_network *n = &b->config->trusted_networks[i];
        bool all = !n->is_name && (n->cidr.bits == 0 || (n->cidr.bits == 96 && ip_is_v4(&n->cidr.ip)));
        if (all)
            diag_warning(b->diag, n->mark,
                         "trusted_networks: " STR_FMT
                         " is everybody: this is an open relay; list only internal networks",
                         STR_ARG(n->name));
    }
}

static void check_listeners(struct builder *b)
{
    const struct config *c = b->config;

    for (size_t i = 0; i < c->listener_count; i++) {
        const struct endpoint *at = &c->listeners[i].at;
        for (size_t j = 0; j < i && at->port; j++) {
            if (at->port != c->listeners[j].at.port || !ip_eq(&at->ip, &c->listeners[j].at.ip))
                continue;
            diag_error(b->diag, c->listeners[i].mark,
                       "address: is listed twice, first on line %d; remove one of them",
                       c->listeners[j].mark.line);
            break;
        }
    }
}

void check_coherence(struct builder *b)
{
    const struct config *c = b->config;
    bool any_local = false;

    check_listeners(b);
    if (c->destination_mode == DEST_EDGE)
        check_host(b, "host", &c->destination, &c->destination.hosts[0]);
    check_edge_not_trusted(b);
    check_open_relay(b);
    check_verify(b, &c->verify);
    for (size_t i = 0; i < c->domain_count && !b->err; i++) {
        check_rule(b, &b->p->rules[i]);
        any_local = any_local || b->p->rules[i].local;
    }
    check_limits(b);
    if (!any_local)
        diag_warning(b->diag, (struct mark){0},
                     "no domain is local, so nothing comes in from outside; write domains: [ { name: "
                     "example.com, local: true } ]");
    if (!c->trusted_network_count)
        diag_warning(b->diag, (struct mark){0},
                     "no network is trusted, so nothing goes out; write trusted_networks: [10.0.0.0/8] if "
                     "internal servers send "
                     "through here");
}
