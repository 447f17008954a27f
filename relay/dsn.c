/* No line that is made here begins with a dot, and the original's lines are stuffed already: the whole is in
 * wire form. */
#include "relay/dsn.h"

#include "core/clock.h"
#include "smtp/proto/command.h"

#define TEXT_COLUMN_MAX 76
#define WORD_BYTES_MAX  200 /* a longer "word" is broken: RFC 5322 2.1.1 has 998 a line */
#define LINE_BYTES_MAX  998
#define HOST_BYTES_MAX  255

/* --- others' words --- */

struct writer {
    struct gbuf *out; /* the caller's */
    const struct dsn *d;
    bool utf8; /* the report itself goes out under SMTPUTF8 */
    bool has_8bit;
    char boundary[64];
};

/* One line's worth of somebody else's text: no controls, and UTF-8 only where the report may have it. */
static void put_clean(struct writer *w, str_t s)
{
    bool keep_8bit = w->utf8 && str_is_utf8(s);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        bool ok = ch >= ' ' && ch != 0x7F && (ch < 0x80 || keep_8bit);
        gbuf_put(w->out, ok ? s.p + i : "?", 1);
    }
}

static bool is_blank(char ch)
{
    return ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r';
}

/* Bytes of the first `max` that end at a character's end. */
static size_t whole_characters(str_t s, size_t max)
{
    size_t n = MIN(s.n, max);
    while (n > 0 && n < s.n && ((unsigned char)s.p[n] & 0xC0) == 0x80)
        n--;
    return n ? n : MIN(s.n, max);
}

/* Takes the next word off *rest; an absent one at the end. */
static str_t next_word(str_t *rest)
{
    size_t from = 0, to;
    while (from < rest->n && is_blank(rest->p[from]))
        from++;
    to = from;
    while (to < rest->n && !is_blank(rest->p[to]))
        to++;
    str_t word = str_of(rest->p + from, to - from);
    word.n = whole_characters(word, WORD_BYTES_MAX);
    *rest = str_sub(*rest, from + word.n, rest->n);
    return word;
}

/* Words with single blanks between, folded; `indent` begins each further line (and, being blank, folds a
 * header). */
struct flow {
    size_t column;
    const char *indent;
    bool started;
};

static void flow_words(struct writer *w, struct flow *f, str_t text)
{
    str_t word;
    while ((word = next_word(&text)).n) {
        if (f->started && f->column + 1 + word.n > TEXT_COLUMN_MAX) {
            gbuf_printf(w->out, "\r\n%s", f->indent);
            f->column = strlen(f->indent);
        } else if (f->started) {
            gbuf_cstr(w->out, " ");
            f->column++;
        }
        put_clean(w, word);
        f->column += word.n;
        f->started = true;
    }
}

static void put_paragraph(struct writer *w, const char *text)
{
    struct flow f = {.column = 4, .indent = "    "};
    gbuf_cstr(w->out, f.indent);
    flow_words(w, &f, str_cstr(text));
    gbuf_cstr(w->out, "\r\n");
}

static void put_line(struct writer *w, const char *line)
{
    gbuf_cstr(w->out, line);
    gbuf_cstr(w->out, "\r\n");
}

static void put_when(struct writer *w, uint64_t wall_ms)
{
    char date[40];
    size_t n = clock_rfc5322(wall_ms * NS_PER_MS, date);
    gbuf_put(w->out, date, n);
}

static void put_date(struct writer *w, const char *name, uint64_t wall_ms)
{
    gbuf_printf(w->out, "%s: ", name);
    put_when(w, wall_ms);
    gbuf_cstr(w->out, "\r\n");
}

/* --- what became of a recipient --- */

