/* daemon/backend_verdicts.c: what the admin API asks of the verdicts themselves: pins, purge, export,
 * figures. Cache and store are everybody's, so no worker is asked, and what is changed counts for all at
 * once. */
#include <errno.h>

#include "core/clock.h"
#include "core/metrics.h"
#include "daemon/ask.h"
#include "daemon/backend_verify.h"

#define EXPORT_LIMIT_MAX 10000

/* A generation of the configuration that stays until it is given back. */
static struct snapshot *snapshot_now(struct gateway *g)
{
    pthread_mutex_lock(&g->lock);
    struct snapshot *s = snapshot_ref(g->current);
    pthread_mutex_unlock(&g->lock);
    return s;
}

/* --- one address --- */

/* The key under which it is known; absent: it is never verified, or no address. */
static str_t key_of(const struct policy *p, const char *text, struct address *a, struct sbuf *buf)
{
    if (address_parse_mailbox(str_cstr(text), a))
        return STR_NONE;
    struct verdict_key_rules rules = verify_key_rules(policy_verify(p, a));
    return verdict_key(a, &rules, buf);
}

/* Why what was done may not be what was meant; NULL: nothing to say. */
static const char *doubt(const struct policy *p, const struct address *a, bool pins)
{
    if (pins && policy_verify(p, a)->mode == VERIFY_OFF)
        return "its domain is not verified: the pin counts when it is";
    return NULL;
}

static const char *why_not_durable(const struct gateway *g, const struct knowledge_change *c, err_t err)
{
    if (!g->verify.known.store)
        return "there is no store (see boot_note in the log): a restart forgets it";
    if (!c->is_stored)
        return "too much waits to be written: it is in force, but do it again to have it on disk";
    return err ? err_text(err) : NULL;
}

static err_t answer_change(struct gateway *g, str_t key, const struct knowledge_change *c, const char *note,
                           json_t **out)
{
    err_t err = c->is_stored ? knowledge_sync(&g->verify.known) : 0;
    const char *not_durable = why_not_durable(g, c, err);
    *out = json_pack("{s:o, s:o, s:o, s:b, s:s?, s:s?}", "key", json_of_str(key), "before",
                     record_json(&c->before), "after", record_json(&c->after), "durable", !not_durable,
                     "error", not_durable, "note", note);
    return *out ? 0 : -ENOMEM;
}

static err_t change_one(struct gateway *g, const struct policy *p, const struct verify_request *rq,
                        json_t **out, struct sbuf *why)
{
    char bytes[VERIFY_KEY_MAX];
    struct sbuf b = SBUF_ON(bytes);
    struct address a;
    struct knowledge_change c;
    str_t key = key_of(p, rq->address, &a, &b);
    if (!key.n) {
        sbuf_cstr(why, "an address is needed, such as bob@example.com");
        return ERR_SYNTAX;
    }
    if (rq->verb == VERIFY_PIN && !policy_domain_is_local(p, a.domain)) {
        sbuf_printf(why, STR_FMT " is no local domain: a pin would never be looked at", STR_ARG(a.domain));
        return ERR_UNSUPPORTED;
    }
    if (rq->verb == VERIFY_PURGE)
        c = knowledge_forget(&g->verify.known, key);
    else
        c = knowledge_pin(&g->verify.known, key,
                          rq->verb == VERIFY_UNPIN ? PIN_NONE
                          : rq->good               ? PIN_GOOD
                                                   : PIN_UNKNOWN);
    if (!c.is_remembered) {
        sbuf_cstr(why, "no room between other pins: verdicts.entries is too small for so many");
        return ERR_FULL;
    }
    return answer_change(g, key, &c, doubt(p, &a, rq->verb == VERIFY_PIN), out);
}

/* --- many --- */

static struct knowledge_filter filter_of(const struct verify_request *rq)
{
    return (struct knowledge_filter){.domain = rq->domain[0] ? str_cstr(rq->domain) : STR_NONE,
                                     .good = rq->takes_good,
                                     .refusals = rq->takes_unknown,
                                     .pinned = rq->takes_pinned,
                                     .older_s = rq->older_s,
                                     .newer_s = rq->younger_s};
}

static err_t purge_many(struct gateway *g, const struct verify_request *rq, json_t **out)
{
    struct knowledge_filter f = filter_of(rq);
    uint64_t count = 0;
    err_t err = 0;
    if (rq->dry)
        count = knowledge_count(&g->verify.known, &f);
    else
        err = knowledge_forget_all(&g->verify.known, &f, &count);
    bool has_store = g->verify.known.store != NULL;
    *out = json_pack("{s:I, s:I, s:b, s:s?}", "matched", (json_int_t)count, "done",
                     (json_int_t)(rq->dry ? 0 : count), "durable", !rq->dry && has_store && !err, "error",
                     err ? err_text(err) : NULL);
    return *out ? 0 : -ENOMEM;
}

struct export
{
    struct gbuf *lines;
    size_t left;
};

