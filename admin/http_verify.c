/* admin/http_verify.c: the endpoints of recipient verification: parameters into requests of the daemon, its
 * answers into replies. */
#include <errno.h>

#include "admin/admin_priv.h"

#define EXPORT_LIMIT 10000
#define TYPE_LINES   "application/x-ndjson"
#define WHY_BYTES    256

struct verify_params {
    struct verify_request rq;
    const char *why; /* for the log */
    bool all, is_bad;
    char error[160];
};

static void bad(struct verify_params *p, const char *key, const char *what)
{
    if (!p->is_bad)
        snprintf(p->error, sizeof p->error, "%.40s: %s", key, what);
    p->is_bad = true;
}

static void take_text(struct verify_params *p, const char *key, const char *value, char *out, size_t cap)
{
    size_t n = strlen(value);
    if (!n || n >= cap || !str_is_utf8(str_cstr(value)))
        bad(p, key, "it must be a text in UTF-8, not empty, and not that long");
    else
        memcpy(out, value, n + 1);
}

static void take_age(struct verify_params *p, const char *key, const char *value, uint32_t *out)
{
    struct filter f = {0}; /* which knows what an age looks like */
    char text[160];
    struct sbuf error = SBUF_ON(text);
    if (filter_set(&f, STR("older"), str_cstr(value), &error) || f.older_s > UINT32_MAX)
        bad(p, key, "it must be a time like 45s, 10m, 3h or 2d");
    else
        *out = (uint32_t)f.older_s;
    filter_free(&f);
}

static void take_verdict(struct verify_params *p, const char *value)
{
    struct verify_request *rq = &p->rq;
    if (!strcmp(value, "good"))
        rq->good = rq->takes_good = true;
    else if (!strcmp(value, "unknown"))
        rq->takes_unknown = true;
    else
        bad(p, "verdict", "it must be good or unknown");
}

static bool is_yes(const char *v)
{
    return !strcmp(v, "1") || !strcmp(v, "yes") || !strcmp(v, "true");
}

static void take_domain(struct verify_params *p, const char *value)
{
    take_text(p, "domain", value, p->rq.domain, sizeof p->rq.domain);
    for (char *c = p->rq.domain; *c; c++)
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
}

static enum MHD_Result take(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
    struct verify_params *p = cls;
    struct verify_request *rq = &p->rq;
    const char *v = value ? value : "";
    uint64_t limit;
    if (!strcmp(key, "address"))
        take_text(p, key, v, rq->address, sizeof rq->address);
    else if (!strcmp(key, "backend"))
        take_text(p, key, v, rq->backend, sizeof rq->backend);
    else if (!strcmp(key, "after"))
        take_text(p, key, v, rq->after, sizeof rq->after);
    else if (!strcmp(key, "domain"))
        take_domain(p, v);
    else if (!strcmp(key, "verdict"))
        take_verdict(p, v);
    else if (!strcmp(key, "pinned"))
        rq->takes_pinned = is_yes(v);
    else if (!strcmp(key, "older"))
        take_age(p, key, v, &rq->older_s);
    else if (!strcmp(key, "younger"))
        take_age(p, key, v, &rq->younger_s);
    else if (!strcmp(key, "store"))
        rq->no_store = !is_yes(v);
    else if (!strcmp(key, "dry"))
        rq->dry = is_yes(v);
    else if (!strcmp(key, "all"))
        p->all = is_yes(v);
    else if (!strcmp(key, "why"))
        p->why = v;
    else if (strcmp(key, "limit") != 0)
        bad(p, key, "there is no such parameter here");
    else if (str_to_u64(str_cstr(v), &limit) || limit < 1 || limit > EXPORT_LIMIT)
        bad(p, key, "it must be a number from 1 to 10000");
    else
        rq->limit = (size_t)limit;
    return p->is_bad ? MHD_NO : MHD_YES;
}

static bool has_filter(const struct verify_request *rq)
{
    return rq->domain[0] || rq->takes_good || rq->takes_unknown || rq->takes_pinned || rq->older_s ||
           rq->younger_s;
}

static void check(struct verify_params *p)
{
    const struct verify_request *rq = &p->rq;
    bool one = rq->verb == VERIFY_SHOW || rq->verb == VERIFY_PROBE || rq->verb == VERIFY_PIN ||
               rq->verb == VERIFY_UNPIN;
    bool selects = rq->verb == VERIFY_PURGE || rq->verb == VERIFY_EXPORT;
    if (has_filter(rq) && !selects && rq->verb != VERIFY_PIN)
        bad(p, "filter", "there is nothing to be selected here");
    if (one && !rq->address[0])
        bad(p, "address", "say which");
    if (rq->verb == VERIFY_PIN && !rq->takes_good && !rq->takes_unknown)
        bad(p, "verdict", "it must be good or unknown");
    if (rq->verb == VERIFY_PURGE && !rq->address[0] && !has_filter(rq) && !p->all)
        bad(p, "address", "say which verdicts: an address, a filter, or all=1");
    if (rq->verb == VERIFY_PURGE && rq->address[0] && has_filter(rq))
        bad(p, "address", "either an address or a filter");
    if (rq->verb == VERIFY_RETRY && !rq->backend[0] && !p->all)
        bad(p, "backend", "say which server, or all=1");
}