static const struct {
    const char *name, *subject;
    const char *intro; /* lines of at most 78 */
    unsigned class;    /* of the status; a failure may also be of class 4: it was tried for too long */
} actions[DSN_ACTION_COUNT] = {
    [DSN_FAILED] = {"failed", "Undelivered Mail Returned to Sender",
                    "Your message could not be delivered to the recipients below. It is not tried\r\n"
                    "again. Under each address stands what happened, and what you can do.",
                    5},
    [DSN_DELAYED] = {"delayed", "Delayed Mail (still being tried)",
                     "Your message has not been delivered yet to the recipients below. You need not\r\n"
                     "do anything: it is tried again and again, and if it comes to nothing you will\r\n"
                     "be told. Under each address stands why it waits.",
                     4},
    [DSN_RELAYED] = {"relayed", "Mail Passed On",
                     "Your message was passed on to the mail system of the recipients below, which\r\n"
                     "does not send reports of success: this is the last one that you get for them.",
                     2},
    [DSN_DELIVERED] = {"delivered", "Mail Delivered",
                       "Your message was delivered to the mailboxes of the recipients below.", 2},
};

const char *dsn_action_name(enum dsn_action a)
{
    return actions[a].name;
}

enum dsn_action dsn_kind(const struct dsn *d)
{
    enum dsn_action worst = DSN_DELIVERED;
    for (uint32_t i = 0; i < d->rcpt_count; i++)
        worst = MIN(worst, d->rcpts[i].action);
    return worst;
}

struct status {
    unsigned class, subject, detail;
};

static struct status status_of(const struct dsn_rcpt *r)
{
    bool may_be_4 = r->action == DSN_FAILED;
    if (r->status[0] == actions[r->action].class || (may_be_4 && r->status[0] == 4))
        return (struct status){r->status[0], r->status[1], r->status[2]};
    return (struct status){may_be_4 && r->reply_code / 100 == 4 ? 4 : actions[r->action].class, 0, 0};
}

#define ANY 256

struct advice {
    unsigned subject, detail; /* RFC 3463 */
    const char *text;
};

/* The first match counts. */
static const struct advice advices[] = {
    {1, 1, "There is no such address. Please check its spelling, or ask the recipient for the right one."},
    {1, 0, "There is no such address. Please check its spelling, or ask the recipient for the right one."},
    {1, 2, "The part behind the @ does not exist as a mail domain. Please check its spelling."},
    {1, 3, "The address is written in a way that is not allowed. Please check its spelling."},
    {1, 6, "The mailbox has moved. Please ask the recipient for the new address."},
    {1, 10, "The domain behind the @ does not take mail. Please check its spelling."},
    {2, 1, "The mailbox is disabled. Please reach the recipient in another way."},
    {2, 2,
     "The mailbox is full. Please tell the recipient in another way, and send the message again later."},
    {2, 3, "The message is too big for this mailbox. Please send less, or share big files in another way."},
    {3, 4,
     "The message is too big for the recipient's server. Please send less, or share big files in another "
     "way."},
    {4, 6, "The message went round in circles. Please show this report to your mail administrator."},
    {6, 7,
     "The recipient's server does not take addresses with non-ASCII letters. Please use another address."},
    {6, ANY, "The recipient's server does not take content of this kind. Please send it in another form."},
    {7, ANY,
     "The recipient's server refuses this message by its policy. Please reach the recipient in another way, "
     "or "
     "show this report to the administrators of both sides."},
};

static const char *advice_for(struct status s)
{
    for (size_t i = 0; i < COUNT_OF(advices); i++) {
        if (advices[i].subject == s.subject && (advices[i].detail == s.detail || advices[i].detail == ANY))
            return advices[i].text;
    }
    return "Please send the message again later, or show this report to your mail administrator.";
}

/* --- the parts --- */

static void put_header(struct writer *w)
{
    const struct dsn *d = w->d;
    gbuf_cstr(w->out, "From: Mail Delivery System <MAILER-DAEMON@");
    put_clean(w, d->hostname);
    gbuf_cstr(w->out, ">\r\nTo: <");
    put_clean(w, d->to);
    gbuf_printf(w->out, ">\r\nSubject: %s\r\n",
                d->untold.p ? "Undelivered Mail Without a Sender to Tell" : actions[dsn_kind(d)].subject);
    put_date(w, "Date", d->now_ms);
    gbuf_printf(w->out, "Message-ID: <%016llx.dsn@", (unsigned long long)d->id);
    put_clean(w, d->hostname);
    put_line(w, ">\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0");
    put_line(w, "Content-Type: multipart/report; report-type=delivery-status;");
    gbuf_printf(w->out, "\tboundary=\"%s\"\r\n", w->boundary);
    if (w->has_8bit)
        put_line(w, "Content-Transfer-Encoding: 8bit");
    put_line(w, "\r\nThis is a delivery report in MIME format.");
}

