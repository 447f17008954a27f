/* verify/knowledge.c: see knowledge.h. */
#include "verify/knowledge.h"

#include <errno.h>

#include "core/clock.h"
#include "verify/store_priv.h"

#define FORGET_AT_ONCE                                                                                       \
    2048U /* records put before the store is waited for: a quarter of what may wait there */

static uint32_t wall_s(void)
{
    return (uint32_t)(clock_wall_ns() / NS_PER_S);
}

/* --- one --- */

struct turn {
    const struct knowledge *k;
    str_t key;
    struct verdict_record (*change)(void *ctx, struct verdict_record old);
    void *ctx;
    struct knowledge_change out;
};

static struct verdict_record in_turn(void *ctx, struct verdict_record old)
{
    struct turn *t = ctx;
    struct knowledge_change *c = &t->out;
    c->before = old;
    c->after = t->change(t->ctx, old);
    c->is_stored = t->k->store && (verdict_record_eq(&c->before, &c->after) ||
                                   verdict_store_put(t->k->store, t->key, &c->after));
    return c->after;
}

struct knowledge_change
knowledge_change(const struct knowledge *k, str_t key, uint32_t now_s,
                 struct verdict_record (*change)(void *ctx, struct verdict_record old), void *ctx)
{
    struct turn t = {.k = k, .key = key, .change = change, .ctx = ctx};
    bool changed = verdict_cache_update(k->cache, key, now_s, in_turn, &t, NULL);
    t.out.is_remembered = changed || verdict_record_eq(&t.out.before, &t.out.after);
    return t.out;
}

static struct verdict_record set_pin(void *ctx, struct verdict_record old)
{
    const enum verdict_pin *pin = ctx;
    old.pin = (uint8_t)*pin;
    return old;
}

/* A pin that finds no room between other pins is not in force, and must not be on disk to be so tomorrow. */
struct knowledge_change knowledge_pin(const struct knowledge *k, str_t key, enum verdict_pin pin)
{
    struct knowledge_change c = knowledge_change(k, key, wall_s(), set_pin, &pin);
    if (!c.is_remembered && k->store)
        verdict_store_put(k->store, key, &c.before);
    return c;
}

struct forgotten {
    const struct knowledge *k;
    str_t key;
};

/* The disk may know what found no place in the cache. */
static struct verdict_record only_pin(void *ctx, struct verdict_record old)
{
    const struct forgotten *f = ctx;
    struct verdict_record bare = {.pin = old.pin};
    if (f->k->store && !old.state && !old.pin)
        verdict_store_put(f->k->store, f->key, &bare);
    return bare;
}

struct knowledge_change knowledge_forget(const struct knowledge *k, str_t key)
{
    struct forgotten f = {k, key};
    return knowledge_change(k, key, wall_s(), only_pin, &f);
}

/* --- many --- */

bool knowledge_takes(const struct knowledge_filter *f, const struct verdict_record *r, uint32_t now_s)
{
    uint32_t age_s = verdict_record_age_s(r, now_s);
    bool is_good = r->state == VERDICT_GOOD, is_refusal = r->state > VERDICT_GOOD;
    if ((f->refusals || f->good) && !(f->good && is_good) && !(f->refusals && is_refusal))
        return false;
    if (f->pinned && !r->pin)
        return false;
    return (!f->older_s || age_s >= f->older_s) && (!f->newer_s || age_s <= f->newer_s);
}

struct forgetting {
    const struct knowledge *k;
    const struct knowledge_filter *filter;
    uint32_t domain, now_s;
    uint64_t count;
    struct gbuf keys; /* of a piece of the store: length, record, key */
    unsigned key_count;
    str_t key; /* of the one that is being forgotten, and */
    struct verdict_record on_disk;
};

static bool goes(void *ctx, const struct verdict_entry *e)
{
    const struct forgetting *g = ctx;
    return (!g->filter->domain.n || e->domain == g->domain) &&
           knowledge_takes(g->filter, &e->record, g->now_s);
}

static void count_one(void *ctx, const struct verdict_entry *e)
{
    struct forgetting *g = ctx;
    g->count += e->record.state != VERDICT_NONE && goes(g, e);
}

static struct forgetting begin(const struct knowledge *k, const struct knowledge_filter *f)
{
    return (struct forgetting){.k = k, .filter = f, .domain = verdict_domain(f->domain), .now_s = wall_s()};
}

uint64_t knowledge_count(const struct knowledge *k, const struct knowledge_filter *f)
{
    struct forgetting g = begin(k, f);
    verdict_cache_each(k->cache, 0, count_one, &g);
    return g.count;
}

struct stored {
    uint16_t key_bytes;
    struct verdict_record record;
};

