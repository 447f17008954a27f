/* smtp/server/session_commands.c: one row a command: may it be said now (check), and what it does (proceed).
 */
#include "smtp/server/session_priv.h"

/* 452 and recipients said twice are no errors until it is clear that nobody listens. */
#define RCPTS_SAID_FACTOR 2

static enum reply_id check_anytime(const struct smtpd_session *s)
{
    return R_ok;
}

/* --- EHLO, HELO --- */

static bool take_helo(struct smtpd_session *s, str_t name)
{
    if (!helo_valid(name, false)) {
        session_reply(s, R_helo_needs_name, STR_NONE);
        return false;
    }
    if (s->greeted)
        s->junk++; /* its reply is the longest: not for nothing */
    session_drop_transaction(s);
    s->greeted = s->helo_said = true;
    s->helo_n = (uint8_t)MIN(name.n, sizeof s->helo);
    memcpy(s->helo, name.p, s->helo_n);
    return true;
}

static void put_line(str_t line, struct sbuf *out, size_t *last)
{
    *last = out->n;
    sbuf_cstr(out, "250-");
    sbuf_str(out, line);
    sbuf_cstr(out, "\r\n");
}

static void put_extension(const struct smtpd_session *s, enum extension e, struct sbuf *out, size_t *last)
{
    const struct config *c = session_config(s);
    char text[128];
    struct sbuf b = SBUF_ON(text);
    sbuf_cstr(&b, e == EXTENSION_xclient    ? XCLIENT_KEYWORD
                  : e == EXTENSION_xforward ? XFORWARD_KEYWORD
                                            : extension_keyword(e));
    if (e == EXTENSION_size && c->limits.message_size)
        sbuf_printf(&b, " %llu", (unsigned long long)c->limits.message_size);
    if (e == EXTENSION_limits) { /* RFC 9422 */
        sbuf_printf(&b, " RCPTMAX=%llu", (unsigned long long)c->limits.recipients);
        if (c->limits.messages_per_session && s->class != CLASS_EDGE)
            sbuf_printf(&b, " MAILMAX=%llu", (unsigned long long)c->limits.messages_per_session);
    }
    put_line(sbuf_view(&b), out, last);
}

static void proceed_ehlo(struct smtpd_session *s, str_t arg)
{
    char text[1024];
    struct sbuf b = SBUF_ON(text);
    if (!take_helo(s, arg))
        return;
    s->esmtp = true;
    sbuf_cstr(&b, "250-");
    sbuf_str(&b, session_config(s)->hostname);
    sbuf_cstr(&b, " greets ");
    ip_format_literal(&s->peer, &b);
    sbuf_cstr(&b, "\r\n");
    size_t last = 0; /* of the lines so far */
    if (session_tls_level(s) != CLIENT_TLS_OFF && !s->tls_active)
        put_line(STR("STARTTLS"), &b, &last);
    if (session_offers_dsn(s))
        put_line(STR("DSN"), &b, &last);
    for (enum extension e = 0; e < EXTENSION_COUNT; e++) {
        if (e == EXTENSION_xclient || e == EXTENSION_xforward ? session_check_naming(s, e) == R_ok
                                                              : session_offers(s, e))
            put_extension(s, e, &b, &last);
    }
    must(!b.overflow);
    b.p[last + 3] = ' ';
    session_reply_lines(s, 250, sbuf_view(&b));
}

static void proceed_helo(struct smtpd_session *s, str_t arg)
{
    char text[512];
    struct sbuf b = SBUF_ON(text);
    if (!take_helo(s, arg))
        return;
    s->esmtp = false;
    sbuf_cstr(&b, "250 ");
    sbuf_str(&b, session_config(s)->hostname);
    sbuf_cstr(&b, "\r\n");
    session_reply_lines(s, 250, sbuf_view(&b));
}

/* --- MAIL --- */

static enum reply_id check_mail(const struct smtpd_session *s)
{
    return s->tx ? R_nested_mail : R_ok;
}

