/* relay/report.c: one DSN for all recipients of a message that failed for good in this attempt.
 *
 * Order: read the original's header section, write the report, commit it, and only when it is durable mark
 * the recipients as bounced. A crash in between repeats a report; it never loses one. When there is no room
 * for it the recipients stay pending. */
#include <errno.h>

#include "core/log.h"
#include "core/metrics.h"
#include "relay/dsn.h"
#include "relay/message_priv.h"

#define HEADERS_MAX 50000 /* bytes of the original's header section that go back */

struct report { /* malloc'd: DSNs are rare */
    struct message *msg;
    struct qbody body;
    struct gbuf headers, text;
    size_t body_at; /* of headers: behind the trace */
    struct queue_writer *writer;
    size_t appended_bytes;
};

static void report_free(struct report *rp)
{
    gbuf_free(&rp->headers);
    gbuf_free(&rp->text);
    free(rp);
}

static void mark_bounced(struct message *msg)
{
    for (uint32_t i = 0; i < msg->rcpt_count; i++)
        if (msg->rcpts[i].result == RES_BOUNCED)
            queue_set_rcpt(msg->relay->queue, msg->m, msg->rcpts[i].index, RCPT_BOUNCED);
}

/* Nobody can be told: the failure ends here, in the log. */
static void drop(struct message *msg, str_t why)
{
    LOG(dsn_dropped, LF_QID("for", msg->m->id), LF_STR("text", why));
    metric_inc(M_dsn_dropped);
    mark_bounced(msg);
    message_finish(msg);
}

/* The report cannot be made now: its recipients are as good as deferred. */
static void postpone(struct message *msg)
{
    for (uint32_t i = 0; i < msg->rcpt_count; i++)
        if (msg->rcpts[i].result == RES_BOUNCED)
            msg->rcpts[i].result = RES_DEFERRED;
    msg->attempted = true;
    message_finish(msg);
}

static void committed(void *ctx, err_t err, struct qmsg *m)
{
    struct report *rp = ctx;
    struct message *msg = rp->msg;
    report_free(rp);
    if (err) {
        postpone(msg);
        return;
    }
    LOG(dsn, LF_QID("id", m->id), LF_QID("for", msg->m->id), LF_STR("to", msg->env.sender),
        LF_CSTR("kind", "failed"));
    metric_inc(M_dsn_made);
    mark_bounced(msg);
    relay_take(msg->relay, m);
    message_finish(msg);
}

static void commit(struct report *rp)
{
    const struct message *msg = rp->msg;
    char meta_bytes[1024], rcpt_bytes[1024];
    struct sbuf meta = SBUF_ON(meta_bytes), rcpt = SBUF_ON(rcpt_bytes);
    struct envelope env = {.sender = STR(""),
                           .body = str_is_ascii(gbuf_view(&rp->text)) ? BODY_7BIT : BODY_8BITMIME,
                           .smtputf8 = msg->env.smtputf8 || !str_is_ascii(msg->env.sender),
                           .client_class = CLASS_TRUSTED,
                           .helo = STR(""),
                           .is_dsn = true};
    struct envelope_rcpt to = {.address = msg->env.sender};
    envelope_encode(&env, &meta);
    envelope_rcpt_encode(&to, &rcpt);
    must(!meta.overflow && !rcpt.overflow); /* an address has 511 bytes at most */
    str_t blob = sbuf_view(&rcpt);
    struct queue_commit c = {.meta = sbuf_view(&meta),
                             .trace = STR(""),
                             .rcpts = &blob,
                             .rcpt_count = 1,
                             .arrived_ms = wall_ms(),
                             .done = committed,
                             .ctx = rp};
    queue_commit(rp->writer, &c);
}

static void append_rest(void *ctx)
{
    struct report *rp = ctx;
    while (rp->appended_bytes < rp->text.n) {
        size_t left = rp->text.n - rp->appended_bytes;
        size_t took = queue_append(rp->writer, rp->text.p + rp->appended_bytes, left, append_rest, rp);
        rp->appended_bytes += took;
        if (took < left)
            return; /* called again when there is room */
    }
    commit(rp);
}

