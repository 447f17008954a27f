/* admin/http.c: requests and answers. The API is one table; what a request may do depends on the door it came
 * through. */
#include <errno.h>
#include <pwd.h>
#include <sys/socket.h>

#include "admin/admin_priv.h"
#include "admin/transfer.h"
#include "core/log.h"
#include "core/metrics.h"

#define BODY_BYTES_MAX (128u << 10) /* of most requests: ids, one a line */

#define IMPORT_BYTES_MAX (TRANSFER_JSON_MAX + TRANSFER_DATA_MAX + 256)

#define TYPE_METRICS "text/plain; version=0.0.4; charset=utf-8"

/* --- answers --- */

struct answer answer_json(unsigned status, json_t *json)
{
    char *body = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    return (struct answer){status, TYPE_JSON, body, body ? strlen(body) : 0};
}

struct answer answer_error(unsigned status, const char *text)
{
    return answer_json(status, json_pack("{s:s}", "error", text));
}

struct answer answer_backend(json_t *json)
{
    if (!json)
        return answer_error(MHD_HTTP_SERVICE_UNAVAILABLE, "the workers did not answer in time");
    return answer_json(MHD_HTTP_OK, json);
}

struct answer answer_bytes(const char *type, struct gbuf *bytes)
{
    char *p = bytes->p ? bytes->p : malloc(1);
    struct answer answer = {MHD_HTTP_OK, type, p, bytes->n};
    *bytes = (struct gbuf){0};
    return answer;
}

static enum MHD_Result reply(struct MHD_Connection *c, struct answer a, const char *allow)
{
    if (!a.body)
        return MHD_NO; /* closes the connection: no memory even for words */
    struct MHD_Response *r = MHD_create_response_from_buffer(a.n, a.body, MHD_RESPMEM_MUST_FREE);
    if (!r) {
        free(a.body);
        return MHD_NO;
    }
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, a.type);
    MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (allow)
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, allow);
    enum MHD_Result ok = MHD_queue_response(c, a.status, r);
    MHD_destroy_response(r); /* our reference */
    return ok;
}

/* --- who asks, and for what --- */

const char *request_param(const struct request *rq, const char *key)
{
    return MHD_lookup_connection_value(rq->connection, MHD_GET_ARGUMENT_KIND, key);
}

