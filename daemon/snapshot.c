/* daemon/snapshot.c: see snapshot.h. */
#include <errno.h>
#include <ifaddrs.h>

#include "core/clock.h"
#include "daemon/snapshot.h"

#define LOOKUPS_TIMEOUT_FACTOR 3 /* times dns.timeout: for all names of a configuration together */

/* A route to one of this machine's own addresses may be a route to ourselves. */
static bool is_own_address(void *ctx, const struct ip *ip)
{
    struct ifaddrs *all;
    bool found = ip_is_loopback(ip);
    if (found || getifaddrs(&all) < 0)
        return found;
    for (const struct ifaddrs *i = all; i && !found; i = i->ifa_next) {
        struct endpoint e;
        found = i->ifa_addr && endpoint_from_sockaddr(i->ifa_addr, &e) == 0 && ip_eq(&e.ip, ip);
    }
    freeifaddrs(all);
    return found;
}

/* The error names one of the two files; the mark is that file's. */
static void certificate_error(struct diag *d, const struct cfg_certificate *one, str_t error)
{
    bool is_key = memmem(error.p, error.n, one->key.p, one->key.n) != NULL;
    diag_error(d, is_key ? one->key_mark : one->mark, "%s: " STR_FMT, is_key ? "key" : "chain",
               STR_ARG(error));
}

static err_t add_client(struct tls_context *t, const struct cfg_tls_client *one, struct sbuf *error)
{
    struct tls_pin pin;
    int tag = one->class == CERT_CLASS_EDGE ? CLASS_EDGE : CLASS_TRUSTED;
    if (!one->pin.n)
        return tls_context_add_client_name(t, one->ca, one->name, tag, error);
    err_t err = tls_pin_parse(one->pin, &pin);
    return err ? err : tls_context_add_client_pin(t, &pin, tag, error);
}

static err_t load_tls(struct snapshot *s, const struct config *c, struct diag *d)
{
    char text[512];
    struct sbuf error = SBUF_ON(text);
    if (!c->tls.certificate_count)
        return 0;
    err_t err = tls_context_server(&s->tls_server, &error);
    if (err)
        diag_error(d, (struct mark){0}, "tls: " STR_FMT, STR_ARG(sbuf_view(&error)));
    for (size_t i = 0; !err && i < c->tls.certificate_count; i++) {
        const struct cfg_certificate *one = &c->tls.certificates[i];
        err = tls_context_add_identity(s->tls_server, one->chain, one->key, &error);
        if (err)
            certificate_error(d, one, sbuf_view(&error));
    }
    for (size_t i = 0; !err && i < c->tls.client_count; i++) {
        err = add_client(s->tls_server, &c->tls.clients[i], &error);
        if (err)
            diag_error(d, c->tls.clients[i].mark, "clients: " STR_FMT, STR_ARG(sbuf_view(&error)));
    }
    return err;
}

err_t snapshot_build(struct snapshot **out, struct config *c, struct dns *dns, struct names *names,
                     const struct snapshot *previous, const struct lists *lists, enum lists_rule rule,
                     struct diag *d)
{
    struct names_lookup lookup = {
        .names = names,
        .dns = dns,
        .diag = d,
        .until_ns = clock_mono_ns() + LOOKUPS_TIMEOUT_FACTOR * c->dns.timeout_ms * NS_PER_MS,
    };
    struct policy_resolver resolver = {.resolve = names_resolve, .ctx = &lookup, .is_own = is_own_address};
    *out = NULL;
    struct snapshot *s = calloc(1, sizeof *s);
    if (!s) {
        config_free(c);
        return -ENOMEM;
    }
    s->refs = 1;
    s->generation = previous ? previous->generation + 1 : 1;
    err_t err = load_tls(s, c, d);
    if (err) {
        config_free(c);
    } else {
        err = policy_build(&s->policy, c, &resolver, d);
        if (!err)
            err = lists_load(&s->lists, &s->list_count, policy_config(s->policy),
                             previous ? previous->lists : NULL, previous ? previous->list_count : 0, lists,
                             rule, d);
    }
    if (err) {
        snapshot_unref(s);
        return ERR_CONFIG;
    }
    *out = s;
    return 0;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
    __atomic_fetch_add(&s->refs, 1, __ATOMIC_RELAXED);
    return s;
}

void snapshot_unref(struct snapshot *s)
{
    if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    tls_context_unref(s->tls_server);
    lists_free(s->lists, s->list_count);
    policy_free(s->policy);
    free(s);
}
