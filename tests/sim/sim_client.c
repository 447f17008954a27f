/* tests/sim/sim_client.c: clients: pipelined, lock-step or slow; some die in the middle. */
#include "core/log.h"
#include "tests/sim/sim.h"

#define EXPECTED_MAX 64
#define MESSAGES_MAX 8 /* of one connection */
#define PATIENCE_NS  (90 * SIM_S)
#define SLOW_BYTES   600
#define LINE_BYTES   600
#define DYING_SHARE  5 /* how much likelier than other trouble */

enum expectation {
    EXPECT_GREETING,
    EXPECT_EHLO,
    EXPECT_MAIL,
    EXPECT_RCPT,
    EXPECT_DATA,
    EXPECT_DOT,
    EXPECT_RSET,
    EXPECT_QUIT
};
enum mode { MODE_PIPELINED, MODE_LOCKSTEP, MODE_SLOW };

struct expected {
    enum expectation what;
    struct submission *s;
    uint32_t rcpt;
};

static struct client {
    uint32_t index;
    struct stream *stream; /* NULL: between two connections */
    uint64_t epoch;        /* of the connection; timers of earlier ones are stale */
    uint64_t heard;        /* replies so far: is there still life? */
    enum mode mode;
    bool trusted, asked_to_quit;
    uint32_t messages_left;
    struct expected expected[EXPECTED_MAX];
    uint32_t expected_count;
    char line[LINE_BYTES];
    size_t line_n;
    struct gbuf slow; /* owned: what still goes out a bit at a time */
} clients[CLIENTS_MAX];

static const struct peer_ops client_ops;

static void dial(void *ctx, uint64_t epoch);

/* ---- the end of a connection ---- */

static void disconnected(struct client *c)
{
    c->stream = NULL;
    c->epoch++;
    c->slow.n = 0;
    c->expected_count = 0;
    if (!W.healing)
        world_at(chance_around(W.traits.client_pause_ms * SIM_MS), dial, c, c->epoch);
}

static void hang_up(struct client *c, bool reset)
{
    struct stream *s = c->stream;
    if (reset)
        stream_reset(s);
    else
        stream_close(s);
    disconnected(c);
}

static void closed(void *ctx)
{
    disconnected(ctx);
}

/* Dies in the middle, sometimes: true then. */
static bool dies(struct client *c)
{
    if (W.healing || !chance_ppm(W.traits.peer_trouble_ppm / DYING_SHARE))
        return false;
    trace("client %u dies", c->index);
    hang_up(c, chance_below(2));
    return true;
}

/* ---- saying ---- */

static void say_some(void *ctx, uint64_t epoch)
{
    struct client *c = ctx;
    if (c->epoch != epoch || !c->stream || dies(c))
        return;
    size_t most = SLOW_BYTES + c->slow.n / 20, n = 1 + (size_t)chance_below(MIN(c->slow.n, most));
    stream_send(c->stream, c->slow.p, n);
    memmove(c->slow.p, c->slow.p + n, c->slow.n - n);
    c->slow.n -= n;
    if (c->slow.n > 0)
        world_at(chance_around(50 * SIM_MS), say_some, c, epoch);
}

static void say(struct client *c, const char *p, size_t n)
{
    if (c->mode != MODE_SLOW) {
        stream_send(c->stream, p, n);
        return;
    }
    bool was_silent = c->slow.n == 0;
    gbuf_put(&c->slow, p, n);
    if (was_silent)
        say_some(c, c->epoch);
}

static void expect(struct client *c, enum expectation what, struct submission *s, uint32_t rcpt)
{
    must(c->expected_count < EXPECTED_MAX);
    c->expected[c->expected_count++] = (struct expected){what, s, rcpt};
}

static void say_line(struct client *c, enum expectation what, struct submission *s, uint32_t rcpt)
{
    char text[256];
    struct sbuf b = SBUF_ON(text);
    switch (what) {
    case EXPECT_EHLO: sbuf_printf(&b, "EHLO client%u.example", c->index); break;
    case EXPECT_MAIL:
        if (s->null_sender)
            sbuf_cstr(&b, "MAIL FROM:<>");
        else
            sbuf_printf(&b, "MAIL FROM:<s%u@home.example>", s->number);
        if (s->number % 2)
            sbuf_printf(&b, " SIZE=%u", s->body_bytes);
        break;
    case EXPECT_RCPT:
        sbuf_cstr(&b, "RCPT TO:<");
        ledger_rcpt(s, rcpt, &b);
        sbuf_char(&b, '>');
        if (s->wants_success)
            sbuf_cstr(&b, " NOTIFY=SUCCESS,FAILURE");
        break;
    case EXPECT_DATA: sbuf_cstr(&b, "DATA"); break;
    case EXPECT_RSET: sbuf_cstr(&b, "RSET"); break;
    default: sbuf_cstr(&b, "QUIT"); break;
    }
    sbuf_cstr(&b, "\r\n");
    expect(c, what, s, rcpt);
    say(c, b.p, b.n);
}

