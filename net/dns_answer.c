/* net/dns_answer.c: libunbound's results into ours. Pure. Record data comes from strangers. */
#include <limits.h>

#include "core/rng.h"
#include "net/dns_priv.h"

#define LABEL_BYTES_MAX 63
#define NAME_BYTES_MAX  253 /* as text; RFC 1035 2.3.4 allows 255 on the wire */
#define RCODE_NXDOMAIN  3

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

bool dns_name_valid(const char *name)
{
    size_t n = strnlen(name, DNS_NAME_MAX + 1), label = 0;
    if (n == 0 || n > NAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (name[i] == '.') {
            if (label == 0)
                return false;
            label = 0;
        } else if (!name_char(name[i]) || ++label > LABEL_BYTES_MAX) {
            return false;
        }
    }
    return label > 0;
}

err_t dns_judge(int ub_err, const struct ub_result *r)
{
    if (ub_err || !r)
        return ERR_DNS_TEMP;
    if (r->bogus)
        return ERR_DNS_BOGUS;
    if (r->nxdomain || r->rcode == RCODE_NXDOMAIN)
        return ERR_DNS_NXDOMAIN;
    if (r->rcode != 0)
        return ERR_DNS_TEMP;
    return r->havedata ? 0 : ERR_DNS_NODATA;
}

static uint32_t ttl_of(const struct ub_result *r)
{
    return r->ttl > 0 ? (uint32_t)r->ttl : 0;
}

/* --- addresses --- */

void dns_take_addresses(struct dns_part *p, const struct ub_result *r)
{
    size_t bytes = p->rrtype == DNS_TYPE_AAAA ? 16 : 4;
    p->count = 0;
    p->secure = r->secure;
    p->ttl_s = ttl_of(r);
    for (size_t i = 0; r->data[i] && p->count < DNS_ADDRESSES_MAX; i++) {
        struct ip ip = {{[10] = 0xff, [11] = 0xff}};
        if ((size_t)r->len[i] != bytes)
            continue;
        memcpy(ip.b + sizeof ip.b - bytes, r->data[i], bytes);
        if (!ip_is_any(&ip)) /* to connect() that is this host, past every check for a loop */
            p->addresses[p->count++] = ip;
    }
    if (p->count == 0)
        p->err = ERR_DNS_NODATA;
}

/* Of two failures the one that leaves more open decides: nothing is permanent while half of it is unknown. */
static err_t worse(err_t a, err_t b)
{
    static const err_t order[] = {ERR_DNS_BOGUS, ERR_DNS_TEMP, ERR_DNS_NODATA, ERR_DNS_NXDOMAIN};
    for (size_t i = 0; i < COUNT_OF(order); i++) {
        if (a == order[i] || b == order[i])
            return order[i];
    }
    return ERR_DNS_TEMP;
}

void dns_merge_addresses(struct dns_query *q, const struct dns_part *v6, const struct dns_part *v4)
{
    const struct dns_part *parts[] = {v6, v4};
    q->count = 0;
    q->err = worse(v6->err, v4->err);
    q->secure = true;
    q->ttl_s = UINT32_MAX;
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        if (parts[i]->err)
            continue;
        q->err = 0;
        q->secure = q->secure && parts[i]->secure;
        q->ttl_s = MIN(q->ttl_s, parts[i]->ttl_s);
    }
    if (q->err) {
        q->secure = false;
        q->ttl_s = 0;
        return;
    }
    for (uint32_t i = 0; i < DNS_ADDRESSES_MAX; i++) {
        for (size_t k = 0; k < COUNT_OF(parts); k++) {
            if (!parts[k]->err && i < parts[k]->count && q->count < DNS_ADDRESSES_MAX)
                q->addresses[q->count++] = parts[k]->addresses[i];
        }
    }
}

/* --- MX --- */

/* Wire form (uncompressed) to text. False: not a host name. The root, RFC 7505's "no mail", is the empty
 * text. */
static bool host_from_wire(const uint8_t *p, size_t n, char out[DNS_NAME_MAX + 1])
{
    size_t at = 0, len = 0;
    for (;;) {
        if (at >= n)
            return false;
        size_t label = p[at++];
        if (label == 0)
            break;
        if (label > LABEL_BYTES_MAX || label > n - at || len + 1 + label > NAME_BYTES_MAX + 1)
            return false;
        if (len)
            out[len++] = '.';
        for (size_t i = 0; i < label; i++) {
            char c = (char)p[at++];
            if (!name_char(c))
                return false;
            out[len++] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        }
    }
    out[len] = '\0';
    return at == n && len <= NAME_BYTES_MAX;
}

/* Keys order by preference, then at random, so that inserting in order also shuffles the equal ones. */
static void insert_mx(struct dns_query *q, uint64_t keys[DNS_MX_MAX], uint16_t preference, const char *host)
{
    uint64_t key = (uint64_t)preference << 32 | (rng_u64() >> 32);
    uint32_t at = q->count;
    while (at > 0 && keys[at - 1] > key)
        at--;
    if (at == DNS_MX_MAX)
        return;
    uint32_t moved = MIN(q->count, DNS_MX_MAX - 1u) - at;
    memmove(&q->mx[at + 1], &q->mx[at], moved * sizeof q->mx[0]);
    memmove(&keys[at + 1], &keys[at], moved * sizeof keys[0]);
    keys[at] = key;
    q->mx[at].preference = preference;
    memcpy(q->mx[at].host, host, strlen(host) + 1);
    if (q->count < DNS_MX_MAX)
        q->count++;
}

void dns_take_mx(struct dns_query *q, const struct ub_result *r)
{
    uint64_t keys[DNS_MX_MAX];
    bool null_mx = false;
    q->count = 0;
    q->secure = r->secure;
    q->ttl_s = ttl_of(r);
    for (size_t i = 0; r->data[i]; i++) {
        const uint8_t *p = (const uint8_t *)r->data[i];
        char host[DNS_NAME_MAX + 1];
        if (r->len[i] < 3 || !host_from_wire(p + 2, (size_t)r->len[i] - 2, host))
            continue;
        if (host[0])
            insert_mx(q, keys, (uint16_t)(p[0] << 8 | p[1]), host);
        else
            null_mx = true;
    }
    /* "." beside real hosts is a mistake (RFC 7505 3) and not a host. An MX set that names no usable host is
     * no reason to use the domain's own address, and may be repaired. */
    if (q->count == 0)
        q->err = null_mx ? ERR_NULL_MX : ERR_DNS_TEMP;
}
