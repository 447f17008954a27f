/* core/config_lists.c: readers of lists and of the maps in them: listeners, networks, domains, routes. */
#include "core/config_priv.h"

void *new_items(struct loader *l, const struct schema_key *k, const struct node *list, size_t item_bytes)
{
    size_t count = 0;
    for (const struct node *n = list->first; n; n = n->next)
        count++;
    if (count < k->min)
        diag_error(l->diag, list->mark, "%s: is empty; write one at least, such as %s: %s", k->name, k->name,
                   k->example);
    if (count > k->max)
        diag_error(l->diag, list->mark, "%s: has %zu items; write %u at most", k->name, count,
                   (unsigned)k->max);
    return count > 0 && count <= k->max ? arena_zalloc(l->arena, count * item_bytes) : NULL;
}

static bool check_item(struct loader *l, const struct schema_key *k, const struct node *n,
                       enum node_kind wants)
{
    bool ok = n->kind == wants && !n->is_null;
    if (!ok)
        diag_error(l->diag, n->mark, "%s: an item of the list is %s where %s is needed; write %s: %s",
                   k->name, n->is_null ? "empty" : node_kind_name(n->kind), node_kind_name(wants), k->name,
                   k->example);
    return ok;
}

void read_listeners(struct loader *l, const struct schema_key *k, const struct node *list, void *field)
{
    struct config *c = l->config;

    (void)field;
    c->listener_count = 0; /* drops the default */
    c->listeners = new_items(l, k, list, sizeof *c->listeners);
    for (const struct node *n = list->first; n && c->listeners && !too_many_errors(l); n = n->next) {
        struct cfg_listener *listener = &c->listeners[c->listener_count];
        if (!check_item(l, k, n, NODE_MAP))
            continue;
        const struct node *address = node_find(n, "address");
        listener->mark = address ? address->mark : n->mark;
        const struct node *tls = node_find(n, "tls");
        if (tls)
            listener->tls_mark = tls->mark;
        schema_fill_defaults(l, SECTION_listener, listener);
        schema_read_map(l, SECTION_listener, n, listener);
        c->listener_count++;
    }
}

void read_certificates(struct loader *l, const struct schema_key *k, const struct node *list, void *field)
{
    struct config *c = l->config;

    (void)field;
    c->tls.certificates = new_items(l, k, list, sizeof *c->tls.certificates);
    for (const struct node *n = list->first; n && c->tls.certificates && !too_many_errors(l); n = n->next) {
        struct cfg_certificate *one = &c->tls.certificates[c->tls.certificate_count];
        if (!check_item(l, k, n, NODE_MAP))
            continue;
        const struct node *chain = node_find(n, "chain"), *key = node_find(n, "key");
        one->mark = chain ? chain->mark : n->mark;
        one->key_mark = key ? key->mark : n->mark;
        schema_read_map(l, SECTION_certificate, n, one);
        c->tls.certificate_count++;
    }
}

void read_tls_clients(struct loader *l, const struct schema_key *k, const struct node *list, void *field)
{
    struct config *c = l->config;

    (void)field;
    c->tls.clients = new_items(l, k, list, sizeof *c->tls.clients);
    for (const struct node *n = list->first; n && c->tls.clients && !too_many_errors(l); n = n->next) {
        struct cfg_tls_client *one = &c->tls.clients[c->tls.client_count];
        if (!check_item(l, k, n, NODE_MAP))
            continue;
        one->mark = n->mark;
        schema_read_map(l, SECTION_tls_client, n, one);
        bool has_pin = node_find(n, "pin"), has_ca = node_find(n, "ca"), has_name = node_find(n, "name");
        if (has_pin ? has_ca || has_name : !has_ca || !has_name)
            diag_error(l->diag, n->mark,
                       "clients: an entry needs a pin, or a ca and a name; write { class: edge, ca: "
                       "/etc/postern/ca.pem, name: edge.example.net }");
        c->tls.client_count++;
    }
}

/* "10.1.2.3/8": what the network's own address would be. */
static bool suggest_network(str_t text, struct sbuf *out)
{
    str_t address, length;
    uint64_t bits;
    struct cidr net;

    if (!str_cut(text, '/', &address, &length) || ip_parse(address, &net.ip) != 0 ||
        str_to_u64(length, &bits) != 0)
        return false;
    bool is_v4 = str_find(address, ':') < 0;
    if (bits > (is_v4 ? 32u : 128u))
        return false;
    unsigned kept = (unsigned)bits + (is_v4 ? 96 : 0);
    for (unsigned i = kept; i < 128; i++)
        net.ip.b[i / 8] &= (uint8_t) ~(0x80u >> (i % 8));
    ip_format(&net.ip, out);
    sbuf_printf(out, "/%u", (unsigned)bits);
    return !out->overflow;
}

