/* bench/sink/session.c: the least server that a correct client can talk to: takes everything unless told
 * otherwise. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "bench/sink/sink_priv.h"
#include "core/log.h"

#define LINE_MAX_BYTES 4096
#define ENVELOPE_MAX   65536

struct session {
    struct sink_thread *t;
    bool in_data, discard; /* discard: DATA refused at its end */
    uint32_t rcpt_count;
    struct content_scan scan;
    size_t line_n;
    uint64_t message_bytes;
    char line[LINE_MAX_BYTES];
    char reply_text[8192];
    struct sbuf reply;
    struct gbuf envelope;      /* only with a Maildir */
    struct kept_message *kept; /* owned while in DATA */
    char head[512];            /* the start of the content, where the source's id stands */
    size_t head_n;
};

/* The conn lives behind the session in the same allocation. */
static struct conn *conn_of(struct session *s)
{
    return (struct conn *)(void *)((char *)s + ALIGN_UP(sizeof *s, 64));
}

static void say(struct session *s, const char *text)
{
    if (s->reply.cap - s->reply.n < 600) {
        conn_write(conn_of(s), s->reply.p, s->reply.n);
        s->reply.n = 0;
    }
    sbuf_cstr(&s->reply, text);
    sbuf_cstr(&s->reply, "\r\n");
}

static void reset_transaction(struct session *s)
{
    s->rcpt_count = 0;
    s->envelope.n = 0;
}

static bool contains(str_t s, const char *what)
{
    return what && memmem(s.p, s.n, what, strlen(what)) != NULL;
}

static void note_envelope(struct session *s, const char *label, str_t line, size_t verb_n)
{
    if (!s->t->opt->maildir || s->envelope.n > ENVELOPE_MAX)
        return;
    gbuf_printf(&s->envelope, "X-Sink-%s: " STR_FMT "\r\n", label, (int)(line.n - verb_n), line.p + verb_n);
}

static void say_hello(struct session *s, bool extended)
{
    if (!extended) {
        say(s, "250 sink");
        return;
    }
    say(s, "250-sink");
    if (!s->t->opt->no_pipelining)
        say(s, "250-PIPELINING");
    say(s, "250-8BITMIME");
    if (s->t->opt->dsn)
        say(s, "250-DSN");
    say(s, "250-SMTPUTF8");
    say(s, "250-ENHANCEDSTATUSCODES");
    say(s, "250 SIZE 104857600");
}

static void take_rcpt(struct session *s, str_t line)
{
    if (contains(line, s->t->opt->reject_rcpt)) {
        say(s, "550 5.1.1 no such user");
    } else if (contains(line, s->t->opt->defer_rcpt)) {
        say(s, "450 4.2.0 try again later");
    } else {
        note_envelope(s, "To", line, 8);
        s->rcpt_count++;
        say(s, "250 2.1.5 ok");
    }
}

static void begin_data(struct session *s)
{
    if (!s->rcpt_count) {
        say(s, "554 5.5.1 no valid recipients");
        return;
    }
    s->in_data = true;
    s->scan = (struct content_scan){0};
    s->head_n = 0;
    s->message_bytes = 0;
    if (s->t->opt->maildir)
        s->kept = keep_begin(s->t->opt->maildir, s->t->index, gbuf_view(&s->envelope));
    say(s, "354 go on");
}

static bool command(struct session *s, str_t line) /* false: the session ends */
{
    if (str_istarts(line, STR("MAIL"))) {
        reset_transaction(s);
        note_envelope(s, "From", line, MIN(line.n, (size_t)10));
        say(s, "250 2.1.0 ok");
    } else if (str_istarts(line, STR("RCPT"))) {
        take_rcpt(s, line);
    } else if (str_istarts(line, STR("DATA"))) {
        begin_data(s);
    } else if (str_istarts(line, STR("EHLO")) || str_istarts(line, STR("LHLO"))) {
        say_hello(s, true);
    } else if (str_istarts(line, STR("HELO"))) {
        say_hello(s, false);
    } else if (str_istarts(line, STR("QUIT"))) {
        say(s, "221 2.0.0 bye");
        return false;
    } else if (str_istarts(line, STR("RSET"))) {
        reset_transaction(s);
        say(s, "250 2.0.0 ok");
    } else if (str_istarts(line, STR("NOOP"))) {
        say(s, "250 2.0.0 ok");
    } else {
        say(s, "502 5.5.1 not here");
    }
    return true;
}

