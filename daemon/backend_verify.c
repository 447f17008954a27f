/* daemon/backend_verify.c: what the admin API asks of recipient verification and a worker answers: an
 * address, a probe, the servers. What needs no worker is in backend_verdicts.c. */
#include "daemon/backend_verify.h"

#include <errno.h>

#include "core/clock.h"
#include "daemon/ask.h"
#include "verify/operator.h"

#define PROBE_PATIENCE_S 300 /* a server that does not answer is given up before */

static uint64_t in_ms(uint64_t wait_ms)
{
    return wait_ms ? clock_wall_ns() / NS_PER_MS + wait_ms : 0;
}

json_t *json_of_seconds(uint32_t wall_s)
{
    return json_of_time((uint64_t)wall_s * 1000);
}

/* Each worker has the question; the one whose business the address is answers. */
static bool is_mine(const struct ask *a, const struct verify_request *rq)
{
    struct address at;
    if (address_parse_mailbox(str_cstr(rq->address), &at))
        return false;
    return verifier_is_at_home(a->w->verifier, &at);
}

static json_t *reply_json(enum reply_id reply)
{
    const struct reply_def *d = reply_def(reply);
    return json_sprintf("%d " STR_FMT, d->code, STR_ARG(d->enhanced));
}

/* --- show --- */

const char *mode_name(enum verify_mode m)
{
    static const char *const names[] = {
        [VERIFY_OFF] = "off", [VERIFY_LISTED] = "listed", [VERIFY_UNVERIFIED] = "unverified"};
    return names[m];
}

static const char *age_name(enum verdict_age a)
{
    static const char *const names[] = {
        [AGE_NONE] = "none", [AGE_FRESH] = "fresh", [AGE_REFRESH] = "refresh", [AGE_STALE] = "stale"};
    return names[a];
}

json_t *record_json(const struct verdict_record *r)
{
    uint32_t now_s = (uint32_t)(clock_wall_ns() / NS_PER_S);
    bool known = r->state != VERDICT_NONE;
    json_t *o =
        json_pack("{s:s, s:s?, s:s?, s:b}", "verdict", verdict_name((enum verdict)r->state), "source",
                  known ? verdict_source_name((enum verdict_source)r->source) : NULL, "pin",
                  r->pin ? verdict_pin_name((enum verdict_pin)r->pin) : NULL, "suspect", (int)r->suspect);
    json_object_set_new(o, "checked", json_of_seconds(known ? r->checked_s : 0));
    json_object_set_new(o, "refused", json_of_seconds(known ? r->refused_s : 0));
    json_object_set_new(o, "age_s", known ? json_integer(verdict_record_age_s(r, now_s)) : json_null());
    return o;
}

static json_t *backend_json(const struct verifier_shown *s)
{
    if (!s->backend[0])
        return json_null();
    return json_pack("{s:s, s:s, s:o, s:s}", "key", s->backend, "state", breaker_name(s->state), "retry_at",
                     json_of_time(in_ms(s->retry_in_ms)), "domain", watch_name(s->watch));
}

/* What a stranger would hear now; "asks": what its server says, which is asked then. */
static json_t *rcpt_json(const struct verifier_shown *s)
{
    if (!s->is_local)
        return json_pack("{s:b, s:o, s:s}", "asks", 0, "reply", reply_json(R_relay_denied), "source",
                         "not-local");
    if (s->would_ask)
        return json_pack("{s:b, s:n, s:n}", "asks", 1, "reply", "source");
    json_t *o = json_pack("{s:b, s:o, s:s}", "asks", 0, "reply", reply_json(s->answer.reply), "source",
                          answer_source_name(s->answer.source));
    if (s->answer.shadow)
        json_object_set_new(o, "would", reply_json(s->answer.would));
    if (s->answer.reference[0])
        json_object_set_new(o, "ref", json_string(s->answer.reference));
    return o;
}