static bool take_key(void *ctx, str_t key, const struct verdict_record *r)
{
    struct forgetting *g = ctx;
    if (r->state == VERDICT_NONE)
        return true;
    struct stored head = {(uint16_t)key.n, *r};
    gbuf_put(&g->keys, &head, sizeof head);
    gbuf_str(&g->keys, key);
    return ++g->key_count < FORGET_AT_ONCE;
}

/* The cache may have learned something new meanwhile, which stays. Where it changes nothing, since the first
 * walk did, the disk has not heard of it yet. */
static struct verdict_record forget_old(void *ctx, struct verdict_record old)
{
    const struct forgetting *g = ctx;
    struct verdict_record bare = {.pin = old.pin};
    bool is_there = old.state != VERDICT_NONE || old.pin;
    if (!is_there)
        bare.pin = g->on_disk.pin;
    else if (!knowledge_takes(g->filter, &old, g->now_s))
        bare = old;
    if (!is_there || verdict_record_eq(&old, &bare))
        verdict_store_put(g->k->store, g->key, &bare);
    return is_there ? bare : old;
}

/* *more: there was a whole piece; `last` gets the key where it ended. */
static err_t forget_piece(struct forgetting *g, struct sbuf *last, bool *more)
{
    g->keys.n = 0;
    g->key_count = 0;
    err_t err = knowledge_each(g->k, g->filter, sbuf_view(last), take_key, g);
    if (err || g->keys.overflow)
        return err ? err : -ENOMEM;
    *more = g->key_count == FORGET_AT_ONCE;
    struct stored head;
    for (size_t at = 0; at < g->keys.n; at += sizeof head + head.key_bytes) {
        memcpy(&head, g->keys.p + at, sizeof head);
        g->key = str_of(g->keys.p + at + sizeof head, head.key_bytes);
        g->on_disk = head.record;
        knowledge_change(g->k, g->key, g->now_s, forget_old, g);
        last->n = 0;
        sbuf_str(last, g->key);
    }
    return g->key_count ? knowledge_sync(g->k) : 0;
}

err_t knowledge_forget_all(const struct knowledge *k, const struct knowledge_filter *f, uint64_t *count)
{
    struct forgetting g = begin(k, f);
    char bytes[VERIFY_KEY_MAX];
    struct sbuf last = SBUF_ON(bytes);
    bool more = k->store != NULL;
    *count = verdict_cache_forget(k->cache, goes, &g);
    err_t err =
        more ? knowledge_sync(k) : 0; /* what was learned just before is in the file, and found there */
    while (more && !err)
        err = forget_piece(&g, &last, &more);
    gbuf_free(&g.keys);
    return err;
}

/* --- the store --- */

struct wait {
    struct verdict_store_sync sync;
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool is_done;
    err_t err;
};

static void synced(struct verdict_store_sync *y, err_t err)
{
    struct wait *w = container_of(y, struct wait, sync);
    pthread_mutex_lock(&w->lock);
    w->is_done = true;
    w->err = err;
    pthread_cond_signal(&w->done);
    pthread_mutex_unlock(&w->lock);
}

err_t knowledge_sync(const struct knowledge *k)
{
    struct wait w = {
        .sync.done = synced, .lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};
    if (!k->store)
        return ERR_NOT_FOUND;
    verdict_store_flush(k->store, &w.sync);
    pthread_mutex_lock(&w.lock);
    while (!w.is_done)
        pthread_cond_wait(&w.done, &w.lock);
    pthread_mutex_unlock(&w.lock);
    pthread_mutex_destroy(&w.lock);
    pthread_cond_destroy(&w.done);
    return w.err;
}

struct selection {
    const struct knowledge_filter *filter;
    uint32_t now_s;
    bool (*each)(void *ctx, str_t key, const struct verdict_record *r);
    void *ctx;
};

static bool select_one(void *ctx, str_t key, const struct verdict_record *r)
{
    struct selection *x = ctx;
    return !knowledge_takes(x->filter, r, x->now_s) || x->each(x->ctx, key, r);
}

err_t knowledge_each(const struct knowledge *k, const struct knowledge_filter *f, str_t after,
                     bool (*each)(void *ctx, str_t key, const struct verdict_record *r), void *ctx)
{
    struct selection x = {f, wall_s(), each, ctx};
    char bytes[ADDRESS_DOMAIN_MAX + 4];
    struct sbuf glob = SBUF_ON(bytes);
    if (!k->store)
        return ERR_NOT_FOUND;
    if (f->domain.n)
        sbuf_printf(&glob, "*@" STR_FMT, STR_ARG(f->domain));
    if (glob.overflow)
        return 0; /* there is no such domain */
    return verdict_store_each(k->store, glob.n ? sbuf_view(&glob) : STR_NONE, after, UINT32_MAX, select_one,
                              &x);
}
