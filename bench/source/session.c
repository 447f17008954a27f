/* bench/source/session.c: one client connection: as pipelined as RFC 2920 allows within a message, lock-step
 * between messages, as real clients are. */
#include <errno.h>
#include <unistd.h>

#include "bench/source/source_priv.h"
#include "core/clock.h"
#include "core/log.h"

#define RETRY_MS   50
#define DIALS_HELD 256    /* under way at once when they are to be held: a listen queue is finite */
#define SILENCE_MS 120000 /* without a reply the connection is lost, as a full listen queue leaves some */

enum step {
    STEP_GREETING,
    STEP_EHLO,
    STEP_STARTTLS,
    STEP_ENVELOPE,
    STEP_DOT,
    STEP_IDLE, /* between messages, or held */
    STEP_QUIT
};

struct session {
    struct source_thread *t;
    enum step step;
    struct endpoint from;
    bool offers_pipelining, offers_starttls, secured, connected, has_message;
    bool must_reset; /* the last transaction was not ended by content */
    uint32_t sent_in_session;
    /* STEP_ENVELOPE: RSET if need be, MAIL, RCPTs, and DATA if we come so far; indices into that */
    uint32_t said, answered, commands;
    bool mail_taken;
    uint32_t rcpts_ok, unknown_refused;
    uint64_t number; /* of the message under way */
    uint64_t due_ns, begun_ns, said_ns, broken_since_ns;
    struct conn_ref body_ref;
    bool body_in_flight;
    struct pace_waiter waiter;
    struct timer retry, silence;
    size_t line_n;
    char line[1024];
};

static struct conn *conn_of(struct session *s)
{
    return (struct conn *)(void *)((char *)s + ALIGN_UP(sizeof *s, 64));
}

static void dial(struct session *s);
static void dial_for_message(struct session *s);
static void start_session(struct source_thread *t);

static void finish_session(struct session *s)
{
    struct source_thread *t = s->t;
    free(s);
    if (--t->sessions_left == 0)
        source_thread_done(t);
}

/* --- measuring --- */

static void note_error(struct session *s, const char *text)
{
    struct source_results *r = &s->t->results;
    if (!r->first_error[0])
        snprintf(r->first_error, sizeof r->first_error, "%s", text);
}

static void measure(struct session *s, enum source_stage stage, uint64_t since_ns)
{
    latency_add(&s->t->results.latency[stage], clock_mono_ns() - since_ns);
}

/* --- what is said --- */

/* We are owed a reply from now on. */
static void spoke(struct session *s)
{
    s->said_ns = clock_mono_ns();
    timer_arm(s->t->loop, &s->silence, SILENCE_MS);
}

static void write_now(struct session *s, struct sbuf *b)
{
    conn_write(conn_of(s), b->p, b->n);
    spoke(s);
}

static void say(struct session *s, const char *text)
{
    conn_write(conn_of(s), text, strlen(text));
    spoke(s);
}

/* Which command of the envelope `index` is: -1 RSET, 0 MAIL, 1.. RCPT, rcpts_per_message + 1 DATA. */
static int command_at(const struct session *s, uint32_t index)
{
    return (int)index - (s->must_reset ? 1 : 0);
}

static void say_command(struct session *s, struct sbuf *b, int command)
{
    const struct source_options *o = s->t->opt;
    if (command < 0) {
        sbuf_cstr(b, "RSET\r\n");
    } else if (command == 0) {
        sbuf_printf(b, "MAIL FROM:<%s>\r\n", o->sender);
    } else if (command <= (int)o->rcpts_per_message) {
        sbuf_cstr(b, "RCPT TO:<");
        (void)source_recipient(o, s->number, (uint32_t)command - 1, b);
        sbuf_cstr(b, ">\r\n");
    } else {
        sbuf_cstr(b, "DATA\r\n");
    }
}

static void say_group(struct session *s)
{
    char text[4096];
    struct sbuf b = SBUF_ON(text);
    uint32_t group = s->offers_pipelining ? s->t->opt->pipeline : 1;
    for (uint32_t i = 0; i < group && s->said < s->commands; i++) {
        if (b.cap - b.n < 1200) {
            conn_write(conn_of(s), b.p, b.n);
            b.n = 0;
        }
        say_command(s, &b, command_at(s, s->said++));
    }
    write_now(s, &b);
}

