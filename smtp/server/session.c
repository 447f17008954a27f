/* smtp/server/session.c: the life of a session and the events that its host tells it. */
#include <assert.h>
#include <errno.h>

#include "smtp/server/session_priv.h"

static_assert(sizeof(struct smtpd_session) <= 640, "an idle session is cheap");

/* Internal servers get the errors of all their users: a budget that is no more than a stop for runaways. */
#define TRUSTED_PATIENCE 10

const char *close_reason_name(enum close_reason r)
{
    static const char *const names[] = {
#define CLOSE_REASON(id, is_error, text) [CLOSE_##id] = #id,
#include "smtp/proto/close_reason.def"
#undef CLOSE_REASON
    };
    return (unsigned)r < COUNT_OF(names) ? names[r] : "open";
}

void smtpd_memory_init(struct smtpd_memory *m, uint32_t session_count_max)
{
    pool_init(&m->sessions, "smtpd_engines", sizeof(struct smtpd_session), session_count_max);
    pool_init(&m->origins, "smtpd_origins", sizeof(struct origin),
              0); /* two a session and one a transaction */
    pool_init(&m->transactions, "smtpd_transactions", sizeof(struct transaction), session_count_max);
}

void smtpd_memory_free(struct smtpd_memory *m)
{
    pool_free(&m->sessions);
    pool_free(&m->transactions);
    pool_free(&m->origins);
}

err_t smtpd_create(struct smtpd_session **out, const struct smtpd_host *ops, void *host,
                   const struct smtpd_client *client, const struct policy *policy, bool tls_offered)
{
    struct smtpd_session *s = pool_get(&client->memory->sessions);
    *out = s;
    if (!s)
        return -ENOMEM;
    s->ops = ops;
    s->host = host;
    s->policy = s->next_policy = policy;
    s->memory = client->memory;
    s->id = client->session_id;
    s->peer = client->peer.ip;
    s->class = (uint8_t)client->class;
    s->step = (uint8_t)client->step;
    s->reason = CLOSE_COUNT;
    s->tls_offered = tls_offered;
    s->listener_tls = (uint8_t)client->tls;
    s->where = "after CONNECT";
    return 0;
}

void smtpd_destroy(struct smtpd_session *s)
{
    session_drop_line(s);
    session_drop_transaction(s);
    if (s->named)
        pool_put(&s->memory->origins, s->named);
    pool_put(&s->memory->sessions, s);
}

void session_greet(struct smtpd_session *s)
{
    char text[512];
    struct sbuf b = SBUF_ON(text);
    sbuf_cstr(&b, "220 ");
    sbuf_str(&b, session_config(s)->hostname);
    sbuf_cstr(&b, " ESMTP Postern\r\n");
    session_reply_lines(s, 220, sbuf_view(&b));
}

void smtpd_start(struct smtpd_session *s)
{
    if (s->listener_tls == LISTENER_TLS_IMPLICIT)
        s->state = STATE_TLS_WAIT;
    else
        session_greet(s);
}

bool smtpd_idle(const struct smtpd_session *s)
{
    return !s->tx;
}

static void follow_policy(struct smtpd_session *s)
{
    if (s->policy == s->next_policy)
        return;
    s->policy = s->next_policy;
    s->tls.class = (enum client_class)s->next_shown;
    session_classify(s);
}

void smtpd_set_policy(struct smtpd_session *s, const struct policy *policy, bool tls_offered,
                      enum client_class shown)
{
    s->next_policy = policy;
    s->tls_offered = tls_offered;
    s->next_shown = (uint8_t)shown;
    if (!s->tx)
        follow_policy(s);
}

enum client_class smtpd_class(const struct smtpd_session *s)
{
    return (enum client_class)s->class;
}

const struct policy *smtpd_policy(const struct smtpd_session *s)
{
    return s->policy;
}

bool smtpd_waiting(const struct smtpd_session *s)
{
    return s->state >= STATE_RCPT_WAIT && s->state <= STATE_TLS_WAIT;
}

/* --- replies --- */