static void begin_part(struct writer *w, const char *description, const char *type, bool is_8bit)
{
    gbuf_printf(w->out, "\r\n--%s\r\nContent-Description: %s\r\nContent-Type: %s\r\n", w->boundary,
                description, type);
    if (is_8bit)
        put_line(w, "Content-Transfer-Encoding: 8bit");
    gbuf_cstr(w->out, "\r\n");
}

/* "550 5.1.1 No such user" */
static void flow_answer(struct writer *w, struct flow *f, const struct dsn_rcpt *r)
{
    char code[32];
    struct sbuf b = SBUF_ON(code);
    if (r->reply_code)
        sbuf_printf(&b, "%d", r->reply_code);
    if (r->reply_code && r->status[0])
        sbuf_printf(&b, " %u.%u.%u", r->status[0], r->status[1], r->status[2]);
    flow_words(w, f, sbuf_view(&b));
    flow_words(w, f, r->diagnostic);
}

static void put_said(struct writer *w, const struct dsn_rcpt *r)
{
    struct flow f = {.column = 4, .indent = "    "};
    gbuf_cstr(w->out, f.indent);
    if (r->remote_mta.n) {
        flow_words(w, &f, str_sub(r->remote_mta, 0, HOST_BYTES_MAX));
        flow_words(w, &f, STR("said:"));
    }
    flow_answer(w, &f, r);
    if (!f.started)
        flow_words(w, &f, STR("No reason was given."));
    gbuf_cstr(w->out, "\r\n");
}

static void put_human_rcpt(struct writer *w, const struct dsn_rcpt *r)
{
    struct status s = status_of(r);
    gbuf_cstr(w->out, "\r\n<");
    put_clean(w, r->address);
    put_line(w, ">");
    if (r->action != DSN_FAILED) {
        if (r->action == DSN_DELAYED || r->remote_mta.n)
            put_said(w, r);
        return;
    }
    put_said(w, r);
    put_line(w, "");
    if (s.class == 4)
        put_paragraph(w, "It was tried again and again, until the message had waited for too long.");
    put_paragraph(w, advice_for(s));
}

static void put_intro(struct writer *w, enum dsn_action action)
{
    const struct dsn *d = w->d;
    gbuf_cstr(w->out, "\r\n");
    if (!d->untold.p) {
        put_line(w, actions[action].intro);
    } else if (!d->untold.n) {
        put_line(w, "A message without a sender, mostly a report itself, could not be delivered to the\r\n"
                    "recipients below. It is not tried again. You get this because nobody else can be\r\n"
                    "told.");
    } else {
        gbuf_cstr(w->out,
                  "A message could not be delivered to the recipients below. It is not tried again.\r\n"
                  "You get this because its sender cannot be told:\r\n<");
        put_clean(w, d->untold);
        put_line(w, ">");
    }
    if (action == DSN_DELAYED) {
        gbuf_cstr(w->out, "It is tried until ");
        put_when(w, d->retry_until_ms);
        put_line(w, ".");
    }
}

static void put_human_part(struct writer *w)
{
    const struct dsn *d = w->d;
    begin_part(w, "Notification", w->utf8 ? "text/plain; charset=utf-8" : "text/plain; charset=us-ascii",
               w->utf8);
    gbuf_cstr(w->out, "This is the mail system at ");
    put_clean(w, d->hostname);
    put_line(w, ".");
    for (enum dsn_action a = 0; a < DSN_ACTION_COUNT; a++) {
        bool is_begun = false;
        for (uint32_t i = 0; i < d->rcpt_count; i++) {
            if (d->rcpts[i].action != a)
                continue;
            if (!is_begun)
                put_intro(w, a);
            is_begun = true;
            put_human_rcpt(w, &d->rcpts[i]);
        }
    }
    gbuf_printf(w->out, "\r\n%s attached.\r\n",
                d->is_whole ? "The message is" : "The header lines of the message are");
    put_line(w, "If you ask an administrator for help, please send all of this report along.");
}

