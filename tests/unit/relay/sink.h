/* A scripted SMTP server on the test's own loop. Default: takes everything; rules change replies by the start
 * of a line. */
#ifndef TESTS_UNIT_RELAY_SINK_H
#define TESTS_UNIT_RELAY_SINK_H

#include "net/conn.h"
#include "net/listener.h"

struct rule {
    const char *line; /* prefix of the command; "." is the end of data */
    const char *reply;
    bool close_after; /* hang up behind it; a reply of "" hangs up without a word */
};

struct sink {
    struct loop *loop;
    struct listener *listener;
    struct endpoint at;
    bool is_started, is_lmtp, is_mute;                       /* mute: no greeting */
    uint32_t messages_per_connection, rcpts_max, errors_max; /* 0: no limit; errors: 5xx to a connection */
    bool says_limits;                                        /* both of the first, in EHLO */
    const struct rule *rules;                                /* ends with a NULL line */
    uint32_t connections, open, messages, closed_by_us;
    uint32_t messages_most;  /* over one connection */
    struct gbuf last, lines; /* content of the last message; all commands */
    struct list peers;
};

struct sink_peer {
    struct sink *sink;
    struct link link;
    char line[1024];
    size_t line_n;
    bool in_data, finished;
    uint32_t rcpts, messages, errors;
    char accepted[128][64];
    struct gbuf content;
    _Alignas(64) char conn[];
};

static struct conn *sink_conn(struct sink_peer *p)
{
    return (struct conn *)(void *)p->conn;
}

static void sink_say(struct sink_peer *p, const char *text)
{
    conn_write(sink_conn(p), text, strlen(text));
}

static void sink_hang_up(struct sink_peer *p)
{
    p->finished = true;
    p->sink->closed_by_us++;
    conn_finish(sink_conn(p), 1000);
}

static bool sink_rule(struct sink_peer *p, str_t line)
{
    for (const struct rule *r = p->sink->rules; r && r->line; r++) {
        if (!str_istarts(line, str_cstr(r->line)))
            continue;
        sink_say(p, r->reply);
        if (r->close_after) {
            sink_hang_up(p);
        } else if (r->reply[0] == '5' && ++p->errors == p->sink->errors_max) {
            sink_say(p, "421 4.7.0 too many errors\r\n");
            sink_hang_up(p);
        }
        return true;
    }
    return false;
}

static void sink_end_of_data(struct sink_peer *p)
{
    struct sink *s = p->sink;
    p->in_data = false;
    p->messages++;
    s->messages++;
    s->messages_most = MAX(s->messages_most, p->messages);
    s->last.n = 0;
    gbuf_str(&s->last, gbuf_view(&p->content));
    p->content.n = 0;
    if (s->is_lmtp) {
        for (uint32_t i = 0; i < p->rcpts; i++)
            sink_say(p, str_istarts(str_cstr(p->accepted[i]), STR("RCPT TO:<full"))
                            ? "452 4.2.2 mailbox full\r\n"
                            : "250 2.0.0 taken\r\n");
    } else if (!sink_rule(p, STR("."))) {
        sink_say(p, "250 2.0.0 taken\r\n");
    }
    p->rcpts = 0;
    bool is_last = s->messages_per_connection && p->messages >= s->messages_per_connection + s->says_limits;
    if (is_last && !p->finished) {
        sink_say(p, "421 4.3.2 that is enough for one connection\r\n");
        sink_hang_up(p);
    }
}

