/* core/log_line.c: one event as one line of logfmt or JSON.
 *
 * Everything that is not plain printable text is escaped: controls (C1 and the Unicode line separators and
 * direction overrides too, which move text on a screen) and bytes that are not UTF-8. So a value can neither
 * end its line nor its quotes. What is too long is cut and marked, and the line stays well-formed. */
#include "core/clock.h"
#include "core/log_priv.h"
#include "core/utf8_priv.h"

#define ELLIPSIS "\xe2\x80\xa6"

struct line {
    struct sbuf buf; /* its cap leaves LINE_END_BYTES for the end */
    enum log_format format;
};

/* `","…":"…"}` and the newline fit behind the last field. */
#define LINE_END_BYTES 24

static const char *const level_names[] = {[LOG_ERROR] = "error",
                                          [LOG_WARN] = "warn",
                                          [LOG_NOTICE] = "notice",
                                          [LOG_INFO] = "info",
                                          [LOG_DEBUG] = "debug"};

static bool is_unsafe(uint32_t cp)
{
    return cp < 0x20 || (cp >= 0x7f && cp <= 0x9f) || (cp >= 0x200e && cp <= 0x200f) ||
           (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069) || cp == 0xfeff;
}

/* What a byte stands for itself in: nearly all of nearly every line, so it is looked up, not worked out. */
enum { IN_QUOTES = 1, BARE = 2 };

static const uint8_t stands_in[256] = {
    [0x20] = IN_QUOTES,
    [0x21] = IN_QUOTES | BARE,
    [0x23 ... 0x3c] = IN_QUOTES | BARE, /* without the quote, and */
    [0x3d] = IN_QUOTES,                 /* '=' */
    [0x3e ... 0x5b] = IN_QUOTES | BARE, /* without the backslash */
    [0x5d ... 0x7e] = IN_QUOTES | BARE,
};

/* How many bytes from `at` on stand for themselves. */
static size_t plain_run(str_t value, size_t at, uint8_t in)
{
    size_t end = at;
    while (end < value.n && (stands_in[(uint8_t)value.p[end]] & in))
        end++;
    return end - at;
}

static bool logfmt_needs_quotes(str_t value)
{
    if (value.n == 0)
        return true;
    for (size_t at = plain_run(value, 0, BARE); at < value.n;) {
        uint32_t cp;
        size_t n = utf8_decode(value, at, &cp);
        if (!n || is_unsafe(cp) || cp == ' ' || cp == '"' || cp == '=' || cp == '\\')
            return true;
        at += n;
    }
    return false;
}

/* The character at `at`, escaped; returns how many bytes of the value it stands for. */
static size_t escape_one(enum log_format format, str_t value, size_t at, struct sbuf *out)
{
    uint32_t cp;
    size_t n = utf8_decode(value, at, &cp);
    if (n && !is_unsafe(cp)) {
        if (cp == '"' || cp == '\\')
            sbuf_char(out, '\\');
        sbuf_put(out, value.p + at, n);
        return n;
    }
    if (format == LOG_JSON && n) {
        sbuf_printf(out, "\\u%04x", cp); /* unsafe ones all lie below U+10000 */
        return n;
    }
    sbuf_printf(out, format == LOG_JSON ? "\\u00%02x" : "\\x%02x", (unsigned char)value.p[at]);
    return 1;
}

/* With escapes where they are needed, and cut where it is too long. */
static void put_any_text(struct line *l, str_t value)
{
    bool quoted = l->format == LOG_JSON || logfmt_needs_quotes(value);
    size_t room = l->buf.cap - l->buf.n;
    size_t around = (quoted ? 2 : 0) + sizeof ELLIPSIS - 1;
    room = MIN(room, (size_t)LOG_VALUE_BYTES_MAX);
    if (room < around)
        return; /* put_field() looked: cannot happen, and a short line is no reason to stop */
    room -= around;
    if (quoted)
        sbuf_char(&l->buf, '"');
    for (size_t at = 0, used = 0; at < value.n;) {
        char piece[8];
        struct sbuf escaped = SBUF_ON(piece);
        size_t run = plain_run(value, at, IN_QUOTES), fits = MIN(run, room - used);
        sbuf_put(&l->buf, value.p + at, fits);
        at += fits;
        used += fits;
        if (at == value.n)
            break;
        at += escape_one(l->format, value, at, &escaped);
        used += escaped.n;
        if (used > room) {
            sbuf_cstr(&l->buf, ELLIPSIS);
            break;
        }
        sbuf_str(&l->buf, sbuf_view(&escaped));
    }
    if (quoted)
        sbuf_char(&l->buf, '"');
}

