/* smtp/server/dnsbl.c: is a stranger on a block list (RFC 5782)? All lists are asked at once, from the moment
 * that it connects; the first that has it decides, and one that is slow delays nothing then. Only RCPT waits
 * for the answer. libunbound remembers answers for as long as they are good. */
#include "net/dns.h"
#include "smtp/server/service_priv.h"

/* Questions to one list at a time. One that does not answer is no reason to remember all who came and went:
 * behind these, clients are not asked about there. */
#define OUT_MAX 256

/* Outlives its session, until all lists have answered. */
struct dnsbl_check {
    struct smtpd_service *service;
    struct session *session; /* NULL: gone */
    uint32_t out_count;      /* questions */
    bool is_listed;
    char zone[DNS_NAME_MAX + 1]; /* that it is listed in */
};

struct dnsbl_question {
    struct dnsbl_check *check;
    size_t zone;    /* in service.dnsbl_out */
    size_t zone_at; /* in query.name */
    struct dns_query query;
};

size_t dnsbl_check_bytes(void)
{
    return sizeof(struct dnsbl_check);
}

size_t dnsbl_question_bytes(void)
{
    return sizeof(struct dnsbl_question);
}

/* 1.2.0.192.ZONE, or the same with 32 nibbles. False: too long. */
static bool query_name(const struct ip *ip, str_t zone, struct dnsbl_question *q)
{
    struct sbuf b = {.p = q->query.name, .cap = DNS_NAME_MAX};
    for (size_t i = 16; i-- > (ip_is_v4(ip) ? 12u : 0u);) {
        if (ip_is_v4(ip))
            sbuf_printf(&b, "%u.", ip->b[i]);
        else
            sbuf_printf(&b, "%x.%x.", ip->b[i] & 15u, ip->b[i] >> 4);
    }
    q->zone_at = b.n;
    sbuf_str(&b, zone);
    q->query.name[b.n] = '\0';
    return !b.overflow;
}

static void finish(struct dnsbl_check *k)
{
    if (k->session)
        k->session->dnsbl = NULL;
    pool_put(&k->service->dnsbl_checks, k);
}

static void tell(const struct session *s, const struct dnsbl_question *q, const char *result)
{
    char text[64];
    struct sbuf b = SBUF_ON(text);
    if (q->query.err)
        sbuf_cstr(&b, err_text(q->query.err));
    else
        ip_format(&q->query.addresses[0], &b);
    LOG(dnsbl, LF_QID("sid", s->id), LF_IP("client", &s->peer.ip),
        LF_CSTR("zone", q->query.name + q->zone_at), LF_STR("answer", sbuf_view(&b)),
        LF_CSTR("result", result));
}

/* Of 127.0.0.0/8; 127.255.255.0/24 is how lists say that they do not answer us (RFC 5782 leaves it open, all
 * large ones do so). */
static bool says_listed(const struct dns_query *q)
{
    const uint8_t *b = q->addresses[0].b + 12;
    return !q->err && q->count && b[0] == 127 && !(b[1] == 255 && b[2] == 255);
}

/* True: it is on this one. */
static bool judge(const struct session *s, const struct dnsbl_question *q)
{
    if (says_listed(&q->query)) {
        metric_inc(M_dnsbl_listed);
        tell(s, q, "listed");
        return true;
    }
    bool has_answered = q->query.err == ERR_DNS_NXDOMAIN || q->query.err == ERR_DNS_NODATA;
    metric_inc(has_answered ? M_dnsbl_clean : M_dnsbl_failed);
    if (!has_answered)
        tell(s, q, "failed");
    return false;
}

static void question_over(struct dnsbl_question *q)
{
    struct smtpd_service *service = q->check->service;
    q->check->out_count--;
    service->dnsbl_count--;
    service->dnsbl_out[q->zone]--;
    pool_put(&service->dnsbl_questions, q);
    service_tell_if_empty(service); /* from the loop, later */
}

static void answered(struct dns_query *query)
{
    struct dnsbl_question *q = container_of(query, struct dnsbl_question, query);
    struct dnsbl_check *k = q->check;
    struct session *s = k->is_listed ? NULL : k->session; /* whom it matters to */
    if (s && judge(s, q)) {
        k->is_listed = true;
        snprintf(k->zone, sizeof k->zone, "%s", q->query.name + q->zone_at);
    }
    question_over(q);
    bool is_last = !k->out_count, is_decided = s && (k->is_listed || is_last);
    if (is_last && !(k->session && k->is_listed)) /* else the session keeps it */
        finish(k);
    if (!is_decided)
        return;
    s->dnsbl_waiting = false;
    service_rcpt_go_on(s);
}

static void ask(struct dnsbl_check *k, const struct cfg_zones *zones, size_t i)
{
    struct smtpd_service *service = k->service;
    struct dnsbl_question *q = service->dnsbl_out[i] < OUT_MAX ? pool_get(&service->dnsbl_questions) : NULL;
    if (!q) { /* it lists nobody */
        metric_inc(M_dnsbl_skipped);
        return;
    }
    q->check = k;
    q->zone = i;
    if (!query_name(&k->session->peer.ip, zones->names[i], q)) {
        pool_put(&service->dnsbl_questions, q);
        return;
    }
    q->query.kind = DNS_IPV4;
    q->query.answered = answered;
    k->out_count++;
    service->dnsbl_count++;
    service->dnsbl_out[i]++;
    dns_ask(service->opt.dns, service->opt.loop, &q->query);
}

void dnsbl_start(struct session *s)
{
    struct smtpd_service *service = s->service;
    const struct cfg_zones *zones = &policy_config(service->policy)->strangers.dnsbl;
    if (s->class != CLASS_STRANGER || !service->opt.dns || !zones->count)
        return;
    struct dnsbl_check *k = pool_get(&service->dnsbl_checks);
    if (!k)
        return;
    k->service = service;
    k->session = s;
    s->dnsbl = k;
    must(zones->count <= DNSBL_ZONES_MAX);
    for (size_t i = 0; i < zones->count; i++)
        ask(k, zones, i);
    s->dnsbl_waiting = k->out_count > 0;
    if (!k->out_count)
        finish(k);
}

const char *dnsbl_zone(const struct session *s)
{
    return s->dnsbl && s->dnsbl->is_listed ? s->dnsbl->zone : NULL;
}

void dnsbl_forget(struct session *s)
{
    struct dnsbl_check *k = s->dnsbl;
    if (!k)
        return;
    s->dnsbl = NULL;
    k->session = NULL;
    if (!k->out_count)
        finish(k);
}