static bool needs_escape(unsigned char ch)
{
    return ch <= ' ' || ch == 0x7F || ch == '+' || ch == '=' || ch == '\\';
}

/* RFC 6533 3, utf-8-addr-unitext. False, and nothing put: not such an address, or its line would be too long.
 */
static bool put_utf8_recipient(struct writer *w, str_t address)
{
    size_t n = 0;
    for (size_t i = 0; i < address.n; i++)
        n += needs_escape((unsigned char)address.p[i]) ? sizeof "\\x{00}" - 1 : 1;
    if (!w->utf8 || str_is_ascii(address) || !str_is_utf8(address) || n > LINE_BYTES_MAX - 30)
        return false;
    gbuf_cstr(w->out, "Final-Recipient: utf-8; ");
    for (size_t i = 0; i < address.n; i++) {
        if (needs_escape((unsigned char)address.p[i]))
            gbuf_printf(w->out, "\\x{%02X}", (unsigned char)address.p[i]);
        else
            gbuf_put(w->out, address.p + i, 1);
    }
    gbuf_cstr(w->out, "\r\n");
    return true;
}

static void put_final_recipient(struct writer *w, str_t address)
{
    if (put_utf8_recipient(w, address))
        return;
    gbuf_cstr(w->out, "Final-Recipient: rfc822; ");
    put_clean(w, address);
    gbuf_cstr(w->out, "\r\n");
}

/* What the xtext hid; what is none is said as it came. */
static void put_decoded(struct writer *w, str_t xtext)
{
    char bytes[ORCPT_MAX];
    struct sbuf b = SBUF_ON(bytes);
    bool is_xtext = xtext_decode(xtext, &b) == 0 && !b.overflow;
    put_clean(w, is_xtext ? sbuf_view(&b) : str_sub(xtext, 0, ORCPT_MAX));
}

/* RFC 3464 2.3.1. An address of type utf-8 is no xtext: RFC 6533 3. */
static void put_original_recipient(struct writer *w, str_t orcpt)
{
    str_t type, address;
    if (!str_cut(orcpt, ';', &type, &address))
        return;
    gbuf_cstr(w->out, "Original-Recipient: ");
    put_clean(w, str_sub(type, 0, ORCPT_MAX));
    gbuf_cstr(w->out, "; ");
    if (str_ieq(type, STR("utf-8")))
        put_clean(w, str_sub(address, 0, ORCPT_MAX));
    else
        put_decoded(w, address);
    gbuf_cstr(w->out, "\r\n");
}

static void put_diagnostic(struct writer *w, const struct dsn_rcpt *r)
{
    if (!r->reply_code && !r->diagnostic.n)
        return;
    const char *name = r->reply_code ? "Diagnostic-Code: smtp;" : "Diagnostic-Code: X-Postern;";
    struct flow f = {.column = strlen(name), .indent = "    ", .started = true};
    gbuf_cstr(w->out, name);
    flow_answer(w, &f, r);
    gbuf_cstr(w->out, "\r\n");
}

static void put_rcpt_fields(struct writer *w, const struct dsn_rcpt *r)
{
    struct status s = status_of(r);
    put_line(w, "");
    put_original_recipient(w, r->orcpt);
    put_final_recipient(w, r->address);
    gbuf_printf(w->out, "Action: %s\r\nStatus: %u.%u.%u\r\n", actions[r->action].name, s.class, s.subject,
                s.detail);
    if (r->remote_mta.n) {
        gbuf_cstr(w->out, "Remote-MTA: dns; ");
        put_clean(w, str_sub(r->remote_mta, 0, HOST_BYTES_MAX));
        gbuf_cstr(w->out, "\r\n");
    }
    put_diagnostic(w, r);
    if (r->last_attempt_ms)
        put_date(w, "Last-Attempt-Date", r->last_attempt_ms);
    if (r->action == DSN_DELAYED)
        put_date(w, "Will-Retry-Until", w->d->retry_until_ms);
}

