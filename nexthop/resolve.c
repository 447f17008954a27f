/* nexthop/resolve.c: a destination's hosts to addresses: MX, implicit MX, loops, null MX. */
#include "nexthop/resolve.h"

#include <errno.h>

#define ENOUGH 8 /* more candidates than one connection tries: no need to look further down the list */

struct exchanger {
    uint16_t preference;
    char host[DNS_NAME_MAX + 1];
};

struct resolve {
    struct resolver *resolver;
    const struct target *target;
    void (*done)(void *ctx, struct resolution *res);
    void *ctx;
    size_t host_at; /* of the target: the next one */
    enum lookup_kind lookup;
    uint16_t port;
    struct exchanger exchangers[DNS_MX_MAX];
    uint32_t exchanger_count, exchanger_at;
    struct candidate found[CANDIDATES_MAX];
    uint16_t found_preference[CANDIDATES_MAX];
    uint32_t found_count, found_base; /* base: found before the present host */
    uint32_t ttl_s;
    bool failed;
    enum resolution_kind failure;
    struct answer failure_answer;
    char failure_text[ANSWER_TEXT_MAX];
    struct dns_query q;
};

uint32_t mx_better_than_us(const struct dns_query *q, str_t hostname, bool *looped)
{
    uint32_t count = MIN(q->count, DNS_MX_MAX);
    *looped = false;
    for (uint32_t i = 0; i < count; i++) {
        if (!str_ieq(str_cstr(q->mx[i].host), hostname))
            continue;
        *looped = true;
        uint32_t better = 0;
        while (q->mx[better].preference < q->mx[i].preference)
            better++;
        return better;
    }
    return count;
}

enum resolution_kind resolve_judge(bool is_dns, enum lookup_kind lookup, err_t err, struct answer *answer)
{
    bool is_absent = err == ERR_DNS_NXDOMAIN || err == ERR_DNS_NODATA || err == ERR_NULL_MX;
    *answer = (struct answer){.code = 451, .status = {4, 4, 3}, .text = str_cstr(err_text(err))};
    if (!is_absent)
        return RESOLVE_LATER;
    if (!is_dns) { /* somebody configured it: likelier a mistake in DNS or in the configuration than the truth
                      about the mail */
        answer->status[2] = 4;
        return RESOLVE_LATER;
    }
    answer->code = 550;
    if (err == ERR_NULL_MX) {
        *answer = (struct answer){.code = 556, .status = {5, 1, 10}, .text = answer->text};
    } else if (lookup == LOOKUP_EXCHANGER) {
        *answer = (struct answer){
            .code = 550, .status = {5, 4, 4}, .text = STR("the domain's mail exchanger has no address")};
    } else if (err == ERR_DNS_NXDOMAIN) {
        *answer = (struct answer){.code = 550, .status = {5, 1, 2}, .text = answer->text};
    } else {
        *answer = (struct answer){
            .code = 550, .status = {5, 1, 2}, .text = STR("the domain has neither MX nor address records")};
    }
    return RESOLVE_NEVER;
}

/* Later beats never: as long as one way may open, the mail waits. */
static void note_failure(struct resolve *rs, enum resolution_kind kind, const struct answer *a, str_t name)
{
    if (rs->failed && !(kind == RESOLVE_LATER && rs->failure == RESOLVE_NEVER))
        return;
    struct sbuf text = SBUF_ON(rs->failure_text);
    if (name.p) {
        sbuf_str(&text, name);
        sbuf_cstr(&text, ": ");
    }
    sbuf_str(&text, a->text);
    rs->failed = true;
    rs->failure = kind;
    rs->failure_answer = *a;
    rs->failure_answer.text = sbuf_view(&text);
}

static void note_loop(struct resolve *rs, str_t name)
{
    struct answer a = {.code = 554, .status = {5, 4, 6}, .text = STR("mail loops back to myself")};
    enum resolution_kind kind = RESOLVE_NEVER;
    if (!rs->target->is_dns) {
        a.code = 451;
        a.status[0] = 4;
        kind = RESOLVE_LATER;
    }
    note_failure(rs, kind, &a, name);
}

/* False: no room for more. */
static bool add(struct resolve *rs, const struct ip *ip, uint16_t port, str_t host, uint16_t preference)
{
    if (rs->found_count == CANDIDATES_MAX)
        return false;
    struct candidate *c = &rs->found[rs->found_count];
    *c = (struct candidate){.at = {*ip, port}};
    memcpy(c->host, host.p, MIN(host.n, sizeof c->host - 1));
    rs->found_preference[rs->found_count++] = preference;
    return true;
}

static void take_exchangers(struct resolve *rs, const struct dns_query *q)
{
    bool looped;
    uint32_t count = mx_better_than_us(q, str_cstr(rs->resolver->settings->hostname), &looped);
    if (looped && !count)
        note_loop(rs, str_cstr(q->name));
    for (uint32_t i = 0; i < count; i++) {
        rs->exchangers[i].preference = q->mx[i].preference;
        memcpy(rs->exchangers[i].host, q->mx[i].host, sizeof rs->exchangers[i].host);
    }
    rs->exchanger_at = 0;
    rs->exchanger_count = count;
    rs->lookup = LOOKUP_EXCHANGER;
}

/* An exchanger's address is one of ours: it is us under another name, so what is not better than it is
 * dropped. */
static void drop_from(struct resolve *rs, uint16_t preference)
{
    while (rs->found_count > rs->found_base && rs->found_preference[rs->found_count - 1] >= preference)
        rs->found_count--;
    rs->exchanger_at = rs->exchanger_count;
}

