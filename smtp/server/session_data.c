/* smtp/server/session_data.c: message content from 354 to the dot; that of BDAT comes here in the same shape.
 *
 * A refused message is drained to its real end before the reply: an error sticks, the body is aborted at
 * once, and nothing behind it can be taken for commands that is not behind CRLF.CRLF. */
#include "smtp/server/session_priv.h"

static err_t start(struct smtpd_session *s)
{
    struct transaction *tx = s->tx;
    uint8_t *spill = tx->content.spill; /* of an earlier DATA that had no room */
    tx->content = (struct content){.error = R_ok, .started_ms = s->now_ms, .spill = spill};
    if (session_normalises(s) && !spill) {
        tx->content.spill = arena_alloc(&tx->arena, 2 * NORMALISE_BYTES + 2);
        if (!tx->content.spill)
            return -ENOMEM;
    }
    err_t err = s->ops->body_begin(s->host);
    if (err)
        return err;
    tx->body_open = true;
    s->state = STATE_CONTENT;
    return 0;
}

enum reply_id session_content_start(struct smtpd_session *s)
{
    err_t err = start(s);
    if (!err)
        return R_ok;
    enum reply_id reply = session_reply_for_space(err);
    session_message_refused(s, reply);
    return reply;
}

static enum reply_id judge(const struct smtpd_session *s)
{
    const struct config *cfg = session_config(s);
    const struct content *c = &s->tx->content;
    uint64_t size = c->scan.bytes - c->scan.stuffing_bytes; /* RFC 1870 4 */
    if ((c->scan.bare_cr || c->scan.bare_lf) && !session_normalises(s))
        return R_bad_line_ending;
    if (cfg->limits.message_size && size > cfg->limits.message_size)
        return R_too_big;
    if (c->headers.received_count > cfg->limits.hops)
        return R_loop;
    return R_ok;
}

static void look_into(struct smtpd_session *s, const uint8_t *p, size_t n)
{
    struct transaction *tx = s->tx;
    struct content *c = &tx->content;
    if (!c->headers.done)
        session_keep_top(s, p, n);
    header_scan(&c->headers, p, n);
    if (!c->headers.done && c->headers.bytes > session_config(s)->limits.header_size)
        c->headers.done = c->headers.cut_short = true;
    c->eight_bit = c->eight_bit || !str_is_ascii(str_of((const char *)p, n));
}

static void look_at(struct smtpd_session *s, const uint8_t *p, size_t n)
{
    struct transaction *tx = s->tx;
    struct content *c = &tx->content;
    str_t held;
    c->scanned_n = content_scan(&c->scan, p, n, &held, &c->store_n);
    must(held.n <= sizeof c->held);
    if (held.n)
        memcpy(c->held, held.p, held.n);
    c->held_n = (uint8_t)held.n;
    c->held_at = 0;
    if (c->error != R_ok)
        return;
    look_into(s, (const uint8_t *)c->held, held.n);
    look_into(s, p, c->store_n);
    c->error = judge(s);
    if (c->error != R_ok) {
        tx->body_open = false;
        s->ops->body_abort(s->host);
    }
}

/* Input counts as stored when all of its output is, so that the unconsumed rest brings the host back after a
 * wait. */
static size_t store_normalised(struct smtpd_session *s, const uint8_t *p, size_t n)
{
    struct content *c = &s->tx->content;
    size_t used = 0;
    while (used < n) {
        if (!c->spill_input_n) {
            c->spill_input_n = MIN(n - used, (size_t)NORMALISE_BYTES);
            c->spill_n = content_normalise(&c->normalise_state, p + used, c->spill_input_n, c->spill);
            c->spill_at = 0;
        }
        if (c->spill_at < c->spill_n)
            c->spill_at += s->ops->body_append(s->host, c->spill + c->spill_at, c->spill_n - c->spill_at);
        if (c->spill_at < c->spill_n)
            break;
        size_t done = MIN(c->spill_input_n, n - used); /* what is offered again may be less */
        c->spill_input_n -= done;
        used += done;
    }
    return used;
}

/* Fewer than n: the host has no room and we wait for it. */
static size_t store(struct smtpd_session *s, const uint8_t *p, size_t n)
{
    size_t used = s->tx->content.spill ? store_normalised(s, p, n) : s->ops->body_append(s->host, p, n);
    if (used < n)
        s->state = STATE_ROOM_WAIT;
    return used;
}

/* Stores what look_at() found in the input's front. Returns consumed; STATE_ROOM_WAIT may be set. */
static size_t store_scanned(struct smtpd_session *s, const uint8_t *p, size_t n)
{
    struct content *c = &s->tx->content;
    size_t used = 0;
    if (c->held_at < c->held_n) {
        c->held_at +=
            (uint8_t)store(s, (const uint8_t *)c->held + c->held_at, (size_t)(c->held_n - c->held_at));
        if (s->state == STATE_ROOM_WAIT)
            return 0;
    }
    if (c->store_n) {
        used = store(s, p, MIN(c->store_n, n));
        c->store_n -= used;
        c->scanned_n -= used;
    }
    return used;
}