static json_t *shown_json(const char *address, const struct verifier_shown *s)
{
    const struct cfg_verify *c = s->settings;
    char tag[2] = {c->separator, '\0'};
    json_t *o = record_json(&s->record);
    json_object_set_new(o, "address", json_of_str(str_cstr(address)));
    json_object_set_new(o, "key", s->key[0] ? json_of_str(str_cstr(s->key)) : json_null());
    json_object_set_new(o, "local", json_boolean(s->is_local));
    json_object_set_new(o, "mode", json_string(mode_name(c->mode)));
    json_object_set_new(o, "enforce", json_boolean(c->enforce));
    json_object_set_new(
        o, "rules",
        json_pack("{s:b, s:s?}", "fold_case", (int)c->fold_case, "separator", tag[0] ? tag : NULL));
    json_object_set_new(o, "age", json_string(age_name(s->age)));
    json_object_set_new(o, "fresh_until", json_of_seconds(s->fresh_until_s));
    json_object_set_new(o, "kept_until", json_of_seconds(s->kept_until_s));
    json_object_set_new(o, "listed", s->has_list ? json_boolean(s->is_listed) : json_null());
    json_object_set_new(o, "backend", backend_json(s));
    json_object_set_new(o, "rcpt", rcpt_json(s));
    return o;
}

static void worker_show(struct ask *a)
{
    const struct verify_request *rq = ask_arg(a);
    struct verifier_shown s;
    bool mine = is_mine(a, rq) && !verifier_show(a->w->verifier, str_cstr(rq->address), &s);
    ask_answer(a, mine ? shown_json(rq->address, &s) : NULL, NULL);
}

/* --- probe --- */

struct probe {
    struct probe_now now;
    struct ask *ask;
};

static json_t *dialogue(str_t transcript)
{
    json_t *lines = json_array();
    str_t line;
    while (str_cut(transcript, '\n', &line, &transcript)) {
        json_t *text = json_of_str(line);
        json_array_append_new(lines, text);
    }
    return lines;
}

static void probe_done(struct probe_now *n)
{
    struct probe *p = container_of(n, struct probe, now);
    const struct verify_request *rq = ask_arg(p->ask);
    json_t *o = json_pack(
        "{s:o, s:s, s:s?, s:s?, s:o, s:o, s:o, s:i, s:b, s:o}", "address", json_of_str(str_cstr(rq->address)),
        "result", n->result, "said", n->is_answered ? verdict_name(n->said) : NULL, "why", n->why, "before",
        record_json(&n->before), "after", record_json(&n->after), "reply", reply_json(n->reply), "ms",
        (int)n->ms, "stored", n->is_answered && !n->is_dry, "dialogue", dialogue(n->transcript));
    ask_answer(p->ask, o, NULL);
    free(p);
}

static void worker_probe(struct ask *a)
{
    const struct verify_request *rq = ask_arg(a);
    struct probe *p = is_mine(a, rq) ? calloc(1, sizeof *p) : NULL;
    if (!p) {
        ask_answer(a, NULL, NULL);
        return;
    }
    p->ask = a;
    p->now.done = probe_done;
    p->now.is_dry = rq->no_store;
    err_t err = verifier_probe_now(a->w->verifier, str_cstr(rq->address), &p->now);
    if (!err)
        return;
    free(p);
    ask_answer(a,
               json_pack("{s:s}", "error",
                         err == ERR_NOT_FOUND ? "there is no way to a server that could be asked"
                         : err == ERR_SYNTAX  ? "this address is never verified"
                         : err == ERR_CLOSED  ? "posternd is shutting down"
                                              : err_text(err)),
               NULL);
}

/* --- backends --- */

static json_t *ago_json(int64_t ms)
{
    return ms < 0 ? json_null() : json_real((double)ms / 1000);
}

static json_t *domains_json(const struct verifier_backend_info *b)
{
    json_t *all = json_array();
    for (size_t i = 0; i < b->domain_count; i++) {
        const struct verifier_domain_info *d = &b->domains[i];
        json_array_append_new(all,
                              json_pack("{s:o, s:s, s:f, s:o, s:o}", "domain", json_of_str(d->domain),
                                        "state", watch_name(d->state), "canary_due_s",
                                        (double)MAX(d->canary_due_ms, 0) / 1000, "refused_ago_s",
                                        ago_json(d->refused_ago_ms), "good_ago_s", ago_json(d->good_ago_ms)));
    }
    return all;
}

