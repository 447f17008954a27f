/* verify/tally.c: rows in an array that only grows; its length is published when a row is whole. */
#include "verify/tally.h"

#include <errno.h>
#include <stdatomic.h>

#include "core/map.h"

struct row {
    atomic_uint_fast64_t counts[FROM_COUNT][TALLY_RESULTS];
    uint16_t domain_n;
    char domain[ADDRESS_DOMAIN_MAX + 2]; /* "*." in front of it */
};

struct tally {
    struct smap by_domain; /* the worker's */
    atomic_size_t row_count;
    struct row rows[TALLY_DOMAINS_MAX + 1]; /* the first one is "other"; pages come with their use */
};

const char *tally_result_name(enum tally_result r)
{
    static const char *const names[] = {
        [TALLY_ACCEPTED] = "accepted", [TALLY_UNKNOWN] = "unknown", [TALLY_DISABLED] = "disabled",
        [TALLY_FULL] = "full",         [TALLY_LATER] = "later",     [TALLY_REFUSED] = "refused",
        [TALLY_SHADOW] = "shadow",
    };
    return r >= 0 && r < TALLY_RESULTS ? names[r] : "unknown";
}

enum tally_result tally_result_of(enum reply_id reply, bool shadow)
{
    if (shadow)
        return TALLY_SHADOW;
    switch (reply) {
    case R_rcpt_ok: return TALLY_ACCEPTED;
    case R_unknown_user: return TALLY_UNKNOWN;
    case R_rcpt_disabled: return TALLY_DISABLED;
    case R_rcpt_full: return TALLY_FULL;
    default: return reply_def(reply)->code >= 500 ? TALLY_REFUSED : TALLY_LATER;
    }
}

static str_t domain_of(const struct row *r)
{
    return str_of(r->domain, r->domain_n);
}

static void name_row(struct row *r, str_t domain)
{
    r->domain_n = (uint16_t)domain.n;
    memcpy(r->domain, domain.p, domain.n);
}

err_t tally_create(struct tally **out)
{
    struct tally *t = *out = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    t->by_domain.fold_case = true;
    name_row(&t->rows[0], STR("other"));
    atomic_store(&t->row_count, 1);
    return 0;
}

void tally_destroy(struct tally *t)
{
    if (!t)
        return;
    smap_free(&t->by_domain);
    free(t);
}

static struct row *row_of(struct tally *t, str_t domain)
{
    size_t n = atomic_load_explicit(&t->row_count, memory_order_relaxed);
    struct row *r = domain.n ? smap_get(&t->by_domain, domain) : &t->rows[0];
    if (r)
        return r;
    if (n > TALLY_DOMAINS_MAX || domain.n > sizeof r->domain)
        return &t->rows[0];
    r = &t->rows[n];
    name_row(r, domain);
    if (smap_put(&t->by_domain, domain_of(r), r))
        return &t->rows[0];
    atomic_store_explicit(&t->row_count, n + 1, memory_order_release);
    return r;
}

void tally_count(struct tally *t, str_t domain, enum answer_source s, enum tally_result r)
{
    atomic_uint_fast64_t *n = &row_of(t, domain)->counts[s][r];
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* --- sums --- */

struct sums {
    struct tally_row *rows;
    size_t count, cap;
    struct smap by_domain; /* of positions + 1 */
};

static void add(struct tally_row *to, const struct row *r)
{
    for (size_t s = 0; s < FROM_COUNT; s++)
        for (size_t k = 0; k < TALLY_RESULTS; k++)
            to->counts[s][k] += atomic_load_explicit(&r->counts[s][k], memory_order_relaxed);
}

static err_t add_row(struct sums *x, const struct row *r)
{
    size_t at = (uintptr_t)smap_get(&x->by_domain, domain_of(r));
    if (!at) {
        if (x->count == x->cap) {
            size_t cap = MAX(x->cap * 2, (size_t)16);
            struct tally_row *rows = reallocarray(x->rows, cap, sizeof *rows);
            if (!rows)
                return -ENOMEM;
            x->rows = rows;
            x->cap = cap;
        }
        at = ++x->count;
        x->rows[at - 1] = (struct tally_row){.domain = domain_of(r)};
        if (smap_put(&x->by_domain, domain_of(r), (void *)at)) // NOLINT: a position, no address
            return -ENOMEM;
    }
    add(&x->rows[at - 1], r);
    return 0;
}

struct tally_row *tally_sum(struct tally *const *tallies, size_t count, size_t *row_count)
{
    struct sums x = {.by_domain.fold_case = true};
    err_t err = 0;
    for (size_t i = 0; i < count && !err; i++) {
        size_t n = atomic_load_explicit(&tallies[i]->row_count, memory_order_acquire);
        for (size_t k = 0; k < n && !err; k++)
            err = add_row(&x, &tallies[i]->rows[k]);
    }
    smap_free(&x.by_domain);
    *row_count = err ? 0 : x.count;
    if (err) {
        free(x.rows);
        return NULL;
    }
    return x.rows;
}