void session_message_refused(struct smtpd_session *s, enum reply_id why)
{
    const struct transaction *tx = s->tx;
    const struct reply_def *r = reply_def(why);
    const char *by;
    const struct ip *real = session_known_origin(s, &by);
    metric_inc(M_messages_refused);
    LOG(message_refused, LF_QID("sid", s->id), LF_IP("client", &s->peer), LF_STR("from", tx->sender),
        LF_U64("rcpts", tx->rcpt_count), LF_U64("size", tx->content.scan.bytes), LF_I64("reply", r->code),
        LF_IP("real", real), LF_CSTR("real_by", by), LF_STR("text", r->text));
}

/* Clients declare what they could send, or forget to; a server without these extensions can have whatever
 * needs none. */
static bool needs_smtputf8(const struct transaction *tx)
{
    const struct header_scan *h = &tx->content.headers;
    bool ascii = str_is_ascii(tx->sender);
    for (uint32_t i = 0; ascii && i < tx->rcpt_count; i++)
        ascii = str_is_ascii(tx->rcpts[i].address) && str_is_ascii(tx->rcpts[i].orcpt);
    return !ascii || (tx->params.smtputf8 && (h->non_ascii || h->cut_short));
}

static void commit(struct smtpd_session *s)
{
    struct transaction *tx = s->tx;
    const struct content_scan *scan = &tx->content.scan;
    char trace[3072];
    struct sbuf b = SBUF_ON(trace);
    const struct origin *real = &tx->real;
    struct envelope e = {
        .sender = tx->sender,
        .body = tx->content.eight_bit ? BODY_8BITMIME : BODY_7BIT,
        .smtputf8 = needs_smtputf8(tx),
        .client_class = s->class,
        .client = s->peer,
        .helo = str_of(s->helo, s->helo_n),
        .real = {.step = real->step,
                 .ip = real->ip,
                 .name = real->name_n ? str_of(real->name, real->name_n) : STR_NONE,
                 .helo = real->helo_n ? str_of(real->helo, real->helo_n) : STR_NONE},
        .dot_free = !scan->stuffing_bytes && !scan->bare_cr && !scan->bare_lf,
        .ret = tx->params.ret,
        .envid = tx->params.envid,
    };
    trace_write(s, real, &b);
    must(!b.overflow);
    tx->body_open = false;
    tx->committing = true;
    s->state = STATE_COMMIT_WAIT;
    s->ops->commit(s->host, &e, tx->rcpts, tx->rcpt_count, sbuf_view(&b)); /* last: tx may be gone */
}

/* Who sent it is known now, and may have sent enough. */
static enum reply_id check_sender(struct smtpd_session *s)
{
    session_origin(s);
    enum reply_id reply = session_check_share(s);
    if (reply != R_ok) {
        s->tx->body_open = false;
        s->ops->body_abort(s->host);
    }
    return reply;
}

static void end_of_content(struct smtpd_session *s)
{
    enum reply_id error = s->tx->content.error;
    bool has_rcpts = s->tx->rcpt_count > 0;
    s->where = "after end of message";
    if (error == R_ok && has_rcpts)
        error = check_sender(s);
    if (error == R_ok && has_rcpts) {
        commit(s);
        return;
    }
    if (error != R_ok)
        session_message_refused(s, error);
    session_reply(s, error, error == R_ok ? STR("thrown away, as this recipient does with all") : STR_NONE);
    session_drop_transaction(s);
    s->state = STATE_COMMAND;
    session_settle(s);
}

bool session_overdue(const struct smtpd_session *s, uint64_t started_ms)
{
    return s->now_ms > started_ms && s->now_ms - started_ms > session_config(s)->timeouts.data_total;
}

size_t session_content(struct smtpd_session *s, const uint8_t *p, size_t n)
{
    struct content *c = &s->tx->content;
    size_t used = 0;
    if (session_overdue(s, c->started_ms)) {
        session_goodbye(s, R_timed_out, CLOSE_timeout);
        return n;
    }
    s->where = "after DATA content";
    if (!c->scanned_n)
        look_at(s, p, n);
    if (c->error == R_ok)
        used = store_scanned(s, p, n);
    if (s->state == STATE_ROOM_WAIT || (c->error == R_ok && c->store_n))
        return used;

    /* Bytes of the terminator, bytes that the scanner holds, or the content of a refused message. */
    size_t rest = MIN(c->scanned_n, n - used);
    c->scanned_n -= rest;
    used += rest;
    if (!c->scanned_n && c->scan.done)
        end_of_content(s);
    return used;
}
