/* daemon/backend.c: see backend.h. Each worker fills its part on its own thread between two ticks; the admin
 * thread waits. */
#include "daemon/backend.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "daemon/gateway.h"

#define ANSWER_WAIT_S  5
#define QUEUE_LIST_MAX 10000 /* a longer listing would hold the worker up for too long */

/* One question to all workers. The last of asker and answerers frees it: an asker that gave up leaves the
 * rest behind safely. */
struct question {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    unsigned pending_count, ref_count;
    json_t *(*answer)(struct worker *w, size_t limit); /* on the worker's thread */
    size_t limit;
    unsigned count;
    struct ask {
        struct mail mail;
        struct question *q;
        struct worker *w;
        json_t *result;
    } asks[];
};

static void question_release(struct question *q)
{
    pthread_mutex_lock(&q->lock);
    unsigned left = --q->ref_count;
    pthread_mutex_unlock(&q->lock);
    if (left)
        return;
    for (unsigned i = 0; i < q->count; i++)
        json_decref(q->asks[i].result);
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->answered);
    free(q);
}

static void answer_on_loop(struct mail *m)
{
    struct ask *a = container_of(m, struct ask, mail);
    struct question *q = a->q;
    json_t *result = a->w->state < WORKER_CLOSING_QUEUE && a->w->relay ? q->answer(a->w, q->limit) : NULL;

    pthread_mutex_lock(&q->lock);
    a->result = result;
    q->pending_count--;
    pthread_cond_signal(&q->answered);
    pthread_mutex_unlock(&q->lock);
    question_release(q);
}

json_t *ask_workers(struct gateway *g, json_t *(*answer)(struct worker *w, size_t limit), size_t limit)
{
    struct question *q = calloc(1, sizeof *q + g->worker_count * sizeof q->asks[0]);
    struct timespec until;
    if (!q)
        return NULL;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->answered, NULL);
    q->answer = answer;
    q->limit = limit;
    q->count = q->pending_count = g->worker_count;
    q->ref_count = g->worker_count + 1;
    for (unsigned i = 0; i < g->worker_count; i++) {
        q->asks[i] = (struct ask){.mail.deliver = answer_on_loop, .q = q, .w = &g->workers[i]};
        loop_post(g->workers[i].loop, &q->asks[i].mail);
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ANSWER_WAIT_S;
    json_t *all = NULL;
    int err = 0;
    pthread_mutex_lock(&q->lock);
    while (q->pending_count && !err)
        err = pthread_cond_clockwait(&q->answered, &q->lock, CLOCK_MONOTONIC, &until);
    if (!q->pending_count) {
        all = json_array();
        for (unsigned i = 0; i < q->count; i++) { /* taken: from here on they are this thread's alone */
            if (q->asks[i].result)
                json_array_append_new(all, q->asks[i].result);
            q->asks[i].result = NULL;
        }
    }
    pthread_mutex_unlock(&q->lock);
    question_release(q);
    return all;
}

static json_t *json_str(str_t s)
{
    /* What came from outside may be no UTF-8, which JSON cannot say. */
    return s.p && str_is_utf8(s) ? json_stringn(s.p, s.n) : json_null();
}

json_t *json_time(uint64_t wall_ms)
{
    char text[40];
    if (!wall_ms)
        return json_null();
    return json_stringn(text, clock_rfc3339(wall_ms * NS_PER_MS, text));
}

static double seconds_since(uint64_t wall_ms)
{
    uint64_t now = clock_wall_ns() / NS_PER_MS;
    return wall_ms && now > wall_ms ? (double)(now - wall_ms) / 1000.0 : 0.0;
}

/* --- status --- */

