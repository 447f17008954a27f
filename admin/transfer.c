/* admin/transfer.c: records: one message each, as JSON and bytes. Files are in transfer_file.c. */
#include "admin/transfer.h"

#include <errno.h>

#include "admin/transfer_priv.h"
#include "core/log.h"

static const char *const STATES[TRANSFER_STATES_COUNT] = {"pending", "delivered", "bounced", "removed",
                                                          "report due"};

/* --- base64 (RFC 4648 4) --- */

static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static json_t *json_of_bytes(str_t s)
{
    struct gbuf b = {0};
    const uint8_t *p = (const uint8_t *)s.p;
    for (size_t i = 0; i < s.n; i += 3) {
        size_t left = s.n - i;
        uint32_t v =
            (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0u);
        const char quad[4] = {DIGITS[v >> 18], DIGITS[v >> 12 & 63], left > 1 ? DIGITS[v >> 6 & 63] : '=',
                              left > 2 ? DIGITS[v & 63] : '='};
        gbuf_put(&b, quad, sizeof quad);
    }
    json_t *json = b.overflow ? NULL : json_stringn(b.p ? b.p : "", b.n);
    gbuf_free(&b);
    return json;
}

static int digit_of(char c)
{
    const char *at = c ? strchr(DIGITS, c) : NULL;
    return at ? (int)(at - DIGITS) : -1;
}

/* STR_NONE: it is not base64, or there is no memory. */
static str_t bytes_of_json(const json_t *json, struct arena *arena)
{
    const char *s = json_string_value(json);
    size_t n = json_string_length(json);
    if (!s || n % 4 != 0)
        return STR_NONE;
    char *out = arena_alloc(arena, n / 4 * 3 + 1);
    size_t count = 0;
    for (size_t i = 0; out && i < n; i += 4) {
        bool last = i + 4 == n;
        unsigned pad = last ? (s[i + 3] == '=') + (s[i + 3] == '=' && s[i + 2] == '=') : 0;
        uint32_t v = 0;
        for (unsigned k = 0; k < 4; k++) {
            int digit = k < 4 - pad ? digit_of(s[i + k]) : 0;
            if (digit < 0)
                return STR_NONE;
            v = v << 6 | (uint32_t)digit;
        }
        for (unsigned k = 0; k < 3 - pad; k++)
            out[count++] = (char)(v >> (16 - 8 * k) & 255);
    }
    return out ? str_of(out, count) : STR_NONE;
}

/* --- out --- */

static json_t *text_or_null(str_t s)
{
    return s.p && str_is_utf8(s) ? json_stringn(s.p, s.n) : json_null();
}

json_t *transfer_describe(const struct transfer_message *m)
{
    char id[16];
    size_t n = qid_format(m->id, id);
    json_t *rcpts = json_array();
    for (uint32_t i = 0; i < m->rcpt_count; i++) {
        const struct transfer_rcpt *r = &m->rcpts[i];
        must(r->state < TRANSFER_STATES_COUNT);
        json_array_append_new(rcpts,
                              json_pack("{s:o, s:s, s:o}", "address", text_or_null(r->address), "state",
                                        STATES[r->state], "envelope", json_of_bytes(r->blob)));
    }
    return json_pack("{s:s%, s:o, s:I, s:I, s:I, s:b, s:b, s:I, s:o, s:o}", "id", id, n, "sender",
                     text_or_null(m->sender), "arrived_ms", (json_int_t)m->arrived_ms, "due_ms",
                     (json_int_t)m->due_ms, "attempts", (json_int_t)m->attempts, "held", m->held, "warned",
                     m->warned, "trace_bytes", (json_int_t)m->trace.n, "envelope", json_of_bytes(m->meta),
                     "recipients", rcpts);
}

static uint32_t crc_of(transfer_crc_fn *crc, str_t json, str_t data)
{
    uint32_t sum = crc(0, json.p, json.n);
    return data.n ? crc(sum, data.p, data.n) : sum;
}

void transfer_write(const json_t *description, str_t data, transfer_crc_fn *crc, struct gbuf *out)
{
    char *text = json_dumps(description, JSON_COMPACT);
    if (!text) {
        out->overflow = true;
        return;
    }
    str_t head = str_cstr(text);
    out->max = head.n + data.n + 128;
    gbuf_printf(out, "%zu %zu %08x\n", head.n, data.n, (unsigned)crc_of(crc, head, data));
    gbuf_str(out, head);
    gbuf_cstr(out, "\n");
    gbuf_str(out, data);
    gbuf_cstr(out, "\n");
    free(text);
}

/* --- in --- */

static err_t bad(struct sbuf *why, err_t err, const char *text)
{
    sbuf_cstr(why, text);
    return err;
}

