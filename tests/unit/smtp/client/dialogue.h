/* tests/unit/smtp/client/dialogue.h: dialogues as scripts, each run with the server's bytes whole and one by
 * one. A script is lines of: S text   the server says it          C text   the client must have said it D n
 * give message n              E text   the host must have been told it T n      stream message n, end it    !
 * word   another call of the host's: see act() What the client said and what the host was told are checked
 * before each next S, D, T or "!". */
#ifndef TESTS_SMTP_CLIENT_DIALOGUE_H
#define TESTS_SMTP_CLIENT_DIALOGUE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp/client/client.h"

struct message {
    const char *sender, *rcpts[4];
    uint64_t size, chunk_bytes;
    enum body_type body;
    bool smtputf8, probe;
    enum dsn_ret ret;
    const char *envid, *orcpt;
    uint8_t notify;
};

struct dialogue {
    const char *name;
    struct smtpc_options opt;
    struct message messages[4];
    bool sync_content; /* content is there at once: handed over inside the callback */
    const char *script;
};

struct run {
    const struct dialogue *dialogue;
    struct smtpc *c;
    struct smtpc_tx txs[4];
    struct envelope_rcpt rcpts[4][4];
    char said_bytes[8192], told_bytes[8192];
    struct sbuf said, told;
    size_t said_at, told_at;
    size_t step; /* server bytes a call */
    bool in_ready, in_deliver;
};

static unsigned tx_index(const struct run *r, const struct smtpc_tx *tx)
{
    return (unsigned)(tx - r->txs);
}

static void on_send(void *host, const char *p, size_t n)
{
    struct run *r = host;
    str_t line = str_of(p, n);
    bool is_secret = str_starts(line, STR("AUTH PLAIN ")) || str_starts(line, STR("AUTH EXTERNAL ")) ||
                     str_starts(line, STR("dXNlcg==")) || str_starts(line, STR("cGFzcw=="));
    assert_int_equal(r->c && smtpc_sends_secret(r->c), is_secret);
    sbuf_put(&r->said, p, n);
}

static void stream(struct run *r, struct smtpc_tx *tx)
{
    sbuf_printf(&r->said, "body %u\r\n", tx_index(r, tx));
    smtpc_content_end(r->c, tx);
}

static void on_content(void *host, struct smtpc_tx *tx)
{
    struct run *r = host;
    sbuf_printf(&r->told, "content %u\n", tx_index(r, tx));
    if (r->dialogue->sync_content)
        stream(r, tx);
}

static void on_rcpt_done(void *host, struct smtpc_tx *tx, uint32_t index, bool accepted, enum smtpc_stage at,
                         const struct smtp_reply *reply)
{
    struct run *r = host;
    sbuf_printf(&r->told, "rcpt %u.%u %s %s %d", tx_index(r, tx), index, accepted ? "yes" : "no",
                smtpc_stage_name(at), reply->code);
    if (reply->enhanced[0])
        sbuf_printf(&r->told, " %u.%u.%u", reply->enhanced[0], reply->enhanced[1], reply->enhanced[2]);
    sbuf_char(&r->told, '\n');
}

static void on_tx_done(void *host, struct smtpc_tx *tx)
{
    struct run *r = host;
    sbuf_printf(&r->told, "done %u\n", tx_index(r, tx));
}

static void on_ready(void *host)
{
    struct run *r = host;
    assert_false(r->in_deliver);
    sbuf_printf(&r->told, "ready %u\n", smtpc_slots(r->c));
}

static void on_starttls(void *host)
{
    struct run *r = host;
    sbuf_cstr(&r->told, "starttls\n");
}

static void on_failed(void *host, enum smtpc_stage at, const struct smtp_reply *reply)
{
    struct run *r = host;
    sbuf_printf(&r->told, "failed %s %d\n", smtpc_stage_name(at), reply ? reply->code : 0);
}

static void on_tx_lost(void *host, struct smtpc_tx *tx, bool maybe_delivered)
{
    struct run *r = host;
    sbuf_printf(&r->told, "lost %u%s\n", tx_index(r, tx), maybe_delivered ? " maybe" : "");
}

static void on_quit_done(void *host)
{
    struct run *r = host;
    sbuf_cstr(&r->told, "quit\n");
}

static const struct smtpc_host host_ops = {on_send,     on_content, on_rcpt_done, on_tx_done,  on_ready,
                                           on_starttls, on_failed,  on_tx_lost,   on_quit_done};

static void deliver(struct run *r, unsigned i)
{
    const struct message *m = &r->dialogue->messages[i];
    uint32_t count = 0;
    while (count < 4 && m->rcpts[count]) {
        r->rcpts[i][count] = (struct envelope_rcpt){
            .address = str_cstr(m->rcpts[count]), .notify = m->notify, .orcpt = str_cstr(m->orcpt)};
        count++;
    }
    r->txs[i] = (struct smtpc_tx){.sender = str_cstr(m->sender),
                                  .rcpts = r->rcpts[i],
                                  .rcpt_count = count,
                                  .size = m->size,
                                  .body = m->body,
                                  .smtputf8 = m->smtputf8,
                                  .ret = m->ret,
                                  .envid = str_cstr(m->envid),
                                  .probe = m->probe,
                                  .chunk_bytes = m->chunk_bytes};
    r->in_deliver = true;
    smtpc_deliver(r->c, &r->txs[i]);
    r->in_deliver = false;
}