static void sink_command(struct sink_peer *p, str_t line)
{
    gbuf_str(&p->sink->lines, line);
    gbuf_cstr(&p->sink->lines, "\n");
    if (sink_rule(p, line))
        return;
    if (str_istarts(line, STR("EHLO")) || str_istarts(line, STR("LHLO"))) {
        char limits[80];
        snprintf(limits, sizeof limits, "250-LIMITS MAILMAX=%u RCPTMAX=%u\r\n",
                 p->sink->messages_per_connection, p->sink->rcpts_max);
        sink_say(p, "250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n");
        sink_say(p, p->sink->says_limits ? limits : "");
        sink_say(p, "250-SIZE 0\r\n250 ENHANCEDSTATUSCODES\r\n");
    } else if (str_istarts(line, STR("RCPT")) && p->sink->rcpts_max && p->rcpts >= p->sink->rcpts_max) {
        sink_say(p, "452 4.5.3 too many recipients\r\n");
    } else if (str_istarts(line, STR("RCPT"))) {
        if (p->rcpts < COUNT_OF(p->accepted))
            memcpy(p->accepted[p->rcpts], line.p, MIN(line.n, sizeof p->accepted[0] - 1));
        p->rcpts++;
        sink_say(p, "250 2.1.5 ok\r\n");
    } else if (str_istarts(line, STR("DATA"))) {
        p->in_data = p->rcpts > 0;
        sink_say(p, p->in_data ? "354 go\r\n" : "554 5.5.1 no valid recipients\r\n");
    } else if (str_istarts(line, STR("QUIT"))) {
        sink_say(p, "221 2.0.0 bye\r\n");
        p->finished = true;
        conn_finish(sink_conn(p), 1000);
    } else {
        if (str_istarts(line, STR("MAIL")) || str_istarts(line, STR("RSET")))
            p->rcpts = 0;
        sink_say(p, "250 2.0.0 ok\r\n");
    }
}

static void sink_line(struct sink_peer *p)
{
    str_t line = str_of(p->line, p->line_n);
    if (!p->in_data) {
        sink_command(p, str_sub(line, 0, line.n - 2));
    } else if (str_eq(line, STR(".\r\n"))) {
        sink_end_of_data(p);
    } else {
        gbuf_str(&p->content, line);
    }
}

static size_t sink_data(struct conn *c, const uint8_t *bytes, size_t n)
{
    struct sink_peer *p = conn_ctx(c);
    for (size_t i = 0; i < n && !p->finished; i++) {
        if (p->line_n < sizeof p->line)
            p->line[p->line_n++] = (char)bytes[i];
        if (bytes[i] == '\n') {
            sink_line(p);
            p->line_n = 0;
        }
    }
    return n;
}

static void sink_eof(struct conn *c)
{
    conn_close(c, 0);
}

static void sink_closed(struct conn *c, err_t err)
{
    struct sink_peer *p = conn_ctx(c);
    p->sink->open--;
    list_remove(&p->link);
    gbuf_free(&p->content);
    free(p);
}

static const struct conn_ops sink_conn_ops = {.data = sink_data, .eof = sink_eof, .closed = sink_closed};

static void sink_accepted(void *ctx, int fd, const struct endpoint *peer, const struct endpoint *local)
{
    struct sink *s = ctx;
    struct sink_peer *p = NULL;
    if (posix_memalign((void **)&p, 64, sizeof *p + conn_size()))
        abort();
    memset(p, 0, sizeof *p);
    p->sink = s;
    s->connections++;
    s->open++;
    list_push_back(&s->peers, &p->link);
    conn_open(sink_conn(p), s->loop, fd, &sink_conn_ops, p);
    if (!s->is_mute && !sink_rule(p, STR("<connect>")))
        sink_say(p, "220 sink.example ESMTP\r\n");
}

static void sink_listener_closed(void *ctx, struct listener *ln)
{
    ((struct sink *)ctx)->listener = NULL;
}

static const struct listener_ops sink_listener_ops = {.accepted = sink_accepted,
                                                      .closed = sink_listener_closed};

/* Opens on a free port; nobody answers there before sink_start. */
static void sink_open(struct sink *s, struct loop *l)
{
    struct endpoint any;
    list_init(&s->peers);
    s->loop = l;
    if (endpoint_parse(STR("127.0.0.1:0"), &any) || listener_open(&s->listener, &any))
        abort();
    s->at = *listener_endpoint(s->listener);
}

static void sink_start(struct sink *s)
{
    s->is_started = true;
    listener_start(s->listener, s->loop, &sink_listener_ops, s);
}

static void sink_stop(struct sink *s)
{
    listener_close(s->listener);
    if (!s->is_started)
        s->listener = NULL; /* no callback then */
    LIST_EACH(&s->peers, k)
    conn_close(sink_conn(container_of(k, struct sink_peer, link)), 0);
}

static void sink_free(struct sink *s)
{
    gbuf_free(&s->last);
    gbuf_free(&s->lines);
}

#endif