enum reply_id session_reply_for_space(err_t err)
{
    enum reply_id reply = session_reply_for_store(err);
    if (reply == R_no_space && err != -ENOMEM)
        metric_inc(M_queue_refused_full);
    return reply;
}

static enum reply_id open_transaction(struct smtpd_session *s, const struct address *sender,
                                      const struct mail_params *params)
{
    const struct config *c = session_config(s);
    char text[MAILBOX_MAX + 1];
    struct sbuf b = SBUF_ON(text);
    if (params->has_size && c->limits.message_size && params->size > c->limits.message_size)
        return R_too_big;
    const struct ip *limited = session_limited_client(s);
    if (limited && !s->ops->take_share(s->host, limited))
        return R_too_much_mail;
    err_t err = s->ops->check_space(s->host, params->has_size ? params->size : 0);
    if (err)
        return session_reply_for_space(err);
    str_t canonical = address_canonical(sender, &b);
    if (!canonical.p)
        return R_bad_sender;
    s->tx = transaction_create(s->memory, c->limits.recipients, canonical);
    if (!s->tx)
        return R_queue_failed;
    s->tx->params = *params;
    s->tx->params.envid = params->envid.p ? arena_str(&s->tx->arena, params->envid) : STR_NONE;
    s->tx->message_id = s->ops->message_id(s->host);
    return R_sender_ok;
}

static bool says_hidden(const struct smtpd_session *s, const struct mail_params *p)
{
    return (p->has_dsn && !session_offers_dsn(s)) || (p->has_size && !session_offers(s, EXTENSION_size)) ||
           (p->has_body && !session_offers(s, EXTENSION_8bitmime)) ||
           (p->smtputf8 && !session_offers(s, EXTENSION_smtputf8));
}

static void proceed_mail(struct smtpd_session *s, str_t arg)
{
    uint32_t count_max = session_config(s)->limits.messages_per_session;
    struct address sender;
    struct mail_params params;
    enum reply_id reply;
    if (count_max && s->messages >= count_max && s->class != CLASS_EDGE) {
        session_goodbye(s, R_too_many_messages, CLOSE_limit);
        return;
    }
    err_t err = command_parse_mail(arg, &sender, &params, &reply);
    if (says_hidden(s, &params))
        reply = R_bad_command_parameter; /* well written or not */
    else if (!err)
        reply = open_transaction(s, &sender, &params);
    session_reply(s, reply, STR_NONE);
}

/* --- RCPT --- */

static enum reply_id check_rcpt(const struct smtpd_session *s)
{
    if (!s->tx)
        return R_need_mail;
    return s->tx->chunks.begun ? R_in_chunks : R_ok;
}

/* Fills *out; `text` (MAILBOX_MAX + 1 bytes) holds it. Bare postmaster stays as it came: policy puts a whole
 * address in its place. */
static bool set_asked(const struct transaction *tx, const struct address *rcpt, char *text,
                      struct smtpd_rcpt *out)
{
    struct sbuf b = {.p = text, .cap = MAILBOX_MAX + 1};
    *out = (struct smtpd_rcpt){.address = *rcpt, .text = address_canonical(rcpt, &b), .sender = tx->sender.p};
    if (!rcpt->domain.n)
        return true;
    return out->text.p && address_parse_mailbox(out->text, &out->address) == 0;
}

/* The parameters point into the command line, and the decision may come later. */
static void set_asked_params(struct transaction *tx, const struct rcpt_params *params)
{
    size_t n = MIN(params->orcpt.n, sizeof tx->asked_orcpt);
    tx->asked_params = *params;
    if (!n)
        return;
    memcpy(tx->asked_orcpt, params->orcpt.p, n);
    tx->asked_params.orcpt = str_of(tx->asked_orcpt, n);
}