static void begin_message(struct session *s)
{
    const struct source_options *o = s->t->opt;
    s->step = STEP_ENVELOPE;
    s->said = s->answered = s->rcpts_ok = s->unknown_refused = 0;
    s->commands = (s->must_reset ? 1 : 0) + 1 + o->rcpts_per_message + (o->until == UNTIL_DOT ? 1 : 0);
    s->begun_ns = s->due_ns ? s->due_ns : clock_mono_ns();
    say_group(s);
}

static void body_sent(struct conn_ref *ref)
{
    struct session *s = container_of(ref, struct session, body_ref);
    s->body_in_flight = false;
}

static int id_of(const struct session *s, char *out, size_t cap)
{
    return snprintf(out, cap, "%s.%u.%llu", s->t->opt->run_name, s->t->index, (unsigned long long)s->number);
}

/* Our lines, on which the sink recognises the message and checks its bytes, and the body. */
static void send_content(struct session *s)
{
    char id[80], head[320];
    struct sbuf b = SBUF_ON(head);
    const struct source_body *body = source_body(s->t->opt, s->number);
    id_of(s, id, sizeof id);
    if (!s->t->opt->file)
        sbuf_printf(&b, "Message-ID: <%s@postern-source>\r\n", id);
    sbuf_printf(&b, "X-Postern-Source: %s; crc32c=%08x; bytes=%zu\r\n", id, body->crc, body->n);
    conn_write(conn_of(s), b.p, b.n);
    must(!s->body_in_flight);
    s->body_in_flight = true;
    s->body_ref = (struct conn_ref){.p = body->p, .n = body->n, .release = body_sent};
    conn_write_ref(conn_of(s), &s->body_ref);
    s->t->results.bytes += b.n + body->n;
}

static void say_content(struct session *s)
{
    s->step = STEP_DOT;
    if (s->rcpts_ok) /* RFC 2920 3.1: 354 without a recipient is answered by nothing but the dot */
        send_content(s);
    say(s, ".\r\n");
}

/* --- which message next --- */

static bool take_message(struct session *s, enum pace_answer *answer)
{
    *answer = pace_next(s->t->pace, &s->waiter, &s->number, &s->due_ns);
    s->has_message = *answer == PACE_NOW;
    if (s->has_message && s->due_ns)
        measure(s, STAGE_START, s->due_ns);
    return s->has_message;
}

static void say_quit(struct session *s)
{
    s->step = STEP_QUIT;
    say(s, "QUIT\r\n");
}

static void next_message_or_quit(struct session *s)
{
    enum pace_answer answer;
    s->step = STEP_IDLE;
    if (s->has_message || (s->sent_in_session < s->t->opt->messages_per_session && take_message(s, &answer)))
        begin_message(s);
    else if (link_in_list(&s->waiter.link))
        timer_disarm(s->t->loop, &s->silence);
    else
        say_quit(s);
}

/* A message is due, or nothing is any more: for a session that waits with or without a connection. */
static void on_due(struct pace_waiter *w)
{
    struct session *s = container_of(w, struct session, waiter);
    if (s->connected)
        next_message_or_quit(s);
    else
        dial_for_message(s);
}

/* --- what is answered --- */

static void write_id(struct session *s)
{
    char id[80];
    struct sbuf b = SBUF_ON(id);
    b.n = (size_t)id_of(s, id, sizeof id);
    sbuf_char(&b, '\n');
    (void)!write(s->t->ids_fd, b.p, b.n);
}

static void message_done(struct session *s, int code)
{
    const struct source_options *o = s->t->opt;
    struct source_results *r = &s->t->results;
    s->has_message = false;
    s->sent_in_session++;
    s->must_reset = s->step != STEP_DOT;
    if (code / 100 == 2 || (o->until == UNTIL_RCPT && code < 600 && s->answered == s->commands)) {
        r->ok++;
        r->last_ok_ns = clock_mono_ns();
        if (o->until != UNTIL_EHLO)
            latency_add(&r->latency[STAGE_MESSAGE], r->last_ok_ns - s->begun_ns);
        if (s->t->ids_fd >= 0)
            write_id(s);
    } else if (s->unknown_refused == o->rcpts_per_message) {
        r->turned_away++;
        r->last_ok_ns = clock_mono_ns();
    } else {
        r->refused++;
        note_error(s, s->line);
    }
    next_message_or_quit(s);
}