void session_reply_lines(struct smtpd_session *s, int code, str_t lines)
{
    s->ops->reply(s->host, lines.p, lines.n);
    metric_reply(code);
}

/* Never with the edge: its probes are RCPTs that fail, and it would keep a 421 in place of 550 for hours
 * (semantics M30, M31). */
static bool out_of_patience(const struct smtpd_session *s)
{
    uint64_t limit = session_config(s)->limits.errors;
    if (s->class == CLASS_EDGE)
        return false;
    return s->faults >= (s->class == CLASS_TRUSTED ? limit * TRUSTED_PATIENCE : limit);
}

void session_error(struct smtpd_session *s)
{
    s->errors++;
    s->faults++;
}

void session_reply(struct smtpd_session *s, enum reply_id id, str_t detail)
{
    char line[512];
    struct sbuf b = SBUF_ON(line);
    int code = reply_def(id)->code;
    if (code >= 500) { /* 4yz is our trouble, and not the client's error */
        session_error(s);
        /* session_settle() is about to say 421: one reply a command. Not so for the verdict on a message. */
        if (s->state == STATE_COMMAND && out_of_patience(s))
            return;
    }
    reply_write(&b, id, detail);
    session_reply_lines(s, code, sbuf_view(&b));
}

void session_goodbye(struct smtpd_session *s, enum reply_id id, enum close_reason why)
{
    if (s->state == STATE_CLOSED)
        return;
    session_reply(s, id, STR_NONE);
    session_close(s, why);
}

void session_close(struct smtpd_session *s, enum close_reason why)
{
    if (s->state == STATE_CLOSED)
        return;
    s->state = STATE_CLOSED;
    s->reason = (uint8_t)why;
    session_drop_line(s);
    if (!s->tx || !s->tx->committing) /* a commit in flight ends in smtpd_committed */
        session_drop_transaction(s);
    s->ops->close(s->host, why);
}

void session_drop_transaction(struct smtpd_session *s)
{
    struct transaction *tx = s->tx;
    session_forget_told(s);
    if (!tx)
        return;
    s->tx = NULL;
    if (tx->body_open)
        s->ops->body_abort(s->host);
    transaction_destroy(s->memory, tx);
    follow_policy(s);
}

void session_settle(struct smtpd_session *s)
{
    if (s->state != STATE_COMMAND)
        return;
    if (out_of_patience(s))
        session_goodbye(s, R_too_many_errors, CLOSE_errors);
    else if (s->shutdown_asked && !s->tx)
        session_goodbye(s, R_shutting_down, CLOSE_shutdown);
    else if (s->eof_seen)
        session_close(s, CLOSE_eof);
}

/* --- talking out of turn --- */

static void talked_early(struct smtpd_session *s, const char *when, enum metric metric)
{
    enum early early = session_config(s)->strangers.early;
    bool is_refused = early == EARLY_REFUSE;
    if (s->class != CLASS_STRANGER || early == EARLY_OFF || s->state == STATE_CLOSED)
        return;
    metric_inc(metric);
    LOG(early_talker, LF_QID("sid", s->id), LF_IP("client", &s->peer), LF_CSTR("when", when),
        LF_CSTR("refused", is_refused ? "yes" : "no"));
    if (is_refused)
        session_goodbye(s, R_early_talker, CLOSE_early);
}

void smtpd_early(struct smtpd_session *s)
{
    talked_early(s, "greeting", M_early_greeting);
}

uint32_t smtpd_steps(const struct smtpd_session *s)
{
    return s->commands * (STATE_CLOSED + 1) + s->state;
}

/* RFC 2920 3.1: EHLO and DATA end a group. What may come behind EHLO stands in its reply; content comes when
 * it is asked for. */
static size_t read_line(struct smtpd_session *s, const uint8_t *p, size_t n)
{
    s->helo_said = false;
    size_t used = session_read_line(s, p, n);
    if (s->helo_said && used < n)
        talked_early(s, "ehlo", M_early_ehlo);
    if (s->state == STATE_CONTENT && !s->tx->chunks.begun && used < n)
        talked_early(s, "data", M_early_data);
    return used;
}

