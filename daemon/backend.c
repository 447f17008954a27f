/* daemon/backend.c: see backend.h. */
#include "daemon/backend.h"

#include <unistd.h>

#include "core/clock.h"
#include "daemon/backend_verify.h"
#include "daemon/gateway.h"
#include "daemon/walk.h"
#include "smtp/proto/origin.h"

/* --- status --- */

/* Bytes written for each byte of mail taken in, since the start. */
static json_t *amplification(const struct queue_stats *qs)
{
    return qs->accepted_bytes ? json_real((double)qs->written_bytes / (double)qs->accepted_bytes)
                              : json_null();
}

static void worker_status(struct ask *a)
{
    const struct worker *w = a->w;
    struct queue_stats qs;
    const struct loop_features *f = loop_features(w->loop);
    queue_stats(w->queue, &qs);
    json_t *status = json_pack(
        "{s:i, s:o, s:i, s:I, s:I, s:I, s:{s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:b, "
        "s:b, "
        "s:o}, s:{s:b, s:b, s:b, "
        "s:b, s:b, s:b, s:b}}",
        "id", (int)w->index, "scrub", ring_scrub_json(w->queue), "sessions",
        (int)smtpd_service_session_count(w->service), "queue_messages", (json_int_t)qs.message_count,
        "queue_recipients", (json_int_t)qs.pending_rcpt_count, "oldest_arrived_ms",
        (json_int_t)relay_oldest_arrived_ms(w->relay), "ring", "bytes", (json_int_t)qs.ring_bytes, "resize",
        ring_resize_json(w->queue), "resize_error", ring_resize_error(w->queue), "used",
        (json_int_t)qs.used_bytes, "live", (json_int_t)qs.live_bytes, "segments",
        (json_int_t)qs.segment_count, "free_segments", (json_int_t)qs.free_segment_count, "kept_segments",
        (json_int_t)qs.kept_segment_count, "accepted_total", (json_int_t)qs.accepted_bytes, "written_total",
        (json_int_t)qs.written_bytes, "write_amplification", amplification(&qs), "damaged_records",
        (json_int_t)qs.damaged_records, "direct_io", qs.direct_io, "full", qs.full, "error",
        qs.error ? json_string(err_text(qs.error)) : json_null(), "features", "single_issuer",
        f->single_issuer, "defer_taskrun", f->defer_taskrun, "coop_taskrun", f->coop_taskrun, "msg_ring",
        f->msg_ring, "multishot_accept", f->multishot_accept, "multishot_recv", f->multishot_recv,
        "buffer_ring", f->buffer_ring);
    ask_answer(a, status, NULL);
}

static const struct ask_kind STATUS = {.begin = worker_status, .patience_s = ASK_PATIENCE_S};

static json_t *backend_status(void *ctx)
{
    struct gateway *g = ctx;
    json_t *workers = ask_workers(g, &STATUS, NULL, NULL);
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
        "pid", (int)getpid(), "hostname", json_of_str(c->hostname), "uptime_s",
        seconds_since(g->started_wall_ns / NS_PER_MS), "generation", (json_int_t)g->current->generation,
        "config_file", g->config_path, "tls", tls_library(), "draining", g->draining, "paused",
        pause_json(&g->pause), "queue", "messages", messages, "recipients", recipients, "oldest_age_s",
        seconds_since((uint64_t)oldest), "workers", workers);
    pthread_mutex_unlock(&g->lock);
    return status;
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
        json_pack("{s:o, s:i, s:i, s:i, s:i, s:i, s:b, s:b, s:o, s:o}", "key", json_of_str(d->key), "worker",
                  (int)l->w->index, "connections", (int)d->connections, "window", (int)d->window, "jobs",
                  (int)d->jobs, "aside", (int)d->aside, "down", d->down, "paused", d->paused, "retry_at",
                  json_of_time(d->retry_at_ms), "last_text", json_of_str(d->last_text));
    if (o)
        json_array_append_new(l->out, o);
}

static void worker_destinations(struct ask *a)
{
    struct destinations l = {.w = a->w, .out = json_array()};
    relay_each_destination(a->w->relay, list_destination, &l);
    ask_answer(a, l.out, NULL);
}

static const struct ask_kind DESTINATIONS = {.begin = worker_destinations, .patience_s = ASK_PATIENCE_S};

static json_t *backend_destinations(void *ctx)
{
    json_t *parts = ask_workers(ctx, &DESTINATIONS, NULL, NULL);
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

/* --- edges --- */

static json_t *formats_json(unsigned formats)
{
    json_t *out = json_array();
    for (unsigned i = 0; i < RECEIVED_FORMAT_COUNT; i++)
        if (formats & 1u << i)
            json_array_append_new(out, json_string(received_format_name((enum received_format)i)));
    return out;
}

static json_t *known_json(const struct edge_lines_known *k)
{
    char text[64];
    struct sbuf b = SBUF_ON(text);
    ip_format(&k->ip, &b);
    if (!ip_is_v4(&k->ip))
        sbuf_cstr(&b, "/64");
    return json_pack("{s:o, s:b, s:i, s:o, s:i, s:I}", "address", json_of_str(sbuf_view(&b)), "learned",
                     k->learned, "alike", (int)k->count, "formats", formats_json(k->formats), "hops",
                     (int)k->hops, "doubted", (json_int_t)k->others);
}

static const char *edge_format_text(enum edge_format f)
{
    if (f == EDGE_FORMAT_LEARNED)
        return "learned";
    return f == EDGE_FORMAT_ANY ? "any"
                                : received_format_name((enum received_format)(f - EDGE_FORMAT_PINNED));
}

static json_t *backend_edges(void *ctx)
{
    struct gateway *g = ctx;
    struct edge_lines_known *known = calloc(EDGE_LINES_EDGES, sizeof *known);
    json_t *edges = json_array();
    if (!known) {
        json_decref(edges);
        return NULL;
    }
    size_t n = edge_lines_list(g->edge_lines, known, EDGE_LINES_EDGES);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(edges, known_json(&known[i]));
    free(known);
    pthread_mutex_lock(&g->lock);
    enum edge_format format = policy_config(g->current->policy)->edge_format;
    pthread_mutex_unlock(&g->lock);
    return json_pack("{s:s, s:i, s:o}", "format", edge_format_text(format), "needed", EDGE_LINES_NEEDED,
                     "edges", edges);
}

static err_t backend_edges_forget(void *ctx, const struct ip *ip)
{
    struct gateway *g = ctx;
    return edge_lines_forget(g->edge_lines, ip) ? 0 : ERR_NOT_FOUND;
}

static err_t backend_reload(void *ctx, bool shrunk_lists_ok, struct gbuf *text)
{
    return gateway_reload(ctx, shrunk_lists_ok, text);
}

void backend_init(struct admin_backend *b, struct gateway *g)
{
    *b = (struct admin_backend){
        .status = backend_status,
        .queue = backend_queue,
        .message = backend_message,
        .import = backend_import,
        .lease_end = backend_lease_end,
        .destinations = backend_destinations,
        .edges = backend_edges,
        .edges_forget = backend_edges_forget,
        .resize = backend_resize,
        .scrub = backend_scrub,
        .reload = backend_reload,
        .pause = backend_pause,
        .verify = backend_verify,
        .ctx = g,
    };
}