static void rcpt_reply(struct session *s, uint32_t i, int code)
{
    char address[700];
    struct sbuf b = SBUF_ON(address);
    struct source_results *r = &s->t->results;
    bool unknown = s->t->opt->unknown_percent && source_recipient(s->t->opt, s->number, i, &b);
    measure(s, STAGE_RCPT, s->said_ns);
    if (code / 100 == 2) {
        s->rcpts_ok++;
        r->rcpt_taken++;
        r->rcpt_wrong += unknown;
    } else if (code / 100 == 4) {
        r->rcpt_deferred++;
        note_error(s, s->line);
    } else {
        r->rcpt_refused++;
        r->rcpt_wrong += !unknown;
        s->unknown_refused += unknown;
        if (!unknown)
            note_error(s, s->line);
    }
}

static void envelope_reply(struct session *s, int code)
{
    const struct source_options *o = s->t->opt;
    int command = command_at(s, s->answered++);
    bool no_use = false;
    if (command == 0) {
        measure(s, STAGE_MAIL, s->said_ns);
        s->mail_taken = code / 100 == 2;
        no_use = !s->mail_taken;
        if (no_use)
            note_error(s, s->line);
    } else if (command > 0 && command <= (int)o->rcpts_per_message && s->mail_taken) {
        rcpt_reply(s, (uint32_t)command - 1, code);
        no_use = command == (int)o->rcpts_per_message && !s->rcpts_ok;
    } else if (command > (int)o->rcpts_per_message) {
        measure(s, STAGE_DATA, s->said_ns);
    }
    if (s->answered < s->said)
        return;
    if (s->said < s->commands && !no_use)
        say_group(s);
    else if (code == 354)
        say_content(s);
    else
        message_done(s, code);
}

static void say_ehlo(struct session *s)
{
    char text[300];
    struct sbuf b = SBUF_ON(text);
    s->step = STEP_EHLO;
    s->offers_pipelining = s->offers_starttls = false;
    sbuf_printf(&b, "EHLO %s\r\n", s->t->opt->helo);
    write_now(s, &b);
}

static void hello_done(struct session *s, int code)
{
    const struct source_options *o = s->t->opt;
    measure(s, STAGE_EHLO, s->said_ns);
    if (o->tls && !s->secured) {
        if (!s->offers_starttls) {
            note_error(s, "STARTTLS is not offered");
            conn_close(conn_of(s), -EPROTO);
            return;
        }
        s->step = STEP_STARTTLS;
        say(s, "STARTTLS\r\n");
    } else if (o->hold_s) {
        s->step = STEP_IDLE;
        timer_disarm(s->t->loop, &s->silence);
        s->t->held++;
        source_session_held(s->t);
        start_session(s->t);
    } else if (o->until == UNTIL_EHLO) {
        message_done(s, code);
    } else {
        next_message_or_quit(s);
    }
}

static void reply(struct session *s, int code)
{
    switch (s->step) {
    case STEP_GREETING:
        measure(s, STAGE_GREETING, s->said_ns);
        say_ehlo(s);
        break;
    case STEP_EHLO: hello_done(s, code); break;
    case STEP_STARTTLS: conn_starttls(conn_of(s), s->t->opt->tls, STR_NONE); break;
    case STEP_ENVELOPE: envelope_reply(s, code); break;
    case STEP_DOT:
        measure(s, STAGE_DOT, s->said_ns);
        message_done(s, code);
        break;
    case STEP_IDLE: break;
    case STEP_QUIT: conn_close(conn_of(s), 0); break;
    }
}

static void line(struct session *s)
{
    int code = atoi(s->line);
    if (s->step == STEP_EHLO) {
        s->offers_pipelining = s->offers_pipelining || strstr(s->line, "PIPELINING");
        s->offers_starttls = s->offers_starttls || strstr(s->line, "STARTTLS");
    }
    if (strlen(s->line) >= 4 && s->line[3] == '-')
        return;
    if (code < 200 || code > 599 || code == 421 || (code >= 400 && s->step < STEP_ENVELOPE)) {
        note_error(s, s->line);
        conn_close(conn_of(s), -ECONNABORTED);
    } else {
        reply(s, code);
    }
}

static size_t on_data(struct conn *c, const uint8_t *p, size_t n)
{
    struct session *s = conn_ctx(c);
    for (size_t i = 0; i < n && !conn_closing(c);) {
        const uint8_t *lf = memchr(p + i, '\n', n - i);
        size_t take = lf ? (size_t)(lf - p) - i : n - i;
        size_t keep = MIN(take, sizeof s->line - 1 - s->line_n);
        memcpy(s->line + s->line_n, p + i, keep);
        s->line_n += keep;
        i += take + (lf ? 1 : 0);
        if (lf) {
            while (s->line_n && s->line[s->line_n - 1] == '\r')
                s->line_n--;
            s->line[s->line_n] = '\0';
            s->line_n = 0;
            line(s);
        }
    }
    return n;
}

