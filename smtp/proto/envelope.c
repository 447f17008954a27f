/* smtp/proto/envelope.c: see envelope.h. */
#include "smtp/proto/envelope.h"

/* Blob: version byte, then fields: tag byte, length (2 bytes, little endian), value. Each tag at most once. A
 * reader skips unknown tags with TAG_OPTIONAL set and refuses others: they change what the message means. */
#define BLOB_VERSION 1
#define TAG_OPTIONAL 0x80
#define FIELD_MAX    UINT16_MAX

enum envelope_tag {
    TAG_SENDER = 1,
    TAG_BODY = 2,
    TAG_FLAGS = 3,
    TAG_CLASS = 0x84,
    TAG_CLIENT = 0x85,
    TAG_HELO = 0x86,
    TAG_RET = 0x87,
    TAG_ENVID = 0x88,
    TAG_REAL = 0x89, /* step, address */
    TAG_REAL_NAME = 0x8A,
    TAG_REAL_HELO = 0x8B,
    TAG_DOT_FREE = 0x8C
};
enum envelope_flag { FLAG_SMTPUTF8 = 1, FLAG_DSN = 2, FLAGS_KNOWN = FLAG_SMTPUTF8 | FLAG_DSN };
enum rcpt_tag { TAG_ADDRESS = 1, TAG_NOTIFY = 0x82, TAG_ORCPT = 0x83 };

static void put_field(struct sbuf *out, uint8_t tag, const void *p, size_t n)
{
    if (n > FIELD_MAX) {
        out->overflow = true;
        return;
    }
    const uint8_t head[3] = {tag, (uint8_t)(n & 0xFF), (uint8_t)(n >> 8)};
    sbuf_put(out, head, sizeof head);
    if (n)
        sbuf_put(out, p, n);
}

static void put_byte_field(struct sbuf *out, uint8_t tag, uint8_t value)
{
    put_field(out, tag, &value, 1);
}

static void put_real(const struct envelope *e, struct sbuf *out)
{
    uint8_t who[1 + sizeof e->real.ip.b] = {(uint8_t)e->real.step};
    memcpy(who + 1, e->real.ip.b, sizeof e->real.ip.b);
    put_field(out, TAG_REAL, who, sizeof who);
    if (e->real.name.n)
        put_field(out, TAG_REAL_NAME, e->real.name.p, e->real.name.n);
    if (e->real.helo.n)
        put_field(out, TAG_REAL_HELO, e->real.helo.p, e->real.helo.n);
}

static err_t take_real(str_t value, struct envelope *out)
{
    if (value.n != 1 + sizeof out->real.ip.b)
        return ERR_CORRUPT;
    uint8_t step = (uint8_t)value.p[0];
    out->real.step = step < ORIGIN_COUNT ? (enum origin_step)step : ORIGIN_UNKNOWN; /* of a newer version */
    memcpy(out->real.ip.b, value.p + 1, sizeof out->real.ip.b);
    return 0;
}

void envelope_encode(const struct envelope *e, struct sbuf *out)
{
    sbuf_char(out, BLOB_VERSION);
    put_field(out, TAG_SENDER, e->sender.p, e->sender.n);
    put_byte_field(out, TAG_BODY, (uint8_t)e->body);
    put_byte_field(out, TAG_FLAGS, (uint8_t)((e->smtputf8 ? FLAG_SMTPUTF8 : 0) | (e->is_dsn ? FLAG_DSN : 0)));
    put_byte_field(out, TAG_CLASS, e->client_class);
    put_field(out, TAG_CLIENT, e->client.b, sizeof e->client.b);
    if (e->helo.p)
        put_field(out, TAG_HELO, e->helo.p, e->helo.n);
    if (e->real.step)
        put_real(e, out);
    if (e->dot_free)
        put_byte_field(out, TAG_DOT_FREE, 1);
    if (e->ret)
        put_byte_field(out, TAG_RET, (uint8_t)e->ret);
    if (e->envid.p)
        put_field(out, TAG_ENVID, e->envid.p, e->envid.n);
}

struct field {
    uint8_t tag;
    str_t value;
};

struct reader {
    str_t left;
    uint8_t seen[32]; /* one bit a tag */
};

static err_t reader_start(struct reader *r, str_t blob)
{
    *r = (struct reader){.left = blob};
    if (!blob.n)
        return ERR_CORRUPT;
    if ((uint8_t)blob.p[0] != BLOB_VERSION)
        return ERR_VERSION;
    r->left = str_of(blob.p + 1, blob.n - 1);
    return 0;
}

