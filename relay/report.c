/* relay/report.c: one report for all that a sender is to be told of after an attempt: failures, that it takes
 * long (once), and successes that he asked to hear of (RFC 3461, RFC 3464).
 *
 * Order: read the original, write the report, commit it, and only when it is durable mark the recipients. A
 * crash in between repeats a report; it never loses one. When there is no room for it the recipients stay as
 * they were. */
#include <errno.h>

#include "core/log.h"
#include "core/metrics.h"
#include "relay/dest_priv.h"
#include "relay/dsn.h"

#define HEADERS_MAX 50000 /* bytes of the original's header section that go back */

struct report { /* malloc'd: DSNs are rare */
    struct message *msg;
    str_t to;             /* in the message's arena, or its envelope's */
    str_t untold;         /* as in struct dsn */
    enum dsn_action kind; /* the worst */
    bool is_whole;        /* the original goes back whole */
    struct qbody body;
    struct gbuf original, text;
    size_t body_at; /* of the original: behind the trace */
    struct queue_writer *writer;
    size_t appended_bytes;
};

static void report_free(struct report *rp)
{
    gbuf_free(&rp->original);
    gbuf_free(&rp->text);
    free(rp);
}

/* Is the sender to be told of this recipient now, and what? */
static bool is_to_be_told(const struct message *msg, const struct rcpt *rc, enum dsn_action *out)
{
    uint8_t notify = rc->to.notify;
    bool may_warn = msg->is_late && (!notify || notify & NOTIFY_DELAY);
    switch (rc->result) {
    case RES_BOUNCED: *out = DSN_FAILED; return !notify || notify & NOTIFY_FAILURE;
    case RES_DEFERRED: *out = DSN_DELAYED; return may_warn;
    case RES_SENT: *out = rc->is_final ? DSN_DELIVERED : DSN_RELAYED; return rc->report_due;
    case RES_NONE: *out = DSN_DELAYED; return may_warn && msg->aside;
    }
    return false;
}

/* Nothing more is to be said of this attempt. */
static void settle_rcpts(struct message *msg)
{
    struct queue *q = msg->relay->queue;
    enum dsn_action action;
    for (uint32_t i = 0; i < msg->rcpt_count; i++) {
        struct rcpt *rc = &msg->rcpts[i];
        bool was_told = is_to_be_told(msg, rc, &action);
        if (rc->result == RES_BOUNCED)
            queue_set_rcpt(q, msg->m, rc->index, RCPT_BOUNCED);
        else if (rc->result == RES_SENT && was_told)
            queue_set_rcpt(q, msg->m, rc->index, RCPT_DELIVERED);
        else if (was_told)
            queue_set_warned(q, msg->m);
    }
}

static void finish(struct message *msg)
{
    settle_rcpts(msg);
    message_finish(msg);
}

/* Nobody can be told, or shall be: it ends here, in the log. */
static void drop(struct message *msg, enum dsn_action kind, enum metric reason, str_t why)
{
    LOG(dsn_dropped, LF_QID("for", msg->m->id), LF_STR("to", msg->env.sender),
        LF_CSTR("kind", dsn_action_name(kind)), LF_STR("text", why));
    metric_inc(reason);
    finish(msg);
}

/* The report cannot be made now: failures are as good as deferred, the rest is told with the next attempt. */
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
    static const enum metric by_kind[DSN_ACTION_COUNT] = {[DSN_FAILED] = M_dsn_failed,
                                                          [DSN_DELAYED] = M_dsn_delayed,
                                                          [DSN_RELAYED] = M_dsn_relayed,
                                                          [DSN_DELIVERED] = M_dsn_delivered};
    struct report *rp = ctx;
    struct message *msg = rp->msg;
    str_t to = rp->to;
    bool is_double_bounce = rp->untold.p != NULL;
    enum dsn_action kind = rp->kind;
    report_free(rp);
    if (err) {
        postpone(msg);
        return;
    }
    LOG(dsn, LF_QID("id", m->id), LF_QID("for", msg->m->id), LF_STR("to", to),
        LF_CSTR("kind", is_double_bounce ? "double_bounce" : dsn_action_name(kind)));
    metric_inc(is_double_bounce ? M_dsn_double_bounce : by_kind[kind]);
    relay_take(msg->relay, m);
    finish(msg);
}