bool transfer_head(str_t line, struct transfer_head *out)
{
    str_t json, data, crc, rest;
    uint64_t json_bytes, data_bytes;
    if (!str_cut(line, ' ', &json, &rest) || !str_cut(rest, ' ', &data, &crc) || crc.n != 8)
        return false;
    if (str_to_u64(json, &json_bytes) || str_to_u64(data, &data_bytes) || json_bytes > TRANSFER_JSON_MAX ||
        data_bytes > TRANSFER_DATA_MAX)
        return false;
    *out = (struct transfer_head){.json_bytes = (size_t)json_bytes, .data_bytes = (size_t)data_bytes};
    for (size_t i = 0; i < crc.n; i++) {
        char c = crc.p[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return false;
        out->crc = out->crc << 4 | (uint32_t)digit;
    }
    return true;
}

static bool take_number(const json_t *o, const char *key, uint64_t max, uint64_t *out)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

static bool take_recipient(const json_t *o, struct arena *arena, struct transfer_rcpt *out)
{
    const char *state = json_string_value(json_object_get(o, "state"));
    out->blob = bytes_of_json(json_object_get(o, "envelope"), arena);
    out->state = TRANSFER_STATES_COUNT;
    for (uint8_t i = 0; state && i < TRANSFER_STATES_COUNT; i++)
        if (!strcmp(state, STATES[i]))
            out->state = i;
    return out->blob.p && out->state < TRANSFER_STATES_COUNT;
}

static err_t take_recipients(const json_t *all, struct arena *arena, struct transfer_message *out,
                             struct sbuf *why)
{
    size_t count = json_array_size(all);
    if (count == 0)
        return bad(why, ERR_CORRUPT, "it has no recipients");
    out->rcpts = arena_zalloc(arena, count * sizeof *out->rcpts);
    if (!out->rcpts)
        return bad(why, -ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++)
        if (!take_recipient(json_array_get(all, i), arena, &out->rcpts[i]))
            return bad(why, ERR_CORRUPT, "a recipient cannot be read");
    out->rcpt_count = (uint32_t)count;
    return 0;
}

static err_t take_message(const json_t *o, str_t data, struct arena *arena, struct transfer_message *out,
                          struct sbuf *why)
{
    const json_t *id = json_object_get(o, "id");
    uint64_t attempts, trace_bytes;
    bool good = json_is_string(id) &&
                qid_parse(str_of(json_string_value(id), json_string_length(id)), &out->id) == 0 && out->id &&
                take_number(o, "arrived_ms", INT64_MAX, &out->arrived_ms) &&
                take_number(o, "due_ms", INT64_MAX, &out->due_ms) &&
                take_number(o, "attempts", UINT32_MAX, &attempts) &&
                take_number(o, "trace_bytes", data.n, &trace_bytes) &&
                json_is_boolean(json_object_get(o, "held"));
    if (!good)
        return bad(why, ERR_CORRUPT, "its description is not complete");
    out->attempts = (uint32_t)attempts;
    out->held = json_is_true(json_object_get(o, "held"));
    out->warned = json_is_true(json_object_get(o, "warned"));
    out->trace = str_sub(data, 0, (size_t)trace_bytes);
    out->body = str_sub(data, (size_t)trace_bytes, data.n);
    out->meta = bytes_of_json(json_object_get(o, "envelope"), arena);
    if (!out->meta.p)
        return bad(why, ERR_CORRUPT, "its envelope cannot be read");
    return take_recipients(json_object_get(o, "recipients"), arena, out, why);
}

err_t transfer_read(str_t record, transfer_crc_fn *crc, struct arena *arena, struct transfer_message *out,
                    struct sbuf *why)
{
    str_t line, rest;
    struct transfer_head head;
    *out = (struct transfer_message){0};
    if (!str_cut(record, '\n', &line, &rest) || !transfer_head(line, &head))
        return bad(why, ERR_CORRUPT, "it does not begin as a record does");
    if (rest.n != head.json_bytes + head.data_bytes + 2 || rest.p[head.json_bytes] != '\n' ||
        rest.p[rest.n - 1] != '\n')
        return bad(why, ERR_CORRUPT, "its length is wrong");
    str_t text = str_sub(rest, 0, head.json_bytes),
          data = str_sub(rest, head.json_bytes + 1, head.data_bytes);
    if (crc_of(crc, text, data) != head.crc)
        return bad(why, ERR_CORRUPT, "its checksum is wrong");
    json_t *json = json_loadb(text.p, text.n, 0, NULL);
    if (!json)
        return bad(why, ERR_CORRUPT, "its description is not JSON");
    err_t err = take_message(json, data, arena, out, why);
    json_decref(json);
    return err;
}