static err_t write_text(struct report *rp)
{
    struct message *msg = rp->msg;
    struct dsn_rcpt *failed = arena_zalloc(&msg->arena, msg->rcpt_count * sizeof *failed);
    if (!failed)
        return -ENOMEM;
    uint32_t count = 0;
    for (uint32_t i = 0; i < msg->rcpt_count; i++) {
        const struct rcpt *rc = &msg->rcpts[i];
        if (rc->result != RES_BOUNCED)
            continue;
        struct dsn_rcpt *f = &failed[count++];
        *f = (struct dsn_rcpt){
            .address = rc->to.address, .remote_mta = rc->answer.mta, .diagnostic = rc->answer.text};
        f->reply_code = rc->answer.mta.p ? rc->answer.code : 0;
        memcpy(f->status, rc->answer.status, sizeof f->status);
    }
    struct dsn d = {.hostname = str_cstr(msg->relay->settings.hop.hostname),
                    .to = msg->env.sender,
                    .now_ms = wall_ms(),
                    .arrived_ms = msg->m->arrived_ms,
                    .id = queue_writer_id(rp->writer),
                    .rcpts = failed,
                    .rcpt_count = count,
                    .original_headers = gbuf_view(&rp->headers),
                    .smtputf8 = msg->env.smtputf8};
    char qid[16];
    d.queue_id = str_of(qid, qid_format(msg->m->id, qid));
    dsn_write(&d, &rp->text);
    return rp->text.overflow ? -ENOMEM : 0;
}

static void make(struct report *rp)
{
    struct message *msg = rp->msg;
    queue_body_close(&rp->body);
    /* All was read. The report may have to wait for space in the ring, which may have to come from where this
     * message stands: what waits for space must pin nothing. */
    queue_load_end(&msg->load);
    err_t err = queue_begin_report(msg->relay->queue, &rp->writer);
    if (!err) {
        err = write_text(rp);
        if (err)
            queue_abort(rp->writer);
    }
    if (err) {
        report_free(rp);
        postpone(msg);
        return;
    }
    append_rest(rp);
}

/* Cuts what was read behind the header section, or behind the last whole line that fits; false: more is
 * needed. */
static bool cut_headers(struct report *rp)
{
    struct gbuf *h = &rp->headers;
    const char *body = h->p + rp->body_at;
    size_t n = h->n - rp->body_at;
    if (n >= 2 && memcmp(body, "\r\n", 2) == 0) {
        h->n = rp->body_at;
        return true;
    }
    const char *end = n ? memmem(body, n, "\r\n\r\n", 4) : NULL;
    if (end)
        h->n = (size_t)(end - h->p) + 2;
    if (h->n <= HEADERS_MAX)
        return end != NULL;
    const char *line_end = memrchr(h->p, '\n', HEADERS_MAX);
    h->n = line_end ? (size_t)(line_end - h->p) + 1 : 0;
    return true;
}

static void read_headers(struct report *rp)
{
    struct qslice *slice;
    err_t err;
    while ((err = queue_body_next(&rp->body, &slice)) == 0) {
        gbuf_put(&rp->headers, slice->p, MIN(slice->n, (size_t)HEADERS_MAX));
        queue_slice_release(slice);
        if (cut_headers(rp)) {
            make(rp);
            return;
        }
    }
    if (err == ERR_PENDING)
        return;
    make(rp); /* the end; or damage: the report goes with what could be read */
}

static void body_ready(struct qbody *b)
{
    read_headers(container_of(b, struct report, body));
}

/* Why no report can reach the sender; absent: it can. */
static str_t undeliverable(const struct message *msg)
{
    if (!msg->env.sender.n)
        return STR("the failed message had the null sender");
    struct address sender;
    if (address_parse_mailbox(msg->env.sender, &sender))
        return STR("the sender's address is not valid");
    struct route route;
    if (policy_route(msg->relay->policy, &sender, &route))
        return STR("there is no way to deliver to the sender's domain");
    return STR_NONE;
}

void report_start(struct message *msg)
{
    str_t why_not = undeliverable(msg);
    if (why_not.p) {
        drop(msg, why_not);
        return;
    }
    struct report *rp = calloc(1, sizeof *rp);
    if (!rp) {
        postpone(msg);
        return;
    }
    rp->msg = msg;
    rp->body.ready = body_ready;
    gbuf_str(&rp->headers, msg->load.trace);
    rp->body_at = rp->headers.n;
    queue_body_open(&rp->body, &msg->load);
    read_headers(rp);
}
