/* A hostile server, and a host with messages to send. The input is a list of steps: a byte says what happens,
 * 'L' and others feed what follows up to the next line end. Whatever comes, each message leaves the engine
 * once, each recipient with one outcome or with the message lost, and nothing is called after `failed`. */
#include "smtp/client/client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TX_MAX   8
#define RCPT_MAX 3

struct mail {
    struct smtpc_tx tx;
    unsigned outcomes[RCPT_MAX], accepted;
    unsigned done, lost;
    bool given, streaming, ended;
};

struct world {
    struct smtpc *c;
    struct mail mails[TX_MAX];
    unsigned next;
    bool failed, quit, ready, want_tls, secured, eager, in_deliver;
    size_t sent_bytes;
};

static const struct envelope_rcpt rcpts[RCPT_MAX] = {
    {.address = {"x@y", 3}, .notify = NOTIFY_NEVER},
    {.address = {"z@y", 3}, .notify = NOTIFY_SUCCESS | NOTIFY_DELAY, .orcpt = {"rfc822;z+20@y", 13}},
    {.address = {"w@y", 3}}};

static void on_send(void *host, const char *p, size_t n)
{
    struct world *w = host;
    must(!w->failed && n >= 2 && p[n - 2] == '\r' && p[n - 1] == '\n');
    must(w->secured || !w->c || !smtpc_sends_secret(w->c));
    w->sent_bytes += n;
}

static void on_content(void *host, struct smtpc_tx *tx)
{
    struct world *w = host;
    struct mail *m = container_of(tx, struct mail, tx);
    must(!w->failed && m->given && !m->tx.probe && !m->streaming && !m->ended);
    for (unsigned i = 0; i < TX_MAX; i++)
        must(!w->mails[i].streaming);
    if (w->eager) {
        m->ended = true;
        smtpc_content_end(w->c, tx);
    } else {
        m->streaming = true;
    }
}

static void on_rcpt_done(void *host, struct smtpc_tx *tx, uint32_t index, bool accepted, enum smtpc_stage at,
                         const struct smtp_reply *reply)
{
    struct world *w = host;
    struct mail *m = container_of(tx, struct mail, tx);
    must(!w->failed && m->given && !m->done && !m->lost && index < tx->rcpt_count && reply);
    must(++m->outcomes[index] == 1);
    must(!accepted || reply->code / 100 == 2);
    must(!accepted || (m->tx.probe ? at == STAGE_RCPT : m->ended && at == STAGE_DOT));
    must(accepted || reply->code / 100 == 4 || reply->code / 100 == 5);
}

static void on_tx_done(void *host, struct smtpc_tx *tx)
{
    struct world *w = host;
    struct mail *m = container_of(tx, struct mail, tx);
    must(!w->failed && m->given && !m->lost && ++m->done == 1);
    for (uint32_t i = 0; i < tx->rcpt_count; i++)
        must(m->outcomes[i] == 1);
    memset(&m->tx, 0xA5, sizeof m->tx); /* the owner may free it now */
}

static void on_tx_lost(void *host, struct smtpc_tx *tx, bool maybe_delivered)
{
    struct world *w = host;
    struct mail *m = container_of(tx, struct mail, tx);
    must(!w->failed && m->given && !m->done && ++m->lost == 1);
    must(!maybe_delivered || m->ended);
    m->streaming = false;
    memset(&m->tx, 0xA5, sizeof m->tx);
}

static void on_ready(void *host)
{
    struct world *w = host;
    must(!w->failed && !w->in_deliver);
    w->ready = true;
}

static void on_starttls(void *host)
{
    struct world *w = host;
    must(!w->failed && !w->want_tls);
    w->want_tls = true;
}

static void on_failed(void *host, enum smtpc_stage at, const struct smtp_reply *reply)
{
    struct world *w = host;
    must(!w->failed && !w->quit);
    must(strcmp(smtpc_stage_name(at), "unknown") != 0);
    w->failed = true;
}