/* --- the connection --- */

static void on_eof(struct conn *c)
{
    struct session *s = conn_ctx(c);
    conn_close(c, s->step == STEP_QUIT ? 0 : -ECONNRESET);
}

static void on_connected(struct conn *c)
{
    struct session *s = conn_ctx(c);
    measure(s, STAGE_CONNECT, s->said_ns);
    spoke(s);
    s->connected = true;
    s->t->results.connects++;
}

static void on_secured(struct conn *c, err_t err)
{
    struct session *s = conn_ctx(c);
    if (err)
        return; /* the connection is closing */
    measure(s, STAGE_TLS, s->said_ns);
    s->t->results.handshakes++;
    s->secured = true;
    say_ehlo(s);
}

static void give_message_up(struct session *s)
{
    if (!s->has_message)
        return;
    s->has_message = false;
    if (s->t->opt->retry_s || s->step < STEP_ENVELOPE)
        pace_hand_back(s->t->pace, s->number);
    else
        s->t->results.refused++;
}

static void on_closed(struct conn *c, err_t err)
{
    struct session *s = conn_ctx(c);
    const struct source_options *o = s->t->opt;
    uint64_t now = clock_mono_ns();

    if (s->connected && !err)
        s->broken_since_ns = 0;
    else if (!s->broken_since_ns)
        s->broken_since_ns = now;
    if (err) {
        s->t->results.lost++;
        note_error(s, err_text(err));
    }
    s->connected = false;
    timer_disarm(s->t->loop, &s->silence);
    list_remove(&s->waiter.link);
    give_message_up(s);
    if (o->hold_s) {
        if (s->step == STEP_IDLE)
            s->t->held--;
        start_session(s->t);
        finish_session(s);
        return;
    }
    bool patient = !s->broken_since_ns || (o->retry_s && now - s->broken_since_ns < o->retry_s * NS_PER_S);
    if (!patient || !pace_more(s->t->pace))
        finish_session(s);
    else if (err)
        timer_arm(s->t->loop, &s->retry, RETRY_MS);
    else
        dial_for_message(s);
}

static void silent(struct timer *t)
{
    conn_close(conn_of(container_of(t, struct session, silence)), ERR_TIMEOUT);
}

static void retry_now(struct timer *t)
{
    dial_for_message(container_of(t, struct session, retry));
}

static void dial(struct session *s)
{
    static const struct conn_ops ops = {.data = on_data,
                                        .eof = on_eof,
                                        .connected = on_connected,
                                        .secured = on_secured,
                                        .closed = on_closed};
    const struct source_options *o = s->t->opt;
    s->step = STEP_GREETING;
    s->connected = s->secured = s->must_reset = false;
    s->sent_in_session = 0;
    s->line_n = 0;
    s->said_ns = clock_mono_ns();
    memset(conn_of(s), 0, conn_size());
    conn_dial(conn_of(s), s->t->loop, &o->to, o->from_count ? &s->from : NULL, 30000, &ops, s);
}

/* A session begins when it has something to send: with a rate, only then. */
static void dial_for_message(struct session *s)
{
    enum pace_answer answer;
    if (take_message(s, &answer))
        dial(s);
    else if (answer == PACE_NONE)
        finish_session(s);
}

/* The n-th address from `e` on. */
static struct endpoint address_after(const struct endpoint *e, uint32_t n)
{
    struct endpoint r = *e;
    for (unsigned i = sizeof r.ip.b; i-- > 0 && n; n >>= 8) {
        n += r.ip.b[i];
        r.ip.b[i] = (uint8_t)n;
    }
    return r;
}

static void start_session(struct source_thread *t)
{
    static _Atomic uint32_t serial;
    if (!t->session_count)
        return;
    t->session_count--;
    struct session *s = calloc(1, ALIGN_UP(sizeof *s, 64) + conn_size());
    must(s);
    s->t = t;
    s->retry.fire = retry_now;
    s->silence.fire = silent;
    s->waiter.due = on_due;
    if (t->opt->from_count)
        s->from = address_after(&t->opt->from, serial++ % t->opt->from_count);
    if (t->opt->hold_s)
        dial(s);
    else
        dial_for_message(s);
}

err_t source_sessions_start(struct source_thread *t)
{
    uint32_t n = t->opt->hold_s ? MIN(t->session_count, (uint32_t)DIALS_HELD) : t->session_count;
    t->sessions_left = t->session_count;
    while (n-- > 0)
        start_session(t);
    return 0;
}