static void write_id(struct session *s)
{
    static const char label[] = "X-Postern-Source: ";
    const char *at = memmem(s->head, s->head_n, label, sizeof label - 1);
    if (!at)
        return;
    at += sizeof label - 1;
    const char *end = memchr(at, '\r', (size_t)(s->head + s->head_n - at));
    char line[128];
    int n = end ? snprintf(line, sizeof line, "%.*s\n", (int)(end - at), at) : 0;
    if (n > 0 && n < (int)sizeof line)
        (void)!write(s->t->ids_fd, line, (size_t)n); /* O_APPEND: whole lines */
}

static void end_data(struct session *s)
{
    const struct sink_options *o = s->t->opt;
    bool lost = s->kept && keep_end(s->kept);
    s->kept = NULL;
    s->in_data = false;
    if (s->scan.bare_cr || s->scan.bare_lf)
        s->t->bare_endings++;
    uint32_t replies = o->lmtp ? s->rcpt_count : 1;
    if (lost || o->refuse_data) {
        for (uint32_t i = 0; i < replies; i++)
            say(s, lost ? "451 4.3.0 cannot keep it" : o->refuse_data);
    } else {
        if (s->t->ids_fd >= 0)
            write_id(s);
        for (uint32_t i = 0; i < replies; i++)
            say(s, "250 2.0.0 taken");
        s->t->recipients += s->rcpt_count;
        s->t->bytes += s->message_bytes;
        sink_message_taken(s->t);
    }
    reset_transaction(s);
}

static void content(struct session *s, const uint8_t *p, size_t n)
{
    s->message_bytes += n;
    if (s->head_n < sizeof s->head && s->t->ids_fd >= 0) {
        size_t take = MIN(n, sizeof s->head - s->head_n);
        memcpy(s->head + s->head_n, p, take);
        s->head_n += take;
    }
    if (s->kept)
        keep_content(s->kept, p, n);
}

static size_t feed_data(struct session *s, const uint8_t *p, size_t n)
{
    str_t held;
    size_t content_n;
    size_t used = content_scan(&s->scan, p, n, &held, &content_n);
    if (held.n)
        content(s, (const uint8_t *)held.p, held.n);
    content(s, p, content_n);
    if (s->scan.done)
        end_data(s);
    return used;
}

/* One command line, maybe spread over reads; returns bytes used. */
static size_t feed_line(struct session *s, const uint8_t *p, size_t n, bool *alive)
{
    const uint8_t *lf = memchr(p, '\n', n);
    size_t take = lf ? (size_t)(lf - p) + 1 : n;
    str_t line = str_of((const char *)p, take);
    if (!lf || s->line_n) {
        if (s->line_n + take > sizeof s->line) {
            *alive = false;
            return n;
        }
        memcpy(s->line + s->line_n, p, take);
        s->line_n += take;
        line = str_of(s->line, s->line_n);
    }
    if (lf) {
        s->line_n = 0;
        while (line.n && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r'))
            line.n--;
        *alive = command(s, line);
    }
    return take;
}

static size_t on_data(struct conn *c, const uint8_t *p, size_t n)
{
    struct session *s = conn_ctx(c);
    bool alive = true;
    for (size_t at = 0; at < n && alive;)
        at += s->in_data ? feed_data(s, p + at, n - at) : feed_line(s, p + at, n - at, &alive);
    if (s->reply.n)
        conn_write(c, s->reply.p, s->reply.n);
    s->reply.n = 0;
    if (!alive)
        conn_finish(c, 1000);
    return n;
}

static void on_eof(struct conn *c)
{
    conn_close(c, 0);
}

static void on_closed(struct conn *c, err_t err)
{
    struct session *s = conn_ctx(c);
    (void)err;
    keep_abort(s->kept);
    gbuf_free(&s->envelope);
    free(s);
}

void sink_accept(struct sink_thread *t, int fd, const struct endpoint *peer)
{
    static const struct conn_ops ops = {.data = on_data, .eof = on_eof, .closed = on_closed};
    struct session *s = calloc(1, ALIGN_UP(sizeof *s, 64) + conn_size());
    (void)peer;
    if (!s) {
        close(fd);
        return;
    }
    s->t = t;
    s->reply = SBUF_ON(s->reply_text);
    t->connections++;
    conn_open(conn_of(s), t->loop, fd, &ops, s);
    conn_write(conn_of(s), "220 sink ESMTP\r\n", 16);
}
