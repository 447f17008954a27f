/* policy/build.c: a config compiled into a policy: networks and rules here, the checks in coherence.c. */
#include <errno.h>

#include "policy/policy_priv.h"

const struct resolved *resolve_name(struct builder *b, str_t name)
{
    static const struct resolved nothing;
    struct resolved *r = smap_get(&b->names, name);

    if (r)
        return r;
    r = arena_zalloc(&b->p->arena, sizeof *r);
    if (!r || smap_put(&b->names, name, r)) {
        b->err = -ENOMEM;
        return &nothing;
    }
    if (b->resolver && b->resolver->resolve)
        r->count =
            MIN(b->resolver->resolve(b->resolver->ctx, name, r->ips, RESOLVED_MAX), (size_t)RESOLVED_MAX);
    return r;
}

static void add_network(struct builder *b, struct networks *list, struct netset *set,
                        const struct known_network *net)
{
    list->items[list->count++] = *net;
    if (netset_add(set, &net->cidr))
        b->err = -ENOMEM;
}

/* `room` was made for RESOLVED_MAX addresses a name. Returns whether the name is known. */
static bool add_name(struct builder *b, struct networks *list, struct netset *set, str_t name,
                     struct mark mark)
{
    const struct resolved *r = resolve_name(b, name);
    for (size_t i = 0; i < r->count; i++)
        add_network(
            b, list, set,
            &(struct known_network){.cidr = {.ip = r->ips[i], .bits = 128}, .mark = mark, .text = name});
    return r->count > 0;
}

static bool make_room(struct builder *b, struct networks *list, size_t name_count, size_t cidr_count)
{
    list->items =
        arena_alloc(&b->p->arena, (name_count * RESOLVED_MAX + cidr_count + 1) * sizeof *list->items);
    if (!list->items)
        b->err = -ENOMEM;
    return list->items != NULL;
}

static void build_list(struct builder *b, const char *key, struct networks *list, struct netset *set,
                       const struct cfg_network *nets, size_t count)
{
    size_t name_count = 0;

    for (size_t i = 0; i < count; i++)
        name_count += nets[i].is_name;
    if (!make_room(b, list, name_count, count - name_count))
        return;
    for (size_t i = 0; i < count; i++) {
        const struct cfg_network *n = &nets[i];
        if (!n->is_name)
            add_network(b, list, set,
                        &(struct known_network){.cidr = n->cidr, .mark = n->mark, .text = n->name});
        else if (!add_name(b, list, set, n->name, n->mark))
            diag_warning(b->diag, n->mark,
                         "%s: " STR_FMT " does not resolve; until it does, the entry matches nobody", key,
                         STR_ARG(n->name));
    }
}

/* Without edge_networks the edge is who we send to. */
static void build_default_edge(struct builder *b)
{
    const struct cfg_host *h = &b->config->destination.hosts[0];

    if (!make_room(b, &b->edge, 1, 1))
        return;
    if (h->kind == HOST_IP)
        add_network(
            b, &b->edge, &b->p->edge,
            &(struct known_network){.cidr = {.ip = h->ip, .bits = 128}, .mark = h->mark, .text = h->name});
    else if (!add_name(b, &b->edge, &b->p->edge, h->name, h->mark))
        diag_warning(
            b->diag, h->mark,
            "host: " STR_FMT
            " does not resolve%s, so the edge is not recognised when it connects; write edge_networks: "
            "[ADDRESS, ...]",
            STR_ARG(h->name),
            b->config->destination.mx ? " as a host (mx: true looks it up as a domain)" : "");
}

void build_networks(struct builder *b)
{
    const struct config *c = b->config;

    if (c->has_edge_networks)
        build_list(b, "edge_networks", &b->edge, &b->p->edge, c->edge_networks, c->edge_network_count);
    else if (c->destination_mode == DEST_EDGE)
        build_default_edge(b);
    build_list(b, "trusted_networks", &b->trusted, &b->p->trusted, c->trusted_networks,
               c->trusted_network_count);
    build_list(b, "xclient_networks", &b->xclient, &b->p->xclient, c->xclient_networks,
               c->xclient_network_count);
    netset_seal(&b->p->xclient);
    netset_seal(&b->p->edge);
    netset_seal(&b->p->trusted);
}