static json_t *worker_status(struct worker *w, size_t limit)
{
    struct queue_stats qs;
    const struct loop_features *f = loop_features(w->loop);
    (void)limit;
    queue_stats(w->queue, &qs);
    return json_pack(
        "{s:i, s:o, s:i, s:I, s:I, s:I, s:{s:I, s:o, s:o, s:I, s:I, s:b, s:b, s:o}, s:{s:b, s:b, s:b, "
        "s:b, s:b, s:b, s:b}}",
        "id", (int)w->index, "scrub", ring_scrub_json(w->queue), "sessions",
        (int)smtpd_service_session_count(w->service), "queue_messages", (json_int_t)qs.message_count,
        "queue_recipients", (json_int_t)qs.pending_rcpt_count, "oldest_arrived_ms",
        (json_int_t)relay_oldest_arrived_ms(w->relay), "ring", "bytes", (json_int_t)qs.ring_bytes, "resize",
        ring_resize_json(w->queue), "resize_error", ring_resize_error(w->queue), "used",
        (json_int_t)qs.used_bytes, "damaged_records", (json_int_t)qs.damaged_records, "direct_io",
        qs.direct_io, "full", qs.full, "error", qs.error ? json_string(err_text(qs.error)) : json_null(),
        "features", "single_issuer", f->single_issuer, "defer_taskrun", f->defer_taskrun, "coop_taskrun",
        f->coop_taskrun, "msg_ring", f->msg_ring, "multishot_accept", f->multishot_accept, "multishot_recv",
        f->multishot_recv, "buffer_ring", f->buffer_ring);
}

static json_t *backend_status(void *ctx)
{
    struct gateway *g = ctx;
    json_t *workers = ask_workers(g, worker_status, 0);
    if (!workers)
        return NULL;
    json_int_t messages = 0, recipients = 0, oldest = 0;
    size_t i;
    json_t *w;
    json_array_foreach(workers, i, w)
    {
        json_int_t arrived = json_integer_value(json_object_get(w, "oldest_arrived_ms"));
        messages += json_integer_value(json_object_get(w, "queue_messages"));
        recipients += json_integer_value(json_object_get(w, "queue_recipients"));
        if (arrived && (!oldest || arrived < oldest))
            oldest = arrived;
        json_object_del(w, "oldest_arrived_ms");
    }
    pthread_mutex_lock(&g->lock);
    const struct config *c = policy_config(g->current->policy);
    json_t *status = json_pack(
        "{s:s, s:i, s:o, s:f, s:I, s:s, s:s, s:b, s:o, s:{s:I, s:I, s:f}, s:o}", "version", POSTERN_VERSION,
        "pid", (int)getpid(), "hostname", json_str(c->hostname), "uptime_s",
        seconds_since(g->started_wall_ns / NS_PER_MS), "generation", (json_int_t)g->current->generation,
        "config_file", g->config_path, "tls", tls_library(), "draining", g->draining, "paused",
        pause_json(&g->pause), "queue", "messages", messages, "recipients", recipients, "oldest_age_s",
        seconds_since((uint64_t)oldest), "workers", workers);
    pthread_mutex_unlock(&g->lock);
    return status;
}

/* --- queue --- */

struct listing {
    struct worker *w;
    json_t *out;
    size_t skip;
};

static bool list_message(void *ctx, struct qmsg *m)
{
    struct listing *l = ctx;
    struct relay_message_info i;
    char id[16];
    if (l->skip) { /* the newest are wanted: queue_each goes from the oldest */
        l->skip--;
        return true;
    }
    relay_message_info(l->w->relay, m, &i);
    size_t n = qid_format(i.id, id);
    json_t *o = json_pack(
        "{s:s%, s:b, s:o, s:f, s:I, s:I, s:i, s:i, s:i, s:s, s:o, s:o, s:o, s:i}", "id", id, n, "damaged",
        m->damaged, "arrived", json_time(i.arrived_ms), "age_s", seconds_since(i.arrived_ms), "arrived_ms",
        (json_int_t)i.arrived_ms, "size", (json_int_t)i.bytes, "attempts", (int)i.attempts, "recipients",
        (int)i.rcpt_count, "pending", (int)i.rcpt_pending, "state", i.state, "due", json_time(i.due_ms),
        "reason", json_str(i.last_text), "destination", json_str(i.destination), "worker", (int)l->w->index);
    if (o)
        json_array_append_new(l->out, o);
    return true;
}

static json_t *worker_queue(struct worker *w, size_t limit)
{
    struct queue_stats qs;
    queue_stats(w->queue, &qs);
    struct listing l = {
        .w = w, .out = json_array(), .skip = qs.message_count > limit ? qs.message_count - limit : 0};
    queue_each(w->queue, list_message, &l);
    return l.out;
}