static void on_quit_done(void *host)
{
    struct world *w = host;
    must(!w->failed && !w->quit);
    w->quit = true;
}

static const struct smtpc_host ops = {on_send,     on_content, on_rcpt_done, on_tx_done,  on_ready,
                                      on_starttls, on_failed,  on_tx_lost,   on_quit_done};

static void give(struct world *w, uint8_t how)
{
    if (w->next == TX_MAX || !smtpc_slots(w->c))
        return;
    struct mail *m = &w->mails[w->next++];
    m->given = true;
    m->tx = (struct smtpc_tx){.sender = {"a@b", how & 1 ? 0 : 3},
                              .rcpts = rcpts,
                              .rcpt_count = 1 + how % RCPT_MAX,
                              .size = how,
                              .chunk_bytes = how & 4 ? how : 0,
                              .ret = (enum dsn_ret)(how % 3),
                              .envid = {"id", 2},
                              .body = how & 8 ? BODY_8BITMIME : BODY_7BIT,
                              .smtputf8 = (how & 0x30) == 0x30,
                              .probe = (how & 0xC0) == 0xC0};
    w->in_deliver = true;
    smtpc_deliver(w->c, &m->tx);
    w->in_deliver = false;
}

static struct mail *streaming(struct world *w)
{
    for (unsigned i = 0; i < TX_MAX; i++) {
        if (w->mails[i].streaming)
            return &w->mails[i];
    }
    return NULL;
}

static void end_content(struct world *w, bool abort)
{
    struct mail *m = streaming(w);
    if (!m)
        return;
    m->streaming = false;
    m->ended = !abort;
    if (abort)
        smtpc_content_abort(w->c, &m->tx);
    else
        smtpc_content_end(w->c, &m->tx);
}

static void secure(struct world *w, err_t err)
{
    if (!w->want_tls || w->failed)
        return;
    w->want_tls = false;
    w->secured = !err;
    smtpc_secured(w->c, err);
}

static void step(struct world *w, uint8_t what, const uint8_t *p, size_t n)
{
    switch (what) {
    case 'D': give(w, n ? p[0] : 0); break;
    case 'T': end_content(w, false); break;
    case 'A': end_content(w, true); break;
    case 'S': secure(w, 0); break;
    case 'X': secure(w, ERR_TLS); break;
    case 'Q':
        if (smtpc_idle(w->c))
            smtpc_quit(w->c);
        break;
    case 'C': smtpc_closed(w->c, ERR_CLOSED); break;
    default: smtpc_input(w->c, p, n); break;
    }
    (void)smtpc_stage(w->c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = {0};
    if (size < 1)
        return 0;
    struct smtpc_options opt = {.helo_name = STR("gw.example"),
                                .lmtp = data[0] & 1,
                                .chunking = data[0] & 128,
                                .tls = (enum smtpc_tls)((data[0] >> 1 & 3) % 3),
                                .has_auth = data[0] & 64,
                                .auth = {.mechanism = (enum auth_mechanism)(data[0] >> 4 & 3),
                                         .user = STR("user"),
                                         .password = STR("pass")}};
    w.eager = data[0] & 8;
    if (smtpc_create(&w.c, &ops, &w, &opt))
        return 0;
    smtpc_start(w.c);
    for (size_t at = 1; at < size;) {
        const uint8_t *lf = memchr(data + at, '\n', size - at);
        size_t n = lf ? (size_t)(lf - (data + at)) + 1 : size - at;
        step(&w, data[at], data + at + 1, n - 1);
        at += n;
    }
    smtpc_closed(w.c, ERR_CLOSED);
    must(w.failed != w.quit);
    for (unsigned i = 0; i < w.next; i++)
        must(w.mails[i].done + w.mails[i].lost == 1);
    smtpc_destroy(w.c);
    return 0;
}
