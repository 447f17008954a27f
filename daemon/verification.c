/* daemon/verification.c: see verification.h. */
#include "daemon/verification.h"

#include <errno.h>

#include "core/rng.h"

static err_t open_store(struct verify_shared *v, const struct config *c, struct gbuf *notes)
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
    if (!err)
        err = verdict_store_start(v->store);
    if (err)
        gbuf_printf(notes, "verdicts.store: " STR_FMT ": %s\n", STR_ARG(sbuf_view(&b)), err_text(err));
    return err;
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
    return open_store(v, c, notes);
}

void verification_close(struct verify_shared *v)
{
    if (v->store)
        verdict_store_close(v->store);
    if (v->cache)
        verdict_cache_destroy(v->cache);
    free(v->workers);
}
