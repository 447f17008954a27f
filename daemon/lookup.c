/* daemon/lookup.c: envelope, states and content of one message. */
#include "daemon/lookup.h"

#include <errno.h>

#include "admin/transfer.h"
#include "core/log.h"
#include "smtp/proto/envelope.h"

#define ENVELOPE_MAX   ((size_t)4 << 20)
#define HEADERS_MAX    ((size_t)256 << 10) /* of a header section that is shown */
#define SLICES_PER_RUN 8u                  /* pieces of a body copied in one go */

struct lookup {
    struct worker_task task;
    struct ask *ask;
    struct worker *w;
    const struct lookup_request *rq;
    struct qload load;
    struct arena arena;
    struct qbody body;
    bool body_open;
    struct tick_hook hook;
    json_t *answer; /* owned */
    struct gbuf bytes;
    size_t body_at; /* of bytes: behind the trace */
};

static void lookup_free(struct lookup *k)
{
    list_remove(&k->task.link);
    list_remove(&k->hook.link);
    if (k->body_open)
        queue_body_close(&k->body);
    queue_load_end(&k->load);
    arena_free(&k->arena);
    gbuf_free(&k->bytes);
    json_decref(k->answer);
    free(k);
}

static void add_transfer(struct lookup *k);

static void lookup_end(struct lookup *k, err_t err)
{
    if (!err && k->answer && k->rq->part == MESSAGE_WHOLE)
        add_transfer(k);
    if (err && k->answer)
        json_object_set_new(k->answer, "error", json_string(err_text(err)));
    ask_answer(k->ask, k->answer, err ? NULL : &k->bytes);
    k->answer = NULL;
    lookup_free(k);
}

static void lookup_cancel(struct worker_task *t)
{
    struct lookup *k = container_of(t, struct lookup, task);
    ask_answer(k->ask, NULL, NULL);
    lookup_free(k);
}

/* --- the envelope --- */

static const char *state_name(enum rcpt_state state)
{
    switch (state) {
    case RCPT_PENDING: return "pending";
    case RCPT_DELIVERED: return "delivered";
    case RCPT_BOUNCED: return "bounced";
    case RCPT_REMOVED: return "removed";
    default: return "report due";
    }
}

static json_t *recipients(const struct lookup *k, const struct qmsg *m)
{
    json_t *all = json_array();
    for (uint32_t i = 0; i < m->rcpt_count; i++) {
        struct envelope_rcpt rcpt = {0};
        struct route route;
        (void)!envelope_rcpt_decode(k->load.rcpts[i], &rcpt); /* what cannot be read is null */
        str_t key = rcpt.address.p ? relay_destination_of(k->w->relay, rcpt.address, &route) : STR_NONE;
        json_array_append_new(all,
                              json_pack("{s:o, s:s, s:o}", "address", json_of_str(rcpt.address), "state",
                                        state_name(queue_rcpt_state(m, i)), "destination", json_of_str(key)));
    }
    return all;
}

static json_t *of_index(const struct lookup *k, const struct qmsg *m)
{
    struct relay_message_info i;
    char id[16];
    relay_message_info(k->w->relay, m, &i);
    bool waits = str_eq(str_cstr(i.state), STR("deferred"));
    size_t n = qid_format(m->id, id);
    return json_pack("{s:s%, s:o, s:f, s:I, s:i, s:i, s:s, s:b, s:o, s:o, s:o, s:i}", "id", id, n, "arrived",
                     json_of_time(m->arrived_ms), "age_s", seconds_since(m->arrived_ms), "size",
                     (json_int_t)m->body_bytes, "attempts", (int)m->attempts, "pending", (int)m->rcpt_pending,
                     "state", i.state, "held", m->held, "due", json_of_time(waits ? i.due_ms : 0), "reason",
                     json_of_str(reason_of(&i)), "destination", json_of_str(i.destination), "worker",
                     (int)k->w->index);
}

static void put_real(json_t *answer, const struct envelope *env)
{
    char text[64];
    struct sbuf b = SBUF_ON(text);
    if (!env->real.step)
        return;
    if (env->real.step != ORIGIN_UNKNOWN)
        ip_format(&env->real.ip, &b);
    json_object_set_new(answer, "real",
                        json_pack("{s:o, s:s, s:o, s:o}", "address",
                                  b.n ? json_of_str(sbuf_view(&b)) : json_null(), "by",
                                  origin_step_name(env->real.step), "name", json_of_str(env->real.name),
                                  "helo", json_of_str(env->real.helo)));
}

static void add_envelope(struct lookup *k, const struct qmsg *m)
{
    struct envelope env;
    if (envelope_decode(k->load.meta, &env))
        return;
    char client[64];
    struct sbuf b = SBUF_ON(client);
    ip_format(&env.client, &b);
    json_object_set_new(k->answer, "sender", json_of_str(env.sender));
    json_object_set_new(k->answer, "recipients", recipients(k, m));
    json_object_set_new(k->answer, "body", json_string(env.body == BODY_8BITMIME ? "8BITMIME" : "7BIT"));
    json_object_set_new(k->answer, "smtputf8", json_boolean(env.smtputf8));
    json_object_set_new(k->answer, "is_report", json_boolean(env.is_dsn));
    json_object_set_new(k->answer, "client", env.is_dsn ? json_null() : json_of_str(sbuf_view(&b)));
    json_object_set_new(k->answer, "helo", json_of_str(env.helo));
    put_real(k->answer, &env);
}

