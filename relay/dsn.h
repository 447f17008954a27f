/* relay/dsn.h: RFC 3464 delivery status notifications as bytes. Pure: golden-tested. */
#ifndef RELAY_DSN_H
#define RELAY_DSN_H

#include "core/ip.h"
#include "core/str.h"

struct dsn_rcpt {
    str_t address;
    uint8_t status[3]; /* enhanced code; class 0: derived from the reply code */
    int reply_code;    /* 0 = no server said it */
    str_t remote_mta;  /* host name or address of who said it; absent = we did */
    str_t diagnostic;  /* the server's text, or ours */
};

struct dsn {
    str_t hostname; /* Reporting-MTA */
    str_t to;       /* the sender of the original: never null */
    str_t queue_id;
    uint64_t now_ms, arrived_ms; /* wall clock */
    uint64_t id;                 /* unique: boundary and Message-ID come from it */
    const struct dsn_rcpt *rcpts;
    uint32_t rcpt_count;
    str_t original_headers; /* header section of the original in wire form (dot-stuffed); cut at 50 000 bytes
                               by the caller */
    bool smtputf8;
};
/* Whole message in wire form (CRLF, dot-stuffed). multipart/report; text, message/delivery-status,
 * text/rfc822-headers. */
void dsn_write(const struct dsn *d, struct gbuf *out);

#endif
