/* smtp/proto/reply.c: see reply.h. */
#include "smtp/proto/reply.h"

/* RFC 5321 4.5.3.1.5: 512 with CRLF. */
#define REPLY_OUT_MAX 510

static const struct reply_def replies[R_COUNT] = {
#define REPLY(id, code, enhanced, text) [R_##id] = {code, STR(enhanced), STR(text)},
#include "smtp/proto/reply.def"
#undef REPLY
};

const struct reply_def *reply_def(enum reply_id id)
{
    must(id >= 0 && id < R_COUNT);
    return &replies[id];
}

void reply_write(struct sbuf *out, enum reply_id id, str_t detail)
{
    const struct reply_def *r = reply_def(id);
    size_t n = 4 + r->text.n;
    sbuf_u64(out, (uint64_t)r->code);
    sbuf_char(out, ' ');
    if (r->enhanced.n) {
        sbuf_str(out, r->enhanced);
        sbuf_char(out, ' ');
        n += r->enhanced.n + 1;
    }
    sbuf_str(out, r->text);
    if (detail.p) {
        sbuf_cstr(out, ": ");
        n += 2;
        for (size_t i = 0; i < detail.n && n < REPLY_OUT_MAX; i++, n++)
            sbuf_char(out, detail.p[i] < ' ' || detail.p[i] >= 0x7F ? '?' : detail.p[i]);
    }
    sbuf_cstr(out, "\r\n");
}

static int digit(char ch)
{
    return ch >= '0' && ch <= '9' ? ch - '0' : -1;
}

/* 1 to 3 digits at *at; moves behind them. */
static bool take_number(str_t s, size_t *at, unsigned *out)
{
    size_t from = *at;
    unsigned v = 0;
    while (*at < s.n && *at - from < 3 && digit(s.p[*at]) >= 0)
        v = v * 10 + (unsigned)digit(s.p[(*at)++]);
    *out = v;
    return *at > from;
}

/* RFC 2034: "5.1.1 text". Its class has to be the reply's, else it is just text. Returns its length with the
 * blank, 0 = none. */
static size_t take_enhanced(str_t s, int code, uint8_t out[3])
{
    unsigned subject, detail;
    size_t at = 2;
    if (s.n < 5 || digit(s.p[0]) != code / 100 || code / 100 == 3 || s.p[1] != '.')
        return 0;
    if (!take_number(s, &at, &subject) || at >= s.n || s.p[at++] != '.' || !take_number(s, &at, &detail))
        return 0;
    if (at < s.n && s.p[at] != ' ')
        return 0;
    out[0] = (uint8_t)(code / 100);
    out[1] = (uint8_t)MIN(subject, 255u);
    out[2] = (uint8_t)MIN(detail, 255u);
    return at < s.n ? at + 1 : at;
}

/* Others' text ends up in logs, consoles and DSNs: no controls, and UTF-8 or nothing. */
static void clean(char *p, size_t n)
{
    bool utf8 = str_is_utf8(str_of(p, n));
    for (size_t i = 0; i < n; i++) {
        unsigned char ch = (unsigned char)p[i];
        bool c1 = ch == 0xC2 && i + 1 < n && (unsigned char)p[i + 1] < 0xA0;
        if (ch < ' ' || ch == 0x7F || (ch >= 0x80 && !utf8)) {
            p[i] = '?';
        } else if (c1) {
            p[i] = '?';
            p[++i] = '?';
        }
    }
}

static void add_text(struct reply_parser *p, str_t text)
{
    if (p->line_count > 0 && p->text_n < REPLY_TEXT_MAX)
        p->text[p->text_n++] = '\n';
    size_t n = MIN(text.n, (size_t)(REPLY_TEXT_MAX - p->text_n));
    while (n > 0 && n < text.n && ((unsigned char)text.p[n] & 0xC0) == 0x80)
        n--; /* no half characters */
    memcpy(p->text + p->text_n, text.p, n);
    p->text_n += (uint32_t)n;
}

static int parse_code(str_t line)
{
    if (line.n < 3 || (line.n > 3 && line.p[3] != ' ' && line.p[3] != '-'))
        return -1;
    if (digit(line.p[0]) < 2 || digit(line.p[0]) > 5 || digit(line.p[1]) < 0 || digit(line.p[2]) < 0)
        return -1;
    return digit(line.p[0]) * 100 + digit(line.p[1]) * 10 + digit(line.p[2]);
}

/* A whole line is in p->line, its LF not. */
static err_t end_line(struct reply_parser *p)
{
    if (p->line_n > 0 && p->line[p->line_n - 1] == '\r')
        p->line_n--;
    str_t line = str_of(p->line, p->line_n);
    int code = parse_code(line);
    if (code < 0 || (p->line_count > 0 && code != p->code) || p->line_count >= REPLY_LINES_MAX)
        return ERR_SYNTAX;
    str_t text = str_sub(line, 4, line.n);
    uint8_t again[3];
    if (p->line_count == 0) {
        p->code = code;
        text = str_sub(text, take_enhanced(text, code, p->reply.enhanced), text.n);
    } else {
        size_t n = take_enhanced(text, code, again);
        if (n && memcmp(again, p->reply.enhanced, sizeof again) == 0)
            text = str_sub(text, n, text.n);
    }
    if (text.n) {
        clean(p->line + (text.p - p->line), text.n);
        add_text(p, text);
    } else {
        add_text(p, STR(""));
    }
    p->line_count++;
    p->line_n = 0;
    p->done = line.n == 3 || line.p[3] == ' ';
    return 0;
}

size_t reply_parse(struct reply_parser *p, const uint8_t *bytes, size_t n, bool *done, err_t *err)
{
    size_t used = 0;
    *done = false;
    *err = 0;
    if (p->done) {
        p->done = false;
        p->text_n = p->line_n = p->line_count = 0;
        p->reply = (struct smtp_reply){0};
    }
    while (used < n && !p->done) {
        const uint8_t *lf = memchr(bytes + used, '\n', n - used);
        size_t piece = lf ? (size_t)(lf - (bytes + used)) : n - used;
        if (piece > REPLY_LINE_MAX - p->line_n) {
            *err = ERR_SYNTAX;
            return used;
        }
        memcpy(p->line + p->line_n, bytes + used, piece);
        p->line_n += (uint32_t)piece;
        used += piece + (lf ? 1 : 0);
        if (lf && (*err = end_line(p)))
            return used;
    }
    if (p->done) {
        p->reply.code = p->code;
        p->reply.text = str_of(p->text, p->text_n);
        p->reply.line_count = p->line_count;
        *done = true;
    }
    return used;
}
