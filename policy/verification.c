/* policy/verification.c: how a recipient is verified, and by whom. Reads only; any thread. */
#include "policy/policy_priv.h"

struct verification {
    const struct cfg_verify *settings;
    str_t route_key; /* settings->has_route */
    struct hop_access *access;
};

static struct verification find(const struct policy *p, const struct address *rcpt)
{
    const struct address *a = rcpt->domain.n ? rcpt : &p->postmaster_address;
    const struct rule *rule = find_address_rule(p, a);

    if (!(rule && rule->verify) && !a->is_literal)
        rule = find_rule(p, a->domain);
    if (rule && rule->verify)
        return (struct verification){rule->verify, rule->verify_key, rule->verify_access};
    return (struct verification){&p->config->verify, p->verify_key, p->verify_access};
}

const struct cfg_verify *policy_verify(const struct policy *p, const struct address *rcpt)
{
    return find(p, rcpt).settings;
}

err_t policy_verify_route(const struct policy *p, const struct address *rcpt, struct route *out)
{
    struct verification v = find(p, rcpt);

    *out = (struct route){0};
    if (rcpt->is_null)
        return ERR_NOT_FOUND;
    return v.settings->has_route ? route_by_hosts(out, &v.settings->route, v.route_key, v.access)
                                 : policy_route(p, rcpt, out);
}
