/* smtp/proto/envelope.h: what a message is besides its content, and its bytes on disk. The queue stores these
 * blobs without looking inside; versioned, length-prefixed, unknown optional tags skipped. Pure. */
#ifndef SMTP_PROTO_ENVELOPE_H
#define SMTP_PROTO_ENVELOPE_H

#include "core/arena.h"
#include "core/ip.h"
#include "smtp/proto/origin.h"

struct envelope_rcpt {
    str_t address;  /* as it goes out in RCPT TO:<...> */
    uint8_t notify; /* enum dsn_notify; 0: not said */
    str_t orcpt;    /* as struct rcpt_params has it; absent: none */
};

struct envelope {
    str_t sender; /* empty (not absent) for the null sender */
    enum body_type body;
    bool smtputf8;
    uint8_t client_class; /* enum client_class; how it came in */
    struct ip client;
    str_t helo;
    /* Who it came from, as far as that is not `client`. Absent name, HELO: not told. */
    struct {
        enum origin_step step; /* ORIGIN_CLIENT: `client` itself */
        struct ip ip;
        str_t name, helo;
    } real;
    bool is_dsn;   /* made by us */
    bool dot_free; /* known: no line of the content begins with a dot; as it is kept it is what BDAT sends */
    enum dsn_ret ret;
    str_t envid; /* as struct mail_params has it; absent: none */
};

/* Written to `out`; out->overflow when it did not fit. */
void envelope_encode(const struct envelope *e, struct sbuf *out);
err_t envelope_decode(str_t blob,
                      struct envelope *out) WARN_UNUSED; /* views into blob; ERR_VERSION, ERR_CORRUPT */
void envelope_rcpt_encode(const struct envelope_rcpt *r, struct sbuf *out);
err_t envelope_rcpt_decode(str_t blob, struct envelope_rcpt *out) WARN_UNUSED;

#endif
