/* Envelope blobs off a damaged disk; what can be read must come through a round trip. */
#include "smtp/proto/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_envelope(const struct envelope *e, size_t size)
{
    struct sbuf out = {malloc(size + 64), 0, size + 64, false};
    struct envelope again;
    if (!out.p)
        return;
    envelope_encode(e, &out);
    must(!out.overflow);
    must(envelope_decode(sbuf_view(&out), &again) == 0);
    must(str_eq(again.sender, e->sender) && str_eq(again.helo, e->helo));
    must(again.body == e->body && again.smtputf8 == e->smtputf8 && again.is_dsn == e->is_dsn);
    must(again.ret == e->ret && str_eq(again.envid, e->envid));
    must(again.client_class == e->client_class && ip_eq(&again.client, &e->client));
    free(out.p);
}

static void check_rcpt(const struct envelope_rcpt *r, size_t size)
{
    struct sbuf out = {malloc(size + 64), 0, size + 64, false};
    struct envelope_rcpt again;
    if (!out.p)
        return;
    envelope_rcpt_encode(r, &out);
    must(!out.overflow);
    must(envelope_rcpt_decode(sbuf_view(&out), &again) == 0 && str_eq(again.address, r->address));
    must(again.notify == r->notify && str_eq(again.orcpt, r->orcpt));
    free(out.p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    str_t blob = str_of((const char *)data, size);
    struct envelope e;
    struct envelope_rcpt r;
    if (envelope_decode(blob, &e) == 0)
        check_envelope(&e, size);
    if (envelope_rcpt_decode(blob, &r) == 0)
        check_rcpt(&r, size);
    return 0;
}
