/* daemon/names.c: see names.h. */
#include "daemon/names.h"

#include "core/clock.h"

struct known_name {
    uint32_t count;
    struct ip addresses[DNS_ADDRESSES_MAX];
    char name[DNS_NAME_MAX + 1]; /* the map's key */
};

/* Without memory the name is not remembered, which is all. */
static void remember(struct names *n, str_t name, const struct dns_query *q)
{
    struct known_name *k = smap_get(&n->known, name);
    if (!k) {
        k = calloc(1, sizeof *k);
        if (!k)
            return;
        memcpy(k->name, name.p, name.n);
        if (smap_put(&n->known, str_of(k->name, name.n), k)) {
            free(k);
            return;
        }
    }
    k->count = q->count;
    memcpy(k->addresses, q->addresses, q->count * sizeof q->addresses[0]);
}

static err_t ask(struct names_lookup *l, struct dns_query *q)
{
    if (clock_mono_ns() < l->until_ns) {
        dns_ask_blocking(l->dns, q);
        return q->err;
    }
    if (!l->is_late)
        diag_warning(l->diag, (struct mark){0},
                     "the resolver is slow: not every host name could be looked up");
    l->is_late = true;
    return ERR_DNS_TEMP;
}

static size_t give(const struct ip *addresses, uint32_t count, struct ip *out, size_t max)
{
    size_t n = MIN((size_t)count, max);
    memcpy(out, addresses, n * sizeof *out);
    return n;
}

size_t names_resolve(void *ctx, str_t name, struct ip *out, size_t max)
{
    struct names_lookup *l = ctx;
    struct dns_query q = {.kind = DNS_ADDRESS};
    if (name.n > DNS_NAME_MAX)
        return 0;
    memcpy(q.name, name.p, name.n);
    err_t err = ask(l, &q);
    if (!err) {
        remember(l->names, name, &q);
        return give(q.addresses, q.count, out, max);
    }
    if (err == ERR_DNS_NXDOMAIN || err == ERR_DNS_NODATA) {
        free(smap_remove(&l->names->known, name));
        return 0;
    }
    const struct known_name *k = smap_get(&l->names->known, name);
    if (!k)
        return 0;
    diag_warning(l->diag, (struct mark){0},
                 STR_FMT " cannot be looked up now (%s); the addresses known before stay in force",
                 STR_ARG(name), err_text(err));
    return give(k->addresses, k->count, out, max);
}

void names_free(struct names *n)
{
    size_t at = 0;
    str_t key;
    void *value;
    while (smap_next(&n->known, &at, &key, &value))
        free(value);
    smap_free(&n->known);
}