static struct verify_params read_params(struct request *http, enum verify_verb verb)
{
    struct verify_params p = {.rq.verb = verb};
    MHD_get_connection_values(http->connection, MHD_GET_ARGUMENT_KIND, take, &p);
    if (!p.is_bad)
        check(&p);
    if (p.is_bad && !str_is_utf8(str_cstr(p.error)))
        snprintf(p.error, sizeof p.error, "a parameter is not UTF-8");
    return p;
}

static struct answer refusal(err_t err, const char *why)
{
    const char *text = *why ? why : err_text(err);
    switch (err) {
    case ERR_SYNTAX: return answer_error(MHD_HTTP_BAD_REQUEST, text);
    case ERR_NOT_FOUND: return answer_error(MHD_HTTP_NOT_FOUND, text);
    case ERR_UNSUPPORTED: return answer_error(MHD_HTTP_CONFLICT, text);
    case ERR_FULL: return answer_error(MHD_HTTP_INSUFFICIENT_STORAGE, text);
    case ERR_TIMEOUT: return answer_backend(NULL);
    default: return answer_error(MHD_HTTP_INTERNAL_SERVER_ERROR, text);
    }
}

/* "verify pin good bob@example.com" */
static void log_verb(const struct request *http, const struct verify_params *p, const char *verb, err_t err,
                     const json_t *out)
{
    const struct verify_request *rq = &p->rq;
    char what[2 * VERIFY_TEXT_MAX], result[64];
    const json_t *done = json_object_get(out, "done"), *durable = json_object_get(out, "durable");
    const char *target = rq->address[0] ? rq->address : rq->backend[0] ? rq->backend : rq->domain;
    snprintf(what, sizeof what, "verify %s%s%s%s%s%s", verb,
             rq->verb == VERIFY_PIN ? (rq->takes_good ? " good" : " unknown") : "", *target ? " " : "",
             target == rq->domain && *target ? "@" : "", target,
             !*target && p->all                              ? " all"
             : rq->verb == VERIFY_PURGE && rq->takes_unknown ? " unknown"
                                                             : "");
    if (err)
        snprintf(result, sizeof result, "%s", err_text(err));
    else if (done)
        snprintf(result, sizeof result, "%lld verdicts", (long long)json_integer_value(done));
    else
        snprintf(result, sizeof result, "%s", durable && json_is_false(durable) ? "not durable" : "ok");
    log_change(http, what, result, p->why);
}

/* `verb`: NULL for what only reads. */
static struct answer answer_verb(struct request *http, enum verify_verb which, const char *verb)
{
    struct verify_params p = read_params(http, which);
    char text[WHY_BYTES];
    struct sbuf why = {text, 0, sizeof text - 1, false};
    struct gbuf lines = {0};
    json_t *out = NULL;
    memset(text, 0, sizeof text);
    if (p.is_bad)
        return answer_error(MHD_HTTP_BAD_REQUEST, p.error);
    err_t err = http->admin->backend.verify(http->admin->backend.ctx, &p.rq, &out, &lines, &why);
    if (verb && !p.rq.dry)
        log_verb(http, &p, verb, err, out);
    if (err) {
        gbuf_free(&lines);
        json_decref(out);
        return refusal(err, text);
    }
    return which == VERIFY_EXPORT ? answer_bytes(TYPE_LINES, &lines) : answer_json(MHD_HTTP_OK, out);
}

struct answer get_verify_show(struct request *http)
{
    return answer_verb(http, VERIFY_SHOW, NULL);
}

struct answer get_verify_export(struct request *http)
{
    return answer_verb(http, VERIFY_EXPORT, NULL);
}

struct answer get_verify_stats(struct request *http)
{
    return answer_verb(http, VERIFY_STATS, NULL);
}

struct answer get_verify_backends(struct request *http)
{
    return answer_verb(http, VERIFY_BACKENDS, NULL);
}

struct answer post_verify_probe(struct request *http)
{
    return answer_verb(http, VERIFY_PROBE, "probe");
}

struct answer post_verify_pin(struct request *http)
{
    return answer_verb(http, VERIFY_PIN, "pin");
}

struct answer post_verify_unpin(struct request *http)
{
    return answer_verb(http, VERIFY_UNPIN, "unpin");
}

struct answer post_verify_purge(struct request *http)
{
    return answer_verb(http, VERIFY_PURGE, "purge");
}

struct answer post_verify_retry(struct request *http)
{
    return answer_verb(http, VERIFY_RETRY, "retry");
}
