/* smtp/server/dnsbl.c: is a stranger on a block list (RFC 5782)? Asked from the moment that it connects, one
 * zone after another; only RCPT waits for the answer. libunbound remembers answers for as long as they are
 * good. */
#include "net/dns.h"
#include "smtp/server/service_priv.h"

/* Outlives its session, until the resolver has answered. */
struct dnsbl_check {
    struct smtpd_service *service;
    struct session *session; /* NULL: gone */
    size_t zone;             /* the next one in the configuration */
    bool is_listed;
    char name[DNS_NAME_MAX + 1]; /* of the zone that was asked last */
    struct dns_query query;
};

size_t dnsbl_check_bytes(void)
{
    return sizeof(struct dnsbl_check);
}

/* 1.2.0.192.ZONE, or the same with 32 nibbles. False: too long. */
static bool query_name(const struct ip *ip, str_t zone, char out[DNS_NAME_MAX + 1])
{
    struct sbuf b = {.p = out, .cap = DNS_NAME_MAX};
    for (size_t i = 16; i-- > (ip_is_v4(ip) ? 12u : 0u);) {
        if (ip_is_v4(ip))
            sbuf_printf(&b, "%u.", ip->b[i]);
        else
            sbuf_printf(&b, "%x.%x.", ip->b[i] & 15u, ip->b[i] >> 4);
    }
    sbuf_str(&b, zone);
    out[b.n] = '\0';
    return !b.overflow;
}

static void finish(struct dnsbl_check *k)
{
    struct smtpd_service *service = k->service;
    service->dnsbl_count--;
    pool_put(&service->dnsbl_checks, k);
    service_tell_if_empty(service);
}

static void tell(const struct dnsbl_check *k, const char *result)
{
    char text[64];
    struct sbuf b = SBUF_ON(text);
    if (k->query.err)
        sbuf_cstr(&b, err_text(k->query.err));
    else
        ip_format(&k->query.addresses[0], &b);
    LOG(dnsbl, LF_QID("sid", k->session->id), LF_IP("client", &k->session->peer.ip), LF_CSTR("zone", k->name),
        LF_STR("answer", sbuf_view(&b)), LF_CSTR("result", result));
}

/* Of 127.0.0.0/8; 127.255.255.0/24 is how lists say that they do not answer us (RFC 5782 leaves it open, all
 * large ones do so). */
static bool says_listed(const struct dns_query *q)
{
    const uint8_t *b = q->addresses[0].b + 12;
    return !q->err && q->count && b[0] == 127 && !(b[1] == 255 && b[2] == 255);
}

static bool ask_next(struct dnsbl_check *k);

static void answered(struct dns_query *q)
{
    struct dnsbl_check *k = container_of(q, struct dnsbl_check, query);
    struct session *s = k->session;
    if (!s) {
        finish(k);
        return;
    }
    k->is_listed = says_listed(q);
    if (k->is_listed) {
        metric_inc(M_dnsbl_listed);
        tell(k, "listed");
    } else {
        bool has_answered = q->err == ERR_DNS_NXDOMAIN || q->err == ERR_DNS_NODATA;
        metric_inc(has_answered ? M_dnsbl_clean : M_dnsbl_failed);
        if (!has_answered)
            tell(k, "failed");
        if (ask_next(k))
            return;
        s->dnsbl = NULL;
        finish(k);
    }
    s->dnsbl_waiting = false;
    service_rcpt_go_on(s);
}

static bool ask_next(struct dnsbl_check *k)
{
    const struct cfg_zones *zones = &policy_config(k->service->policy)->strangers.dnsbl;
    while (k->zone < zones->count) {
        str_t zone = zones->names[k->zone++];
        snprintf(k->name, sizeof k->name, STR_FMT, STR_ARG(zone));
        if (!query_name(&k->session->peer.ip, zone, k->query.name))
            continue;
        k->query.kind = DNS_IPV4;
        k->query.answered = answered;
        dns_ask(k->service->opt.dns, k->service->opt.loop, &k->query);
        return true;
    }
    return false;
}

void dnsbl_start(struct session *s)
{
    struct smtpd_service *service = s->service;
    if (s->class != CLASS_STRANGER || !service->opt.dns ||
        !policy_config(service->policy)->strangers.dnsbl.count)
        return;
    struct dnsbl_check *k = pool_get(&service->dnsbl_checks);
    if (!k)
        return; /* no memory: lists nobody */
    k->service = service;
    k->session = s;
    service->dnsbl_count++;
    s->dnsbl = k;
    s->dnsbl_waiting = true;
    if (ask_next(k))
        return;
    s->dnsbl = NULL;
    s->dnsbl_waiting = false;
    finish(k);
}

const char *dnsbl_zone(const struct session *s)
{
    return s->dnsbl && s->dnsbl->is_listed ? s->dnsbl->name : NULL;
}

void dnsbl_forget(struct session *s)
{
    struct dnsbl_check *k = s->dnsbl;
    if (!k)
        return;
    s->dnsbl = NULL;
    k->session = NULL;
    if (k->is_listed) /* no answer is due any more */
        finish(k);
}
