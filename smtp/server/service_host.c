/* smtp/server/service_host.c: what an engine asks for, answered by connection and queue. */
#include "smtp/server/service_priv.h"

#define LINGER_MS       5000 /* for the last reply to be read */
#define LINGER_DRAIN_MS 500
/* What an encoded recipient adds to its address and its ORCPT. */
#define RCPT_BLOB_EXTRA 24

static void host_reply(void *host, const char *p, size_t n)
{
    conn_write(session_conn(host), p, n);
}

static err_t host_check_space(void *host, uint64_t size)
{
    struct session *s = host;
    struct smtpd_service *service = s->service;
    service_count_for_memory(service);
    if (smtpd_class(s->engine) == CLASS_STRANGER && shed_stage(&service->shed, SHED_MEMORY) == SHED_ALL)
        return -ENOMEM;
    return queue_check_space(s->service->opt.queue, size);
}

static bool host_take_share(void *host, const struct ip *client)
{
    struct session *s = host;
    const struct cfg_rate *rate = &policy_config(smtpd_policy(s->engine))->strangers.messages;
    if (pace_take(s->service->opt.strangers->messages, ip_client_key(client), rate, clock_mono_ns()))
        return true;
    metric_inc(M_paced_messages);
    return false;
}

static err_t host_body_begin(void *host)
{
    struct session *s = host;
    must(!s->writer);
    s->data_started_ms = loop_now_ms(s->service->opt.loop);
    err_t err = queue_begin_as(s->service->opt.queue, s->message_id, &s->writer);
    if (err)
        s->writer = NULL;
    return err;
}

static uint64_t host_message_id(void *host)
{
    struct session *s = host;
    s->ahead_count = 0;
    s->message_id = queue_new_id(s->service->opt.queue);
    return s->message_id;
}

static void room_again(void *ctx)
{
    struct session *s = ctx;
    smtpd_resume(s->engine);
    conn_resume(session_conn(s));
    session_touch(s, 0);
}

static size_t host_body_append(void *host, const uint8_t *p, size_t n)
{
    struct session *s = host;
    return queue_append(s->writer, p, n, room_again, s);
}

static void host_body_abort(void *host)
{
    struct session *s = host;
    queue_abort(s->writer);
    s->writer = NULL;
}

/* --- the edge's own trace lines --- */

static void log_learned(const struct session *s, const struct edge_lines_change *change)
{
    char text[96];
    struct sbuf b = SBUF_ON(text);
    received_formats_put(change->learned ? change->formats : 0, &b);
    LOG(edge_lines, LF_IP("edge", &s->peer.ip), LF_CSTR("state", change->learned ? "learned" : "forgotten"),
        LF_STR("format", b.n ? sbuf_view(&b) : STR_NONE), LF_U64("hops", change->hops));
}

static void log_doubted(const struct session *s, const struct edge_line *line, const struct ip *client,
                        str_t by)
{
    char text[96];
    struct sbuf b = SBUF_ON(text);
    received_formats_put(line->kind == EDGE_LINE_TELLS ? line->formats : 0, &b);
    LOG(edge_line_doubted, LF_QID("sid", s->id), LF_QID("id", s->message_id), LF_IP("edge", &s->peer.ip),
        LF_STR("by", by), LF_IP("says", client), LF_STR("format", b.n ? sbuf_view(&b) : STR_NONE),
        LF_U64("hops", line->hops));
}

/* As the configuration says that it writes, or as was learned. */
static enum edge_line_result judge_line(struct session *s, const struct edge_line *line)
{
    unsigned pinned = policy_config(smtpd_policy(s->engine))->edge_format;
    struct edge_lines_change change;
    bool any = pinned == EDGE_FORMAT_ANY;
    if (pinned != EDGE_FORMAT_LEARNED) {
        if (line->kind == EDGE_LINE_TELLS)
            return any || line->formats & 1u << (pinned - EDGE_FORMAT_PINNED) ? EDGE_LINE_AS_LEARNED
                                                                              : EDGE_LINE_ANOTHER;
        return any || line->kind == EDGE_LINE_OWN ? EDGE_LINE_LEARNING : EDGE_LINE_ANOTHER;
    }
    if (!s->service->opt.edge_lines)
        return EDGE_LINE_LEARNING;
    enum edge_line_result result = edge_lines_see(s->service->opt.edge_lines, &s->peer.ip, line, &change);
    if (change.any)
        log_learned(s, &change);
    return result;
}