/* "tls-verify:lmtp:mx:[2001:db8::5]:2526,mx2.example.com:25": hosts in the order in which they are tried. */
static str_t route_key(struct builder *b, const struct cfg_route *route)
{
    static const char *const levels[] = {[TLS_OFF] = "off",
                                         [TLS_MAY] = "may",
                                         [TLS_REQUIRE] = "require",
                                         [TLS_VERIFY] = "verify",
                                         [TLS_PIN] = "pin"};
    struct gbuf key = {0}, tag = {0};
    char text[80];

    route_access_tag(route, &tag);
    if (route->tls != TLS_MAY || tag.n)
        gbuf_printf(&key, "tls-%s" STR_FMT ":", levels[route->tls], STR_ARG(gbuf_view(&tag)));
    gbuf_free(&tag);
    gbuf_printf(&key, "%s%s", route->protocol == ROUTE_LMTP ? "lmtp:" : "", route->mx ? "mx:" : "");
    for (size_t i = 0; i < route->host_count; i++) {
        const struct cfg_host *h = &route->hosts[i];
        gbuf_cstr(&key, i ? "," : "");
        if (h->kind == HOST_IP) {
            struct sbuf at = SBUF_ON(text);
            endpoint_format(&(struct endpoint){.ip = h->ip, .port = h->port}, &at);
            gbuf_str(&key, sbuf_view(&at));
        } else {
            gbuf_printf(&key, STR_FMT ":%u", STR_ARG(h->name), h->port);
        }
    }
    str_t copy = key.overflow ? STR_NONE : arena_str(&b->p->arena, gbuf_view(&key));
    gbuf_free(&key);
    if (!copy.p)
        b->err = -ENOMEM;
    return copy;
}

/* The name under which an entry is found; absent: it has none (an error was said). */
static str_t rule_name(struct builder *b, const struct cfg_domain *d)
{
    char text[ADDRESS_LOCAL_MAX + 1 + ADDRESS_DOMAIN_MAX + 1];
    struct sbuf buf = SBUF_ON(text);
    struct address a;

    if (!d->is_address)
        return d->is_wildcard ? str_sub(d->name, 2, d->name.n) : d->name;
    str_t canonical = address_parse_mailbox(d->name, &a) == 0 ? address_canonical(&a, &buf) : STR_NONE;
    if (!canonical.n) {
        diag_error(b->diag, d->mark,
                   "name: \"" STR_FMT "\" is not an address that SMTP can carry; write user@example.com",
                   STR_ARG(d->name));
        return STR_NONE;
    }
    str_t copy = arena_str(&b->p->arena, canonical);
    if (!copy.p)
        b->err = -ENOMEM;
    return copy;
}

static void index_rule(struct builder *b, struct rule *rule)
{
    const struct cfg_domain *d = rule->source;
    struct policy *p = b->p;
    struct smap *map = d->is_address ? &p->addresses : d->is_wildcard ? &p->wildcards : &p->domains;
    str_t name = rule_name(b, d);

    if (!name.n)
        return;
    const struct rule *first = smap_get(map, name);
    if (first) {
        diag_error(b->diag, d->mark,
                   "name: " STR_FMT " is listed twice, first on line %d; make one entry of the two",
                   STR_ARG(d->name), first->source->mark.line);
        return;
    }
    if (smap_put(map, name, rule))
        b->err = -ENOMEM;
    if (d->is_wildcard)
        p->wildcard_bytes_max = MAX(p->wildcard_bytes_max, name.n);
}

/* What an entry does not say itself comes from the longest wildcard above it that does. */
static void inherit(struct policy *p, struct rule *rule)
{
    const struct cfg_domain *d = rule->source;
    bool has_local = d->has_local;
    str_t name = d->is_wildcard ? str_sub(d->name, 2, d->name.n) : d->name;

    rule->local = d->local;
    rule->route = d->has_route ? &d->route : NULL;
    rule->verify = d->has_verify ? &d->verify : NULL;
    if (d->is_address)
        return;
    for (const struct rule *above;
         !(has_local && rule->route && rule->verify) && (above = find_wildcard(p, name));) {
        const struct cfg_domain *from = above->source;
        if (!has_local && from->has_local) {
            rule->local = from->local;
            has_local = true;
        }
        if (!rule->route && from->has_route)
            rule->route = &from->route;
        if (!rule->verify && from->has_verify)
            rule->verify = &from->verify;
        name = str_sub(from->name, 2, from->name.n);
    }
}