static bool parse_network(struct loader *l, const struct schema_key *k, const struct node *n,
                          struct cfg_network *net)
{
    char text[64];
    struct sbuf better = SBUF_ON(text);

    *net = (struct cfg_network){.mark = n->mark};
    if (!check_item(l, k, n, NODE_SCALAR))
        return false;
    if (cidr_parse(n->text, &net->cidr) == 0) {
        net->name = arena_str(l->arena, n->text);
        return true;
    }
    str_t quoted = clip(n->text);
    if (suggest_network(n->text, &better)) {
        diag_error(l->diag, n->mark, "%s: \"" STR_FMT "\" has bits set behind the prefix; write " STR_FMT,
                   k->name, STR_ARG(quoted), STR_ARG(sbuf_view(&better)));
        return false;
    }
    const char *fault = str_find(n->text, '/') >= 0 || str_find(n->text, ':') >= 0
                            ? "is no address, network or host name"
                            : domain_name_fault(n->text, true);
    if (fault) {
        diag_error(l->diag, n->mark,
                   "%s: \"" STR_FMT "\" %s; write an address, a network such as 10.0.0.0/8, or a host name",
                   k->name, STR_ARG(quoted), fault);
        return false;
    }
    net->is_name = true;
    net->name = lower_copy(l->arena, n->text);
    return true;
}

static void read_networks(struct loader *l, const struct schema_key *k, const struct node *list,
                          struct cfg_network **out, size_t *count)
{
    *out = new_items(l, k, list, sizeof **out);
    for (const struct node *n = list->first; n && *out && !too_many_errors(l); n = n->next)
        if (parse_network(l, k, n, &(*out)[*count]))
            (*count)++;
}

void read_proxies(struct loader *l, const struct schema_key *k, const struct node *list, void *field)
{
    struct cfg_listener *listener = container_of(field, struct cfg_listener, proxies);
    struct cfg_network net;

    listener->proxies.items = new_items(l, k, list, sizeof *listener->proxies.items);
    for (const struct node *n = list->first; n && listener->proxies.items && !too_many_errors(l);
         n = n->next) {
        if (!parse_network(l, k, n, &net))
            continue;
        if (net.is_name)
            diag_error(l->diag, n->mark,
                       "%s: \"" STR_FMT "\" is a name; write addresses and networks, such as %s", k->name,
                       STR_ARG(net.name), k->example);
        else
            listener->proxies.items[listener->proxies.count++] = net.cidr;
    }
}

void read_edge_networks(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    struct config *c = l->config;
    (void)field;
    c->has_edge_networks = true;
    read_networks(l, k, n, &c->edge_networks, &c->edge_network_count);
}

void read_xclient_networks(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    struct config *c = l->config;
    (void)field;
    read_networks(l, k, n, &c->xclient_networks, &c->xclient_network_count);
}

void read_names(struct loader *l, const struct schema_key *k, const struct node *list, void *field)
{
    struct cfg_names *names = field;

    names->items = new_items(l, k, list, sizeof *names->items);
    for (const struct node *n = list->first; n && names->items && !too_many_errors(l); n = n->next)
        if (check_item(l, k, n, NODE_SCALAR))
            read_fqdn(l, k, n, &names->items[names->count++]);
}

void read_trusted_networks(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    struct config *c = l->config;
    (void)field;
    read_networks(l, k, n, &c->trusted_networks, &c->trusted_network_count);
}

const char *extension_keyword(enum extension e)
{
    static const char *const keywords[] = {
#define EXTENSION(id, keyword) [EXTENSION_##id] = keyword,
#include "core/extension.def"
#undef EXTENSION
    };
    return keywords[e];
}

static bool find_extension(str_t keyword, enum extension *out)
{
    for (enum extension e = 0; e < EXTENSION_COUNT; e++) {
        *out = e;
        if (str_ieq(keyword, str_cstr(extension_keyword(e))))
            return true;
    }
    return false;
}

static void unknown_extension(struct loader *l, const struct schema_key *k, const struct node *n)
{
    char text[256];
    struct sbuf b = SBUF_ON(text);
    str_t instead = STR_NONE;
    if (str_ieq(n->text, STR("DSN")))
        instead = STR("write it at dsn: { offer: }");
    if (str_ieq(n->text, STR("STARTTLS")))
        instead = STR("leave out tls to offer none");
    if (!instead.p) {
        sbuf_cstr(&b, "write one of");
        for (enum extension e = 0; e < EXTENSION_COUNT; e++)
            sbuf_printf(&b, " %s", extension_keyword(e));
        instead = sbuf_view(&b);
    }
    diag_error(l->diag, n->mark, "%s: \"" STR_FMT "\" is nothing that can be hidden; " STR_FMT, k->name,
               STR_ARG(clip(n->text)), STR_ARG(instead));
}

