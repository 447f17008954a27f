/* daemon/intake.c: see intake.h. The message keeps its id, which is how one that comes twice is known. */
#include "daemon/intake.h"

#include <errno.h>

#include "core/log.h"
#include "smtp/proto/envelope.h"

_Static_assert(RCPT_PENDING == 0 && RCPT_DELIVERED == 1 && RCPT_BOUNCED == 2 && RCPT_REMOVED == 3 &&
                   RCPT_REPORT_DUE == 4,
               "states are the same in transfer.h");

struct intake {
    struct worker_task task;
    struct ask *ask;
    struct worker *w;
    const struct intake_request *rq;
    struct queue_writer *writer; /* NULL once it is committed */
    size_t appended_bytes;
    bool committing, cancelled;
    str_t *rcpts;    /* owned */
    uint8_t *states; /* owned */
};

static void answer(struct ask *a, const char *result, bool held, const char *error)
{
    ask_answer(a, json_pack("{s:s, s:b, s:s?}", "result", result, "held", held, "error", error), NULL);
}

void intake_look(struct ask *a)
{
    const uint64_t *id = ask_arg(a);
    const struct qmsg *m = queue_find(a->w->queue, *id);
    if (m)
        answer(a, "there", m->held, NULL);
    else if (!queue_may_take_id(a->w->queue, *id))
        answer(a, "failed", false, "its id is one that is given out here");
    else
        ask_answer(a, NULL, NULL);
}

static void intake_free(struct intake *k)
{
    list_remove(&k->task.link);
    free(k->rcpts);
    free(k->states);
    free(k);
}

static void intake_end(struct intake *k, err_t err)
{
    bool held = k->rq->message.held;
    if (!err)
        answer(k->ask, "queued", held, NULL);
    else
        answer(k->ask, err == ERR_FULL ? "full" : "failed", held, err_text(err));
    intake_free(k);
}

static void intake_cancel(struct worker_task *t)
{
    struct intake *k = container_of(t, struct intake, task);
    if (k->committing) { /* its callback comes yet, before the ring is closed */
        list_remove(&k->task.link);
        k->cancelled = true;
        return;
    }
    queue_abort(k->writer);
    ask_answer(k->ask, NULL, NULL);
    intake_free(k);
}

static void committed(void *ctx, err_t err, struct qmsg *m)
{
    struct intake *k = ctx;
    if (!err) {
        LOG(imported, LF_QID("id", m->id), LF_U64("rcpts", m->rcpt_pending), LF_U64("size", m->body_bytes));
        if (!k->cancelled)
            relay_take(k->w->relay, m);
    }
    intake_end(k, err);
}

static void commit(struct intake *k)
{
    const struct transfer_message *t = &k->rq->message;
    struct queue_commit c = {.meta = t->meta,
                             .trace = t->trace,
                             .rcpts = k->rcpts,
                             .rcpt_count = t->rcpt_count,
                             .arrived_ms = t->arrived_ms,
                             .due_ms = t->due_ms,
                             .states = k->states,
                             .attempts = t->attempts,
                             .held = t->held || k->rq->parked,
                             .warned = t->warned,
                             .done = committed,
                             .ctx = k};
    struct queue_writer *w = k->writer;
    k->writer = NULL;
    k->committing = true;
    queue_commit(w, &c);
}

static void append_rest(void *ctx)
{
    struct intake *k = ctx;
    str_t body = k->rq->message.body;
    while (k->appended_bytes < body.n) {
        size_t left = body.n - k->appended_bytes;
        size_t took = queue_append(k->writer, body.p + k->appended_bytes, left, append_rest, k);
        k->appended_bytes += took;
        if (took < left)
            return; /* called again when there is room */
    }
    commit(k);
}

/* What the relay could not read must not come in: it would be held for ever. */
static err_t check(const struct transfer_message *t)
{
    struct envelope env;
    uint32_t open_count = 0;
    err_t err = envelope_decode(t->meta, &env);
    for (uint32_t i = 0; i < t->rcpt_count && !err; i++) {
        struct envelope_rcpt rcpt;
        err = envelope_rcpt_decode(t->rcpts[i].blob, &rcpt);
        open_count += rcpt_state_is_open((enum rcpt_state)t->rcpts[i].state);
    }
    return err ? err : open_count ? 0 : ERR_CORRUPT;
}

static bool copy_recipients(struct intake *k)
{
    const struct transfer_message *t = &k->rq->message;
    k->rcpts = calloc(t->rcpt_count, sizeof *k->rcpts);
    k->states = calloc(t->rcpt_count, 1);
    if (!k->rcpts || !k->states)
        return false;
    for (uint32_t i = 0; i < t->rcpt_count; i++) {
        k->rcpts[i] = t->rcpts[i].blob;
        k->states[i] = t->rcpts[i].state;
    }
    return true;
}

void intake_begin(struct ask *a)
{
    const struct intake_request *rq = ask_arg(a);
    if (a->w->index != rq->worker) {
        ask_answer(a, NULL, NULL);
        return;
    }
    err_t err = check(&rq->message);
    if (err) {
        answer(a, "damaged", rq->message.held, err_text(err));
        return;
    }
    struct intake *k = calloc(1, sizeof *k);
    if (!k) {
        answer(a, "failed", rq->message.held, err_text(-ENOMEM));
        return;
    }
    k->ask = a;
    k->w = a->w;
    k->rq = rq;
    k->task.cancel = intake_cancel;
    list_push_back(&a->w->tasks, &k->task.link);
    err = copy_recipients(k) ? queue_check_space(a->w->queue, rq->message.body.n) : -ENOMEM;
    if (!err)
        err = queue_begin_as(a->w->queue, rq->message.id, &k->writer);
    if (err)
        intake_end(k, err);
    else
        append_rest(k);
}
