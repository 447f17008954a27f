/* admin/http.c: requests and answers. The API is one table; what a request may do depends on the door it came
 * through. */
#include <errno.h>
#include <sys/socket.h>

#include "admin/admin_priv.h"
#include "core/log.h"
#include "core/metrics.h"

#define BODY_BYTES_MAX                                                                                       \
    65536 /* no request needs a body; what a client sends all the same is read and dropped */
#define QUEUE_LIMIT     100 /* without ?limit= */
#define QUEUE_LIMIT_MAX 10000

#define TYPE_JSON    "application/json"
#define TYPE_METRICS "text/plain; version=0.0.4; charset=utf-8"

/* One request; made at its first callback, freed by http_completed(). */
struct request {
    size_t body_bytes;
};

struct answer {
    unsigned status;
    const char *type;
    char *body; /* malloc'd, owned; NULL: out of memory */
    size_t n;
};

/* --- answers --- */

/* Takes `json`. */
static struct answer json_answer(unsigned status, json_t *json)
{
    char *body = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    return (struct answer){status, TYPE_JSON, body, body ? strlen(body) : 0};
}

static struct answer error_answer(unsigned status, const char *text)
{
    return json_answer(status, json_pack("{s:s}", "error", text));
}

static struct answer backend_answer(json_t *json)
{
    if (!json)
        return error_answer(MHD_HTTP_SERVICE_UNAVAILABLE, "the workers did not answer in time");
    return json_answer(MHD_HTTP_OK, json);
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

/* --- endpoints --- */

static struct answer get_metrics(struct admin *a, struct MHD_Connection *c)
{
    struct gbuf text = {0};
    metrics_write(&text);
    if (text.overflow) {
        gbuf_free(&text);
        return error_answer(MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
    }
    struct answer answer = {MHD_HTTP_OK, TYPE_METRICS, malloc(text.n + 1), text.n};
    if (answer.body && text.n)
        memcpy(answer.body, text.p, text.n);
    gbuf_free(&text);
    return answer;
}

static struct answer get_status(struct admin *a, struct MHD_Connection *c)
{
    pthread_mutex_lock(&a->backend_lock);
    json_t *json = a->backend.status(a->backend.ctx);
    pthread_mutex_unlock(&a->backend_lock);
    return backend_answer(json);
}

static struct answer get_queue(struct admin *a, struct MHD_Connection *c)
{
    const char *given = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "limit");
    uint64_t limit = QUEUE_LIMIT;
    if (given && (str_to_u64(str_cstr(given), &limit) || limit < 1 || limit > QUEUE_LIMIT_MAX))
        return error_answer(MHD_HTTP_BAD_REQUEST, "limit must be a number from 1 to 10000");
    pthread_mutex_lock(&a->backend_lock);
    json_t *json = a->backend.queue_list(a->backend.ctx, (size_t)limit);
    pthread_mutex_unlock(&a->backend_lock);
    return backend_answer(json);
}

static struct answer get_destinations(struct admin *a, struct MHD_Connection *c)
{
    pthread_mutex_lock(&a->backend_lock);
    json_t *json = a->backend.destinations(a->backend.ctx);
    pthread_mutex_unlock(&a->backend_lock);
    return backend_answer(json);
}

static void log_change(struct MHD_Connection *c, const char *what, const char *result)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    char text[48];
    struct sbuf who = SBUF_ON(text);
    struct ucred peer;
    socklen_t n = sizeof peer;
    if (info && getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0)
        sbuf_printf(&who, "uid:%u pid:%d", (unsigned)peer.uid, (int)peer.pid);
    else
        sbuf_cstr(&who, "unknown");
    LOG(admin, LF_STR("who", sbuf_view(&who)), LF_CSTR("what", what), LF_CSTR("result", result));
}

static struct answer post_scrub(struct admin *a, struct MHD_Connection *c)
{
    pthread_mutex_lock(&a->backend_lock);
    json_t *json = a->backend.scrub(a->backend.ctx);
    pthread_mutex_unlock(&a->backend_lock);
    log_change(c, "scrub", json ? "ok" : "no answer");
    return backend_answer(json);
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

static struct answer post_resize(struct admin *a, struct MHD_Connection *c)
{
    const char *given = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "size");
    uint64_t bytes = 0;
    struct gbuf problems = {0};
    if (given && (!config_parse_size(str_cstr(given), &bytes) || bytes == 0))
        return error_answer(MHD_HTTP_BAD_REQUEST, "size must be a size, such as 512MiB or 4GiB");
    pthread_mutex_lock(&a->backend_lock);
    json_t *json = a->backend.resize(a->backend.ctx, bytes, &problems);
    pthread_mutex_unlock(&a->backend_lock);
    log_change(c, "resize", !json ? "no answer" : problems.n ? "refused" : "ok");
    json_t *lines = lines_of(&problems);
    bool refused = problems.n > 0;
    gbuf_free(&problems);
    if (!json || !refused) {
        json_decref(lines);
        return backend_answer(json);
    }
    json_decref(json);
    return json_answer(MHD_HTTP_CONFLICT,
                       json_pack("{s:s, s:o}", "error", "not every ring can be resized", "problems", lines));
}