static bool export_one(void *ctx, str_t key, const struct verdict_record *r)
{
    struct export *x = ctx;
    json_t *o = record_json(r);
    json_object_set_new(o, "address", json_of_str(key));
    char *line = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    gbuf_cstr(x->lines, line ? line : "");
    gbuf_cstr(x->lines, line ? "\n" : "");
    free(line);
    return --x->left > 0 && !x->lines->overflow;
}

static err_t export_page(struct gateway *g, const struct verify_request *rq, struct gbuf *lines,
                         struct sbuf *why)
{
    struct knowledge_filter f = filter_of(rq);
    struct export x = {lines, rq->limit ? MIN(rq->limit, (size_t)EXPORT_LIMIT_MAX) : EXPORT_LIMIT_MAX};
    err_t err = rq->after[0] ? 0 : knowledge_sync(&g->verify.known); /* with what was learned just now */
    if (!err)
        err = knowledge_each(&g->verify.known, &f, str_cstr(rq->after), export_one, &x);
    if (err == ERR_NOT_FOUND) {
        sbuf_cstr(why, "there is no store (see boot_note in the log), so the addresses are not known");
        return ERR_UNSUPPORTED;
    }
    return err ? err : lines->overflow ? -ENOMEM : 0;
}

/* --- figures --- */

static const struct {
    const char *name;
    uint32_t below_s;
} AGES[] = {{"10m", 600}, {"1h", 3600}, {"6h", 21600}, {"1d", 86400}, {"7d", 604800}, {"more", UINT32_MAX}};

struct domain_figures {
    str_t name;
    uint32_t hash;
    uint64_t good, unknown, pinned;
    const struct tally_row *tally; /* NULL: never asked for */
};

struct figures {
    uint32_t now_s;
    uint64_t ages[COUNT_OF(AGES)];
    struct domain_figures *domains; /* owned; by hash */
    size_t domain_count;
};

static int by_hash(const void *a, const void *b)
{
    const struct domain_figures *x = a, *y = b;
    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

/* NULL: of a wildcard's, or of one that is not configured any more. */
static struct domain_figures *find_domain(const struct figures *f, uint32_t hash)
{
    struct domain_figures wanted = {.hash = hash};
    return bsearch(&wanted, f->domains, f->domain_count, sizeof *f->domains, by_hash);
}

static void add_entry(void *ctx, const struct verdict_entry *e)
{
    struct figures *f = ctx;
    struct domain_figures *d = find_domain(f, e->domain);
    if (d) {
        d->good += e->record.state == VERDICT_GOOD;
        d->unknown += e->record.state > VERDICT_GOOD;
        d->pinned += e->record.pin != PIN_NONE;
    }
    if (e->record.state == VERDICT_NONE)
        return;
    uint32_t age_s = verdict_record_age_s(&e->record, f->now_s);
    size_t i = 0;
    while (age_s >= AGES[i].below_s && i + 1 < COUNT_OF(AGES))
        i++;
    f->ages[i]++;
}

static const struct tally_row *find_tally(const struct tally_row *rows, size_t count, str_t domain)
{
    for (size_t i = 0; i < count; i++)
        if (str_ieq(rows[i].domain, domain))
            return &rows[i];
    return NULL;
}

static json_t *sources_json(const struct tally_row *row)
{
    json_t *o = json_object();
    for (enum answer_source s = 0; row && s < FROM_COUNT; s++) {
        uint64_t n = 0;
        for (enum tally_result r = 0; r < TALLY_RESULTS; r++)
            n += row->counts[s][r];
        if (n)
            json_object_set_new(o, answer_source_name(s), json_integer((json_int_t)n));
    }
    return o;
}

static json_t *results_json(const struct tally_row *row)
{
    json_t *o = json_object();
    for (enum tally_result r = 0; r < TALLY_RESULTS; r++) {
        uint64_t n = 0;
        for (enum answer_source s = 0; row && s < FROM_COUNT; s++)
            n += row->counts[s][r];
        json_object_set_new(o, tally_result_name(r), json_integer((json_int_t)n));
    }
    return o;
}

static json_t *domain_json(const struct policy *p, const struct domain_figures *d)
{
    struct address a = {.local = STR("postmaster"), .domain = d->name};
    const struct cfg_verify *s = policy_verify(p, &a);
    return json_pack("{s:o, s:s, s:b, s:I, s:I, s:I, s:o, s:o}", "domain", json_of_str(d->name), "mode",
                     mode_name(s->mode), "enforce", (int)s->enforce, "good", (json_int_t)d->good, "unknown",
                     (json_int_t)d->unknown, "pinned", (json_int_t)d->pinned, "results",
                     results_json(d->tally), "sources", sources_json(d->tally));
}

/* Local domains by name; what their entries in the cache are goes by the domain, so a wildcard's are not. */
static bool take_domains(struct figures *f, const struct policy *p, const struct tally_row *rows,
                         size_t row_count)
{
    const struct config *c = policy_config(p);
    f->domains = calloc(c->domain_count + 1, sizeof *f->domains);
    for (size_t i = 0; f->domains && i < c->domain_count; i++) {
        const struct cfg_domain *d = &c->domains[i];
        if (d->is_address || !(d->is_wildcard ? d->local : policy_domain_is_local(p, d->name)))
            continue;
        f->domains[f->domain_count++] = (struct domain_figures){
            .name = d->name,
            .hash = d->is_wildcard ? UINT32_MAX : verdict_domain(d->name),
            .tally = find_tally(rows, row_count, d->name),
        };
    }
    if (f->domains)
        qsort(f->domains, f->domain_count, sizeof *f->domains, by_hash);
    return f->domains != NULL;
}

static json_t *cache_json(const struct verdict_cache *cache)
{
    struct verdict_cache_stats s;
    verdict_cache_stats(cache, &s);
    int64_t hits = metric_read(M_verdict_cache_hits), misses = metric_read(M_verdict_cache_misses);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "capacity", (json_int_t)s.capacity,
                     "entries", (json_int_t)s.entries, "good", (json_int_t)s.good, "unknown",
                     (json_int_t)s.unknown, "pinned", (json_int_t)s.pinned, "evictions",
                     (json_int_t)s.evictions, "bytes", (json_int_t)s.bytes, "hits", (json_int_t)hits,
                     "misses", (json_int_t)misses, "hit_rate",
                     hits + misses ? json_real((double)hits / (double)(hits + misses)) : json_null());
}

