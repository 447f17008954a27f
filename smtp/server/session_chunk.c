/* smtp/server/session_chunk.c: BDAT (RFC 3030). The octets of a chunk become what DATA has on the wire - dots
 * at line starts are doubled, and behind the last chunk stands a dot of ours - and take the same way. So
 * there is one judge of line endings, one way to the queue, and one end of a message.
 *
 * A chunk that is refused is read to its end all the same: its octets are never taken for commands. */
#include "smtp/server/session_priv.h"

#define CHUNK_PIECE_BYTES 4096 /* octets made into lines at a time */

static struct chunks *chunks_of(const struct smtpd_session *s)
{
    return &s->tx->chunks;
}

/* ---- BDAT ---- */

static enum reply_id judge(const struct smtpd_session *s)
{
    if (session_needs_tls(s))
        return R_tls_needed;
    if (!session_offers(s, EXTENSION_chunking))
        return R_not_implemented;
    if (!s->greeted)
        return R_need_helo;
    if (!s->tx)
        return R_need_mail;
    if (chunks_of(s)->refused)
        return R_need_rset;
    return s->tx->rcpt_count || s->tx->discard_count ? R_ok : R_no_valid_rcpts;
}

static enum reply_id begin(struct smtpd_session *s)
{
    struct chunks *ch = chunks_of(s);
    if (ch->begun)
        return R_ok;
    if (!ch->text && !(ch->text = arena_alloc(&s->tx->arena, 2 * CHUNK_PIECE_BYTES)))
        return R_queue_failed;
    enum reply_id reply = session_content_start(s);
    ch->begun = reply == R_ok;
    return reply;
}

static void skip(struct smtpd_session *s, uint64_t octets, enum reply_id why)
{
    s->skip_bytes = octets;
    s->skip_started_ms = s->now_ms;
    s->skip_reply = (uint16_t)why;
    s->state = STATE_SKIP;
    session_skip(s, 0);
}

void session_bdat(struct smtpd_session *s, str_t arg)
{
    uint64_t octets, octets_max = session_config(s)->limits.message_size;
    bool is_last;
    if (command_parse_bdat(arg, &octets, &is_last)) { /* where its octets end nobody knows */
        session_goodbye(s, R_bad_bdat, CLOSE_errors);
        return;
    }
    if (octets_max && octets > octets_max) { /* nor need anybody wait for so many */
        session_goodbye(s, R_too_big, CLOSE_limit);
        return;
    }
    enum reply_id reply = judge(s);
    if (reply == R_ok)
        reply = begin(s);
    if (reply != R_ok) {
        skip(s, octets, reply);
        return;
    }
    struct chunks *ch = chunks_of(s);
    ch->octets = ch->left = octets;
    ch->is_last = is_last;
    s->state = STATE_CONTENT;
    if (octets == 0 && !is_last)
        session_junk(s);
    if (octets == 0)
        session_chunk(s, (const uint8_t *)"", 0);
}

size_t session_skip(struct smtpd_session *s, size_t n)
{
    if (session_overdue(s, s->skip_started_ms)) {
        session_goodbye(s, R_timed_out, CLOSE_timeout);
        return n;
    }
    size_t used = (size_t)MIN(s->skip_bytes, (uint64_t)n);
    s->skip_bytes -= used;
    if (s->skip_bytes)
        return used;
    s->state = STATE_COMMAND;
    session_reply(s, (enum reply_id)s->skip_reply, STR_NONE);
    session_settle(s);
    return used;
}

/* ---- its octets ---- */

/* The next piece of what DATA would have brought. False: it takes more octets. */
static bool refill(struct chunks *ch, const uint8_t *p, size_t n)
{
    size_t take = (size_t)MIN(MIN(ch->left, (uint64_t)n), (uint64_t)CHUNK_PIECE_BYTES);
    ch->text_at = ch->text_n = 0;
    if (take) {
        ch->text_n = content_stuff_octets(&ch->stuff_state, p, take, ch->text);
        ch->text_octets = take;
        ch->left -= take;
    } else if (ch->left == 0 && ch->is_last) {
        str_t end =
            ch->stuff_state == 0 ? STR(".\r\n") : STR("\r\n.\r\n"); /* a last line without an end gets one */
        memcpy(ch->text, end.p, end.n);
        ch->text_n = end.n;
    }
    return ch->text_n > 0;
}

static void chunk_done(struct smtpd_session *s)
{
    struct chunks *ch = chunks_of(s);
    enum reply_id error = s->tx->content.error;
    char text[64];
    struct sbuf b = SBUF_ON(text);
    s->state = STATE_COMMAND;
    if (error == R_ok) {
        sbuf_printf(&b, "%llu octets received", (unsigned long long)ch->octets);
        session_reply(s, R_ok, sbuf_view(&b));
    } else {
        ch->refused = true;
        session_message_refused(s, error);
        session_reply(s, error, STR_NONE);
    }
    session_settle(s);
}

/* Octets count as consumed when all that was made of them is, so that the rest brings the host back after a
 * wait; the end, for which there are none, goes on in smtpd_resume(). */
size_t session_chunk(struct smtpd_session *s, const uint8_t *p, size_t n)
{
    struct chunks *ch = chunks_of(s);
    size_t used = 0;
    for (;;) {
        while (ch->text_at < ch->text_n) {
            size_t rest = ch->text_n - ch->text_at, took = session_content(s, ch->text + ch->text_at, rest);
            if (s->state != STATE_CONTENT && s->state != STATE_ROOM_WAIT) /* the end: `ch` may be gone */
                return s->state == STATE_CLOSED ? n : used;
            ch->text_at += took;
            if (s->state == STATE_ROOM_WAIT)
                return used;
        }
        size_t done = MIN(ch->text_octets, n - used); /* what is offered again may be less */
        ch->text_octets -= done;
        used += done;
        if (ch->text_octets || !refill(ch, p + used, n - used))
            break;
    }
    if (ch->left == 0 && ch->text_octets == 0)
        chunk_done(s);
    return used;
}
