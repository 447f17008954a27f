/* nexthop/target.c: see target.h. */
#include "nexthop/target.h"

#define SMTP_PORT           25
#define CANDIDATE_FAILED_MS 60000 /* others are preferred for this long */
#define FRESH_MS_MIN        30000 /* bounds of how long addresses are used without asking again */
#define FRESH_MS_MAX        3600000
#define STALE_MS            60000 /* old ones, when DNS is in trouble */

static void take_domain(struct target_host *h, str_t domain, struct arena *a)
{
    h->name = arena_str(a, domain);
    h->is_ip = address_literal_valid(h->name, &h->ip);
    h->is_mx = !h->is_ip;
    h->port = SMTP_PORT;
    if (h->is_ip) { /* without the brackets */
        char text[64];
        struct sbuf b = SBUF_ON(text);
        ip_format(&h->ip, &b);
        h->name = arena_str(a, sbuf_view(&b));
    }
}

bool target_copy(struct target *out, const struct route *route, struct arena *a)
{
    const struct cfg_route *cfg = route->kind == ROUTE_HOSTS ? route->hosts : NULL;
    size_t count = cfg ? cfg->host_count : 1;
    struct target_host *hosts = arena_zalloc(a, count * sizeof *hosts);
    if (!hosts)
        return false;
    if (!cfg)
        take_domain(&hosts[0], route->domain, a);
    for (size_t i = 0; cfg && i < count; i++) {
        const struct cfg_host *from = &cfg->hosts[i];
        hosts[i] = (struct target_host){.name = arena_str(a, from->name),
                                        .is_ip = from->kind == HOST_IP,
                                        .is_mx = cfg->mx && from->kind == HOST_NAME,
                                        .ip = from->ip,
                                        .port = from->port};
    }
    *out = (struct target){.is_dns = !cfg, .hosts = hosts, .host_count = count};
    return !a->overflow;
}

void candidates_replace(struct candidates *c, struct candidates *fresh, uint32_t ttl_s, uint64_t now_ms)
{
    uint32_t generation = c->generation + 1;
    candidates_free(c);
    *c = *fresh;
    c->generation = generation;
    c->fresh_until_ms = now_ms + MAX(MIN((uint64_t)ttl_s * 1000, FRESH_MS_MAX), FRESH_MS_MIN);
    *fresh = (struct candidates){0};
}

bool candidates_fresh(const struct candidates *c, uint64_t now_ms)
{
    return c->count && now_ms < c->fresh_until_ms;
}

bool candidates_extend(struct candidates *c, uint64_t now_ms)
{
    if (c->count)
        c->fresh_until_ms = now_ms + STALE_MS;
    return c->count;
}

void candidates_free(struct candidates *c)
{
    free(c->list);
    *c = (struct candidates){0};
}

int candidates_pick(const struct candidates *c, uint32_t tried, bool failed_too, uint64_t now_ms)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (!(tried >> i & 1) && c->list[i].failed_until_ms <= now_ms)
            return (int)i;
    for (uint32_t i = 0; i < c->count && failed_too; i++)
        if (!(tried >> i & 1))
            return (int)i;
    return -1;
}

bool candidates_failed(const struct candidates *c, struct candidate *one, uint64_t now_ms)
{
    bool is_news = one->failed_until_ms <= now_ms && c->count > 1;
    one->failed_until_ms = now_ms + CANDIDATE_FAILED_MS;
    return is_news;
}

void candidate_tls(const struct candidate *to, const struct hop_access *access, struct tls_context **tls,
                   enum smtpc_tls *level)
{
    bool is_may = access->level == TLS_MAY;
    *tls = is_may && to->tls_broken ? NULL : access->tls;
    *level = !*tls ? SMTPC_TLS_OFF : is_may ? SMTPC_TLS_MAY : SMTPC_TLS_REQUIRE;
}

str_t candidate_server_name(str_t host, const struct hop_access *access)
{
    struct ip ip;
    if (access->name.n)
        return access->name;
    return access->level != TLS_VERIFY && ip_parse(host, &ip) == 0 ? STR_NONE : host;
}