static void take_addresses(struct resolve *rs, const struct dns_query *q)
{
    bool is_exchanger = rs->lookup == LOOKUP_EXCHANGER;
    uint16_t preference = is_exchanger ? rs->exchangers[rs->exchanger_at - 1].preference : 0;
    for (uint32_t i = 0; i < MIN(q->count, DNS_ADDRESSES_MAX); i++) {
        struct endpoint e = {q->addresses[i], rs->port};
        if (hop_settings_is_own(rs->resolver->settings, &e)) {
            note_loop(rs, str_cstr(q->name));
            if (is_exchanger) {
                drop_from(rs, preference);
                return;
            }
        } else if (!add(rs, &e.ip, e.port, str_cstr(q->name), preference)) {
            return;
        }
    }
}

static bool ask(struct resolve *rs, enum dns_kind kind, enum lookup_kind lookup, str_t name)
{
    rs->lookup = lookup;
    if (!rs->resolver->dns || !name.n || name.n > DNS_NAME_MAX || !str_is_ascii(name)) {
        struct answer a;
        enum resolution_kind judged = resolve_judge(rs->target->is_dns, lookup,
                                                    rs->resolver->dns ? ERR_DNS_NXDOMAIN : ERR_DNS_TEMP, &a);
        note_failure(rs, judged, &a, name);
        return false;
    }
    rs->q.kind = kind;
    memcpy(rs->q.name, name.p, name.n);
    rs->q.name[name.n] = '\0';
    dns_ask(rs->resolver->dns, rs->resolver->loop, &rs->q);
    return true;
}

/* Goes on to the next question; false: all is known. */
static bool step(struct resolve *rs)
{
    while (rs->found_count < ENOUGH) {
        if (rs->exchanger_at < rs->exchanger_count) {
            const struct exchanger *x = &rs->exchangers[rs->exchanger_at++];
            if (ask(rs, DNS_ADDRESS, rs->lookup, str_cstr(x->host)))
                return true;
            continue;
        }
        if (rs->host_at == rs->target->host_count)
            return false;
        const struct target_host *h = &rs->target->hosts[rs->host_at++];
        rs->port = h->port;
        rs->found_base = rs->found_count;
        if (h->is_ip) {
            struct endpoint e = {h->ip, h->port};
            if (hop_settings_is_own(rs->resolver->settings, &e))
                note_loop(rs, h->name);
            else
                add(rs, &h->ip, h->port, h->name, 0);
        } else if (h->is_mx ? ask(rs, DNS_MX, LOOKUP_MX, h->name)
                            : ask(rs, DNS_ADDRESS, LOOKUP_HOST, h->name)) {
            return true;
        }
    }
    return false;
}

static void conclude(struct resolve *rs, struct resolution *out)
{
    *out = (struct resolution){.kind = RESOLVED, .ttl_s = rs->ttl_s};
    if (rs->found_count) {
        out->candidates.list = malloc(rs->found_count * sizeof *rs->found);
        if (out->candidates.list) {
            memcpy(out->candidates.list, rs->found, rs->found_count * sizeof *rs->found);
            out->candidates.count = rs->found_count;
            return;
        }
        rs->failed = false;
    }
    if (rs->failed) {
        out->kind = rs->failure;
        out->answer = rs->failure_answer;
        return;
    }
    out->kind = RESOLVE_LATER;
    out->answer = (struct answer){.code = 451, .status = {4, 3, 0}, .text = STR("out of memory")};
}

static void answered(struct dns_query *q)
{
    struct resolve *rs = container_of(q, struct resolve, q);
    if (!q->err) {
        rs->ttl_s = MIN(rs->ttl_s, q->ttl_s);
        if (q->kind == DNS_MX)
            take_exchangers(rs, q);
        else
            take_addresses(rs, q);
    } else if (q->kind == DNS_MX && q->err == ERR_DNS_NODATA) { /* RFC 5321 5.1: the implicit MX */
        memcpy(rs->exchangers[0].host, q->name, sizeof q->name);
        rs->exchangers[0].preference = 0;
        rs->exchanger_at = 0;
        rs->exchanger_count = 1;
        rs->lookup = LOOKUP_IMPLICIT;
    } else {
        struct answer a;
        enum resolution_kind kind = resolve_judge(rs->target->is_dns, rs->lookup, q->err, &a);
        note_failure(rs, kind, &a, str_cstr(q->name));
    }
    if (step(rs))
        return;
    struct resolution res;
    conclude(rs, &res);
    rs->resolver->pending--;
    rs->done(rs->ctx, &res);
    free(rs);
}

/* malloc, as an exception: a lookup per destination and TTL, with a thread and a network behind it. */
err_t resolve_start(struct resolver *r, const struct target *t,
                    void (*done)(void *ctx, struct resolution *res), void *ctx, struct resolve **out,
                    struct resolution *now)
{
    struct resolve *rs = calloc(1, sizeof *rs);
    if (!rs)
        return -ENOMEM;
    rs->resolver = r;
    rs->target = t;
    rs->done = done;
    rs->ctx = ctx;
    rs->ttl_s = UINT32_MAX;
    rs->q.answered = answered;
    if (step(rs)) {
        r->pending++;
        *out = rs;
        return ERR_PENDING;
    }
    conclude(rs, now);
    if (now->answer.text.p == rs->failure_text) { /* the only text that is ours and not static */
        answer_keep(&r->answer, &now->answer);
        now->answer = r->answer.a;
    }
    free(rs);
    return 0;
}