/* --- the content --- */

/* True: the header section is whole, or as long as is shown. */
static bool cut_headers(struct lookup *k)
{
    struct gbuf *h = &k->bytes;
    const char *body = h->p + k->body_at;
    size_t n = h->n - k->body_at;
    const char *end = n >= 2 && !memcmp(body, "\r\n", 2) ? body : n ? memmem(body, n, "\r\n\r\n", 4) : NULL;
    if (end)
        h->n = (size_t)(end - h->p) + (end == body ? 0 : 2);
    return end || h->n >= HEADERS_MAX;
}

static void read_body(struct lookup *k)
{
    struct qslice *slice;
    err_t err = 0;
    for (unsigned n = 0; n < SLICES_PER_RUN; n++) {
        err = queue_body_next(&k->body, &slice);
        if (err)
            break;
        gbuf_put(&k->bytes, slice->p, slice->n);
        queue_slice_release(slice);
        if (k->rq->part == MESSAGE_HEADERS && cut_headers(k)) {
            err = ERR_EOF;
            break;
        }
    }
    if (k->bytes.overflow)
        err = -ENOMEM;
    if (err == ERR_PENDING)
        return;
    if (err)
        lookup_end(k, err == ERR_EOF ? 0 : err);
    else
        loop_at_tick_end(k->w->loop, &k->hook);
}

static void body_ready(struct qbody *b)
{
    read_body(container_of(b, struct lookup, body));
}

static void run(struct tick_hook *h)
{
    read_body(container_of(h, struct lookup, hook));
}

/* --- for another node --- */

/* "transfer": its description; `bytes` are trace and body. */
static void add_transfer(struct lookup *k)
{
    const struct qmsg *m = queue_find(k->w->queue, k->rq->id);
    struct envelope env = {0};
    struct transfer_rcpt *rcpts = m ? calloc(m->rcpt_count, sizeof *rcpts) : NULL;
    if (!rcpts)
        return;
    for (uint32_t i = 0; i < m->rcpt_count; i++) {
        struct envelope_rcpt decoded;
        if (!envelope_rcpt_decode(k->load.rcpts[i], &decoded))
            rcpts[i].address = decoded.address;
        rcpts[i].blob = k->load.rcpts[i];
        rcpts[i].state = (uint8_t)queue_rcpt_state(m, i);
    }
    (void)!envelope_decode(k->load.meta, &env);
    struct transfer_message t = {.id = m->id,
                                 .arrived_ms = m->arrived_ms,
                                 .due_ms = m->due_ms,
                                 .attempts = m->attempts,
                                 .held = m->held,
                                 .warned = m->warned,
                                 .sender = env.sender,
                                 .meta = k->load.meta,
                                 .trace = k->load.trace,
                                 .rcpts = rcpts,
                                 .rcpt_count = m->rcpt_count};
    json_object_set_new(k->answer, "transfer", transfer_describe(&t));
    free(rcpts);
}

/* --- */

static void loaded(struct lookup *k, err_t err)
{
    const struct qmsg *m = queue_find(k->w->queue, k->rq->id);
    if (!m) { /* it left while its envelope was read */
        lookup_end(k, 0);
        return;
    }
    k->answer = of_index(k, m);
    if (err || !k->answer) {
        lookup_end(k, err);
        return;
    }
    add_envelope(k, m);
    if (k->rq->part == MESSAGE_ENVELOPE) {
        lookup_end(k, 0);
        return;
    }
    k->bytes.max = k->load.trace.n + m->body_bytes + 1;
    gbuf_str(&k->bytes, k->load.trace);
    k->body_at = k->bytes.n;
    queue_body_open(&k->body, &k->load);
    k->body_open = true;
    read_body(k);
}

static void load_done(struct qload *ld)
{
    loaded(container_of(ld, struct lookup, load), ld->err);
}

void lookup_begin(struct ask *a)
{
    const struct lookup_request *rq = ask_arg(a);
    struct qmsg *m = queue_find(a->w->queue, rq->id);
    struct lookup *k = m ? calloc(1, sizeof *k) : NULL;
    if (!k) {
        ask_answer(a, NULL, NULL);
        return;
    }
    k->ask = a;
    k->w = a->w;
    k->rq = rq;
    k->task.cancel = lookup_cancel;
    list_push_back(&a->w->tasks, &k->task.link);
    k->hook.run = run;
    k->load.done = load_done;
    k->body.ready = body_ready;
    arena_init(&k->arena, ENVELOPE_MAX);
    err_t err = queue_load(a->w->queue, m, &k->arena, &k->load);
    if (err != ERR_PENDING)
        loaded(k, err);
}