/* ERR_EOF behind the last field. */
static err_t next_field(struct reader *r, struct field *out)
{
    if (!r->left.n)
        return ERR_EOF;
    if (r->left.n < 3)
        return ERR_CORRUPT;
    const uint8_t *p = (const uint8_t *)r->left.p;
    size_t n = (size_t)p[1] | (size_t)p[2] << 8;
    if (n > r->left.n - 3)
        return ERR_CORRUPT;
    out->tag = p[0];
    out->value = str_of(r->left.p + 3, n);
    r->left = str_of(r->left.p + 3 + n, r->left.n - 3 - n);
    uint8_t bit = (uint8_t)(1u << (out->tag % 8));
    if (r->seen[out->tag / 8] & bit)
        return ERR_CORRUPT;
    r->seen[out->tag / 8] |= bit;
    return 0;
}

static bool was_seen(const struct reader *r, uint8_t tag)
{
    return r->seen[tag / 8] & (1u << (tag % 8));
}

static err_t get_byte(str_t value, uint8_t max, uint8_t *out)
{
    if (value.n != 1 || (uint8_t)value.p[0] > max)
        return ERR_CORRUPT;
    *out = (uint8_t)value.p[0];
    return 0;
}

static err_t take_envelope_field(const struct field *f, struct envelope *out)
{
    uint8_t byte = 0;
    err_t err = 0;
    switch (f->tag) {
    case TAG_SENDER: out->sender = f->value; break;
    case TAG_BODY:
        err = get_byte(f->value, BODY_8BITMIME, &byte);
        out->body = (enum body_type)byte;
        break;
    case TAG_FLAGS:
        err = get_byte(f->value, FLAGS_KNOWN, &byte);
        out->smtputf8 = byte & FLAG_SMTPUTF8;
        out->is_dsn = byte & FLAG_DSN;
        break;
    case TAG_CLASS: err = get_byte(f->value, UINT8_MAX, &out->client_class); break;
    case TAG_CLIENT:
        if (f->value.n != sizeof out->client.b)
            return ERR_CORRUPT;
        memcpy(out->client.b, f->value.p, sizeof out->client.b);
        break;
    case TAG_DOT_FREE:
        err = get_byte(f->value, 1, &byte);
        out->dot_free = byte;
        break;
    case TAG_HELO: out->helo = f->value; break;
    case TAG_REAL: err = take_real(f->value, out); break;
    case TAG_REAL_NAME: out->real.name = f->value; break;
    case TAG_REAL_HELO: out->real.helo = f->value; break;
    case TAG_RET:
        err = get_byte(f->value, RET_HDRS, &byte);
        out->ret = (enum dsn_ret)byte;
        break;
    case TAG_ENVID:
        err = f->value.n > ENVID_MAX ? ERR_CORRUPT : 0;
        out->envid = f->value;
        break;
    default: err = f->tag & TAG_OPTIONAL ? 0 : ERR_VERSION;
    }
    return err;
}

err_t envelope_decode(str_t blob, struct envelope *out)
{
    struct reader r;
    struct field f;
    *out = (struct envelope){0};
    err_t err = reader_start(&r, blob);
    if (err)
        return err;
    while ((err = next_field(&r, &f)) == 0) {
        err = take_envelope_field(&f, out);
        if (err)
            return err;
    }
    if (err != ERR_EOF)
        return err;
    return was_seen(&r, TAG_SENDER) ? 0 : ERR_CORRUPT;
}

void envelope_rcpt_encode(const struct envelope_rcpt *r, struct sbuf *out)
{
    sbuf_char(out, BLOB_VERSION);
    put_field(out, TAG_ADDRESS, r->address.p, r->address.n);
    if (r->notify)
        put_byte_field(out, TAG_NOTIFY, r->notify);
    if (r->orcpt.p)
        put_field(out, TAG_ORCPT, r->orcpt.p, r->orcpt.n);
}

static err_t take_rcpt_field(const struct field *f, struct envelope_rcpt *out)
{
    switch (f->tag) {
    case TAG_ADDRESS: out->address = f->value; return 0;
    case TAG_NOTIFY: return get_byte(f->value, UINT8_MAX, &out->notify);
    case TAG_ORCPT: out->orcpt = f->value; return f->value.n > ORCPT_MAX ? ERR_CORRUPT : 0;
    default: return f->tag & TAG_OPTIONAL ? 0 : ERR_VERSION;
    }
}

err_t envelope_rcpt_decode(str_t blob, struct envelope_rcpt *out)
{
    struct reader r;
    struct field f;
    *out = (struct envelope_rcpt){0};
    err_t err = reader_start(&r, blob);
    if (err)
        return err;
    while ((err = next_field(&r, &f)) == 0) {
        err = take_rcpt_field(&f, out);
        if (err)
            return err;
    }
    if (err != ERR_EOF)
        return err;
    return out->address.n ? 0 : ERR_CORRUPT;
}