/* ---- messages ---- */

static uint32_t random_size(void)
{
    uint32_t max = W.traits.body_bytes_max;
    return 60 + (uint32_t)chance_below(chance_below(4) ? MIN(max, 3000u) : max);
}

static struct submission *new_submission(struct client *c)
{
    struct submission *s = ledger_new();
    s->trusted = c->trusted;
    s->null_sender = chance_below(10) == 0;
    s->wants_success = s->trusted && !s->null_sender && chance_below(3) == 0;
    s->body_bytes = random_size();
    s->rcpt_count = 1 + (uint32_t)(chance_below(3) ? 0 : chance_below(RCPTS_MAX));
    uint32_t domain_count = c->trusted ? 4 : 3;
    for (uint32_t i = 0; i < s->rcpt_count; i++) {
        uint64_t kind = chance_below(10);
        s->rcpts[i] = (struct submission_rcpt){
            .kind = kind == 0   ? RCPT_UNKNOWN
                    : kind <= 2 ? RCPT_SLOW_START
                                : RCPT_GOOD,
            .domain = (uint8_t)(1 + chance_below(domain_count)),
        };
    }
    return s;
}

static void begin_message(struct client *c)
{
    if (c->messages_left == 0 || W.healing) {
        if (!c->asked_to_quit)
            say_line(c, EXPECT_QUIT, NULL, 0);
        c->asked_to_quit = true;
        return;
    }
    c->messages_left--;
    struct submission *s = new_submission(c);
    uint64_t epoch = c->epoch;
    say_line(c, EXPECT_MAIL, s, 0);
    if (c->mode != MODE_PIPELINED)
        return;
    for (uint32_t i = 0; i < s->rcpt_count && c->epoch == epoch; i++)
        say_line(c, EXPECT_RCPT, s, i);
    say_line(c, EXPECT_DATA, s, 0);
}

static void stuff(const struct gbuf *body, struct gbuf *out)
{
    for (size_t i = 0; i < body->n; i++) {
        if (body->p[i] == '.' && (i == 0 || body->p[i - 1] == '\n'))
            gbuf_put(out, ".", 1);
        gbuf_put(out, body->p + i, 1);
    }
}

static void send_content(struct client *c, struct submission *s)
{
    struct gbuf body = {0}, wire = {0};
    ledger_body(s, &body);
    stuff(&body, &wire);
    gbuf_free(&body);
    if (!W.healing && chance_ppm(W.traits.peer_trouble_ppm)) {
        trace("client %u dies in message %u", c->index, s->number);
        stream_send(c->stream, wire.p, chance_below(wire.n));
        gbuf_free(&wire);
        hang_up(c, chance_below(2));
        return;
    }
    gbuf_cstr(&wire, ".\r\n");
    s->state = SUB_DOTTED;
    s->sent_ns = W.now_ns;
    trace("client %u sends message %u of %u", c->index, s->number, s->body_bytes);
    expect(c, EXPECT_DOT, s, 0);
    uint64_t epoch = c->epoch;
    say(c, wire.p, wire.n);
    gbuf_free(&wire);
    if (c->epoch == epoch && c->mode == MODE_PIPELINED && s->number % 2)
        begin_message(c); /* RFC 2920: in the same group as the content */
}

static void rcpt_answered(struct submission *s, uint32_t i, int code)
{
    if (code != 250)
        return;
    s->rcpts[i].taken = true;
    s->rcpts[i].index = s->taken_count++;
}

static void dot_answered(struct submission *s, int code, str_t text)
{
    if (code != 250) {
        trace("message %u refused: %d", s->number, code);
        ledger_refused(s);
        return;
    }
    uint64_t id = 0;
    ptrdiff_t at = str_rfind(text, ' ');
    if (at < 0 || qid_parse(str_sub(text, (size_t)at + 1, text.n), &id))
        violation("no queue id in the reply: " STR_FMT, STR_ARG(text));
    trace("message %u accepted", s->number);
    ledger_accepted(s, id);
}

/* ---- hearing ---- */

/* What a client that waits for each reply says next. */
static void lockstep(struct client *c, const struct expected *e, int code)
{
    switch (e->what) {
    case EXPECT_MAIL:
        if (code == 250)
            say_line(c, EXPECT_RCPT, e->s, 0);
        else
            begin_message(c);
        break;
    case EXPECT_RCPT:
        if (e->rcpt + 1 < e->s->rcpt_count)
            say_line(c, EXPECT_RCPT, e->s, e->rcpt + 1);
        else
            say_line(c, EXPECT_DATA, e->s, 0);
        break;
    default: break;
    }
}

