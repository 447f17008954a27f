/* smtp/client/client.c: see client.h. */
#include <errno.h>

#include "smtp/client/client_priv.h"

const char *smtpc_stage_name(enum smtpc_stage s)
{
    static const char *const names[] = {
        [STAGE_CONNECT] = "connect", [STAGE_GREETING] = "greeting", [STAGE_HELO] = "HELO",
        [STAGE_TLS] = "STARTTLS",    [STAGE_AUTH] = "AUTH",         [STAGE_MAIL] = "MAIL",
        [STAGE_RCPT] = "RCPT",       [STAGE_DATA] = "DATA",         [STAGE_CONTENT] = "message content",
        [STAGE_DOT] = "end of data", [STAGE_QUIT] = "QUIT",         [STAGE_IDLE] = "idle",
    };
    return s >= 0 && s < COUNT_OF(names) ? names[s] : "unknown";
}

err_t smtpc_create(struct smtpc **out, const struct smtpc_host *ops, void *host,
                   const struct smtpc_options *opt)
{
    *out = NULL;
    if (!helo_valid(opt->helo_name, true) || opt->auth.user.n + opt->auth.password.n > SMTPC_AUTH_BYTES_MAX)
        return ERR_SYNTAX;
    struct smtpc *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->ops = ops;
    c->host = host;
    c->opt = *opt;
    memcpy(c->helo_name, opt->helo_name.p, opt->helo_name.n);
    c->opt.helo_name = str_of(c->helo_name, opt->helo_name.n);
    c->out = SBUF_ON(c->out_bytes);
    for (unsigned i = 0; i < SLOT_COUNT; i++) {
        c->accepted[i].words = c->accepted[i].few;
        c->accepted[i].cap = 64 * COUNT_OF(c->accepted[i].few);
    }
    *out = c;
    return 0;
}

void smtpc_destroy(struct smtpc *c)
{
    if (!c)
        return;
    must(!c->busy);
    for (unsigned i = 0; i < SLOT_COUNT; i++) {
        if (c->accepted[i].words != c->accepted[i].few)
            free(c->accepted[i].words);
    }
    free(c);
}

void client_flush(struct smtpc *c)
{
    size_t n = c->out.n;
    c->out.n = 0; /* first: the callback may add to it */
    if (n)
        c->ops->send(c->host, c->out.p, n);
}

static void expect_reply(struct smtpc *c, enum expect expect)
{
    must(c->expected_count < EXPECT_MAX);
    c->expected[(c->expected_at + c->expected_count++) % EXPECT_MAX] = (uint8_t)expect;
}