static void put_status_part(struct writer *w)
{
    const struct dsn *d = w->d;
    begin_part(w, "Delivery report", w->utf8 ? "message/global-delivery-status" : "message/delivery-status",
               w->utf8);
    if (d->envid.n) {
        gbuf_cstr(w->out, "Original-Envelope-Id: ");
        put_decoded(w, d->envid);
        gbuf_cstr(w->out, "\r\n");
    }
    gbuf_cstr(w->out, "Reporting-MTA: dns; ");
    put_clean(w, d->hostname);
    gbuf_cstr(w->out, "\r\nX-Postern-Queue-ID: ");
    put_clean(w, d->queue_id);
    gbuf_cstr(w->out, "\r\n");
    put_date(w, "Arrival-Date", d->arrived_ms);
    for (uint32_t i = 0; i < d->rcpt_count; i++)
        put_rcpt_fields(w, &d->rcpts[i]);
}

/* A header line of the original as it came, but no longer than a line may be and without controls that came
 * inside. */
static void put_original_line(struct writer *w, str_t line)
{
    size_t room = LINE_BYTES_MAX;
    if (str_eq(line, STR("."))) /* not a line of a header, and never one of ours: it would end the report */
        gbuf_cstr(w->out, ".");
    while (line.n) {
        size_t n = whole_characters(line, room);
        for (size_t i = 0; i < n; i++) {
            unsigned char ch = (unsigned char)line.p[i];
            gbuf_put(w->out, (ch >= ' ' && ch != 0x7F) || ch == '\t' ? line.p + i : "?", 1);
        }
        line = str_sub(line, n, line.n);
        gbuf_cstr(w->out, line.n ? "\r\n " : "");
        room = LINE_BYTES_MAX - 1; /* behind the blank that folds it */
    }
    gbuf_cstr(w->out, "\r\n");
}

/* Whole lines up to the empty one; what the caller's cut left of a line is dropped. */
static void put_headers_part(struct writer *w)
{
    str_t rest = w->d->original, line;
    bool is_utf8 = w->utf8 && str_is_utf8(rest);
    begin_part(w, "Header lines of the message", is_utf8 ? "message/global-headers" : "text/rfc822-headers",
               !str_is_ascii(rest));
    while (str_cut(rest, '\n', &line, &rest)) {
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (!line.n)
            break;
        put_original_line(w, line);
    }
}

static void put_whole_part(struct writer *w)
{
    str_t m = w->d->original;
    begin_part(w, "Message", w->d->smtputf8 ? "message/global" : "message/rfc822", !str_is_ascii(m));
    gbuf_str(w->out, m);
}

/* Whoever wrote the original shall not be able to end our parts: RFC 2046 5.1.1 takes a mere prefix for a
 * boundary. */
static void choose_boundary(struct writer *w)
{
    str_t h = w->d->original;
    unsigned n = 0;
    do {
        snprintf(w->boundary, sizeof w->boundary, "=_report_%016llx_%u", (unsigned long long)w->d->id, n++);
    } while (h.n && memmem(h.p, h.n, w->boundary, strlen(w->boundary)));
}

void dsn_write(const struct dsn *d, struct gbuf *out)
{
    struct writer w = {.out = out, .d = d, .utf8 = d->smtputf8 || !str_is_ascii(d->to)};
    w.has_8bit = w.utf8 || !str_is_ascii(d->original);
    choose_boundary(&w);
    put_header(&w);
    put_human_part(&w);
    put_status_part(&w);
    if (d->is_whole)
        put_whole_part(&w);
    else
        put_headers_part(&w);
    gbuf_printf(out, "\r\n--%s--\r\n", w.boundary);
}
