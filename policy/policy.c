/* policy/policy.c: the questions asked of a compiled policy. Reads only; any thread. */
#include "policy/policy_priv.h"

const char *client_class_name(enum client_class c)
{
    static const char *const names[] = {
        [CLASS_STRANGER] = "stranger", [CLASS_EDGE] = "edge", [CLASS_TRUSTED] = "trusted"};
    return (unsigned)c < COUNT_OF(names) ? names[c] : "unknown";
}

const struct config *policy_config(const struct policy *p)
{
    return p->config;
}

enum client_class policy_classify(const struct policy *p, const struct ip *client)
{
    if (netset_match(&p->edge, client))
        return CLASS_EDGE;
    return netset_match(&p->trusted, client) ? CLASS_TRUSTED : CLASS_STRANGER;
}

bool policy_may_name_client(const struct policy *p, enum client_class c, const struct ip *client)
{
    return c == CLASS_EDGE || netset_match(&p->xclient, client);
}

const struct rule *find_wildcard(const struct policy *p, str_t name)
{
    str_t label, rest = name;

    while (p->wildcards.used_count > 0) {
        str_t all = rest;
        if (!str_cut(all, '.', &label, &rest))
            break;
        if (rest.n > p->wildcard_bytes_max)
            continue;
        const struct rule *rule = smap_get(&p->wildcards, rest);
        if (rule)
            return rule;
    }
    return NULL;
}

const struct rule *find_rule(const struct policy *p, str_t domain)
{
    if (!domain.n || !str_is_ascii(domain))
        return NULL;
    const struct rule *rule = smap_get(&p->domains, domain);
    return rule ? rule : find_wildcard(p, domain);
}

bool rule_is_deliverable(const struct policy *p, const struct rule *rule)
{
    return rule->route || p->config->destination_mode == DEST_DNS;
}

str_t policy_listed_domain(const struct policy *p, str_t domain)
{
    const struct rule *rule = find_rule(p, domain);
    return rule ? rule->source->name : STR_NONE;
}

bool policy_domain_is_local(const struct policy *p, str_t domain)
{
    /* domains never start with a bracket, so that "[192.0.2.1]" cannot end in a listed name */
    if (!domain.n || domain.p[0] == '[')
        return false;
    const struct rule *rule = find_rule(p, domain);
    return rule && rule->local;
}

/* RFC 5321 4.5.1: a relay takes postmaster mail too, bare or at its own name. */
static bool is_our_postmaster(const struct policy *p, const struct address *rcpt)
{
    if (!rcpt->domain.n)
        return true; /* the parser lets only <postmaster> through without a domain */
    return !rcpt->is_literal && str_ieq(rcpt->local, STR("postmaster")) &&
           str_ieq(rcpt->domain, p->config->hostname);
}

/* "user%foreign@local", "foreign!user@local", "\"user@foreign\"@local": an internal server that still follows
 * such routes trusts us, and would relay for whoever sends through us. */
static bool is_routed(str_t local)
{
    return str_find(local, '%') >= 0 || str_find(local, '!') >= 0 || str_find(local, '@') >= 0;
}

enum reply_id policy_check_rcpt(const struct policy *p, enum client_class c, const struct address *rcpt,
                                str_t *rewritten)
{
    *rewritten = STR_NONE;
    if (rcpt->is_null)
        return R_bad_rcpt;
    if (c != CLASS_TRUSTED && is_routed(rcpt->local))
        return R_relay_denied;
    if (!rcpt->is_literal && policy_domain_is_local(p, rcpt->domain))
        return R_rcpt_ok;
    if (is_our_postmaster(p, rcpt)) {
        *rewritten = p->postmaster;
        return R_rcpt_ok;
    }
    return c == CLASS_TRUSTED ? R_rcpt_ok : R_relay_denied;
}

const struct rule *find_address_rule(const struct policy *p, const struct address *a)
{
    char text[ADDRESS_LOCAL_MAX + 1 + ADDRESS_DOMAIN_MAX + 1];
    struct sbuf buf = SBUF_ON(text);

    if (!p->addresses.used_count)
        return NULL;
    str_t key = address_canonical(a, &buf);
    return key.n ? smap_get(&p->addresses, key) : NULL;
}

err_t route_by_hosts(struct route *out, const struct cfg_route *hosts, str_t key, struct hop_access *access)
{
    out->access = access;
    out->kind = ROUTE_HOSTS;
    out->hosts = hosts;
    out->key = key;
    return 0;
}

static err_t route_by_dns(const struct policy *p, const struct address *a, struct route *out)
{
    struct sbuf lower = {.p = out->lower, .cap = sizeof out->lower};

    if (a->is_literal) {
        if (ip_is_any(&a->ip) || is_own_listener(p->config, NULL, &a->ip, 25))
            return ERR_NOT_FOUND;
        ip_format_literal(&a->ip, &lower);
    } else {
        if (!str_is_ascii(a->domain) || !domain_valid(a->domain))
            return ERR_NOT_FOUND;
        for (size_t i = 0; i < a->domain.n; i++) {
            char c = a->domain.p[i];
            sbuf_char(&lower, c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c);
        }
    }
    if (lower.overflow)
        return ERR_NOT_FOUND;
    out->kind = ROUTE_DNS;
    out->access = p->dns_access;
    out->domain = out->key = sbuf_view(&lower);
    return 0;
}

err_t policy_route(const struct policy *p, const struct address *rcpt, struct route *out)
{
    *out = (struct route){0};
    if (rcpt->is_null)
        return ERR_NOT_FOUND;
    if (!rcpt->domain.n)
        rcpt = &p->postmaster_address;
    const struct rule *rule = find_address_rule(p, rcpt);
    if (!(rule && rule->route) && !rcpt->is_literal)
        rule = find_rule(p, rcpt->domain);
    if (rule && rule->route)
        return route_by_hosts(out, rule->route, rule->key, rule->access);
    if (p->config->destination_mode == DEST_EDGE)
        return route_by_hosts(out, &p->config->destination, p->destination_key, p->destination_access);
    return route_by_dns(p, rcpt, out);
}