void read_extensions(struct loader *l, const struct schema_key *k, const struct node *list, void *field)
{
    uint32_t *bits = field;
    enum extension e;
    *bits = 0;
    for (const struct node *n = list->first; n && !too_many_errors(l); n = n->next) {
        if (!check_item(l, k, n, NODE_SCALAR))
            continue;
        if (find_extension(n->text, &e))
            *bits |= 1u << e;
        else
            unknown_extension(l, k, n);
    }
}

void read_zones(struct loader *l, const struct schema_key *k, const struct node *list, void *field)
{
    struct cfg_zones *zones = field;
    str_t *names = new_items(l, k, list, sizeof *names);
    *zones = (struct cfg_zones){.names = names};
    for (const struct node *n = names ? list->first : NULL; n && !too_many_errors(l); n = n->next) {
        if (!check_item(l, k, n, NODE_SCALAR))
            continue;
        read_fqdn(l, k, n, &names[zones->count]);
        zones->count += names[zones->count].n > 0;
    }
}

/* What cannot be said key by key, because keys come in any order. */
static void finish_route(struct loader *l, struct cfg_route *route)
{
    bool has_name = false;

    for (size_t i = 0; i < route->host_count; i++) {
        struct cfg_host *h = &route->hosts[i];
        if (!h->port)
            h->port = route->port;
        if (h->kind == HOST_NAME)
            has_name = true;
        if (route->protocol == ROUTE_LMTP && h->port == 25)
            diag_error(l->diag, h->mark,
                       "hosts: LMTP must not run on port 25 (RFC 2033 5); write its port, such as port: 24");
    }
    if (route->mx && route->host_count && !has_name)
        diag_error(
            l->diag, route->hosts[0].mark,
            "mx: true needs a name to look up, and here are only addresses; leave mx out or write a name");
    if (route->mx && route->protocol == ROUTE_LMTP)
        diag_error(l->diag, route->mark,
                   "mx: LMTP servers are not found by MX (RFC 2033); leave mx out or write protocol: smtp");
    config_finish_route_access(l, route);
}

void read_route(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    struct cfg_route *route = field;

    route->mark = n->mark;
    schema_read_map(l, SECTION_route, n, route);
    finish_route(l, route);
}

void read_domains(struct loader *l, const struct schema_key *k, const struct node *list, void *field)
{
    struct config *c = l->config;

    (void)field;
    c->domains = new_items(l, k, list, sizeof *c->domains);
    for (const struct node *n = list->first; n && c->domains && !too_many_errors(l); n = n->next) {
        struct cfg_domain *domain = &c->domains[c->domain_count];
        if (!check_item(l, k, n, NODE_MAP))
            continue;
        domain->mark = n->mark;
        schema_fill_defaults(l, SECTION_domain, domain);
        schema_fill_defaults(l, SECTION_route, &domain->route);
        schema_read_map(l, SECTION_domain, n, domain);
        domain->has_local = node_find(n, "local") != NULL;
        domain->has_route = node_find(n, "route") != NULL;
        domain->has_verify = node_find(n, "verify") != NULL;
        if (domain->is_address && domain->local)
            diag_error(l->diag, node_find(n, "local")->mark,
                       "local: an address cannot be local; write its domain as an entry of its own with "
                       "local: true");
        c->domain_count++;
    }
}

static bool is_limit(str_t key)
{
    return str_eq(key, STR("connections")) || str_eq(key, STR("messages_per_connection")) ||
           str_eq(key, STR("rate"));
}

void config_finish_destination(struct loader *l, const struct node *top)
{
    struct config *c = l->config;
    const struct node *map = node_find(top, "destination"), *mode = node_find(map, "mode");

    if (c->destination_mode == DEST_EDGE) {
        if (!node_find(map, "host"))
            diag_error(
                l->diag, mode ? mode->mark : (struct mark){0},
                "host: is missing for mode: edge; write destination: { mode: edge, host: edge.example.net }");
        finish_route(l, &c->destination);
        return;
    }
    if (mode && !str_eq(mode->text, STR("dns")))
        return; /* an error already: which mode was meant is not known */
    /* But for the limits nothing of these is used then; saying so is better than a gateway that does
     * something else than its file. */
    for (const struct node *n = map && map->kind == NODE_MAP ? map->first : NULL; n; n = n->next)
        if (n != mode && n->key->kind == NODE_SCALAR && !is_limit(n->key->text) &&
            schema_find_key(SECTION_destination, n->key->text))
            diag_error(l->diag, n->key->mark,
                       STR_FMT ": is only for mode: edge; write mode: edge or leave it out",
                       STR_ARG(clip(n->key->text)));
}
