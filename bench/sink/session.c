/* bench/sink/session.c: the least server that a correct client can talk to: takes everything unless told
 * otherwise. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "bench/sink/sink_priv.h"
#include "core/log.h"
#include "smtp/proto/command.h"

#define LINE_MAX_BYTES 4096
#define ENVELOPE_MAX   65536
#define HEAD_MAX       2048

struct session {
    struct sink_thread *t;
    bool greeted, in_data, waited; /* waited: the delay before what comes next is over */
    bool dot_waits;                /* the content is complete, its reply is not due yet */
    bool has_sender, in_message;
    uint32_t rcpt_count;
    struct content_scan scan;
    uint64_t chunk_left; /* octets of BDAT still to come */
    bool in_chunk, chunk_last, chunk_refused;
    uint8_t stuff_state;
    size_t line_n;
    uint64_t message_bytes;
    char line[LINE_MAX_BYTES];
    char reply_text[8192];
    struct sbuf reply;
    struct timer delay;
    struct gbuf envelope;      /* only with a Maildir */
    struct kept_message *kept; /* owned while in DATA */
    struct sink_check check;
    char head[HEAD_MAX]; /* the start of the content, where the source's line stands */
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

static void flush_replies(struct session *s)
{
    if (s->reply.n)
        conn_write(conn_of(s), s->reply.p, s->reply.n);
    s->reply.n = 0;
}

static void reset_transaction(struct session *s)
{
    keep_abort(s->kept); /* of chunks without a last one */
    s->kept = NULL;
    s->in_message = s->has_sender = false;
    s->rcpt_count = 0;
    s->envelope.n = 0;
}

static void note_envelope(struct session *s, const char *label, str_t line, size_t verb_n)
{
    if (!s->t->opt->maildir || s->envelope.n > ENVELOPE_MAX)
        return;
    gbuf_printf(&s->envelope, "X-Sink-%s: " STR_FMT "\r\n", label, (int)(line.n - verb_n), line.p + verb_n);
}

/* True: a rule answered. */
static bool refused(struct session *s, enum sink_stage stage, str_t line)
{
    const char *text = sink_rule_reply(s->t, stage, line);
    if (!text)
        return false;
    sink_count(&s->t->n.refused, 1);
    say(s, text);
    return true;
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
    if (s->t->opt->chunking)
        say(s, "250-CHUNKING");
    if (s->t->opt->tls && !conn_tls(conn_of(s)))
        say(s, "250-STARTTLS");
    say(s, "250-SMTPUTF8");
    say(s, "250-ENHANCEDSTATUSCODES");
    say(s, "250 SIZE 104857600");
}

static void take_mail(struct session *s, str_t line)
{
    sink_count(&s->t->n.mails, 1);
    reset_transaction(s);
    if (refused(s, SINK_MAIL, line))
        return;
    s->has_sender = true;
    note_envelope(s, "From", line, MIN(line.n, (size_t)10));
    say(s, "250 2.1.0 ok");
}

static void take_rcpt(struct session *s, str_t line)
{
    if (!s->has_sender) {
        say(s, "503 5.5.1 MAIL first");
        return;
    }
    sink_count(&s->t->n.rcpts, 1);
    if (refused(s, SINK_RCPT, line))
        return;
    note_envelope(s, "To", line, 8);
    sink_count(&s->t->n.rcpts_taken, 1);
    s->rcpt_count++;
    say(s, "250 2.1.5 ok");
}

static void begin_content(struct session *s)
{
    s->in_message = true;
    s->check = (struct sink_check){0};
    s->scan = (struct content_scan){0};
    s->stuff_state = 0;
    s->head_n = 0;
    s->message_bytes = 0;
    if (s->t->opt->maildir)
        s->kept = keep_begin(s->t->opt->maildir, s->t->index, gbuf_view(&s->envelope));
}

static void begin_data(struct session *s)
{
    if (!s->rcpt_count) {
        say(s, "554 5.5.1 no valid recipients");
        return;
    }
    if (refused(s, SINK_DATA, STR_NONE))
        return;
    s->in_data = true;
    begin_content(s);
    say(s, "354 go on");
}

static bool begin_chunk(struct session *s, str_t line) /* false: where it ends nobody knows */
{
    if (command_parse_bdat(str_sub(line, 5, line.n), &s->chunk_left, &s->chunk_last)) {
        say(s, "501 5.5.4 BDAT bytes [LAST]");
        return false;
    }
    sink_count(&s->t->n.chunks, 1);
    s->in_chunk = true;
    s->chunk_refused = !s->rcpt_count;
    if (!s->in_message && !s->chunk_refused)
        begin_content(s);
    return true;
}

static void start_tls(struct session *s)
{
    flush_replies(s);
    conn_starttls(conn_of(s), s->t->opt->tls, STR_NONE);
}