struct visitor *request_visitor(const struct request *rq)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(rq->connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

void request_who(const struct request *rq, struct sbuf *out)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(rq->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct ucred peer;
    socklen_t n = sizeof peer;
    if (!info || getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0) {
        sbuf_cstr(out, "unknown");
        return;
    }
    char bytes[4096];
    struct passwd entry, *found = NULL;
    if (getpwuid_r(peer.uid, &entry, bytes, sizeof bytes, &found) == 0 && found)
        sbuf_printf(out, "%s ", found->pw_name);
    sbuf_printf(out, "uid:%u pid:%d", (unsigned)peer.uid, (int)peer.pid);
}

void log_change(const struct request *rq, const char *what, const char *result, const char *why)
{
    char text[128];
    struct sbuf who = SBUF_ON(text);
    request_who(rq, &who);
    LOG(admin, LF_STR("who", sbuf_view(&who)), LF_CSTR("what", what), LF_CSTR("result", result),
        LF_STR("why", why && *why ? str_cstr(why) : STR_NONE));
}

/* --- endpoints --- */

static struct answer get_metrics(struct request *rq)
{
    struct gbuf text = {0};
    metrics_write(&text);
    if (text.overflow) {
        gbuf_free(&text);
        return answer_error(MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
    }
    return answer_bytes(TYPE_METRICS, &text);
}

static struct answer get_status(struct request *rq)
{
    return answer_backend(rq->admin->backend.status(rq->admin->backend.ctx));
}

static struct answer get_destinations(struct request *rq)
{
    return answer_backend(rq->admin->backend.destinations(rq->admin->backend.ctx));
}

/* The lines quote the configuration file, which may hold any bytes; JSON must be UTF-8. */
static json_t *lines_of(struct gbuf *text)
{
    json_t *lines = json_array();
    str_t line, rest = gbuf_view(text);
    while (rest.n > 0) {
        str_cut(rest, '\n', &line, &rest);
        if (line.n == 0)
            continue;
        if (!str_is_utf8(line)) {
            char *p = text->p + (line.p - text->p);
            for (size_t i = 0; i < line.n; i++)
                p[i] = (unsigned char)p[i] < 0x80 ? p[i] : '?';
        }
        json_array_append_new(lines, json_stringn(line.p, line.n));
    }
    return lines;
}

static struct answer post_scrub(struct request *rq)
{
    json_t *json = rq->admin->backend.scrub(rq->admin->backend.ctx);
    log_change(rq, "scrub", json ? "ok" : "no answer", NULL);
    return answer_backend(json);
}

static struct answer post_resize(struct request *rq)
{
    const char *given = request_param(rq, "size");
    uint64_t bytes = 0;
    struct gbuf problems = {0};
    if (given && (!config_parse_size(str_cstr(given), &bytes) || bytes == 0))
        return answer_error(MHD_HTTP_BAD_REQUEST, "size must be a size, such as 512MiB or 4GiB");
    json_t *json = rq->admin->backend.resize(rq->admin->backend.ctx, bytes, &problems);
    log_change(rq, "resize", !json ? "no answer" : problems.n ? "refused" : "ok", NULL);
    json_t *lines = lines_of(&problems);
    bool refused = problems.n > 0;
    gbuf_free(&problems);
    if (!json || !refused) {
        json_decref(lines);
        return answer_backend(json);
    }
    json_decref(json);
    return answer_json(MHD_HTTP_CONFLICT,
                       json_pack("{s:s, s:o}", "error", "not every ring can be resized", "problems", lines));
}

static struct answer post_reload(struct request *rq)
{
    struct gbuf text = {0};
    err_t err =
        rq->admin->backend.reload(rq->admin->backend.ctx, request_param(rq, "shrunk-lists") != NULL, &text);
    log_change(rq, "reload", err ? err_text(err) : "ok", NULL);

    json_t *lines = lines_of(&text);
    gbuf_free(&text);
    if (!err)
        return answer_json(MHD_HTTP_OK, json_pack("{s:s, s:o}", "result", "ok", "warnings", lines));
    if (err == ERR_CONFIG)
        return answer_json(MHD_HTTP_UNPROCESSABLE_CONTENT,
                           json_pack("{s:s, s:o}", "error",
                                     "the configuration was refused, the old one stays in force", "problems",
                                     lines));
    unsigned status = err == ERR_CLOSED ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_INTERNAL_SERVER_ERROR;
    return answer_json(status, json_pack("{s:s, s:o}", "error",
                                         err == ERR_CLOSED ? "posternd is shutting down" : err_text(err),
                                         "problems", lines));
}

#define KEY_BYTES_MAX 512

/* {"destination": KEY}, or nothing for all; false: neither. The key is *json's. */
static bool read_pause(str_t body, json_t **json, str_t *key)
{
    *key = STR_NONE;
    *json = NULL;
    if (!body.n)
        return true;
    *json = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, NULL);
    const json_t *name = json_object_get(*json, "destination");
    if (!json_is_object(*json) || json_object_size(*json) != (name ? 1 : 0))
        return false;
    if (!name)
        return true;
    *key = str_of(json_string_value(name), json_string_length(name));
    bool is_text = key->p && key->n >= 1 && key->n <= KEY_BYTES_MAX;
    for (size_t i = 0; is_text && i < key->n; i++)
        is_text = (unsigned char)key->p[i] > ' ' && key->p[i] != 0x7f;
    return is_text;
}

static struct answer change_pause(struct request *rq, bool paused)
{
    json_t *request, *out = NULL;
    str_t key;
    char by_text[128], what_text[KEY_BYTES_MAX + 16];
    struct sbuf by = SBUF_ON(by_text), what = SBUF_ON(what_text);
    if (!read_pause(gbuf_view(&rq->body), &request, &key)) {
        json_decref(request);
        return answer_error(MHD_HTTP_BAD_REQUEST,
                            "the body must be empty, for everything, or {\"destination\": KEY} with a key as "
                            "`postern destinations` shows it");
    }
    sbuf_printf(&what, "%s " STR_FMT, paused ? "pause" : "resume", STR_ARG(key.p ? key : STR("all")));
    sbuf_char(&what, '\0');
    request_who(rq, &by);
    err_t err = rq->admin->backend.pause(rq->admin->backend.ctx, paused, key, sbuf_view(&by), &out);
    log_change(rq, what_text, err ? err_text(err) : "ok", NULL);
    json_decref(request);
    if (err == ERR_CLOSED)
        return answer_error(MHD_HTTP_SERVICE_UNAVAILABLE, "posternd is shutting down");
    if (err) {
        json_t *why = json_pack("{s:s+}", "error",
                                "nothing was changed, it could not be made durable: ", err_text(err));
        return answer_json(MHD_HTTP_INTERNAL_SERVER_ERROR, why);
    }
    return answer_json(MHD_HTTP_OK, out);
}

static struct answer post_pause(struct request *rq)
{
    return change_pause(rq, true);
}

static struct answer post_resume(struct request *rq)
{
    return change_pause(rq, false);
}

static const struct endpoint_row {
    const char *path;
    enum {
        READS,
        READS_MAIL,
        CHANGES
    } kind; /* READS by GET and HEAD; the others through the Unix socket only,
               CHANGES by POST */
    struct answer (*handle)(struct request *rq);
    size_t body_max; /* 0: BODY_BYTES_MAX */
} ENDPOINTS[] = {
    {"/metrics", READS, get_metrics, 0},
    {"/api/v1/status", READS, get_status, 0},
    {"/api/v1/queue", READS, get_queue, 0},
    {"/api/v1/queue/stats", READS, get_queue_stats, 0},
    {"/api/v1/queue/message", READS, get_message, 0},
    {"/api/v1/queue/headers", READS_MAIL, get_headers, 0},
    {"/api/v1/queue/hold", CHANGES, post_hold, 0},
    {"/api/v1/queue/release", CHANGES, post_release, 0},
    {"/api/v1/queue/retry", CHANGES, post_retry, 0},
    {"/api/v1/queue/remove", CHANGES, post_remove, 0},
    {"/api/v1/queue/lease", CHANGES, post_lease, 0},
    {"/api/v1/queue/record", READS_MAIL, get_record, 0},
    {"/api/v1/queue/import", CHANGES, post_import, IMPORT_BYTES_MAX},
    {"/api/v1/verify/show", READS, get_verify_show, 0},
    {"/api/v1/verify/stats", READS, get_verify_stats, 0},
    {"/api/v1/verify/backends", READS, get_verify_backends, 0},
    {"/api/v1/verify/export", READS_MAIL, get_verify_export, 0},
    {"/api/v1/verify/probe", CHANGES, post_verify_probe, 0},
    {"/api/v1/verify/pin", CHANGES, post_verify_pin, 0},
    {"/api/v1/verify/unpin", CHANGES, post_verify_unpin, 0},
    {"/api/v1/verify/purge", CHANGES, post_verify_purge, 0},
    {"/api/v1/verify/retry", CHANGES, post_verify_retry, 0},
    {"/api/v1/destinations", READS, get_destinations, 0},
    {"/api/v1/edges", READS, get_edges, 0},
    {"/api/v1/edges/forget", CHANGES, post_edges_forget, 0},
    {"/api/v1/reload", CHANGES, post_reload, 0},
    {"/api/v1/pause", CHANGES, post_pause, 0},
    {"/api/v1/resume", CHANGES, post_resume, 0},
    {"/api/v1/queue/scrub", CHANGES, post_scrub, 0},
    {"/api/v1/queue/resize", CHANGES, post_resize, 0},
};

/* --- requests --- */

static const struct endpoint_row *endpoint_find(const char *path)
{
    for (size_t i = 0; i < COUNT_OF(ENDPOINTS); i++) {
        if (!strcmp(ENDPOINTS[i].path, path))
            return &ENDPOINTS[i];
    }
    return NULL;
}

/* NULL: it may go on, with *row; else a text, *status, and perhaps what the endpoint allows. */
static const char *refusal(const struct door *door, const char *path, const char *method,
                           const struct endpoint_row **row, unsigned *status, const char **allow)
{
    const struct endpoint_row *r = endpoint_find(path);
    bool reads = !strcmp(method, MHD_HTTP_METHOD_GET) || !strcmp(method, MHD_HTTP_METHOD_HEAD);
    bool posts = !strcmp(method, MHD_HTTP_METHOD_POST);
    *allow = NULL;
    *row = r;
    if (posts && !door->is_local) {
        *status = MHD_HTTP_FORBIDDEN;
        return "changes are made through the Unix socket only";
    }
    if (!r) {
        *status = MHD_HTTP_NOT_FOUND;
        return "there is no such endpoint";
    }
    if (r->kind == CHANGES ? !posts : !reads) {
        *status = MHD_HTTP_METHOD_NOT_ALLOWED;
        *allow = r->kind == CHANGES ? "POST" : "GET, HEAD";
        return "this endpoint does not know this method";
    }
    if (r->kind == READS_MAIL && !door->is_local) {
        *status = MHD_HTTP_FORBIDDEN;
        return "mail, and who exists, are shown through the Unix socket only";
    }
    return NULL;
}

/* The workers may take long, which must not count as idle time. */
static struct answer handle(struct request *rq)
{
    MHD_set_connection_option(rq->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    struct answer a = rq->row->handle(rq);
    const struct visitor *v = request_visitor(rq);
    if (!v || !v->lease) /* an exporter may be at its disk for long */
        MHD_set_connection_option(rq->connection, MHD_CONNECTION_OPTION_TIMEOUT, IDLE_S);
    return a;
}

static enum MHD_Result respond(struct door *door, struct request *rq, const char *path, const char *method)
{
    unsigned status;
    const char *allow, *text = refusal(door, path, method, &rq->row, &status, &allow);
    if (text)
        return reply(rq->connection, answer_error(status, text), allow);
    return reply(rq->connection, handle(rq), NULL);
}

static size_t body_max(const struct request *rq)
{
    return rq->row && rq->row->body_max ? rq->row->body_max : BODY_BYTES_MAX;
}

enum MHD_Result http_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                             const char *version, const char *body, size_t *body_bytes, void **state)
{
    struct door *door = cls;
    struct request *rq = *state;
    if (!rq) { /* the headers are there, the body is not */
        rq = *state = calloc(1, sizeof *rq);
        if (!rq)
            return MHD_NO;
        rq->admin = door->admin;
        rq->connection = c;
        rq->row = endpoint_find(url);
        rq->body.max = body_max(rq);
        if (!door->is_local && !strcmp(method, MHD_HTTP_METHOD_POST))
            return respond(door, rq, url, method); /* refused; its body is not waited for */
        return MHD_YES;
    }
    if (*body_bytes) {
        gbuf_put(&rq->body, body, *body_bytes);
        *body_bytes = 0;
        return rq->body.overflow ? MHD_NO : MHD_YES; /* NO closes the connection */
    }
    return respond(door, rq, url, method);
}

void http_completed(void *cls, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode how)
{
    struct request *rq = *state;
    if (rq)
        gbuf_free(&rq->body);
    free(rq);
    *state = NULL;
}
