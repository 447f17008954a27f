/* admin/cli/salvage_export.c: see salvage_export.h. */
#include "admin/cli/salvage_export.h"

#include "queue/crc32c.h"
#include "smtp/proto/envelope.h"

_Static_assert(RCPT_PENDING == 0 && RCPT_DELIVERED == 1 && RCPT_BOUNCED == 2 && RCPT_REMOVED == 3 &&
                   RCPT_REPORT_DUE == 4,
               "states are the same in transfer.h");

void salvage_say_missing(size_t n, struct sbuf *out)
{
    sbuf_printf(out, "[postern: %zu bytes are missing here]", n);
}

bool salvage_can_export(const struct salvage *s, const struct salvage_message *m)
{
    struct envelope e;
    if (!m->has_envelope || m->envelope_damaged || envelope_decode(m->meta, &e))
        return false;
    for (uint32_t i = 0; i < m->rcpt_count; i++) {
        struct envelope_rcpt r;
        enum rcpt_state state;
        if (envelope_rcpt_decode(salvage_rcpt(s, m, i, &state), &r))
            return false;
    }
    return m->rcpt_count > 0;
}

/* ---- the body of a damaged message ---- */

/* Whatever the bytes are, they must be mail again: lines that end in CRLF, dots at their beginning doubled.
 * Else damage could end the message early, and what follows would be commands to the next server. */
struct mender {
    struct gbuf *out;
    bool in_at_start, in_cr; /* what was read last */
    bool out_at_start;
};

static void put_end(struct mender *m)
{
    gbuf_cstr(m->out, "\r\n");
    m->out_at_start = true;
}

static void put_byte(struct mender *m, char c)
{
    if (m->out_at_start && c == '.')
        gbuf_cstr(m->out, ".");
    gbuf_put(m->out, &c, 1);
    m->out_at_start = false;
}

static void mend_byte(struct mender *m, char c)
{
    bool was_cr = m->in_cr, was_start = m->in_at_start;
    m->in_cr = c == '\r';
    m->in_at_start = c == '\n';
    if (was_cr || c == '\n')
        put_end(m);
    if (c != '\r' && c != '\n' && !(was_start && c == '.'))
        put_byte(m, c);
}

static void mend_piece(void *ctx, const uint8_t *p, size_t n, bool damaged)
{
    struct mender *m = ctx;
    char text[64];
    struct sbuf note = SBUF_ON(text);
    for (size_t i = 0; p && i < n; i++)
        mend_byte(m, (char)p[i]);
    if (p)
        return;
    if (!m->out_at_start || m->in_cr)
        put_end(m);
    salvage_say_missing(n, &note);
    gbuf_str(m->out, sbuf_view(&note));
    put_end(m);
    m->in_cr = m->in_at_start = false;
}

static void mend(const struct salvage *s, const struct salvage_message *m, struct gbuf *out)
{
    struct mender mender = {.out = out, .in_at_start = true, .out_at_start = true};
    salvage_body(s, m, mend_piece, &mender);
    if (!mender.out_at_start || mender.in_cr)
        put_end(&mender);
}

static void copy_piece(void *ctx, const uint8_t *p, size_t n, bool damaged)
{
    gbuf_put(ctx, p, n);
}

/* ---- a message ---- */

/* A reference; NULL: no memory. */
static json_t *describe(const struct salvage *s, const struct salvage_message *m, bool is_whole)
{
    struct envelope e;
    struct transfer_rcpt *rcpts = calloc(m->rcpt_count, sizeof *rcpts);
    if (!rcpts)
        return NULL;
    must(envelope_decode(m->meta, &e) == 0);
    for (uint32_t i = 0; i < m->rcpt_count; i++) {
        struct envelope_rcpt r;
        enum rcpt_state state;
        str_t blob = salvage_rcpt(s, m, i, &state);
        must(envelope_rcpt_decode(blob, &r) == 0);
        rcpts[i] = (struct transfer_rcpt){.address = r.address, .blob = blob, .state = (uint8_t)state};
    }
    json_t *o = transfer_describe(&(struct transfer_message){.id = m->id,
                                                             .arrived_ms = m->arrived_ms,
                                                             .due_ms = m->due_ms,
                                                             .attempts = m->attempts,
                                                             .held = m->held || !is_whole,
                                                             .warned = m->warned,
                                                             .sender = e.sender,
                                                             .meta = m->meta,
                                                             .trace = m->trace,
                                                             .rcpts = rcpts,
                                                             .rcpt_count = m->rcpt_count});
    free(rcpts);
    return o;
}

bool salvage_export(const struct salvage *s, const struct salvage_message *m, struct export_file *x)
{
    bool is_whole = m->missing_bytes == 0 && m->damaged_bytes == 0;
    struct gbuf data = {.max = TRANSFER_DATA_MAX}, record = {0};
    gbuf_str(&data, m->trace);
    if (is_whole)
        salvage_body(s, m, copy_piece, &data);
    else
        mend(s, m, &data);
    json_t *description = data.overflow ? NULL : describe(s, m, is_whole);
    if (description)
        transfer_write(description, gbuf_view(&data), crc32c, &record);
    bool ok = description && !record.overflow;
    if (!ok)
        fputs("postern: a message is too large, or there is no memory for it\n", stderr);
    ok = ok && export_file_put(x, gbuf_view(&record)) == 0;
    json_decref(description);
    gbuf_free(&record);
    gbuf_free(&data);
    return ok;
}