static bool command(struct session *s, str_t line) /* false: the session ends */
{
    if (str_istarts(line, STR("MAIL"))) {
        take_mail(s, line);
    } else if (str_istarts(line, STR("RCPT"))) {
        take_rcpt(s, line);
    } else if (str_istarts(line, STR("DATA"))) {
        begin_data(s);
    } else if (str_istarts(line, STR("BDAT")) && s->t->opt->chunking) {
        return begin_chunk(s, line);
    } else if (str_istarts(line, STR("EHLO")) || str_istarts(line, STR("LHLO"))) {
        if (!refused(s, SINK_EHLO, line))
            say_hello(s, true);
    } else if (str_istarts(line, STR("HELO"))) {
        if (!refused(s, SINK_EHLO, line))
            say_hello(s, false);
    } else if (str_istarts(line, STR("STARTTLS")) && s->t->opt->tls && !conn_tls(conn_of(s))) {
        say(s, "220 2.0.0 go on");
        start_tls(s);
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
    char line[128];
    str_t id = sink_id(str_of(s->head, s->head_n));
    int n = id.n ? snprintf(line, sizeof line, "%.*s\n", (int)id.n, id.p) : 0;
    if (n > 0 && n < (int)sizeof line)
        (void)!write(s->t->ids_fd, line, (size_t)n); /* O_APPEND: whole lines */
}

static void judge(struct session *s)
{
    const struct sink_check *k = &s->check;
    if (!k->known)
        return;
    sink_count(&s->t->n.checked, 1);
    if (k->crc != k->want_crc || k->bytes != k->want_bytes)
        sink_count(&s->t->n.damaged, 1);
    if (!sink_first_copy(sink_id(str_of(s->head, s->head_n))))
        sink_count(&s->t->n.copies, 1);
}

static void taken(struct session *s)
{
    if (s->t->ids_fd >= 0)
        write_id(s);
    if (s->t->opt->check)
        judge(s);
    sink_count(&s->t->n.recipients, s->rcpt_count);
    sink_count(&s->t->n.bytes, s->message_bytes);
    sink_message_taken(s->t);
}

static void end_data(struct session *s)
{
    const struct sink_options *o = s->t->opt;
    bool lost = s->kept && keep_end(s->kept);
    s->kept = NULL;
    s->in_data = false;
    if (s->scan.bare_cr || s->scan.bare_lf)
        sink_count(&s->t->n.bare_endings, 1);
    uint32_t replies = o->lmtp ? s->rcpt_count : 1;
    const char *text = lost ? "451 4.3.0 cannot keep it" : sink_rule_reply(s->t, SINK_DOT, STR_NONE);
    if (!text)
        taken(s);
    else
        sink_count(&s->t->n.refused, 1);
    for (uint32_t i = 0; i < replies; i++)
        say(s, text ? text : "250 2.0.0 taken");
    reset_transaction(s);
}

/* Bytes of the content are summed from behind the source's line on, which the head is searched for. */
static void check(struct session *s, const uint8_t *p, size_t n, size_t head_was)
{
    if (s->check.known) {
        sink_check_content(&s->check, p, n);
        return;
    }
    if (head_was == sizeof s->head)
        return; /* not there */
    size_t from = sink_check_begin(&s->check, str_of(s->head, s->head_n));
    if (from)
        sink_check_content(&s->check, p + (from - head_was), n - (from - head_was));
}

static void content(struct session *s, const uint8_t *p, size_t n)
{
    s->message_bytes += n;
    if (s->t->ids_fd >= 0 || s->t->opt->check) {
        size_t was = s->head_n, take = MIN(n, sizeof s->head - s->head_n);
        if (take && !s->check.known) {
            memcpy(s->head + s->head_n, p, take);
            s->head_n += take;
        }
        if (s->t->opt->check)
            check(s, p, n, was);
    }
    if (s->kept)
        keep_content(s->kept, p, n);
}

static size_t feed_data(struct session *s, const uint8_t *p, size_t n, bool *waits)
{
    str_t held;
    size_t content_n;
    size_t used = content_scan(&s->scan, p, n, &held, &content_n);
    if (held.n)
        content(s, (const uint8_t *)held.p, held.n);
    content(s, p, content_n);
    if (s->scan.done && s->t->opt->delay_ms[SINK_DOT]) {
        s->dot_waits = *waits = true;
        timer_arm(s->t->loop, &s->delay, s->t->opt->delay_ms[SINK_DOT]);
    } else if (s->scan.done) {
        end_data(s);
    }
    return used;
}

static void end_chunk(struct session *s, bool *waits)
{
    s->in_chunk = false;
    if (s->chunk_refused) {
        say(s, "503 5.5.1 no valid recipients");
    } else if (!s->chunk_last) {
        say(s, "250 2.0.0 more");
    } else if (s->t->opt->delay_ms[SINK_DOT]) {
        s->dot_waits = *waits = true;
        timer_arm(s->t->loop, &s->delay, s->t->opt->delay_ms[SINK_DOT]);
    } else {
        end_data(s);
    }
}

static size_t feed_chunk(struct session *s, const uint8_t *p, size_t n, bool *waits)
{
    uint8_t stuffed[2 * 1024];
    size_t take = MIN(MIN(n, sizeof stuffed / 2), s->chunk_left);
    if (!s->chunk_refused)
        content(s, stuffed, content_stuff_octets(&s->stuff_state, p, take, stuffed));
    s->chunk_left -= take;
    if (!s->chunk_left)
        end_chunk(s, waits);
    return take;
}

/* Which delay stands before the answer to this. */
static uint32_t delay_before(const struct session *s, str_t line)
{
    static const struct {
        const char *verb;
        enum sink_stage stage;
    } verbs[] = {{"EHLO", SINK_EHLO}, {"LHLO", SINK_EHLO}, {"HELO", SINK_EHLO},
                 {"MAIL", SINK_MAIL}, {"RCPT", SINK_RCPT}, {"DATA", SINK_DATA}};
    for (unsigned i = 0; i < COUNT_OF(verbs); i++) {
        if (str_istarts(line, str_cstr(verbs[i].verb)))
            return s->t->opt->delay_ms[verbs[i].stage];
    }
    return 0;
}

/* Reading stops for so long; what is left is offered again then. False: the wait is over, or there is none.
 */
static bool must_wait(struct session *s, uint32_t ms)
{
    if (s->waited || !ms) {
        s->waited = false;
        return false;
    }
    timer_arm(s->t->loop, &s->delay, ms);
    return true;
}

/* One command line, maybe spread over reads; returns bytes used. *alive: false when the session ends;
 * *waits: nothing was used, and what comes next is not due yet. */
static size_t feed_line(struct session *s, const uint8_t *p, size_t n, bool *alive, bool *waits)
{
    const uint8_t *lf = memchr(p, '\n', n);
    size_t take = lf ? (size_t)(lf - p) + 1 : n;
    str_t line = str_of((const char *)p, take);
    if (!s->line_n && lf && must_wait(s, delay_before(s, line))) {
        *waits = true;
        return 0;
    }
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
    bool alive = true, waits = false;
    size_t at = 0;
    while (at < n && alive && !waits) {
        if (s->in_data)
            at += feed_data(s, p + at, n - at, &waits);
        else if (s->in_chunk)
            at += feed_chunk(s, p + at, n - at, &waits);
        else
            at += feed_line(s, p + at, n - at, &alive, &waits);
        if (s->in_chunk && !s->chunk_left) /* BDAT 0 */
            end_chunk(s, &waits);
    }
    flush_replies(s);
    if (!alive)
        conn_finish(c, 1000);
    else if (waits)
        conn_pause(c);
    return alive ? at : n;
}

static void greet(struct session *s)
{
    if (!refused(s, SINK_CONNECT, STR_NONE))
        say(s, "220 sink ESMTP");
    flush_replies(s);
}

static void delay_over(struct timer *t)
{
    struct session *s = container_of(t, struct session, delay);
    if (!s->greeted) {
        greet(s);
        s->greeted = true;
        return;
    }
    if (s->dot_waits) {
        s->dot_waits = false;
        end_data(s);
        flush_replies(s);
    } else {
        s->waited = true;
    }
    conn_resume(conn_of(s));
}

static void on_secured(struct conn *c, err_t err)
{
    struct session *s = conn_ctx(c);
    if (!err)
        sink_count(&s->t->n.handshakes, 1);
}

static void on_eof(struct conn *c)
{
    conn_close(c, 0);
}

static void on_closed(struct conn *c, err_t err)
{
    struct session *s = conn_ctx(c);
    (void)err;
    timer_disarm(s->t->loop, &s->delay);
    keep_abort(s->kept);
    gbuf_free(&s->envelope);
    free(s);
}

void sink_accept(struct sink_thread *t, int fd, const struct endpoint *peer)
{
    static const struct conn_ops ops = {
        .data = on_data, .eof = on_eof, .secured = on_secured, .closed = on_closed};
    struct session *s = calloc(1, ALIGN_UP(sizeof *s, 64) + conn_size());
    (void)peer;
    if (!s) {
        close(fd);
        return;
    }
    s->t = t;
    s->reply = SBUF_ON(s->reply_text);
    s->delay.fire = delay_over;
    sink_count(&t->n.connections, 1);
    conn_open(conn_of(s), t->loop, fd, &ops, s);
    uint32_t wait_ms = t->opt->delay_ms[SINK_CONNECT];
    s->greeted = wait_ms == 0;
    if (wait_ms)
        timer_arm(t->loop, &s->delay, wait_ms);
    else
        greet(s);
}
