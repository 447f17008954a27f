/* admin/http.c: requests and answers. The API is one table; what a request may do depends on the door it came
 * through. */
#include <errno.h>
#include <sys/socket.h>

#include "admin/admin_priv.h"
#include "core/log.h"
#include "core/metrics.h"

#define BODY_BYTES_MAX                                                                                       \
    65536 /* few requests need a body; what a client sends with another is read and dropped */
#define QUEUE_LIMIT     100 /* without ?limit= */
#define QUEUE_LIMIT_MAX 10000

#define TYPE_JSON    "application/json"
#define TYPE_METRICS "text/plain; version=0.0.4; charset=utf-8"

/* One request; made at its first callback, freed by http_completed(). */
struct request {
    struct gbuf body; /* owned */
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

static struct answer get_metrics(struct admin *a, struct MHD_Connection *c, str_t body)
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

static struct answer get_status(struct admin *a, struct MHD_Connection *c, str_t body)
{
    pthread_mutex_lock(&a->backend_lock);
    json_t *json = a->backend.status(a->backend.ctx);
    pthread_mutex_unlock(&a->backend_lock);
    return backend_answer(json);
}

static struct answer get_queue(struct admin *a, struct MHD_Connection *c, str_t body)
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

static struct answer get_destinations(struct admin *a, struct MHD_Connection *c, str_t body)
{
    pthread_mutex_lock(&a->backend_lock);
    json_t *json = a->backend.destinations(a->backend.ctx);
    pthread_mutex_unlock(&a->backend_lock);
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

static str_t who_asks(struct MHD_Connection *c, struct sbuf *who)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct ucred peer;
    socklen_t n = sizeof peer;
    if (info && getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0)
        sbuf_printf(who, "uid:%u pid:%d", (unsigned)peer.uid, (int)peer.pid);
    else
        sbuf_cstr(who, "unknown");
    return sbuf_view(who);
}

static void log_change(struct MHD_Connection *c, const char *what, const char *result)
{
    char text[48];
    struct sbuf who = SBUF_ON(text);
    LOG(admin, LF_STR("who", who_asks(c, &who)), LF_CSTR("what", what), LF_CSTR("result", result));
}

static struct answer post_scrub(struct admin *a, struct MHD_Connection *c, str_t body)
{
    pthread_mutex_lock(&a->backend_lock);
    json_t *json = a->backend.scrub(a->backend.ctx);
    pthread_mutex_unlock(&a->backend_lock);
    log_change(c, "scrub", json ? "ok" : "no answer");
    return backend_answer(json);
}

static struct answer post_resize(struct admin *a, struct MHD_Connection *c, str_t body)
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

static struct answer post_reload(struct admin *a, struct MHD_Connection *c, str_t body)
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

static struct answer change_pause(struct admin *a, struct MHD_Connection *c, str_t body, bool paused)
{
    json_t *request, *out = NULL;
    str_t key;
    char by_text[48], what_text[KEY_BYTES_MAX + 16];
    struct sbuf by = SBUF_ON(by_text), what = SBUF_ON(what_text);
    if (!read_pause(body, &request, &key)) {
        json_decref(request);
        return error_answer(MHD_HTTP_BAD_REQUEST,
                            "the body must be empty, for everything, or {\"destination\": KEY} with a key as "
                            "`postern destinations` shows it");
    }
    sbuf_printf(&what, "%s " STR_FMT, paused ? "pause" : "resume", STR_ARG(key.p ? key : STR("all")));
    sbuf_char(&what, '\0');
    pthread_mutex_lock(&a->backend_lock);
    err_t err = a->backend.pause(a->backend.ctx, paused, key, who_asks(c, &by), &out);
    pthread_mutex_unlock(&a->backend_lock);
    log_change(c, what_text, err ? err_text(err) : "ok");
    json_decref(request);
    if (err == ERR_CLOSED)
        return error_answer(MHD_HTTP_SERVICE_UNAVAILABLE, "posternd is shutting down");
    if (err) {
        json_t *why = json_pack("{s:s+}", "error",
                                "nothing was changed, it could not be made durable: ", err_text(err));
        return json_answer(MHD_HTTP_INTERNAL_SERVER_ERROR, why);
    }
    return json_answer(MHD_HTTP_OK, out);
}

static struct answer post_pause(struct admin *a, struct MHD_Connection *c, str_t body)
{
    return change_pause(a, c, body, true);
}

static struct answer post_resume(struct admin *a, struct MHD_Connection *c, str_t body)
{
    return change_pause(a, c, body, false);
}

static const struct route {
    const char *path;
    bool changes; /* POST, and only through the Unix socket; else GET and HEAD */
    struct answer (*handle)(struct admin *a, struct MHD_Connection *c, str_t body);
} ROUTES[] = {
    {"/metrics", false, get_metrics},
    {"/api/v1/status", false, get_status},
    {"/api/v1/queue", false, get_queue},
    {"/api/v1/destinations", false, get_destinations},
    {"/api/v1/reload", true, post_reload},
    {"/api/v1/pause", true, post_pause},
    {"/api/v1/resume", true, post_resume},
    {"/api/v1/queue/scrub", true, post_scrub},
    {"/api/v1/queue/resize", true, post_resize},
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
                               const char *method, str_t body)
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
    return reply(c, r->handle(door->admin, c, body), NULL);
}

enum MHD_Result http_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                             const char *version, const char *body, size_t *body_bytes, void **state)
{
    struct request *rq = *state;
    if (!rq) { /* the headers are there, the body is not */
        const struct door *door = cls;
        if (!door->may_change && !strcmp(method, MHD_HTTP_METHOD_POST))
            return respond(cls, c, url, method, STR_NONE); /* refused; its body is not waited for */
        *state = calloc(1, sizeof *rq);
        return *state ? MHD_YES : MHD_NO;
    }
    if (*body_bytes) {
        gbuf_put(&rq->body, body, *body_bytes);
        *body_bytes = 0;
        bool fits = rq->body.n <= BODY_BYTES_MAX && !rq->body.overflow;
        return fits ? MHD_YES : MHD_NO; /* NO closes the connection */
    }
    return respond(cls, c, url, method, gbuf_view(&rq->body));
}

void http_completed(void *cls, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode how)
{
    struct request *rq = *state;
    if (rq)
        gbuf_free(&rq->body);
    free(rq);
    *state = NULL;
}