static struct answer post_reload(struct admin *a, struct MHD_Connection *c)
{
    struct gbuf text = {0};
    pthread_mutex_lock(&a->backend_lock);
    err_t err = a->backend.reload(a->backend.ctx, &text);
    pthread_mutex_unlock(&a->backend_lock);
    log_change(c, "reload", err ? err_text(err) : "ok");

    json_t *lines = lines_of(&text);
    gbuf_free(&text);
    if (!err)
        return json_answer(MHD_HTTP_OK, json_pack("{s:s, s:o}", "result", "ok", "warnings", lines));
    if (err == ERR_CONFIG)
        return json_answer(MHD_HTTP_UNPROCESSABLE_CONTENT,
                           json_pack("{s:s, s:o}", "error",
                                     "the configuration was refused, the old one stays in force", "problems",
                                     lines));
    unsigned status = err == ERR_CLOSED ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_INTERNAL_SERVER_ERROR;
    return json_answer(status, json_pack("{s:s, s:o}", "error",
                                         err == ERR_CLOSED ? "posternd is shutting down" : err_text(err),
                                         "problems", lines));
}

static const struct route {
    const char *path;
    bool changes; /* POST, and only through the Unix socket; else GET and HEAD */
    struct answer (*handle)(struct admin *a, struct MHD_Connection *c);
} ROUTES[] = {
    {"/metrics", false, get_metrics},          {"/api/v1/status", false, get_status},
    {"/api/v1/queue", false, get_queue},       {"/api/v1/destinations", false, get_destinations},
    {"/api/v1/queue/scrub", true, post_scrub}, {"/api/v1/queue/resize", true, post_resize},
    {"/api/v1/reload", true, post_reload},
};

/* --- requests --- */

static const struct route *route_find(const char *path)
{
    for (size_t i = 0; i < COUNT_OF(ROUTES); i++) {
        if (!strcmp(ROUTES[i].path, path))
            return &ROUTES[i];
    }
    return NULL;
}

static enum MHD_Result respond(struct door *door, struct MHD_Connection *c, const char *path,
                               const char *method)
{
    const struct route *r = route_find(path);
    bool reads = !strcmp(method, MHD_HTTP_METHOD_GET) || !strcmp(method, MHD_HTTP_METHOD_HEAD);
    bool posts = !strcmp(method, MHD_HTTP_METHOD_POST);
    if (posts && !door->may_change)
        return reply(c, error_answer(MHD_HTTP_FORBIDDEN, "changes are made through the Unix socket only"),
                     NULL);
    if (!r)
        return reply(c, error_answer(MHD_HTTP_NOT_FOUND, "there is no such endpoint"), NULL);
    if (r->changes ? !posts : !reads)
        return reply(c, error_answer(MHD_HTTP_METHOD_NOT_ALLOWED, "this endpoint does not know this method"),
                     r->changes ? "POST" : "GET, HEAD");
    return reply(c, r->handle(door->admin, c), NULL);
}

enum MHD_Result http_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                             const char *version, const char *body, size_t *body_bytes, void **state)
{
    struct request *rq = *state;
    if (!rq) { /* the headers are there, the body is not */
        const struct door *door = cls;
        if (!door->may_change && !strcmp(method, MHD_HTTP_METHOD_POST))
            return respond(cls, c, url, method); /* refused; its body is not waited for */
        *state = calloc(1, sizeof *rq);
        return *state ? MHD_YES : MHD_NO;
    }
    if (*body_bytes) {
        rq->body_bytes += *body_bytes;
        *body_bytes = 0;
        return rq->body_bytes <= BODY_BYTES_MAX ? MHD_YES : MHD_NO; /* NO closes the connection */
    }
    return respond(cls, c, url, method);
}

void http_completed(void *cls, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode how)
{
    free(*state);
    *state = NULL;
}