/* --- input --- */

static bool owes_penalty(const struct smtpd_session *s)
{
    const struct config *c = session_config(s);
    return s->class == CLASS_STRANGER && c->strangers.errors && s->faults >= c->strangers.errors &&
           c->strangers.error_delay_ms && !s->penalty_paid;
}

static size_t read_command(struct smtpd_session *s, const uint8_t *p, size_t n)
{
    if (owes_penalty(s)) {
        s->state = STATE_PENALTY_WAIT;
        s->ops->delay(s->host, session_config(s)->strangers.error_delay_ms);
        return 0;
    }
    uint32_t commands = s->commands;
    size_t used = read_line(s, p, n);
    if (s->commands != commands)
        s->penalty_paid = false;
    return used;
}

size_t smtpd_input(struct smtpd_session *s, const uint8_t *p, size_t n, uint64_t now_ms)
{
    size_t used = 0;
    s->now_ms = now_ms;
    while (used < n && !smtpd_waiting(s)) {
        switch ((enum session_state)s->state) {
        case STATE_COMMAND: used += read_command(s, p + used, n - used); break;
        case STATE_CONTENT: {
            size_t (*take)(struct smtpd_session *, const uint8_t *, size_t) =
                s->tx->chunks.begun ? session_chunk : session_content;
            used += take(s, p + used, n - used);
            break;
        }
        case STATE_SKIP: used += session_skip(s, n - used); break;
        default: used = n; /* closed: what still comes is nobody's */
        }
    }
    s->bytes += used;
    s->ahead_n -= MIN(used, s->ahead_n);
    if (s->state == STATE_RCPT_WAIT)
        session_look_ahead(s, p + used, n - used);
    return used;
}

/* --- events --- */

static enum reply_id accept_rcpt(struct smtpd_session *s)
{
    if (s->tx->asked.discards) {
        s->tx->discard_count++;
        return R_rcpt_ok;
    }
    if (transaction_add_rcpt(s->tx, s->tx->asked.text, &s->tx->asked_params))
        return R_too_many_rcpts;
    s->rcpts++;
    return R_rcpt_ok;
}

static void log_rcpt(const struct smtpd_session *s, enum reply_id id, str_t to, str_t detail)
{
    const struct reply_def *r = reply_def(id);
    const char *by;
    const struct ip *real = session_known_origin(s, &by);
    LOG(rcpt, LF_QID("sid", s->id), LF_QID("id", s->tx->message_id), LF_IP("client", &s->peer),
        LF_CSTR("class", client_class_name((enum client_class)s->class)), LF_STR("from", s->tx->sender),
        LF_STR("to", to), LF_I64("reply", r->code), LF_STR("enhanced", r->enhanced), LF_STR("text", r->text),
        LF_STR("ref", detail), LF_IP("real", real), LF_CSTR("real_by", by));
}

void smtpd_rcpt_decided(struct smtpd_session *s, enum reply_id reply, str_t detail)
{
    if (s->state != STATE_RCPT_WAIT) /* closed meanwhile */
        return;
    s->state = STATE_COMMAND;
    if (reply == R_rcpt_ok && !transaction_has_rcpt(s->tx, s->tx->asked.text))
        reply = accept_rcpt(s);
    metric_inc(reply == R_rcpt_ok ? M_rcpts_accepted : M_rcpts_refused);
    log_rcpt(s, reply, s->tx->asked.text, detail);
    if (reply_def(reply)->code == 421) {
        session_goodbye(s, reply, CLOSE_harvest);
        return;
    }
    session_reply(s, reply, detail);
    session_settle(s);
}

void smtpd_resume(struct smtpd_session *s)
{
    if (s->state == STATE_PENALTY_WAIT) {
        s->state = STATE_COMMAND;
        s->penalty_paid = true;
    }
    if (s->state != STATE_ROOM_WAIT)
        return;
    s->state = STATE_CONTENT;
    if (s->tx->chunks.begun) /* what is still to be stored may be the end, for which no input comes */
        session_chunk(s, (const uint8_t *)"", 0);
}