static int by_arrival(const void *a, const void *b)
{
    json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "arrived_ms"));
    json_int_t y = json_integer_value(json_object_get(*(json_t *const *)b, "arrived_ms"));
    return x < y ? -1 : x > y;
}

static json_t *backend_queue(void *ctx, size_t limit)
{
    limit = MIN(limit, (size_t)QUEUE_LIST_MAX);
    json_t *parts = ask_workers(ctx, worker_queue, limit);
    if (!parts)
        return NULL;
    size_t count = 0, i, k, n = 0;
    json_t *part, *m;
    json_array_foreach(parts, i, part) count += json_array_size(part);
    json_t **all = calloc(count + 1, sizeof *all);
    json_t *out = json_array();
    if (all) {
        json_array_foreach(parts, i, part) json_array_foreach(part, k, m) all[n++] = m;
        qsort(all, n, sizeof *all, by_arrival);
        for (i = n > limit ? n - limit : 0; i < n; i++) {
            json_object_del(all[i], "arrived_ms");
            json_array_append(out, all[i]);
        }
    }
    free(all);
    json_decref(parts);
    return out;
}

/* --- destinations --- */

struct destinations {
    struct worker *w;
    json_t *out;
};

static void list_destination(void *ctx, const struct relay_destination_info *d)
{
    struct destinations *l = ctx;
    json_t *o =
        json_pack("{s:o, s:i, s:i, s:i, s:i, s:i, s:b, s:b, s:o, s:o}", "key", json_str(d->key), "worker",
                  (int)l->w->index, "connections", (int)d->connections, "window", (int)d->window, "jobs",
                  (int)d->jobs, "aside", (int)d->aside, "down", d->down, "paused", d->paused, "retry_at",
                  json_time(d->retry_at_ms), "last_text", json_str(d->last_text));
    if (o)
        json_array_append_new(l->out, o);
}

static json_t *worker_destinations(struct worker *w, size_t limit)
{
    struct destinations l = {.w = w, .out = json_array()};
    (void)limit;
    relay_each_destination(w->relay, list_destination, &l);
    return l.out;
}

static json_t *backend_destinations(void *ctx)
{
    json_t *parts = ask_workers(ctx, worker_destinations, 0);
    if (!parts)
        return NULL;
    json_t *out = json_array(), *part;
    size_t i;
    json_array_foreach(parts, i, part) json_array_extend(out, part);
    json_decref(parts);
    return out;
}

/* In use now; others may come with their mail. */
static bool is_known(struct gateway *g, str_t key)
{
    json_t *all = backend_destinations(g), *d;
    size_t i;
    bool found = false;
    json_array_foreach(all, i, d)
    {
        const char *k = json_string_value(json_object_get(d, "key"));
        found = found || (k && str_ieq(str_cstr(k), key));
    }
    json_decref(all);
    return found;
}

static err_t backend_pause(void *ctx, bool paused, str_t key, str_t by, json_t **out)
{
    struct gateway *g = ctx;
    bool known = !key.p || is_known(g, key), changed = false;
    pthread_mutex_lock(&g->lock);
    err_t err = g->draining ? ERR_CLOSED : pause_set(&g->pause, paused, key, by, &changed);
    for (unsigned i = 0; !err && changed && i < g->worker_count; i++)
        worker_set_pauses(&g->workers[i], g->pause.now);
    if (!err)
        *out = json_pack("{s:s, s:b, s:b, s:o}", "result", "ok", "changed", changed, "known", known, "paused",
                         pause_json(&g->pause));
    pthread_mutex_unlock(&g->lock);
    return err;
}

static err_t backend_reload(void *ctx, struct gbuf *text)
{
    return gateway_reload(ctx, text);
}

void backend_init(struct admin_backend *b, struct gateway *g)
{
    *b = (struct admin_backend){
        .status = backend_status,
        .queue_list = backend_queue,
        .destinations = backend_destinations,
        .resize = backend_resize,
        .scrub = backend_scrub,
        .reload = backend_reload,
        .pause = backend_pause,
        .ctx = g,
    };
}
