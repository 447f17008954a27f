/* net/dns_resolver.c: how libunbound is set up. */
#include <dlfcn.h>
#include <errno.h>
#include <unistd.h>

#include "core/log.h"
#include "net/dns_priv.h"

#define ROOT_KEY "/usr/share/dns/root.key" /* package dns-root-data */

static const char NO_ROOT_KEY[] =
    "DNS answers are not validated: there is no " ROOT_KEY " (package dns-root-data)";
static const char NO_VALIDATOR[] =
    "DNS answers are not validated: this system's libunbound needs OpenSSL, which cannot share a process "
    "with "
    "BoringSSL; let a validating resolver on this machine do it (dns.resolver)";

/* The library's defaults suit a tool that asks a few questions; a gateway asks thousands. */
static const struct {
    const char *name, *value;
} OPTIONS[] = {
    {"do-not-query-localhost:", "no"}, /* a resolver on this host is the usual case */
    {"outgoing-range:", "256"},        /* sockets; the default of 16 makes queries wait for one another */
    {"outgoing-num-tcp:", "16"},       {"num-queries-per-thread:", "4096"}, {"msg-cache-size:", "8m"},
    {"rrset-cache-size:", "16m"},      {"cache-max-negative-ttl:", "300"}, /* a repaired domain gets its mail
                                                                              within minutes */
    {"infra-host-ttl:", "60"}, /* a resolver that was down is believed again soon */
    {"infra-keep-probing:", "yes"},    {"infra-cache-max-rtt:", "10000"},
};

/* Answered "no such name" by default, but private networks and test beds use them, and the resolver may know
 * better. */
static const char *const PRIVATE_ZONES[] = {"test.", "home.arpa."};

static void note(const char *text)
{
    LOG(boot_note, LF_CSTR("text", text));
}

void dns_settings_take(struct dns_settings *s, const struct config *c)
{
    *s = (struct dns_settings){.has_resolver = c->dns.has_resolver, .use_hosts_file = c->dns.use_hosts_file};
    if (!s->has_resolver)
        return;
    struct sbuf b = {s->resolver, 0, sizeof s->resolver - 1, false};
    ip_format(&c->dns.resolver.ip, &b);
    sbuf_printf(&b, "@%u", c->dns.resolver.port);
    s->resolver[b.n] = '\0';
}

/* Debian 13's libunbound links OpenSSL. Of its functions those that BoringSSL has too are found there, the
 * others are OpenSSL's, and a key made by one half is no key to the other. Only validation needs them. */
static bool openssl_is_here(void)
{
    return dlsym(RTLD_DEFAULT, "OSSL_PARAM_construct_end") != NULL;
}

/* RFC 4035's chain of trust starts at a key that must be there; what a configured resolver serves may not
 * hang on it. */
static int set_validation(struct ub_ctx *ub, const struct dns_settings *s, bool notes)
{
    bool can_validate = !openssl_is_here();
    if (!s->has_resolver && can_validate && access(ROOT_KEY, R_OK) == 0 &&
        ub_ctx_add_ta_file(ub, ROOT_KEY) == 0)
        return 0;
    if (notes && !s->has_resolver)
        note(can_validate ? NO_ROOT_KEY : NO_VALIDATOR);
    return ub_ctx_set_option(ub, "module-config:", "iterator");
}

static int set_servers(struct ub_ctx *ub, const struct dns_settings *s, bool notes)
{
    if (s->has_resolver)
        return ub_ctx_set_fwd(ub, s->resolver);
    if (ub_ctx_resolvconf(ub, NULL) != 0 && notes)
        note("/etc/resolv.conf cannot be read: names are resolved from the root servers");
    return 0;
}

static int configure(struct ub_ctx *ub, const struct dns_settings *s, bool notes)
{
    int rc = ub_ctx_debugout(ub, NULL); /* what matters comes as results */
    for (size_t i = 0; i < COUNT_OF(OPTIONS) && !rc; i++)
        rc = ub_ctx_set_option(ub, OPTIONS[i].name, OPTIONS[i].value);
    if (!rc)
        rc = set_servers(ub, s, notes);
    if (!rc)
        rc = set_validation(ub, s, notes);
    if (!rc && s->use_hosts_file && ub_ctx_hosts(ub, NULL) != 0 && notes)
        note("/etc/hosts cannot be used: its names come from the resolver");
    if (!rc)
        rc = ub_ctx_async(ub, 1); /* a thread; the default would fork */
    /* From here on the configuration is final: mistakes in it come out now and not with the first query. */
    for (size_t i = 0; i < COUNT_OF(PRIVATE_ZONES) && !rc; i++)
        rc = ub_ctx_zone_add(ub, PRIVATE_ZONES[i], "transparent");
    return rc;
}

err_t dns_resolver_open(struct ub_ctx **out, const struct dns_settings *s, bool notes, struct sbuf *error)
{
    *out = NULL;
    struct ub_ctx *ub = ub_ctx_create();
    int rc = ub ? configure(ub, s, notes) : UB_NOMEM;
    if (rc) {
        sbuf_printf(error, "libunbound: %s", ub_strerror(rc));
        ub_ctx_delete(ub);
        return rc == UB_NOMEM ? -ENOMEM : ERR_CONFIG;
    }
    *out = ub;
    return 0;
}