static void commit(struct report *rp)
{
    const struct message *msg = rp->msg;
    char meta_bytes[1024], rcpt_bytes[1024];
    struct sbuf meta = SBUF_ON(meta_bytes), rcpt = SBUF_ON(rcpt_bytes);
    struct envelope env = {.sender = STR(""),
                           .body = str_is_ascii(gbuf_view(&rp->text)) ? BODY_7BIT : BODY_8BITMIME,
                           .smtputf8 = msg->env.smtputf8 || !str_is_ascii(rp->to),
                           .client_class = CLASS_TRUSTED,
                           .helo = STR(""),
                           .is_dsn = true};
    struct envelope_rcpt to = {.address = rp->to};
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

/* --- what is said of a recipient --- */

/* Its mail goes to a server of ours. */
static bool is_internal(const struct policy *p, str_t rcpt)
{
    struct address a;
    struct route route;
    return !address_parse_mailbox(rcpt, &a) && !policy_route(p, &a, &route) && route.kind == ROUTE_HOSTS &&
           route.hosts != &policy_config(p)->destination;
}

static bool is_outsider(const struct message *msg)
{
    struct address a;
    return msg->env.client_class != CLASS_TRUSTED && (address_parse_mailbox(msg->env.sender, &a) ||
                                                      !policy_domain_is_local(msg->relay->policy, a.domain));
}

/* In place of what names internal hosts, or may: the log has the rest. Codes may go out, and what a server
 * says has no text then. */
static str_t discreet_text(const struct answer *a)
{
    bool is_expired = a->status[1] == 4 && a->status[2] == 7;
    if (a->mta.p && a->code && !is_expired)
        return STR_NONE;
    if (!a->mta.p && a->status[1] == 7) /* policy: our own words, which name nobody */
        return a->text;
    return is_expired ? STR("not delivered within the time that mail is kept here")
                      : STR("the recipient's mail system does not take the message at the moment");
}

static struct dsn_rcpt describe(const struct report *rp, const struct rcpt *rc, enum dsn_action action)
{
    const struct answer *a = &rc->answer;
    struct dsn_rcpt r = {.address = rc->to.address,
                         .orcpt = rc->to.orcpt,
                         .action = action,
                         .reply_code = a->mta.p ? a->code : 0,
                         .remote_mta = a->mta,
                         .diagnostic = a->text,
                         .last_attempt_ms = rc->dest ? wall_ms() : 0};
    memcpy(r.status, a->status, sizeof r.status);
    if (rc->result == RES_NONE)
        r.diagnostic = crowd_reason(rp->msg->aside);
    bool is_told_all = rp->untold.p || !is_outsider(rp->msg);
    if (!is_told_all && is_internal(rp->msg->relay->policy, rc->to.address)) {
        r.remote_mta = STR_NONE;
        r.diagnostic = action == DSN_FAILED || action == DSN_DELAYED ? discreet_text(a) : STR_NONE;
    }
    return r;
}

static err_t write_text(struct report *rp)
{
    struct message *msg = rp->msg;
    struct dsn_rcpt *told = arena_zalloc(&msg->arena, msg->rcpt_count * sizeof *told);
    if (!told)
        return -ENOMEM;
    uint32_t count = 0;
    enum dsn_action action;
    for (uint32_t i = 0; i < msg->rcpt_count; i++)
        if (is_to_be_told(msg, &msg->rcpts[i], &action) && (action == DSN_FAILED || !rp->untold.p))
            told[count++] = describe(rp, &msg->rcpts[i], action);
    struct dsn d = {.hostname = str_cstr(msg->relay->settings.hop.hostname),
                    .to = rp->to,
                    .untold = rp->untold,
                    .envid = msg->env.envid,
                    .now_ms = wall_ms(),
                    .arrived_ms = msg->m->arrived_ms,
                    .retry_until_ms = msg->m->arrived_ms + msg->relay->settings.lifetime_ms,
                    .id = queue_writer_id(rp->writer),
                    .rcpts = told,
                    .rcpt_count = count,
                    .original = gbuf_view(&rp->original),
                    .is_whole = rp->is_whole,
                    .smtputf8 = msg->env.smtputf8};
    char qid[16];
    d.queue_id = str_of(qid, qid_format(msg->m->id, qid));
    dsn_write(&d, &rp->text);
    return rp->text.overflow ? -ENOMEM : 0;
}

/* --- the original --- */

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
    struct gbuf *h = &rp->original;
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

/* All that there is was read. MIME has no NUL, and a damaged message is not whole. */
static void original_ends(struct report *rp, err_t err)
{
    const struct gbuf *o = &rp->original;
    if (rp->is_whole && (err != ERR_EOF || o->overflow || !o->n || memchr(o->p, '\0', o->n))) {
        rp->is_whole = false;
        (void)cut_headers(rp);
    }
    make(rp);
}

static void read_original(struct report *rp)
{
    struct qslice *slice;
    err_t err;
    while ((err = queue_body_next(&rp->body, &slice)) == 0) {
        gbuf_put(&rp->original, slice->p, rp->is_whole ? slice->n : MIN(slice->n, (size_t)HEADERS_MAX));
        queue_slice_release(slice);
        if (!rp->is_whole && cut_headers(rp)) {
            make(rp);
            return;
        }
    }
    if (err != ERR_PENDING)
        original_ends(rp, err);
}

static void body_ready(struct qbody *b)
{
    read_original(container_of(b, struct report, body));
}

/* RFC 3461 4.3: RET is for failures; nothing said means that we may choose. */
static bool goes_back_whole(const struct message *msg, enum dsn_action kind)
{
    return kind == DSN_FAILED && msg->env.ret == RET_FULL &&
           msg->m->body_bytes + msg->load.trace.n <= msg->relay->settings.return_size_bytes;
}

/* --- who is told --- */

/* Why no report can reach the address; absent: it can. */
static str_t undeliverable(const struct message *msg, str_t to, struct address *out)
{
    struct route route;
    if (address_parse_mailbox(to, out))
        return STR("the sender's address is not valid");
    if (policy_route(msg->relay->policy, out, &route))
        return STR("there is no way to deliver to the sender's domain");
    return STR_NONE;
}

/* Where a double bounce goes; absent: nowhere. What fails to reach the postmaster is not told to him. */
static str_t postmaster_for(struct message *msg, struct address *out)
{
    const struct address postmaster = {.local = STR("postmaster")};
    str_t to = STR_NONE;
    if (msg->relay->settings.double_bounces != DOUBLE_BOUNCES_POSTMASTER ||
        policy_check_rcpt(msg->relay->policy, CLASS_TRUSTED, &postmaster, &to) != R_rcpt_ok || !to.n)
        return STR_NONE;
    for (uint32_t i = 0; i < msg->rcpt_count; i++)
        if (str_ieq(msg->rcpts[i].to.address, to))
            return STR_NONE;
    to = arena_str(&msg->arena, to);
    return to.p && !undeliverable(msg, to, out).p ? to : STR_NONE;
}

static void start(struct message *msg, enum dsn_action kind, str_t to, str_t untold)
{
    struct report *rp = calloc(1, sizeof *rp);
    if (!rp) {
        postpone(msg);
        return;
    }
    rp->msg = msg;
    rp->to = to;
    rp->untold = untold;
    rp->kind = kind;
    rp->is_whole = goes_back_whole(msg, kind);
    rp->body.ready = body_ready;
    gbuf_str(&rp->original, msg->load.trace);
    rp->body_at = rp->original.n;
    queue_body_open(&rp->body, &msg->load);
    read_original(rp);
}

/* After an outage everything is late at once: that must not use up what failures need. */
static uint32_t rate_for(const struct relay *r, enum dsn_action kind)
{
    uint32_t rate = r->settings.dsn_rate;
    return kind == DSN_FAILED ? rate : rate / 2 + rate % 2;
}

static void tell(struct message *msg, enum dsn_action kind)
{
    struct relay *r = msg->relay;
    struct address address;
    bool is_null = !msg->env.sender.n;
    str_t to = msg->env.sender, untold = STR_NONE;
    str_t why_not =
        is_null ? STR("the failed message had the null sender") : undeliverable(msg, to, &address);
    if (why_not.p) {
        untold = is_null ? STR("") : to;
        to = kind == DSN_FAILED ? postmaster_for(msg, &address) : STR_NONE;
    }
    if (!to.p)
        drop(msg, kind, is_null ? M_dsn_dropped_null : M_dsn_dropped_no_way, why_not);
    else if (!budget_take(r->budget, address.domain, rate_for(r, kind), loop_now_ms(r->loop)))
        drop(msg, kind, M_dsn_dropped_rate, STR("too many reports to this domain in this minute (dsn.rate)"));
    else
        start(msg, kind, to, untold);
}

void report_settle(struct message *msg)
{
    enum dsn_action worst = DSN_ACTION_COUNT, action;
    for (uint32_t i = 0; i < msg->rcpt_count; i++)
        if (is_to_be_told(msg, &msg->rcpts[i], &action))
            worst = MIN(worst, action);
    if (worst == DSN_ACTION_COUNT)
        finish(msg);
    else
        tell(msg, worst);
}