static bool host_edge_line(void *host, const struct edge_line *line, const struct ip *client, str_t by)
{
    struct session *s = host;
    enum edge_line_result result = judge_line(s, line);
    if (result == EDGE_LINE_ANOTHER) {
        metric_inc(M_edge_line_doubted);
        log_doubted(s, line, client, by);
    } else if (line->kind == EDGE_LINE_TELLS) {
        metric_inc(result == EDGE_LINE_LEARNING ? M_edge_line_learning : M_edge_line_believed);
    } else {
        metric_inc(line->kind == EDGE_LINE_OWN ? M_edge_line_own : M_edge_line_others);
    }
    return line->kind == EDGE_LINE_TELLS && result == EDGE_LINE_AS_LEARNED;
}

/* --- commit --- */

static void log_message(const struct session *s, const struct qmsg *m)
{
    static const enum metric by_class[] = {
        [CLASS_STRANGER] = M_messages_in_stranger,
        [CLASS_EDGE] = M_messages_in_edge,
        [CLASS_TRUSTED] = M_messages_in_trusted,
    };
    static const enum metric by_step[ORIGIN_COUNT] = {
        [ORIGIN_CLIENT] = M_origin_client,     [ORIGIN_XCLIENT] = M_origin_xclient,
        [ORIGIN_PROXY] = M_origin_proxy,       [ORIGIN_XFORWARD] = M_origin_xforward,
        [ORIGIN_RECEIVED] = M_origin_received, [ORIGIN_UNKNOWN] = M_origin_unknown};
    enum client_class class = smtpd_class(s->engine);
    const struct origin *real = smtpd_origin(s->engine);
    metric_inc(by_class[class]);
    metric_inc(by_step[real->step]);
    LOG(message, LF_QID("sid", s->id), LF_QID("id", m->id), LF_IP("client", &s->peer.ip),
        LF_CSTR("class", client_class_name(class)),
        LF_IP("real", real->step && real->step != ORIGIN_UNKNOWN ? &real->ip : NULL),
        LF_CSTR("real_by", real->step ? origin_step_name(real->step) : NULL),
        LF_STR("real_name", real->name_n ? str_of(real->name, real->name_n) : STR_NONE),
        LF_STR("real_helo", real->step && real->helo_n ? str_of(real->helo, real->helo_n) : STR_NONE),
        LF_STR("from", s->sender), LF_U64("rcpts", s->rcpt_count), LF_U64("size", m->body_bytes),
        LF_U64("ms", loop_now_ms(s->service->opt.loop) - s->data_started_ms));
}

/* Who sends from inside is there to be written to. */
static void learn_sender(const struct session *s)
{
    struct address a;
    if (smtpd_class(s->engine) == CLASS_TRUSTED && s->service->opt.verifier && s->sender.n &&
        address_parse_mailbox(s->sender, &a) == 0)
        verifier_learn_sender(s->service->opt.verifier, &a);
}

/* The reply goes out before the message does: `accepted` comes after smtpd_committed, in the same turn of the
 * loop. */
static void committed(void *ctx, err_t err, struct qmsg *m)
{
    struct session *s = ctx;
    struct smtpd_service *service = s->service;
    s->committing = false;
    if (!err) {
        log_message(s, m);
        learn_sender(s);
    }
    smtpd_committed(s->engine, err);
    if (!err)
        service->opt.accepted(service->opt.ctx, m);
    if (s->closed) {
        session_release(s);
        return;
    }
    conn_resume(session_conn(s));
    session_touch(s, 0);
}

