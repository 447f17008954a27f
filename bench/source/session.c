/* bench/source/session.c: one client connection: as pipelined as RFC 2920 allows within a message, lock-step
 * between messages, as real clients are. */
#include <errno.h>
#include <unistd.h>

#include "bench/source/source_priv.h"
#include "core/clock.h"
#include "core/log.h"

#define RETRY_MS 50

enum step { STEP_GREETING, STEP_EHLO, STEP_ENVELOPE, STEP_DOT, STEP_QUIT };

struct message_number { /* waits in source_thread.again */
    struct link link;
    uint64_t number;
};

struct session {
    struct source_thread *t;
    enum step step;
    bool pipelining, connected, has_message;
    uint32_t sent_in_session;
    uint32_t replies_due, rcpts_ok; /* STEP_ENVELOPE: MAIL + RCPTs + DATA */
    uint32_t reply_index;
    uint64_t number; /* of the message under way */
    uint64_t mail_ns, broken_since_ns;
    struct conn_ref body_ref;
    bool body_in_flight;
    struct timer retry;
    size_t line_n;
    char line[1024];
};

static struct conn *conn_of(struct session *s)
{
    return (struct conn *)(void *)((char *)s + ALIGN_UP(sizeof *s, 64));
}

static void dial(struct session *s);

/* --- which message next --- */

static bool next_number(struct session *s)
{
    struct source_thread *t = s->t;
    struct link *k = list_pop_front(&t->again);
    if (k) {
        struct message_number *m = container_of(k, struct message_number, link);
        s->number = m->number;
        free(m);
    } else if (t->begun < t->quota) {
        s->number = t->begun++;
    } else {
        return false;
    }
    s->has_message = true;
    return true;
}

static void hand_back(struct session *s)
{
    struct message_number *m = calloc(1, sizeof *m);
    must(m);
    m->number = s->number;
    list_push_back(&s->t->again, &m->link);
    s->has_message = false;
}

static void finish_session(struct session *s)
{
    struct source_thread *t = s->t;
    free(s);
    if (--t->sessions_left == 0)
        source_thread_done(t);
}

/* --- what is said --- */

static void say_rcpt(struct session *s, struct sbuf *b, uint32_t i)
{
    const struct source_options *o = s->t->opt;
    const char *percent = strchr(o->recipient, '%');
    sbuf_cstr(b, "RCPT TO:<");
    if (percent) {
        sbuf_put(b, o->recipient, (size_t)(percent - o->recipient));
        sbuf_u64(b, s->number * o->rcpts_per_message + i);
        sbuf_cstr(b, percent + 1);
    } else {
        sbuf_cstr(b, o->recipient);
    }
    sbuf_cstr(b, ">\r\n");
}

/* The envelope's command number `index`: 0 MAIL, 1.. RCPT, last DATA. */
static void say_command(struct session *s, struct sbuf *b, uint32_t index)
{
    const struct source_options *o = s->t->opt;
    if (index == 0)
        sbuf_printf(b, "MAIL FROM:<%s>\r\n", o->sender);
    else if (index <= o->rcpts_per_message)
        say_rcpt(s, b, index - 1);
    else
        sbuf_cstr(b, "DATA\r\n");
}

static void begin_message(struct session *s)
{
    char text[2048];
    struct sbuf b = SBUF_ON(text);
    s->step = STEP_ENVELOPE;
    s->reply_index = 0;
    s->rcpts_ok = 0;
    s->replies_due = s->t->opt->rcpts_per_message + 2;
    s->mail_ns = clock_mono_ns();
    uint32_t n = s->pipelining ? s->replies_due : 1;
    for (uint32_t i = 0; i < n; i++) {
        if (b.cap - b.n < 600) {
            conn_write(conn_of(s), b.p, b.n);
            b.n = 0;
        }
        say_command(s, &b, i);
    }
    conn_write(conn_of(s), b.p, b.n);
}

static void body_sent(struct conn_ref *ref)
{
    struct session *s = container_of(ref, struct session, body_ref);
    s->body_in_flight = false;
}

static void send_content(struct session *s)
{
    char head[256];
    size_t n;
    const uint8_t *body = source_body(&n);
    int head_n = snprintf(head, sizeof head, "X-Postern-Source: %s.%u.%llu\r\n", s->t->opt->run_name,
                          s->t->index, (unsigned long long)s->number);
    s->step = STEP_DOT;
    conn_write(conn_of(s), head, (size_t)head_n);
    must(!s->body_in_flight);
    s->body_in_flight = true;
    s->body_ref = (struct conn_ref){.p = body, .n = n, .release = body_sent};
    conn_write_ref(conn_of(s), &s->body_ref);
    conn_write(conn_of(s), ".\r\n", 3);
    s->t->bytes += (size_t)head_n + n;
}

static void say_quit(struct session *s)
{
    s->step = STEP_QUIT;
    conn_write(conn_of(s), "QUIT\r\n", 6);
}

static void next_message_or_quit(struct session *s)
{
    if (s->sent_in_session < s->t->opt->messages_per_session && next_number(s))
        begin_message(s);
    else
        say_quit(s);
}

/* --- what is answered --- */

static void note_error(struct session *s, const char *text)
{
    if (!s->t->first_error[0])
        snprintf(s->t->first_error, sizeof s->t->first_error, "%s", text);
}