static void put_text(struct line *l, str_t value)
{
    size_t room = MIN(l->buf.cap - l->buf.n, (size_t)LOG_VALUE_BYTES_MAX);
    if (l->format == LOG_LOGFMT && value.n && value.n <= room && plain_run(value, 0, BARE) == value.n)
        sbuf_str(&l->buf, value);
    else
        put_any_text(l, value);
}

static void put_key(struct line *l, const char *key, size_t key_n)
{
    if (l->format == LOG_JSON) {
        sbuf_cstr(&l->buf, l->buf.n ? ",\"" : "{\"");
        sbuf_put(&l->buf, key, key_n);
        sbuf_cstr(&l->buf, "\":");
    } else {
        if (l->buf.n)
            sbuf_char(&l->buf, ' ');
        sbuf_put(&l->buf, key, key_n);
        sbuf_char(&l->buf, '=');
    }
}

static void put_value(struct line *l, const struct log_field *f)
{
    char text[64];
    struct sbuf short_text = SBUF_ON(text);
    switch (f->kind) {
    case LF_KIND_STR: put_text(l, f->str); return;
    case LF_KIND_U64: sbuf_u64(&l->buf, f->u64); return;
    case LF_KIND_I64:
        if (f->i64 < 0)
            sbuf_char(&l->buf, '-');
        sbuf_u64(&l->buf, f->i64 < 0 ? -(uint64_t)f->i64 : (uint64_t)f->i64);
        return;
    case LF_KIND_IP:
        ip_format(f->ip, &short_text);
        put_text(l, sbuf_view(&short_text));
        return;
    case LF_KIND_ERR: put_text(l, str_cstr(err_text(f->err))); return;
    case LF_KIND_QID: put_text(l, str_of(text, qid_format(f->u64, text))); return;
    }
}

static bool is_absent(const struct log_field *f)
{
    return (f->kind == LF_KIND_STR && !f->str.p) || (f->kind == LF_KIND_IP && !f->ip);
}

/* False: the line is full. */
static bool put_field(struct line *l, const struct log_field *f)
{
    size_t key_n = strlen(f->key);
    if (l->buf.cap - l->buf.n < key_n + LOG_FIELD_BYTES_MIN)
        return false;
    put_key(l, f->key, key_n);
    put_value(l, f);
    return true;
}

size_t log_line(enum log_format format, uint64_t wall_ns, enum log_level level, const char *event,
                const struct log_field *fields, size_t field_count, char *out)
{
    struct line l = {.buf = {out, 0, LOG_LINE_BYTES_MAX - LINE_END_BYTES, false}, .format = format};
    char ts[32];
    const struct log_field head[] = {
        LF_STR("ts", str_of(ts, clock_rfc3339(wall_ns, ts))),
        LF_CSTR("level", level_names[level]),
        LF_CSTR("event", event),
    };
    for (size_t i = 0; i < COUNT_OF(head); i++)
        put_field(&l, &head[i]);
    bool is_whole = true;
    for (size_t i = 0; i < field_count && is_whole; i++)
        if (!is_absent(&fields[i]))
            is_whole = put_field(&l, &fields[i]);
    l.buf.cap = LOG_LINE_BYTES_MAX;
    if (!is_whole) {
        put_key(&l, ELLIPSIS, sizeof ELLIPSIS - 1); /* fields are missing */
        put_text(&l, STR(ELLIPSIS));
    }
    sbuf_cstr(&l.buf, format == LOG_JSON ? "}\n" : "\n");
    must(!l.buf.overflow);
    return l.buf.n;
}
