/* daemon/verification.c: see verification.h. */
#include "daemon/verification.h"

#include <errno.h>

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
    if (v->store)
        verdict_store_set_keep(v->store, good_s, unknown_s);
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
    err_t err = b.overflow
                    ? -ENAMETOOLONG
                    : verdict_store_open(&v->store, sbuf_view(&b), c->verdicts.entries, v->cache, notes);
    if (!err) {
        verification_configured(v, c);
        err = verdict_store_start(v->store);
    }
    if (!err)
        return;
    verdict_store_close(v->store);
    v->store = NULL;
    gbuf_printf(notes, "verdicts.store: " STR_FMT ": %s; what is known of recipients will not be kept\n",
                STR_ARG(sbuf_view(&b)), err_text(err));
}

err_t verification_open(struct verify_shared *v, const struct config *c, unsigned worker_count,
                        struct gbuf *notes)
{
    v->worker_count = worker_count;
    v->workers = calloc(worker_count, sizeof(struct verifier *));
    rng_bytes(v->token_key, sizeof v->token_key);
    err_t err = v->workers ? verdict_cache_create(&v->cache, c->verdicts.entries) : -ENOMEM;
    if (err) {
        gbuf_printf(notes, "verdicts.entries: no memory for %u: %s\n", c->verdicts.entries, err_text(err));
        return err;
    }
    open_store(v, c, notes);
    return 0;
}

void verification_close(struct verify_shared *v)
{
    if (v->store)
        verdict_store_close(v->store);
    if (v->cache)
        verdict_cache_destroy(v->cache);
    free(v->workers);
}