static json_t *store_json(const struct verdict_store *store)
{
    struct verdict_store_stats s;
    if (!store)
        return json_null();
    verdict_store_stats(store, &s);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "records", (json_int_t)s.records, "bytes",
                     (json_int_t)s.bytes, "pending", (json_int_t)s.pending, "dropped", (json_int_t)s.dropped,
                     "skipped", (json_int_t)s.skipped, "write_errors", (json_int_t)s.write_errors);
}

static json_t *ages_json(const struct figures *f)
{
    json_t *o = json_object();
    for (size_t i = 0; i < COUNT_OF(AGES); i++)
        json_object_set_new(o, AGES[i].name, json_integer((json_int_t)f->ages[i]));
    return o;
}

static json_t *figures_json(const struct gateway *g, const struct policy *p, const struct figures *f,
                            const struct tally_row *total)
{
    json_t *domains = json_array();
    for (size_t i = 0; i < f->domain_count; i++)
        json_array_append_new(domains, domain_json(p, &f->domains[i]));
    return json_pack("{s:o, s:o, s:o, s:I, s:I, s:I, s:o, s:o, s:o}", "cache",
                     cache_json(g->verify.known.cache), "store", store_json(g->verify.known.store), "ages",
                     ages_json(f), "waiting", (json_int_t)metric_read(M_verify_waiting), "queued",
                     (json_int_t)metric_read(M_probe_queue), "would_have_refused",
                     (json_int_t)metric_read(M_verify_shadow), "results", results_json(total), "sources",
                     sources_json(total), "domains", domains);
}

static void add_up(struct tally_row *total, const struct tally_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (enum answer_source s = 0; s < FROM_COUNT; s++)
            for (enum tally_result r = 0; r < TALLY_RESULTS; r++)
                total->counts[s][r] += rows[i].counts[s][r];
}

static err_t stats(struct gateway *g, const struct policy *p, json_t **out)
{
    struct figures f = {.now_s = (uint32_t)(clock_wall_ns() / NS_PER_S)};
    struct tally_row total = {0};
    size_t row_count;
    struct tally_row *rows = tally_sum(g->verify.tallies, g->verify.worker_count, &row_count);
    if (take_domains(&f, p, rows, row_count)) {
        verdict_cache_each(g->verify.known.cache, 0, add_entry, &f);
        add_up(&total, rows, row_count);
        *out = figures_json(g, p, &f, &total);
    }
    free(f.domains);
    free(rows);
    return *out ? 0 : -ENOMEM;
}

/* --- */

err_t backend_verify(void *ctx, const struct verify_request *rq, json_t **out, struct gbuf *lines,
                     struct sbuf *why)
{
    struct gateway *g = ctx;
    *out = NULL;
    switch (rq->verb) {
    case VERIFY_SHOW: return verify_show(g, rq, out, why);
    case VERIFY_PROBE: return verify_probe(g, rq, out, why);
    case VERIFY_BACKENDS: return verify_backends(g, out);
    case VERIFY_RETRY: return verify_retry(g, rq, out, why);
    default: break;
    }
    struct snapshot *s = snapshot_now(g);
    err_t err = rq->verb == VERIFY_EXPORT                     ? export_page(g, rq, lines, why)
                : rq->verb == VERIFY_STATS                    ? stats(g, s->policy, out)
                : rq->verb == VERIFY_PURGE && !rq->address[0] ? purge_many(g, rq, out)
                                                              : change_one(g, s->policy, rq, out, why);
    snapshot_unref(s);
    return err;
}
