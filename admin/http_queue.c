/* admin/http_queue.c: the queue's endpoints: parameters into requests of the daemon, its answers into
 * replies. */
#include <errno.h>
#include <stdatomic.h>

#include "admin/admin_priv.h"
#include "core/log.h"

#define LIMIT_DEFAULT 100
#define LIMIT_MAX     10000

/* --- parameters --- */

struct params {
    struct queue_request *rq;
    bool leased;
    bool all; /* said that every message is meant */
    err_t err;
    struct sbuf error;
    char error_text[256];
};

static void fail(struct params *p, err_t err, const char *text)
{
    if (p->err)
        return;
    p->err = err;
    if (!p->error.n)
        sbuf_cstr(&p->error, text);
}

static bool is_yes(str_t v)
{
    return str_eq(v, STR("1")) || str_eq(v, STR("yes")) || str_eq(v, STR("true"));
}

static void copy_text(char *out, size_t cap, str_t v)
{
    size_t n = MIN(v.n, cap - 1);
    while (n < v.n && n > 0 && ((unsigned char)v.p[n] & 0xc0) == 0x80) /* not through a character */
        n--;
    if (n)
        memcpy(out, v.p, n);
    out[n] = '\0';
}

static void take_limit(struct params *p, str_t v)
{
    uint64_t limit;
    if (str_to_u64(v, &limit) || limit < 1 || limit > LIMIT_MAX)
        fail(p, ERR_SYNTAX, "limit must be a number from 1 to 10000");
    else
        p->rq->limit = (size_t)limit;
}

static enum MHD_Result take(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
    struct params *p = cls;
    str_t k = str_cstr(key), v = value ? str_cstr(value) : STR("");
    struct queue_request *rq = p->rq;
    if (str_eq(k, STR("limit"))) {
        take_limit(p, v);
    } else if (str_eq(k, STR("all"))) {
        p->all = is_yes(v);
    } else if (str_eq(k, STR("dry"))) {
        rq->dry = is_yes(v);
    } else if (str_eq(k, STR("leased"))) {
        p->leased = is_yes(v);
    } else if (str_eq(k, STR("bounce"))) {
        rq->bounce = is_yes(v);
    } else if (str_eq(k, STR("why"))) {
        copy_text(rq->why, sizeof rq->why, v);
    } else {
        err_t err = filter_set(&rq->filter, k, v, &p->error);
        if (err == ERR_NOT_FOUND)
            sbuf_printf(&p->error, "there is no parameter \"%.40s\"", key);
        if (err)
            fail(p, err, "a bad parameter");
    }
    return p->err ? MHD_NO : MHD_YES;
}

/* The number of this connection's lease; it ends with the connection. */
static uint64_t lease_of(const struct request *http)
{
    static atomic_uint_fast64_t last;
    struct visitor *v = request_visitor(http);
    if (v && !v->lease)
        v->lease = atomic_fetch_add(&last, 1) + 1;
    return v ? v->lease : 0;
}