static void list_backend(void *ctx, const struct verifier_backend_info *b)
{
    json_t *o = json_pack(
        "{s:o, s:i, s:s, s:b, s:f, s:i, s:o, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:o, s:o, s:s?, "
        "s:o}",
        "key", json_of_str(b->key), "worker", (int)b->worker, "state", breaker_name(b->state), "trial",
        (int)b->on_trial, "state_for_s", (double)b->state_for_ms / 1000, "failures", (int)b->failures,
        "retry_at", json_of_time(in_ms(b->retry_in_ms)), "connections", (int)b->connections,
        "connections_max", (int)b->connections_max, "in_flight", (int)b->in_flight, "queued", (int)b->queued,
        "queued_max", (int)b->waiting_max, "batch", (int)b->batch, "refusals", (int)b->refusals, "rate",
        (int)b->rate_per_s, "sender", b->sender, "relay", json_of_str(b->relay), "last_reply",
        json_of_str(b->reply), "why", b->why, "domains", domains_json(b));
    json_array_append_new(ctx, o);
}

static void worker_backends(struct ask *a)
{
    json_t *all = json_array();
    verifier_each_backend(a->w->verifier, list_backend, all);
    ask_answer(a, all, NULL);
}

static void worker_retry(struct ask *a)
{
    const struct verify_request *rq = ask_arg(a);
    uint32_t count, hurried;
    verifier_retry(a->w->verifier, str_cstr(rq->backend), &count, &hurried);
    ask_answer(a, json_pack("{s:i, s:i}", "matched", (int)count, "hurried", (int)hurried), NULL);
}

/* --- */

static json_t *ask_for(struct gateway *g, const struct ask_kind *kind, const struct verify_request *rq)
{
    struct verify_request *arg = malloc(sizeof *arg);
    if (!arg)
        return NULL;
    *arg = *rq;
    return ask_workers(g, kind, arg, NULL);
}

static err_t one_of(json_t *parts, json_t **out, struct sbuf *why)
{
    const json_t *first = json_array_get(parts, 0);
    const char *error = json_string_value(json_object_get(first, "error"));
    err_t err = 0;
    if (!parts)
        return ERR_TIMEOUT;
    if (!first || error) {
        sbuf_cstr(why, error ? error : "an address is needed, such as bob@example.com");
        err = error ? ERR_UNSUPPORTED : ERR_SYNTAX;
    } else {
        *out = json_incref((json_t *)(uintptr_t)first);
    }
    json_decref(parts);
    return err;
}

err_t verify_show(struct gateway *g, const struct verify_request *rq, json_t **out, struct sbuf *why)
{
    static const struct ask_kind kind = {
        .begin = worker_show, .free_arg = free, .patience_s = ASK_PATIENCE_S};
    return one_of(ask_for(g, &kind, rq), out, why);
}

err_t verify_probe(struct gateway *g, const struct verify_request *rq, json_t **out, struct sbuf *why)
{
    static const struct ask_kind kind = {
        .begin = worker_probe, .free_arg = free, .patience_s = PROBE_PATIENCE_S};
    return one_of(ask_for(g, &kind, rq), out, why);
}

err_t verify_backends(struct gateway *g, json_t **out)
{
    static const struct ask_kind kind = {.begin = worker_backends, .patience_s = ASK_PATIENCE_S};
    json_t *parts = ask_workers(g, &kind, NULL, NULL), *part;
    size_t i;
    if (!parts)
        return ERR_TIMEOUT;
    *out = json_array();
    json_array_foreach(parts, i, part) json_array_extend(*out, part);
    json_decref(parts);
    return 0;
}

err_t verify_retry(struct gateway *g, const struct verify_request *rq, json_t **out, struct sbuf *why)
{
    static const struct ask_kind kind = {
        .begin = worker_retry, .free_arg = free, .patience_s = ASK_PATIENCE_S};
    json_t *parts = ask_for(g, &kind, rq), *part;
    json_int_t matched = 0, hurried = 0;
    size_t i;
    if (!parts)
        return ERR_TIMEOUT;
    json_array_foreach(parts, i, part)
    {
        matched += json_integer_value(json_object_get(part, "matched"));
        hurried += json_integer_value(json_object_get(part, "hurried"));
    }
    json_decref(parts);
    if (rq->backend[0] && !matched) {
        sbuf_cstr(why, "there is no such server; `postern verify backends` shows those in use");
        return ERR_NOT_FOUND;
    }
    *out = json_pack("{s:I, s:I}", "matched", matched, "hurried", hurried);
    return 0;
}