void client_put(struct smtpc *c, enum expect expect, const char *fmt, ...)
{
    char line[LINE_OUT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    must(n >= 0 && (size_t)n < sizeof line);
    if (c->out.cap - c->out.n < sizeof line + 2)
        client_flush(c);
    sbuf_put(&c->out, line, (size_t)n);
    sbuf_cstr(&c->out, "\r\n");
    expect_reply(c, expect);
}

void client_put_secret(struct smtpc *c, enum expect expect, str_t line)
{
    client_flush(c);
    c->sending_secret = true;
    c->ops->send(c->host, line.p, line.n);
    c->sending_secret = false;
    expect_reply(c, expect);
}

bool smtpc_has_pipelined(const struct smtpc *c)
{
    return c->features.pipelining && c->expected_count > 1;
}

bool smtpc_sends_secret(const struct smtpc *c)
{
    return c->sending_secret;
}

/* It may have been taken: its end was sent, and for all that is known somebody was there to send it to. Of a
 * chunk nothing may be known: a server answers a group at once, and may die before it does. */
static bool may_be_delivered(const struct smtpc_tx *tx)
{
    bool may_have_rcpts =
        tx->rcpts_ok || (tx->chunked && !tx->mail_refused && tx->rcpts_answered < tx->rcpts_sent);
    return tx->state == TX_DOT && may_have_rcpts;
}

void client_fail(struct smtpc *c, enum smtpc_stage at, const struct smtp_reply *reply)
{
    struct smtpc_tx *tx, *not_taken = c->bdat_unknown ? c->first : NULL;
    if (client_is_dead(c))
        return;
    c->phase = PHASE_DEAD;
    c->out.n = 0;
    while ((tx = c->first)) {
        bool maybe_delivered = tx != not_taken && may_be_delivered(tx);
        transaction_remove(c, tx);
        if (tx->outcome_count == tx->rcpt_count)
            c->ops->tx_done(c->host, tx);
        else
            c->ops->tx_lost(c->host, tx, maybe_delivered);
    }
    c->ops->failed(c->host, at, reply);
}

/* Calls from inside callbacks leave the pumping to the call that they came from: one send, and no recursion.
 */
static bool enter(struct smtpc *c)
{
    bool outermost = !c->busy;
    c->busy = true;
    return outermost;
}

static void leave(struct smtpc *c, bool outermost)
{
    if (!outermost)
        return;
    if (c->phase == PHASE_UP)
        transaction_pump(c);
    if (!client_is_dead(c))
        client_flush(c);
    c->busy = false;
}

void smtpc_start(struct smtpc *c)
{
    must(c->phase == PHASE_CONNECT);
    c->phase = PHASE_GREETING;
    expect_reply(c, EXPECT_GREETING);
}

static void on_reply(struct smtpc *c, const struct smtp_reply *r)
{
    enum smtpc_stage at = smtpc_stage(c);
    if (!c->expected_count) {
        client_fail(c, at, r); /* nobody asked: 421 when idle, or worse */
        return;
    }
    enum expect expect = (enum expect)c->expected[c->expected_at];
    if (expect != EXPECT_DOT) { /* the dot's may be many */
        c->expected_at = (c->expected_at + 1) % EXPECT_MAX;
        c->expected_count--;
    }
    if (expect == EXPECT_QUIT) {
        c->phase = PHASE_DEAD;
        c->ops->quit_done(c->host);
    } else if (r->code == 421 && expect != EXPECT_DOT) {
        client_fail(c, at, r);
    } else if (expect < EXPECT_RSET) {
        hello_reply(c, expect, at, r);
    } else {
        transaction_reply(c, expect, at, r);
    }
}

void smtpc_input(struct smtpc *c, const uint8_t *p, size_t n)
{
    if (client_is_dead(c))
        return;
    must(!c->busy);
    enter(c);
    while (n > 0 && !client_is_dead(c)) {
        bool done;
        err_t err;
        if (c->phase == PHASE_TLS) {
            /* Clear text behind the reply to STARTTLS, or in the middle of the handshake: somebody injects.
             */
            client_fail(c, STAGE_TLS, NULL);
            break;
        }
        size_t used = reply_parse(&c->parser, p, n, &done, &err);
        if (err)
            client_fail(c, smtpc_stage(c), NULL);
        else if (done)
            on_reply(c, &c->parser.reply);
        p += used;
        n -= used;
    }
    leave(c, true);
    if (c->starttls_due && !client_is_dead(c)) {
        c->starttls_due = false;
        c->ops->starttls(c->host);
    } else if (c->ready_due && !client_is_dead(c)) {
        c->ready_due = false;
        c->ops->ready(c->host);
    }
}

void smtpc_closed(struct smtpc *c, err_t why)
{
    client_fail(c, smtpc_stage(c), NULL);
}

uint32_t smtpc_slots(const struct smtpc *c)
{
    uint32_t total = c->features.pipelining ? SLOT_COUNT : 1;
    return c->phase == PHASE_UP && c->tx_count < total ? total - c->tx_count : 0;
}

static bool all_sendable(const struct smtpc_tx *tx)
{
    struct address a;
    bool ok = tx->sender.n == 0 || address_parse_mailbox(tx->sender, &a) == 0;
    for (uint32_t i = 0; ok && i < tx->rcpt_count; i++)
        ok = address_parse_mailbox(tx->rcpts[i].address, &a) == 0;
    return ok;
}

static struct smtp_reply local_reply(int code, uint8_t subject, uint8_t detail, str_t text)
{
    return (struct smtp_reply){
        .code = code, .enhanced = {(uint8_t)(code / 100), subject, detail}, .text = text, .line_count = 1};
}

/* What need not be asked: the server said in EHLO that it cannot take it. False: nothing against it. */
static bool refuse_locally(const struct smtpc *c, const struct smtpc_tx *tx, struct smtp_reply *out)
{
    const struct smtpc_features *f = &c->features;
    if (!all_sendable(tx)) /* never from our own server: the store is damaged in a way no checksum saw */
        *out = local_reply(553, 1, 3, STR("An address of this message cannot be sent over SMTP"));
    else if (tx->smtputf8 && !f->smtputf8)
        *out = local_reply(553, 6, 7, STR("The next server does not take internationalised mail (SMTPUTF8)"));
    else if (tx->body == BODY_8BITMIME && !f->eightbit && !c->opt.sends_eight_bit)
        *out = local_reply(554, 6, 3, STR("The next server does not take 8-bit mail (8BITMIME)"));
    else if (f->size && f->size_max && tx->size > f->size_max)
        *out = local_reply(552, 3, 4, STR("The message is bigger than the next server takes (SIZE)"));
    else
        return false;
    return true;
}

void smtpc_deliver(struct smtpc *c, struct smtpc_tx *tx)
{
    if (client_is_dead(c))
        return;
    must(smtpc_slots(c) > 0 && tx->rcpt_count > 0);
    struct smtp_reply no;
    bool outermost = enter(c);
    bool refused = refuse_locally(c, tx, &no);
    tx->next = NULL;
    tx->rcpts_sent = tx->rcpts_answered = tx->rcpts_ok = tx->dots_answered = tx->outcome_count =
        tx->dot_index = 0;
    tx->state = TX_WAITING;
    tx->mail_answered = tx->mail_refused = tx->data_sent = tx->data_answered = tx->chunked = false;
    if (!refused && !transaction_add(c, tx)) {
        refused = true;
        no = local_reply(451, 3, 0, STR("Out of memory"));
    }
    if (refused) {
        for (uint32_t i = 0; i < tx->rcpt_count; i++)
            c->ops->rcpt_done(c->host, tx, i, false, STAGE_MAIL, &no);
        c->ops->tx_done(c->host, tx);
    }
    leave(c, outermost);
}

void smtpc_content_end(struct smtpc *c, struct smtpc_tx *tx)
{
    if (client_is_dead(c))
        return;
    must(tx->state == TX_CONTENT);
    bool outermost = enter(c);
    tx->state = TX_DOT;
    if (!tx->chunked)
        client_put(c, EXPECT_DOT, ".");
    leave(c, outermost);
}

void smtpc_content_abort(struct smtpc *c, struct smtpc_tx *tx)
{
    client_fail(c, STAGE_CONTENT, NULL);
}

void smtpc_quit(struct smtpc *c)
{
    if (client_is_dead(c))
        return;
    must(smtpc_idle(c) && !c->busy);
    c->phase = PHASE_QUIT;
    client_put(c, EXPECT_QUIT, "QUIT");
    client_flush(c);
}

bool smtpc_idle(const struct smtpc *c)
{
    return c->phase == PHASE_UP && c->tx_count == 0;
}

static enum smtpc_stage stage_of_silence(const struct smtpc *c)
{
    if (c->phase == PHASE_CONNECT)
        return STAGE_CONNECT;
    if (c->phase == PHASE_TLS)
        return STAGE_TLS;
    return c->tx_count ? STAGE_CONTENT : STAGE_IDLE;
}

enum smtpc_stage smtpc_stage(const struct smtpc *c)
{
    if (!c->expected_count)
        return stage_of_silence(c);
    switch ((enum expect)c->expected[c->expected_at]) {
    case EXPECT_GREETING: return STAGE_GREETING;
    case EXPECT_EHLO:
    case EXPECT_HELO: return STAGE_HELO;
    case EXPECT_STARTTLS: return STAGE_TLS;
    case EXPECT_AUTH: return STAGE_AUTH;
    case EXPECT_RSET:
    case EXPECT_PROBE_END:
    case EXPECT_MAIL: return STAGE_MAIL;
    case EXPECT_RCPT: return STAGE_RCPT;
    case EXPECT_DATA: return STAGE_DATA;
    case EXPECT_DOT: return STAGE_DOT;
    case EXPECT_QUIT: return STAGE_QUIT;
    }
    return STAGE_IDLE;
}

bool smtpc_bdat_unknown(const struct smtpc *c)
{
    return c->bdat_unknown;
}

const struct smtpc_features *smtpc_features(const struct smtpc *c)
{
    return &c->features;
}