/* The request that the parameters and the body's ids make; NULL: *refused is the answer. */
static struct queue_request *read_params(struct request *http, enum queue_verb verb, struct answer *refused)
{
    struct params p = {.rq = queue_request_new(verb)};
    p.error = (struct sbuf){p.error_text, 0, sizeof p.error_text - 1, false};
    if (!p.rq) {
        *refused = answer_error(MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
        return NULL;
    }
    MHD_get_connection_values(http->connection, MHD_GET_ARGUMENT_KIND, take, &p);
    err_t err = p.err ? 0 : filter_set_ids(&p.rq->filter, gbuf_view(&http->body), &p.error);
    if (err)
        fail(&p, err, "bad ids");
    filter_finish(&p.rq->filter);
    bool changes = verb != QUEUE_LIST && verb != QUEUE_STATS;
    if (!p.err && changes && !p.all && filter_is_empty(&p.rq->filter))
        fail(&p, ERR_SYNTAX, "say which messages: ids, a filter, or all=1");
    if (p.err) {
        if (str_is_utf8(sbuf_view(&p.error)))
            *refused = answer_error(MHD_HTTP_BAD_REQUEST, p.error_text);
        else
            *refused = answer_error(MHD_HTTP_BAD_REQUEST, "a parameter is not UTF-8");
        queue_request_free(p.rq);
        return NULL;
    }
    if (p.leased || verb == QUEUE_LEASE)
        p.rq->lease = lease_of(http);
    struct sbuf who = {p.rq->who, 0, sizeof p.rq->who - 1, false};
    if (changes)
        request_who(http, &who);
    return p.rq;
}

static json_t *ask(struct request *http, struct queue_request *rq)
{
    return http->admin->backend.queue(http->admin->backend.ctx, rq);
}

/* --- reading --- */

struct answer get_queue(struct request *http)
{
    struct answer refused;
    struct queue_request *rq = read_params(http, QUEUE_LIST, &refused);
    if (!rq)
        return refused;
    if (!rq->limit)
        rq->limit = LIMIT_DEFAULT;
    return answer_backend(ask(http, rq));
}

struct answer get_queue_stats(struct request *http)
{
    struct answer refused;
    struct queue_request *rq = read_params(http, QUEUE_STATS, &refused);
    return rq ? answer_backend(ask(http, rq)) : refused;
}

static struct answer get_part(struct request *http, enum message_part part, const char *type)
{
    const char *given = request_param(http, "id");
    uint64_t id;
    struct gbuf bytes = {0};
    if (!given || qid_parse(str_cstr(given), &id))
        return answer_error(MHD_HTTP_BAD_REQUEST, "id must be a queue id: 13 letters and digits");
    json_t *json = http->admin->backend.message(http->admin->backend.ctx, id, part, &bytes);
    if (!json) {
        gbuf_free(&bytes);
        return answer_backend(NULL);
    }
    bool found = json_object_size(json) > 0, failed = json_object_get(json, "error") != NULL;
    if (found && !(failed && type))
        return type ? (json_decref(json), answer_bytes(type, &bytes)) : answer_json(MHD_HTTP_OK, json);
    gbuf_free(&bytes);
    json_decref(json);
    if (!found)
        return answer_error(MHD_HTTP_NOT_FOUND, "there is no message with this id in the queue");
    return answer_error(MHD_HTTP_INTERNAL_SERVER_ERROR, "the message cannot be read");
}

struct answer get_message(struct request *http)
{
    return get_part(http, MESSAGE_ENVELOPE, NULL);
}

struct answer get_record(struct request *http)
{
    return get_part(http, MESSAGE_WHOLE, "application/octet-stream");
}

struct answer get_headers(struct request *http)
{
    return get_part(http, MESSAGE_HEADERS, TYPE_TEXT);
}

/* --- changing --- */

static struct answer change(struct request *http, enum queue_verb verb, const char *what)
{
    struct answer refused;
    struct queue_request *rq = read_params(http, verb, &refused);
    if (!rq)
        return refused;
    bool dry = rq->dry;
    char why[sizeof rq->why];
    memcpy(why, rq->why, sizeof why);
    json_t *json = ask(http, rq); /* which takes it */
    if (!dry) {
        char result[96];
        struct sbuf b = {result, 0, sizeof result - 1, false};
        memset(result, 0, sizeof result);
        if (!json)
            sbuf_cstr(&b, "no answer in time");
        else
            sbuf_printf(&b, "%lld of %lld messages",
                        (long long)json_integer_value(json_object_get(json, "done")),
                        (long long)json_integer_value(json_object_get(json, "matched")));
        log_change(http, what, result, why);
    }
    if (json && json_object_get(json, "error"))
        return answer_json(MHD_HTTP_INTERNAL_SERVER_ERROR, json);
    return answer_backend(json);
}

struct answer post_hold(struct request *http)
{
    return change(http, QUEUE_HOLD, "queue hold");
}

struct answer post_release(struct request *http)
{
    return change(http, QUEUE_RELEASE, "queue release");
}

struct answer post_retry(struct request *http)
{
    return change(http, QUEUE_RETRY, "queue retry");
}

struct answer post_remove(struct request *http)
{
    return change(http, QUEUE_REMOVE, "queue remove");
}

/* --- to and from other nodes --- */

#define LEASE_LIMIT     100
#define LEASE_LIMIT_MAX 500 /* a worker finds its leases one by one */

struct answer post_lease(struct request *http)
{
    struct answer refused;
    struct queue_request *rq = read_params(http, QUEUE_LEASE, &refused);
    if (!rq)
        return refused;
    if (!rq->lease) {
        queue_request_free(rq);
        return answer_error(MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
    }
    rq->limit = rq->limit ? MIN(rq->limit, (size_t)LEASE_LIMIT_MAX) : LEASE_LIMIT;
    return answer_backend(ask(http, rq));
}

struct answer post_import(struct request *http)
{
    static const struct {
        const char *result;
        unsigned status;
    } statuses[] = {{"queued", MHD_HTTP_OK},
                    {"there", MHD_HTTP_OK},
                    {"damaged", MHD_HTTP_UNPROCESSABLE_CONTENT},
                    {"full", MHD_HTTP_INSUFFICIENT_STORAGE}};
    const char *parked = request_param(http, "parked");
    json_t *json = http->admin->backend.import(http->admin->backend.ctx, &http->body,
                                               parked && is_yes(str_cstr(parked)));
    const char *result = json_string_value(json_object_get(json, "result"));
    if (!result) {
        json_decref(json);
        return answer_backend(NULL);
    }
    unsigned status = MHD_HTTP_INTERNAL_SERVER_ERROR;
    for (size_t i = 0; i < COUNT_OF(statuses); i++)
        if (!strcmp(result, statuses[i].result))
            status = statuses[i].status;
    return answer_json(status, json);
}
