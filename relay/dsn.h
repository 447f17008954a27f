/* relay/dsn.h: delivery reports (RFC 3464, in multipart/report of RFC 6522, internationalised as RFC 6533 has
 * it) as bytes. Pure: golden-tested. */
#ifndef RELAY_DSN_H
#define RELAY_DSN_H

#include "core/ip.h"
#include "core/str.h"

/* RFC 3464 2.3.3; the worst first. */
enum dsn_action { DSN_FAILED, DSN_DELAYED, DSN_RELAYED, DSN_DELIVERED, DSN_ACTION_COUNT };
const char *dsn_action_name(enum dsn_action a);

struct dsn_rcpt {
    str_t address;
    str_t orcpt; /* as it came: "rfc822;bob+2Bx@example.com"; absent: none */
    enum dsn_action action;
    uint8_t status[3]; /* enhanced code; one whose class does not fit the action is not said */
    int reply_code;    /* 0 = no server said it */
    str_t remote_mta;  /* host name or address of who said it; absent = we did, or it is not to be told */
    str_t diagnostic;  /* the server's text, or ours */
    uint64_t last_attempt_ms; /* wall clock; 0 = unknown */
};

struct dsn {
    str_t hostname; /* Reporting-MTA */
    str_t to;       /* the sender of the original, or the postmaster: never null */
    str_t untold; /* for the postmaster: who should have had this report, "" = the null sender; else absent */
    str_t queue_id;
    str_t envid;                                 /* xtext, as it came; absent: none */
    uint64_t now_ms, arrived_ms, retry_until_ms; /* wall clock */
    uint64_t id;                                 /* unique: boundary and Message-ID come from it */
    const struct dsn_rcpt *rcpts;                /* at least one */
    uint32_t rcpt_count;
    str_t original; /* in wire form (dot-stuffed): its header section, cut by the caller, or all of it */
    bool is_whole;  /* the latter: without NUL, ends in CRLF */
    bool smtputf8;
};
/* What the report as a whole is: the worst that it says. */
enum dsn_action dsn_kind(const struct dsn *d);
/* Whole message in wire form (CRLF, dot-stuffed). multipart/report; text, message/delivery-status,
 * text/rfc822-headers or message/rfc822. */
void dsn_write(const struct dsn *d, struct gbuf *out);

#endif