/* One blob a recipient, in the scratch arena. */
static err_t encode_rcpts(struct arena *a, const struct envelope_rcpt *rcpts, uint32_t count, str_t **out)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += rcpts[i].address.n + rcpts[i].orcpt.n + RCPT_BLOB_EXTRA;
    str_t *blobs = arena_alloc(a, count * sizeof *blobs);
    struct sbuf b = {.p = arena_alloc(a, bytes), .cap = bytes};
    if (!blobs || !b.p)
        return ERR_LIMIT;
    for (uint32_t i = 0; i < count; i++) {
        size_t from = b.n;
        envelope_rcpt_encode(&rcpts[i], &b);
        blobs[i] = str_of(b.p + from, b.n - from);
    }
    *out = blobs;
    return b.overflow ? ERR_LIMIT : 0;
}

static void host_commit(void *host, const struct envelope *e, const struct envelope_rcpt *rcpts,
                        uint32_t rcpt_count, str_t trace)
{
    struct session *s = host;
    struct arena *scratch = &s->service->scratch;
    struct queue_writer *writer = s->writer;
    char meta[2048];
    struct sbuf b = SBUF_ON(meta);
    str_t *blobs = NULL;

    envelope_encode(e, &b);
    err_t err = b.overflow ? ERR_LIMIT : encode_rcpts(scratch, rcpts, rcpt_count, &blobs);
    s->writer = NULL;
    if (err) {
        queue_abort(writer);
        arena_reset(scratch);
        smtpd_committed(s->engine, err);
        return;
    }
    s->committing = true;
    s->sender = e->sender;
    s->rcpt_count = rcpt_count;
    struct queue_commit c = {
        .meta = sbuf_view(&b),
        .trace = trace,
        .rcpts = blobs,
        .rcpt_count = rcpt_count,
        .arrived_ms = clock_wall_ns() / NS_PER_MS,
        .done = committed,
        .ctx = s,
    };
    queue_commit(writer, &c);
    arena_reset(scratch);
}

/* --- the end, and TLS --- */

static void host_starttls(void *host)
{
    struct session *s = host;
    s->tls_asked = true;
}

/* The client is not to act meanwhile, so nothing else has the timer. */
static void host_delay(void *host, uint32_t ms)
{
    metric_inc(M_commands_delayed);
    session_delay(host, ms);
}

static enum reply_id host_client_named(void *host, const struct endpoint *peer, enum client_class class)
{
    struct session *s = host;
    service_uncount(s);
    s->has_via = true;
    s->via = s->peer.ip;
    s->step = ORIGIN_XCLIENT;
    s->peer = *peer;
    s->class = (uint8_t) class;
    dnsbl_forget(s);
    s->dnsbl_waiting = false;
    enum reply_id reply = service_recount(s);
    if (reply == R_ok)
        dnsbl_start(s);
    return reply;
}

static void host_close(void *host, enum close_reason why)
{
    struct session *s = host;
    service_rcpt_cancel(s);
    uint32_t linger_ms = s->service->drain_now ? LINGER_DRAIN_MS : LINGER_MS;
    if (s->closed)
        return;
    if (why == CLOSE_quit)
        conn_part(session_conn(s), linger_ms);
    else
        conn_finish(session_conn(s), linger_ms);
}

const struct smtpd_host service_host = {
    .reply = host_reply,
    .rcpt = service_rcpt,
    .rcpt_ahead = service_rcpt_ahead,
    .discards = service_discards,
    .take_share = host_take_share,
    .edge_line = host_edge_line,
    .check_space = host_check_space,
    .body_begin = host_body_begin,
    .body_append = host_body_append,
    .commit = host_commit,
    .body_abort = host_body_abort,
    .starttls = host_starttls,
    .delay = host_delay,
    .close = host_close,
    .message_id = host_message_id,
    .client_named = host_client_named,
};