/* R_ok: the host is to be asked. Anything else is the answer already. */
static enum reply_id judge_rcpt(const struct smtpd_session *s, const struct address *rcpt,
                                const struct rcpt_params *params, char *text, struct smtpd_rcpt *out)
{
    const struct transaction *tx = s->tx;
    struct address other;
    str_t rewritten;
    if (!set_asked(tx, rcpt, text, out))
        return R_bad_rcpt;
    if ((rcpt->is_utf8 || !str_is_ascii(params->orcpt)) && !tx->params.smtputf8)
        return R_needs_smtputf8;
    out->discards = s->ops->discards(s->host, &out->address);
    if (out->discards)
        return R_rcpt_ok;
    enum reply_id reply =
        policy_check_rcpt(s->policy, (enum client_class)s->class, &out->address, &rewritten);
    if (reply != R_rcpt_ok)
        return reply;
    if (rewritten.p && (address_parse_mailbox(rewritten, &other) || !set_asked(tx, &other, text, out)))
        return R_bad_rcpt;
    if (transaction_has_rcpt(tx, out->text))
        return R_rcpt_ok;
    if (tx->rcpt_count >= session_config(s)->limits.recipients)
        return R_too_many_rcpts;
    return R_ok;
}

static void proceed_rcpt(struct smtpd_session *s, str_t arg)
{
    struct address rcpt;
    struct rcpt_params params;
    enum reply_id reply;
    err_t err = command_parse_rcpt(arg, &rcpt, &params, &reply);
    bool is_hidden = params.has_dsn && !session_offers_dsn(s);
    if (err || is_hidden) {
        session_reply(s, is_hidden ? R_bad_command_parameter : reply, STR_NONE);
        return;
    }
    set_asked_params(s->tx, &params);
    if (++s->tx->rcpts_said > RCPTS_SAID_FACTOR * session_config(s)->limits.recipients)
        session_error(s);
    reply = judge_rcpt(s, &rcpt, &params, s->tx->asked_text, &s->tx->asked);
    s->state = STATE_RCPT_WAIT;
    if (reply == R_ok)
        s->ops->rcpt(s->host, &s->tx->asked);
    else
        smtpd_rcpt_decided(s, reply, STR_NONE);
}

bool session_rcpt_ahead(struct smtpd_session *s, str_t line)
{
    char text[MAILBOX_MAX + 1];
    struct smtpd_rcpt ahead;
    struct address rcpt;
    struct rcpt_params params;
    struct command c;
    enum reply_id reply;
    command_parse(line, &c);
    if (c.id != CMD_rcpt)
        return false;
    if (!command_parse_rcpt(c.arg, &rcpt, &params, &reply) &&
        judge_rcpt(s, &rcpt, &params, text, &ahead) == R_ok)
        return s->ops->rcpt_ahead(s->host, &ahead);
    return true;
}

/* --- DATA --- */

static enum reply_id check_data(const struct smtpd_session *s)
{
    if (!s->tx)
        return R_need_mail;
    if (s->tx->chunks.begun)
        return R_in_chunks;
    return s->tx->rcpt_count || s->tx->discard_count ? R_ok : R_no_valid_rcpts;
}

static void proceed_data(struct smtpd_session *s, str_t arg)
{
    enum reply_id reply = session_content_start(s);
    session_reply(s, reply == R_ok ? R_start_input : reply, STR_NONE);
}

static void proceed_bdat(struct smtpd_session *s, str_t arg)
{
    session_bdat(s, arg);
}

/* --- the others --- */

static void proceed_rset(struct smtpd_session *s, str_t arg)
{
    session_drop_transaction(s);
    session_reply(s, R_ok, STR_NONE);
}

static void proceed_noop(struct smtpd_session *s, str_t arg)
{
    session_reply(s, R_ok, STR_NONE);
}

static void proceed_vrfy(struct smtpd_session *s, str_t arg)
{
    session_reply(s, arg.n ? R_vrfy : R_bad_syntax, STR_NONE);
}

static void proceed_help(struct smtpd_session *s, str_t arg)
{
    session_reply(s, R_help, STR_NONE);
}

