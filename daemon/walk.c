/* daemon/walk.c: the walk: who is looked at, envelopes read where they are wanted, the answer. */
#include <errno.h>

#include "core/clock.h"
#include "daemon/walk_priv.h"

#define LOOKS_PER_RUN  64u /* messages; the loop may run us a few times in a tick */
#define READS_MAX      16u
#define READ_BYTES_MAX ((size_t)4 << 20)
#define ENVELOPE_MAX   ((size_t)4 << 20) /* a record of 1 MiB, and views into it */

/* A message whose envelope is being read. */
struct visit {
    struct link link;
    struct walk *walk;
    struct qload load;
    struct arena arena;
    uint64_t id;
    uint32_t bytes;
};

static void walk_kick(struct walk *k)
{
    loop_at_tick_end(k->w->loop, &k->hook);
}

static void walk_free(struct walk *k)
{
    list_remove(&k->task.link);
    list_remove(&k->hook.link);
    queue_cursor_end(&k->cursor);
    census_free(k->census);
    json_decref(k->list);
    free(k);
}

/* --- the end --- */

static void walk_answer(struct walk *k, err_t err)
{
    json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:b}", "matched", (json_int_t)k->matched, "done",
                          (json_int_t)k->done, "busy", (json_int_t)k->busy, "recipients",
                          (json_int_t)k->recipients, "bytes", (json_int_t)k->bytes, "cut", k->cut);
    if (o && k->list)
        json_object_set(o, k->rq->verb == QUEUE_LIST ? "messages" : "ids", k->list);
    if (o && k->census)
        json_object_set_new(o, "stats", census_json(k->census));
    if (o && err)
        json_object_set_new(o, "error", json_string(err_text(err)));
    ask_answer(k->ask, o, NULL);
    walk_free(k);
}

static void synced(struct queue_sync *s, err_t err)
{
    struct walk *k = container_of(s, struct walk, sync);
    k->is_syncing = false;
    walk_answer(k, err);
}

static void walk_finish(struct walk *k)
{
    bool changes = k->rq->verb != QUEUE_LIST && k->rq->verb != QUEUE_STATS && k->rq->verb != QUEUE_LEASE;
    if (!changes || !k->done) {
        walk_answer(k, 0);
        return;
    }
    k->is_syncing = true;
    k->sync.done = synced;
    queue_sync(k->w->queue, &k->sync);
}

static void visit_free(struct visit *v)
{
    list_remove(&v->link);
    v->walk->reading_count--;
    v->walk->reading_bytes -= v->bytes;
    queue_load_end(&v->load);
    arena_free(&v->arena);
    free(v);
}

static void walk_cancel(struct worker_task *t)
{
    struct walk *k = container_of(t, struct walk, task);
    LIST_EACH(&k->reading, link)
    visit_free(container_of(link, struct visit, link));
    if (k->is_syncing)
        queue_sync_cancel(&k->sync);
    ask_answer(k->ask, NULL, NULL);
    walk_free(k);
}

/* --- one message --- */

static void judge(struct walk *k, struct look *l)
{
    if (!walk_matches(k, l))
        return;
    k->matched++;
    if (k->rq->verb == QUEUE_LIST && k->matched > k->rq->limit) {
        k->cut = k->at_end = true;
        return;
    }
    k->recipients += l->m->rcpt_pending;
    k->bytes += l->m->body_bytes;
    if (!k->rq->dry)
        walk_act(k, l);
}

static void visit_end(struct visit *v, err_t err)
{
    struct walk *k = v->walk;
    struct look l = {.m = queue_find(k->w->queue, v->id)}; /* after an error nothing kept it here */
    if (!err && !envelope_decode(v->load.meta, &l.env))
        l.load = &v->load;
    if (l.m && !k->cut) {
        relay_message_info(k->w->relay, l.m, &l.info);
        judge(k, &l);
    }
    visit_free(v);
    walk_kick(k);
}

static void visit_loaded(struct qload *ld)
{
    visit_end(container_of(ld, struct visit, load), ld->err);
}

static void visit_begin(struct walk *k, struct qmsg *m)
{
    struct visit *v = calloc(1, sizeof *v);
    if (!v) { /* as one whose envelope cannot be read */
        struct look l = {.m = m};
        relay_message_info(k->w->relay, m, &l.info);
        judge(k, &l);
        return;
    }
    v->walk = k;
    v->bytes = m->commit_bytes;
    v->load.done = visit_loaded;
    v->id = m->id;
    arena_init(&v->arena, ENVELOPE_MAX);
    list_push_back(&k->reading, &v->link);
    k->reading_count++;
    k->reading_bytes += v->bytes;
    err_t err = queue_load(k->w->queue, m, &v->arena, &v->load);
    if (err != ERR_PENDING)
        visit_end(v, err);
}

static bool wants_envelope(const struct walk *k)
{
    const struct queue_request *rq = k->rq;
    return filter_wants_envelope(&rq->filter) || rq->verb == QUEUE_LIST ||
           (rq->verb == QUEUE_REMOVE && !rq->dry);
}

static void look_at(struct walk *k, struct qmsg *m)
{
    struct look l = {.m = m};
    relay_message_info(k->w->relay, m, &l.info);
    if (!filter_takes_age(&k->rq->filter, (uint64_t)seconds_since(m->arrived_ms)) ||
        !filter_takes_state(&k->rq->filter, str_cstr(l.info.state)))
        return;
    if (wants_envelope(k))
        visit_begin(k, m);
    else
        judge(k, &l);
}

/* --- the way --- */

static struct qmsg *next(struct walk *k)
{
    const struct filter *f = &k->rq->filter;
    if (!f->ids)
        return queue_cursor_next(k->w->queue, &k->cursor);
    while (k->id_at < f->id_count) {
        struct qmsg *m = queue_find(k->w->queue, f->ids[k->id_at++]);
        if (m)
            return m;
    }
    return NULL;
}

static bool may_read(const struct walk *k)
{
    return k->reading_count < READS_MAX && k->reading_bytes < READ_BYTES_MAX;
}

static void run(struct tick_hook *h)
{
    struct walk *k = container_of(h, struct walk, hook);
    if (k->is_syncing)
        return;
    if (ask_is_abandoned(k->ask))
        k->at_end = true;
    for (unsigned n = 0; n < LOOKS_PER_RUN && !k->at_end && may_read(k); n++) {
        struct qmsg *m = next(k);
        if (m)
            look_at(k, m);
        else
            k->at_end = true;
    }
    if (k->at_end && !k->reading_count)
        walk_finish(k);
    else if (!k->at_end && may_read(k))
        walk_kick(k);
}

void walk_begin(struct ask *a)
{
    const struct queue_request *rq = ask_arg(a);
    struct walk *k = calloc(1, sizeof *k);
    if (!k) {
        ask_answer(a, NULL, NULL);
        return;
    }
    k->ask = a;
    k->w = a->w;
    k->rq = rq;
    k->task.cancel = walk_cancel;
    list_push_back(&a->w->tasks, &k->task.link);
    k->hook.run = run;
    list_init(&k->reading);
    queue_cursor_start(a->w->queue, &k->cursor);
    bool lists = rq->verb == QUEUE_LIST || rq->verb == QUEUE_LEASE || (rq->verb == QUEUE_REMOVE && rq->lease);
    k->list = lists ? json_array() : NULL;
    if (rq->verb == QUEUE_RETRY && rq->filter.destination.p && !rq->dry)
        (void)relay_retry_destination(a->w->relay, rq->filter.destination);
    k->census = rq->verb == QUEUE_STATS ? census_new() : NULL;
    walk_kick(k);
}