void build_rules(struct builder *b)
{
    static const struct cfg_route to_domains = {.tls = TLS_MAY, .chunking = true};
    const struct config *c = b->config;
    struct policy *p = b->p;

    p->domains.fold_case = p->wildcards.fold_case = true;
    p->dns_access = find_access(b, &to_domains);
    if (c->destination_mode == DEST_EDGE) {
        p->destination_key = route_key(b, &c->destination);
        p->destination_access = find_access(b, &c->destination);
    }
    if (c->verify.has_route) {
        p->verify_key = route_key(b, &c->verify.route);
        p->verify_access = find_access(b, &c->verify.route);
    }
    p->rules = arena_zalloc(&p->arena, (c->domain_count + 1) * sizeof *p->rules);
    if (!p->rules) {
        b->err = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < c->domain_count && !b->err; i++) {
        p->rules[i].source = &c->domains[i];
        index_rule(b, &p->rules[i]);
    }
    for (size_t i = 0; i < c->domain_count && !b->err; i++) {
        struct rule *rule = &p->rules[i];
        inherit(p, rule);
        if (rule->route) {
            rule->key = route_key(b, rule->route);
            rule->access = find_access(b, rule->route);
        }
        if (rule->verify && rule->verify->has_route) {
            rule->verify_key = route_key(b, &rule->verify->route);
            rule->verify_access = find_access(b, &rule->verify->route);
        }
    }
}

/* The order stands at policy_check_rcpt. */
void build_postmaster(struct builder *b)
{
    const struct config *c = b->config;
    struct policy *p = b->p;
    const struct rule *own = find_rule(p, c->hostname);

    p->postmaster = c->postmaster;
    if (!c->has_postmaster && !(own && own->local && rule_is_deliverable(p, own))) {
        for (size_t i = 0; i < c->domain_count; i++) {
            const struct rule *rule = &p->rules[i];
            if (rule->source->is_address || rule->source->is_wildcard || !rule->local ||
                !rule_is_deliverable(p, rule))
                continue;
            p->postmaster = arena_printf(&p->arena, "postmaster@" STR_FMT, STR_ARG(rule->source->name));
            break;
        }
    }
    if (!p->postmaster.p) {
        b->err = -ENOMEM;
    } else if (address_parse_mailbox(p->postmaster, &p->postmaster_address)) {
        diag_error(b->diag, (struct mark){0},
                   "postmaster: \"" STR_FMT
                   "\" is not an address that SMTP can carry; write user@example.com",
                   STR_ARG(p->postmaster));
    }
}

err_t policy_build(struct policy **out, struct config *c, const struct policy_resolver *r, struct diag *d)
{
    unsigned errors_before = d->error_count;
    struct policy *p = calloc(1, sizeof *p);

    *out = NULL;
    if (!p) {
        config_free(c);
        return -ENOMEM;
    }
    p->config = c;
    arena_init(&p->arena, POLICY_ARENA_BYTES_MAX);
    struct builder b = {.p = p, .config = c, .resolver = r, .diag = d, .errors_before = errors_before};
    build_networks(&b);
    if (!b.err)
        build_rules(&b);
    if (!b.err)
        build_postmaster(&b);
    if (!b.err)
        check_coherence(&b);
    smap_free(&b.names);
    access_maps_free(&b.contexts, NULL);
    err_t err = b.err ? b.err : d->error_count > errors_before ? ERR_CONFIG : 0;
    if (err) {
        policy_free(p);
        return err;
    }
    *out = p;
    return 0;
}

void policy_free(struct policy *p)
{
    if (!p)
        return;
    access_maps_free(NULL, &p->accesses);
    smap_free(&p->domains);
    smap_free(&p->wildcards);
    smap_free(&p->addresses);
    netset_free(&p->edge);
    netset_free(&p->trusted);
    netset_free(&p->xclient);
    arena_free(&p->arena);
    config_free(p->config);
    free(p);
}