static void message_stored(struct smtpd_session *s)
{
    s->messages++;
    s->junk = s->faults = 0;
    metric_add(M_bytes_in, (int64_t)s->tx->content.scan.bytes);
}

enum reply_id session_reply_for_store(err_t err)
{
    bool no_room = err == ERR_FULL || err == -ENOSPC || err == -EDQUOT || err == -ENOMEM;
    return no_room ? R_no_space : R_queue_failed;
}

static void reply_to_message(struct smtpd_session *s, err_t err)
{
    char text[64];
    struct sbuf b = SBUF_ON(text);
    if (err) {
        session_reply(s, session_reply_for_store(err), STR_NONE);
        return;
    }
    char id[16];
    qid_format(s->tx->message_id, id);
    sbuf_printf(&b, "queued as %s", id);
    session_reply(s, R_ok, sbuf_view(&b));
}

void smtpd_committed(struct smtpd_session *s, err_t err)
{
    must(s->tx && s->tx->committing);
    if (err)
        session_message_refused(s, session_reply_for_store(err));
    else
        message_stored(s);
    if (s->state == STATE_COMMIT_WAIT) { /* else the client is gone; the message stays */
        s->state = STATE_COMMAND;
        reply_to_message(s, err);
    }
    session_drop_transaction(s);
    session_settle(s);
}

void smtpd_secured(struct smtpd_session *s, const struct smtpd_tls *tls)
{
    if (s->state != STATE_TLS_WAIT)
        return;
    if (!tls) {
        session_close(s, CLOSE_tls);
        return;
    }
    /* RFC 3207 4.2: all that was learnt in the clear is forgotten. */
    s->state = STATE_COMMAND;
    s->tls_active = true;
    s->tls = *tls;
    s->next_shown = (uint8_t)tls->class;
    session_classify(s);
    s->greeted = s->esmtp = false;
    s->helo_n = 0;
    if (s->listener_tls == LISTENER_TLS_IMPLICIT)
        session_greet(s);
    session_settle(s);
}

void smtpd_eof(struct smtpd_session *s, bool reset)
{
    if (!reset && (s->state == STATE_RCPT_WAIT || s->state == STATE_COMMIT_WAIT))
        s->eof_seen = true; /* half-closed: it may still read the reply */
    else
        session_close(s, reset ? CLOSE_reset : CLOSE_eof);
}

/* 421 now, but not into a TLS handshake and not before a commit in flight has its reply. */
static void leave(struct smtpd_session *s, enum reply_id id, enum close_reason why)
{
    if (s->state == STATE_COMMIT_WAIT)
        s->shutdown_asked = true;
    else if (s->state == STATE_TLS_WAIT)
        session_close(s, why);
    else
        session_goodbye(s, id, why);
}

void smtpd_timeout(struct smtpd_session *s)
{
    leave(s, R_timed_out, CLOSE_timeout);
}

void smtpd_shutdown(struct smtpd_session *s, bool now)
{
    s->shutdown_asked = true;
    bool is_between = s->state == STATE_COMMAND || s->state == STATE_PENALTY_WAIT;
    if (now || (is_between && !s->tx))
        leave(s, R_shutting_down, CLOSE_shutdown);
}

uint32_t smtpd_timeout_ms(const struct smtpd_session *s)
{
    const struct config *c = session_config(s);
    switch ((enum session_state)s->state) {
    case STATE_COMMAND:
    case STATE_TLS_WAIT: return c->timeouts.command;
    case STATE_SKIP:
    case STATE_CONTENT: return c->timeouts.data_block;
    default: return 0;
    }
}

void smtpd_stats(const struct smtpd_session *s, struct smtpd_stats *out)
{
    *out = (struct smtpd_stats){
        .messages = s->messages,
        .rcpts = s->rcpts,
        .commands = s->commands,
        .errors = s->errors,
        .bytes = s->bytes,
        .helo = s->helo_n ? str_of(s->helo, s->helo_n) : STR_NONE,
        .where = s->where,
        .reason = (enum close_reason)s->reason,
    };
}
