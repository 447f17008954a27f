/* daemon/verification.c: see verification.h. */
#include "daemon/verification.h"

#include <errno.h>

#include "core/clock.h"
#include "core/metrics.h"
#include "core/rng.h"

void verification_configured(struct verify_shared *v, const struct config *c)
{
    uint32_t good_s = c->verify.good_keep_s, unknown_s = c->verify.unknown_keep_s;
    for (size_t i = 0; i < c->domain_count; i++) {
        if (!c->domains[i].has_verify)
            continue;
        good_s = MAX(good_s, c->domains[i].verify.good_keep_s);
        unknown_s = MAX(unknown_s, c->domains[i].verify.unknown_keep_s);
    }
    if (v->known.store)
        verdict_store_set_keep(v->known.store, good_s, unknown_s);
}

/* Without a store verdicts last until the process ends: no reason not to start. */
static void open_store(struct verify_shared *v, const struct config *c, struct gbuf *notes)
{
    char path[4096];
    struct sbuf b = SBUF_ON(path);

    if (c->verdicts.store.n)
        sbuf_str(&b, c->verdicts.store);
    else
        sbuf_printf(&b, STR_FMT "/verdicts", STR_ARG(c->spool_directory));
    err_t err = b.overflow ? -ENAMETOOLONG
                           : verdict_store_open(&v->known.store, sbuf_view(&b), c->verdicts.entries,
                                                v->known.cache, notes);
    if (!err) {
        verification_configured(v, c);
        err = verdict_store_start(v->known.store);
    }
    if (!err)
        return;
    verdict_store_close(v->known.store);
    v->known.store = NULL;
    gbuf_printf(notes, "verdicts.store: " STR_FMT ": %s; what is known of recipients will not be kept\n",
                STR_ARG(sbuf_view(&b)), err_text(err));
}

static err_t make_tallies(struct verify_shared *v)
{
    err_t err = 0;
    for (unsigned i = 0; i < v->worker_count && !err; i++)
        err = tally_create(&v->tallies[i]);
    return err;
}

err_t verification_open(struct verify_shared *v, const struct config *c, unsigned worker_count,
                        struct gbuf *notes)
{
    v->worker_count = worker_count;
    v->workers = calloc(worker_count, sizeof(struct verifier *));
    rng_bytes(v->token_key, sizeof v->token_key);
    v->tallies = calloc(worker_count, sizeof(struct tally *));
    err_t err = v->workers && v->tallies ? make_tallies(v) : -ENOMEM;
    if (!err)
        err = verdict_cache_create(&v->known.cache, c->verdicts.entries);
    if (err) {
        gbuf_printf(notes, "verdicts.entries: no memory for %u: %s\n", c->verdicts.entries, err_text(err));
        return err;
    }
    open_store(v, c, notes);
    return 0;
}

void verification_close(struct verify_shared *v)
{
    if (v->known.store)
        verdict_store_close(v->known.store);
    if (v->known.cache)
        verdict_cache_destroy(v->known.cache);
    for (unsigned i = 0; v->tallies && i < v->worker_count; i++)
        tally_destroy(v->tallies[i]);
    free(v->tallies);
    free(v->workers);
}

/* --- metrics --- */

#define AGE_SAMPLE_SETS 2048 /* of the cache: some ten thousand entries, whatever its size */

static void write_row(struct gbuf *out, const struct tally_row *row)
{
    for (enum answer_source s = 0; s < FROM_COUNT; s++)
        for (enum tally_result r = 0; r < TALLY_RESULTS; r++) {
            if (!row->counts[s][r])
                continue;
            gbuf_cstr(out, "postern_verify_total{domain=\"");
            metrics_label(out, row->domain);
            gbuf_printf(out, "\",source=\"%s\",result=\"%s\"} %llu\n", answer_source_name(s),
                        tally_result_name(r), (unsigned long long)row->counts[s][r]);
        }
}

struct ages {
    uint32_t now_s;
    size_t count, cap;
    uint32_t *ages; /* owned */
};

static void take_age(void *ctx, const struct verdict_entry *e)
{
    struct ages *a = ctx;
    if (e->record.state == VERDICT_NONE || a->count == a->cap)
        return;
    a->ages[a->count++] = verdict_record_age_s(&e->record, a->now_s);
}

static int by_age(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void write_ages(struct gbuf *out, const struct verdict_cache *c)
{
    static const double quantiles[] = {0.5, 0.9, 0.99};
    struct ages a = {.now_s = (uint32_t)(clock_wall_ns() / NS_PER_S), .cap = (size_t)AGE_SAMPLE_SETS * 32};
    a.ages = calloc(a.cap, sizeof *a.ages);
    if (!a.ages)
        return;
    verdict_cache_each(c, AGE_SAMPLE_SETS, take_age, &a);
    qsort(a.ages, a.count, sizeof *a.ages, by_age);
    gbuf_cstr(out,
              "# HELP postern_verdict_cache_age_seconds how long ago the cache's verdicts were found out, "
              "by a sample of them\n# TYPE postern_verdict_cache_age_seconds gauge\n");
    for (size_t i = 0; a.count && i < COUNT_OF(quantiles); i++)
        gbuf_printf(out, "postern_verdict_cache_age_seconds{quantile=\"%g\"} %u\n", quantiles[i],
                    a.ages[(size_t)((double)(a.count - 1) * quantiles[i])]);
    free(a.ages);
}

void verification_collect(void *ctx, struct gbuf *out)
{
    const struct verify_shared *v = ctx;
    size_t count;
    struct tally_row *rows = tally_sum(v->tallies, v->worker_count, &count);
    gbuf_cstr(out,
              "# HELP postern_verify_total recipients of strangers and the edge decided by verification, by "
              "entry of `domains`, by what decided, and how\n# TYPE postern_verify_total counter\n");
    for (size_t i = 0; i < count; i++)
        write_row(out, &rows[i]);
    free(rows);
    write_ages(out, v->known.cache);
}