static void count_latency(struct source_thread *t, uint64_t ns)
{
    uint64_t us = ns / 1000 + 1;
    unsigned log2 = 63u - (unsigned)__builtin_clzll(us);
    unsigned half = log2 && (us >> (log2 - 1)) & 1;
    t->latency[MIN(2 * log2 + half, SOURCE_LATENCY_BUCKETS - 1)]++;
}

static void message_done(struct session *s, int code)
{
    struct source_thread *t = s->t;
    uint64_t now = clock_mono_ns();
    s->has_message = false;
    s->sent_in_session++;
    t->replies[code / 100]++;
    if (code / 100 == 2) {
        t->ok++;
        t->last_ok_ns = now;
        count_latency(t, now - s->mail_ns);
        if (t->ids_fd >= 0) {
            char line[128];
            int n = snprintf(line, sizeof line, "%s.%u.%llu\n", t->opt->run_name, t->index,
                             (unsigned long long)s->number);
            (void)!write(t->ids_fd, line, (size_t)n);
        }
    } else {
        t->refused++;
        note_error(s, s->line);
    }
    next_message_or_quit(s);
}

static void envelope_reply(struct session *s, int code)
{
    uint32_t index = s->reply_index++;
    if (index > 0 && index <= s->t->opt->rcpts_per_message && code / 100 == 2)
        s->rcpts_ok++;
    else if (code >= 400 && index < s->replies_due - 1)
        note_error(s, s->line);
    if (s->reply_index == s->replies_due) {
        if (code == 354)
            send_content(s);
        else
            message_done(s, code);
    } else if (!s->pipelining) {
        char text[1200];
        struct sbuf b = SBUF_ON(text);
        say_command(s, &b, s->reply_index);
        conn_write(conn_of(s), b.p, b.n);
    }
}

static void reply(struct session *s, int code)
{
    char hello[300];
    switch (s->step) {
    case STEP_GREETING:
        s->step = STEP_EHLO;
        conn_write(conn_of(s), hello, (size_t)snprintf(hello, sizeof hello, "EHLO %s\r\n", s->t->opt->helo));
        break;
    case STEP_EHLO: next_message_or_quit(s); break;
    case STEP_ENVELOPE: envelope_reply(s, code); break;
    case STEP_DOT: message_done(s, code); break;
    case STEP_QUIT: conn_close(conn_of(s), 0); break;
    }
}

static void line(struct session *s)
{
    int code = atoi(s->line);
    if (s->step == STEP_EHLO && strstr(s->line, "PIPELINING") && !s->t->opt->no_pipelining)
        s->pipelining = true;
    if (strlen(s->line) < 4 || s->line[3] != '-') {
        if (code < 200 || code > 599 || code == 421 || (code >= 400 && s->step < STEP_ENVELOPE)) {
            note_error(s, s->line);
            conn_close(conn_of(s), -ECONNABORTED);
        } else {
            reply(s, code);
        }
    }
}

static size_t on_data(struct conn *c, const uint8_t *p, size_t n)
{
    struct session *s = conn_ctx(c);
    for (size_t i = 0; i < n && !conn_closing(c); i++) {
        if (p[i] == '\n') {
            while (s->line_n && s->line[s->line_n - 1] == '\r')
                s->line_n--;
            s->line[s->line_n] = '\0';
            s->line_n = 0;
            line(s);
        } else if (s->line_n < sizeof s->line - 1) {
            s->line[s->line_n++] = (char)p[i];
        }
    }
    return n;
}

static void on_eof(struct conn *c)
{
    struct session *s = conn_ctx(c);
    conn_close(c, s->step == STEP_QUIT ? 0 : -ECONNRESET);
}

static void on_connected(struct conn *c)
{
    struct session *s = conn_ctx(c);
    s->connected = true;
    s->t->connects++;
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
        s->t->lost++;
        note_error(s, err_text(err));
    }
    if (s->has_message && !o->retry_s) {
        s->t->refused++;
        s->has_message = false;
    } else if (s->has_message) {
        hand_back(s);
    }
    bool more = s->t->begun < s->t->quota || !list_empty(&s->t->again);
    bool patient = !s->broken_since_ns || (o->retry_s && now - s->broken_since_ns < o->retry_s * NS_PER_S);
    if (!more || !patient) {
        finish_session(s);
        return;
    }
    if (err)
        timer_arm(s->t->loop, &s->retry, RETRY_MS);
    else
        dial(s);
}

static void retry_now(struct timer *t)
{
    dial(container_of(t, struct session, retry));
}

static void dial(struct session *s)
{
    static const struct conn_ops ops = {
        .data = on_data, .eof = on_eof, .connected = on_connected, .closed = on_closed};
    s->step = STEP_GREETING;
    s->pipelining = s->connected = false;
    s->sent_in_session = 0;
    s->line_n = 0;
    memset(conn_of(s), 0, conn_size());
    conn_dial(conn_of(s), s->t->loop, &s->t->opt->to, NULL, 30000, &ops, s);
}

err_t source_sessions_start(struct source_thread *t)
{
    list_init(&t->again);
    t->sessions_left = t->session_count;
    for (uint32_t i = 0; i < t->session_count; i++) {
        struct session *s = calloc(1, ALIGN_UP(sizeof *s, 64) + conn_size());
        if (!s)
            return -ENOMEM;
        s->t = t;
        s->retry.fire = retry_now;
        dial(s);
    }
    return 0;
}
