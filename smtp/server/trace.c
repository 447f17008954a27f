/* smtp/server/trace.c: RFC 5321 4.4 trace information, RFC 3848 and RFC 6531 4.3 "with" keywords. */
#include "core/clock.h"
#include "smtp/server/session_priv.h"

/* The client chose this text, and readers of Received: take parentheses, brackets and semicolons for syntax.
 */
static void put_helo(struct sbuf *out, str_t helo)
{
    for (size_t i = 0; i < helo.n; i++) {
        char ch = helo.p[i];
        bool plain = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
                     (ch && strchr("-._:[]", ch));
        sbuf_char(out, plain ? ch : '?');
    }
}

static const char *with_protocol(const struct smtpd_session *s)
{
    if (s->tx->params.smtputf8)
        return s->tls_active ? "UTF8SMTPS" : "UTF8SMTP";
    if (!s->esmtp)
        return "SMTP";
    return s->tls_active ? "ESMTPS" : "ESMTP";
}

static void put_received(const struct smtpd_session *s, const struct origin *real, struct sbuf *out,
                         const char *id, const char *date)
{
    const struct transaction *tx = s->tx;
    sbuf_cstr(out, "Received: from ");
    put_helo(out, str_of(s->helo, s->helo_n));
    sbuf_cstr(out, " (");
    if (s->named && s->named->name_n) {
        put_helo(out, str_of(s->named->name, s->named->name_n));
        sbuf_char(out, ' ');
    }
    ip_format_literal(&s->peer, out);
    sbuf_char(out, ')');
    if (real->step != ORIGIN_CLIENT && real->step != ORIGIN_UNKNOWN) {
        sbuf_cstr(out, "\r\n\t(client ");
        ip_format_literal(&real->ip, out);
        sbuf_printf(out, " by %s)", origin_step_name(real->step));
    }
    sbuf_cstr(out, "\r\n\tby ");
    sbuf_str(out, session_config(s)->hostname);
    sbuf_printf(out, " with %s", with_protocol(s));
    sbuf_printf(out, " id %s", id);
    if (s->tls_active)
        sbuf_printf(out, " (version=%s cipher=%s verify=%s)", s->tls.version, s->tls.cipher, s->tls.verify);
    if (tx->rcpt_count == 1) { /* with more, one would tell the others about each other */
        sbuf_cstr(out, "\r\n\tfor <");
        sbuf_str(out, tx->rcpts[0].address);
        sbuf_char(out, '>');
    }
    sbuf_printf(out, ";\r\n\t%s\r\n", date);
}

void trace_write(const struct smtpd_session *s, const struct origin *real, struct sbuf *out)
{
    const struct header_scan *h = &s->tx->content.headers;
    char id[16], date[40];
    size_t date_n = clock_rfc5322(s->now_ms * NS_PER_MS, date);
    date[MIN(date_n, sizeof date - 1)] = '\0';
    qid_format(s->tx->message_id, id);
    put_received(s, real, out, id, date);

    /* RFC 5321 6.4 lets the first hop repair what its own clients leave out, and nobody else. Two bytes: the
     * message begins with the empty line. Cut short: they may stand behind. */
    if (s->class != CLASS_TRUSTED || h->bytes <= 2 || h->cut_short)
        return;
    if (!h->has_date)
        sbuf_printf(out, "Date: %s\r\n", date);
    if (!h->has_message_id) {
        sbuf_printf(out, "Message-ID: <%s@", id);
        sbuf_str(out, session_config(s)->hostname);
        sbuf_cstr(out, ">\r\n");
    }
}