static void act(struct run *r, str_t word)
{
    if (str_eq(word, STR("secured")))
        smtpc_secured(r->c, 0);
    else if (str_eq(word, STR("tls failed")))
        smtpc_secured(r->c, ERR_TLS);
    else if (str_eq(word, STR("closed")))
        smtpc_closed(r->c, ERR_CLOSED);
    else if (str_eq(word, STR("quit")))
        smtpc_quit(r->c);
    else if (str_starts(word, STR("abort ")))
        smtpc_content_abort(r->c, &r->txs[word.p[6] - '0']);
    else
        fail_msg("no such action: " STR_FMT, STR_ARG(word));
}

static void expect_line(struct run *r, struct sbuf *got, size_t *at, str_t want, str_t ending)
{
    str_t left = str_of(got->p + *at, got->n - *at);
    if (!str_starts(left, want) || !str_starts(str_sub(left, want.n, left.n), ending))
        fail_msg("%s, by %zu: want \"" STR_FMT "\", got \"" STR_FMT "\"", r->dialogue->name, r->step,
                 STR_ARG(want), STR_ARG(left));
    *at += want.n + ending.n;
}

static void expect_nothing_more(struct run *r)
{
    if (r->said_at != r->said.n || r->told_at != r->told.n)
        fail_msg("%s, by %zu: unexpected \"%.*s\" \"%.*s\"", r->dialogue->name, r->step,
                 (int)(r->said.n - r->said_at), r->said.p + r->said_at, (int)(r->told.n - r->told_at),
                 r->told.p + r->told_at);
}

static void feed(struct run *r, struct sbuf *server)
{
    for (size_t at = 0; at < server->n; at += r->step)
        smtpc_input(r->c, (const uint8_t *)server->p + at, MIN(r->step, server->n - at));
    server->n = 0;
}

static void play_line(struct run *r, str_t line, struct sbuf *server)
{
    str_t text = str_sub(line, 2, line.n);
    if (line.p[0] == 'S') {
        if (!server->n)
            expect_nothing_more(r);
        sbuf_str(server, text);
        sbuf_cstr(server, "\r\n");
        return;
    }
    feed(r, server);
    switch (line.p[0]) {
    case 'C': expect_line(r, &r->said, &r->said_at, text, STR("\r\n")); return;
    case 'E': expect_line(r, &r->told, &r->told_at, text, STR("\n")); return;
    case 'D':
        expect_nothing_more(r);
        deliver(r, (unsigned)(text.p[0] - '0'));
        return;
    case 'T':
        expect_nothing_more(r);
        stream(r, &r->txs[text.p[0] - '0']);
        return;
    default: expect_nothing_more(r); act(r, text);
    }
}

static void play(const struct dialogue *d, size_t step)
{
    static struct run r;
    char server_bytes[8192];
    struct sbuf server = SBUF_ON(server_bytes);
    str_t rest = str_cstr(d->script), line;
    r = (struct run){.dialogue = d, .step = step};
    r.said = SBUF_ON(r.said_bytes);
    r.told = SBUF_ON(r.told_bytes);
    struct smtpc_options opt = d->opt;
    opt.helo_name = STR("gw.example");
    assert_int_equal(smtpc_create(&r.c, &host_ops, &r, &opt), 0);
    smtpc_start(r.c);
    while (rest.n) {
        str_cut(rest, '\n', &line, &rest);
        if (line.n)
            play_line(&r, line, &server);
    }
    feed(&r, &server);
    expect_nothing_more(&r);
    smtpc_destroy(r.c);
}

static void play_all(const struct dialogue *d, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        play(&d[i], SIZE_MAX / 2);
        play(&d[i], 1);
    }
}

#define EHLO     "S 220 mx\nC EHLO gw.example\n"
#define UP_PIPE  EHLO "S 250-mx\nS 250-PIPELINING\nS 250 8BITMIME\nE ready 2\n"
#define UP_PLAIN EHLO "S 250 mx\nE ready 1\n"
#define UP_LMTP  "S 220 mx\nC LHLO gw.example\nS 250-mx\nS 250 PIPELINING\nE ready 2\n"
#define ONE                                                                                                  \
    {                                                                                                        \
        {                                                                                                    \
            .sender = "a@b", .rcpts = { "x@y" }                                                              \
        }                                                                                                    \
    }
#define TWO_RCPTS                                                                                            \
    {                                                                                                        \
        {                                                                                                    \
            .sender = "a@b", .rcpts = { "x@y", "z@y" }                                                       \
        }                                                                                                    \
    }
#define TWO                                                                                                  \
    {                                                                                                        \
        {.sender = "a@b", .rcpts = {"x@y"}},                                                                 \
        {                                                                                                    \
            .sender = "", .rcpts = { "z@y" }                                                                 \
        }                                                                                                    \
    }
#define THREE                                                                                                \
    {                                                                                                        \
        {.sender = "a@b", .rcpts = {"x@y"}}, {.sender = "", .rcpts = {"z@y"}},                               \
        {                                                                                                    \
            .sender = "c@b", .rcpts = { "w@y" }                                                              \
        }                                                                                                    \
    }
#define SAY_0 "C MAIL FROM:<a@b>\nC RCPT TO:<x@y>\nC DATA\n"
#define SAY_1 "C MAIL FROM:<>\nC RCPT TO:<z@y>\nC DATA\n"
#define SAY_2 "C MAIL FROM:<c@b>\nC RCPT TO:<w@y>\nC DATA\n"
#define YES   "S 250 2.1.0 ok\nS 250 2.1.5 ok\nS 354 go\n"

#endif
