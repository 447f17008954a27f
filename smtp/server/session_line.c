/* smtp/server/session_line.c: the only reader of command lines, and so the only judge of their endings. A
 * line that is in the input as a whole is looked at where it is; only one that comes in part costs memory. */
#include "smtp/server/session_priv.h"

#define LINE_BYTES_FIRST 512 /* RFC 5321 4.5.3.1.4: what most lines fit into */

void session_drop_line(struct smtpd_session *s)
{
    if (s->line)
        arena_free(&s->line_arena);
    s->line = NULL;
    s->line_n = s->line_cap = 0;
    s->line_overlong = false;
}

/* Adds to the pending line, which has room for `max` bytes at most: the caller has checked that. */
static err_t line_append(struct smtpd_session *s, const uint8_t *p, size_t n, uint32_t max)
{
    if (!s->line)
        arena_init(&s->line_arena, LINE_BYTES_FIRST + (size_t)max + 64);
    if (s->line_n + n > s->line_cap) {
        uint32_t cap = s->line_n + n <= LINE_BYTES_FIRST ? LINE_BYTES_FIRST : max;
        char *line = arena_alloc(&s->line_arena, cap);
        if (!line)
            return -ENOMEM;
        if (s->line_n)
            memcpy(line, s->line, s->line_n);
        s->line = line;
        s->line_cap = cap;
    }
    memcpy(s->line + s->line_n, p, n);
    s->line_n += (uint32_t)n;
    return 0;
}

static void refuse_line(struct smtpd_session *s, enum reply_id why)
{
    s->commands++;
    session_reply(s, why, STR_NONE);
    session_settle(s);
}

/* `raw` ends in LF. A bare CR never splits a line in two; where it is let through it is a control character
 * like others. */
static void whole_line(struct smtpd_session *s, str_t raw)
{
    str_t line = str_sub(raw, 0, raw.n - 1);
    bool crlf = line.n > 0 && line.p[line.n - 1] == '\r';
    if (crlf)
        line.n--;
    if ((!crlf || str_find(line, '\r') >= 0) && !session_normalises(s)) {
        refuse_line(s, R_bad_line_ending_command);
        return;
    }
    session_command(s, line);
}

static void pending_line(struct smtpd_session *s)
{
    /* The command may close the session, which drops its pending line: this one is ours now. */
    struct arena arena = s->line_arena;
    str_t raw = str_of(s->line, s->line_n);
    s->line = NULL;
    s->line_n = s->line_cap = 0;
    whole_line(s, raw);
    arena_free(&arena);
}

void session_look_ahead(struct smtpd_session *s, const uint8_t *p, size_t n)
{
    while (s->ahead_n < n) {
        const uint8_t *from = p + s->ahead_n, *lf = memchr(from, '\n', n - s->ahead_n);
        if (!lf)
            return;
        str_t line = str_of((const char *)from, (size_t)(lf - from));
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (line.n > session_config(s)->limits.line_length || !session_rcpt_ahead(s, line))
            return;
        s->ahead_n = (size_t)(lf - p) + 1;
    }
}

size_t session_read_line(struct smtpd_session *s, const uint8_t *p, size_t n)
{
    uint32_t max = session_config(s)->limits.line_length;
    const uint8_t *lf = memchr(p, '\n', n);
    size_t used = lf ? (size_t)(lf - p) + 1 : n;

    if (s->line_overlong || used > max || s->line_n > max - used) {
        session_drop_line(s);
        s->line_overlong = !lf;
        if (lf)
            refuse_line(s, R_line_too_long);
        return used;
    }
    if (lf && !s->line) {
        whole_line(s, str_of((const char *)p, used));
        return used;
    }
    if (line_append(s, p, used, max)) {
        session_goodbye(s, R_overloaded, CLOSE_overload);
        return used;
    }
    if (lf)
        pending_line(s);
    return used;
}