static void answered(struct client *c, const struct expected *e, int code, str_t text)
{
    switch (e->what) {
    case EXPECT_GREETING:
        if (code == 220)
            say_line(c, EXPECT_EHLO, NULL, 0);
        else
            hang_up(c, false);
        break;
    case EXPECT_EHLO: begin_message(c); break;
    case EXPECT_RCPT: rcpt_answered(e->s, e->rcpt, code); break;
    case EXPECT_DATA:
        if (code == 354) {
            send_content(c, e->s);
            break;
        }
        say_line(c, EXPECT_RSET, NULL, 0); /* else the next one's recipients would join this one's */
        if (c->stream && c->mode == MODE_PIPELINED)
            begin_message(c);
        break;
    case EXPECT_RSET:
        if (c->mode != MODE_PIPELINED)
            begin_message(c);
        break;
    case EXPECT_DOT:
        dot_answered(e->s, code, text);
        if (!(c->mode == MODE_PIPELINED && e->s->number % 2))
            begin_message(c);
        break;
    case EXPECT_QUIT: hang_up(c, false); return;
    case EXPECT_MAIL: break;
    }
    if (c->stream && c->mode != MODE_PIPELINED)
        lockstep(c, e, code);
}

static void reply_line(struct client *c)
{
    str_t line = str_of(c->line, c->line_n - 2); /* CRLF */
    if (line.n < 4 || (line.p[3] != ' ' && line.p[3] != '-'))
        violation("client %u got a strange reply: " STR_FMT, c->index, STR_ARG(line));
    if (line.p[3] == '-')
        return;
    int code = (line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + line.p[2] - '0';
    c->heard++;
    if (code == 421 || c->expected_count == 0) {
        if (code != 421)
            violation("client %u got a reply too many: " STR_FMT, c->index, STR_ARG(line));
        hang_up(c, false);
        return;
    }
    struct expected e = c->expected[0];
    memmove(c->expected, c->expected + 1, --c->expected_count * sizeof e);
    if (!dies(c))
        answered(c, &e, code, line);
}

static void data(void *ctx, const char *p, size_t n)
{
    struct client *c = ctx;
    uint64_t epoch = c->epoch;
    for (size_t i = 0; i < n && c->epoch == epoch; i++) {
        must(c->line_n < sizeof c->line);
        c->line[c->line_n++] = p[i];
        if (p[i] != '\n')
            continue;
        reply_line(c);
        c->line_n = 0;
    }
}

/* ---- life ---- */

static void patience_ends(void *ctx, uint64_t epoch)
{
    struct client *c = ctx;
    if (c->epoch != epoch || !c->stream)
        return;
    if (c->heard == 0 && c->slow.n == 0) {
        trace("client %u loses patience", c->index);
        hang_up(c, true);
        return;
    }
    c->heard = 0;
    world_at(PATIENCE_NS, patience_ends, c, epoch);
}

static void connected(void *ctx, struct stream *s)
{
}

static const struct peer_ops client_ops = {connected, data, closed};

static void dial(void *ctx, uint64_t epoch)
{
    struct client *c = ctx;
    if (c->epoch != epoch || W.healing)
        return;
    char text[32];
    struct endpoint from = {.port = (uint16_t)(1024 + chance_below(60000))};
    c->trusted = chance_below(2);
    (void)snprintf(text, sizeof text, "%s.%u", c->trusted ? "10.1.0" : "198.51.100", c->index + 1);
    must(ip_parse(str_cstr(text), &from.ip) == 0);
    c->mode = (enum mode)chance_below(3);
    c->messages_left = (uint32_t)chance_below(MESSAGES_MAX + 1);
    c->asked_to_quit = false;
    c->line_n = 0;
    c->heard = 0;
    c->stream = stream_dial(&from, &client_ops, c);
    expect(c, EXPECT_GREETING, NULL, 0);
    world_at(PATIENCE_NS, patience_ends, c, epoch);
}

void clients_begin(void)
{
    for (uint32_t i = 0; i < W.traits.client_count; i++) {
        clients[i] = (struct client){.index = i};
        world_at(chance_around(W.traits.client_pause_ms * SIM_MS), dial, &clients[i], 0);
    }
}

bool clients_are_idle(void)
{
    for (uint32_t i = 0; i < W.traits.client_count; i++)
        if (clients[i].stream)
            return false;
    return true;
}

void clients_end(void)
{
    for (uint32_t i = 0; i < W.traits.client_count; i++)
        gbuf_free(&clients[i].slow);
}