static enum reply_id check_starttls(const struct smtpd_session *s)
{
    if (s->tls_active)
        return R_already_tls;
    if (session_tls_level(s) == CLIENT_TLS_OFF)
        return R_not_implemented;
    return s->tx ? R_in_transaction : R_ok;
}

static void proceed_starttls(struct smtpd_session *s, str_t arg)
{
    s->state = STATE_TLS_WAIT;
    session_reply(s, R_ready_tls, STR_NONE);
    s->ops->starttls(s->host);
}

static enum reply_id check_xclient(const struct smtpd_session *s)
{
    return session_check_naming(s, EXTENSION_xclient);
}

static void proceed_xclient(struct smtpd_session *s, str_t arg)
{
    session_xclient(s, arg);
}

static enum reply_id check_xforward(const struct smtpd_session *s)
{
    return session_check_naming(s, EXTENSION_xforward);
}

static void proceed_xforward(struct smtpd_session *s, str_t arg)
{
    session_xforward(s, arg);
}

static void proceed_quit(struct smtpd_session *s, str_t arg)
{
    session_reply(s, R_bye, STR_NONE);
    session_close(s, CLOSE_quit);
}

static void proceed_unknown(struct smtpd_session *s, str_t arg)
{
    /* Somebody had a browser or a server send a request here. Its body may be commands. */
    if (str_ends(arg, STR(" HTTP/1.1")) || str_ends(arg, STR(" HTTP/1.0")))
        session_goodbye(s, R_not_http, CLOSE_errors);
    else
        session_reply(s, R_unknown_command, STR_NONE);
}

/* --- the table --- */

#define check_ehlo check_anytime
#define check_bdat check_anytime
#define check_helo check_anytime
#define check_rset check_anytime
#define check_noop check_anytime
#define check_vrfy check_anytime
#define check_help check_anytime
#define check_quit check_anytime

static const struct {
    enum reply_id (*check)(const struct smtpd_session *s);
    void (*proceed)(struct smtpd_session *s, str_t arg);
    const char *where;
} table[CMD_COUNT] = {
#define COMMAND(id, verb, flags) [CMD_##id] = {check_##id, proceed_##id, "after " verb},
#include "smtp/proto/cmd.def"
#undef COMMAND
    [CMD_unknown] = {check_anytime, proceed_unknown, "after an unknown command"},
};

static bool has_controls(str_t s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        if ((ch < ' ' && ch != '\t') || ch == 0x7F)
            return true;
    }
    return false;
}

static enum reply_id check(const struct smtpd_session *s, const struct command *c, str_t line)
{
    if (c->id == CMD_unknown || c->flags & CMD_OCTETS) /* these refuse with care for what follows */
        return R_ok;
    if (has_controls(line))
        return R_bad_syntax;
    if (!(c->flags & CMD_IN_CLEAR) && session_needs_tls(s))
        return R_tls_needed;
    if (!(c->flags & CMD_PRE_HELO) && !s->greeted)
        return R_need_helo;
    if ((c->flags & CMD_NO_ARG) && c->arg.n)
        return R_bad_syntax;
    return table[c->id].check(s);
}

void session_junk(struct smtpd_session *s)
{
    if (++s->junk > session_config(s)->limits.junk_commands)
        session_error(s);
}

void session_command(struct smtpd_session *s, str_t line)
{
    struct command c;
    command_parse(line, &c);
    s->commands++;
    s->where = table[c.id].where;
    if (c.flags & CMD_JUNK)
        s->junk++;
    enum reply_id refusal = check(s, &c, line);
    if (refusal == R_ok)
        table[c.id].proceed(s, c.arg);
    else
        session_reply(s, refusal, STR_NONE);
    uint64_t junk_max = session_config(s)->limits.junk_commands;
    if (s->junk > junk_max && (c.flags & CMD_JUNK || c.id == CMD_ehlo || c.id == CMD_helo))
        session_error(s);
    session_settle(s);
}
