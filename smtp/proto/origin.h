/* smtp/proto/origin.h: who a client really is when another machine stands in front of it, as that machine
 * tells it: by XCLIENT and XFORWARD (postfix.org, XCLIENT_README and XFORWARD_README), or by the Received:
 * line that it wrote. Pure. Whom to believe is the caller's to decide. */
#ifndef SMTP_PROTO_ORIGIN_H
#define SMTP_PROTO_ORIGIN_H

#include "core/ip.h"
#include "smtp/proto/command.h"

/* How we know, best first behind the first. On disk: append only. */
enum origin_step {
    ORIGIN_CLIENT, /* it connected to us itself */
    ORIGIN_XCLIENT,
    ORIGIN_PROXY,
    ORIGIN_XFORWARD,
    ORIGIN_RECEIVED,
    ORIGIN_UNKNOWN, /* the edge connected, and did not tell */
    ORIGIN_COUNT
};
const char *origin_step_name(enum origin_step step);

#define ORIGIN_TEXT_MAX 255

struct origin {
    enum origin_step step;
    struct ip ip; /* all zero: not told */
    uint8_t name_n, helo_n;
    char name[ORIGIN_TEXT_MAX], helo[ORIGIN_TEXT_MAX]; /* printable, of no use but to be shown */
};

/* ORIGIN_UNKNOWN's address, and that of a client whose address is said to be unknown: 0.0.0.0. */
struct ip origin_no_address(void);

enum client_attr {
    ATTR_NAME,
    ATTR_ADDR,
    ATTR_PORT,
    ATTR_PROTO,
    ATTR_HELO,
    ATTR_LOGIN,
    ATTR_DESTADDR,
    ATTR_DESTPORT,
    ATTR_IDENT,
    ATTR_SOURCE,
    ATTR_COUNT
};
#define XCLIENT_KEYWORD  "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
#define XFORWARD_KEYWORD "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"

struct client_attrs {
    uint16_t said;  /* bits 1 << enum client_attr */
    uint16_t known; /* of these, with a value: neither [UNAVAILABLE] nor [TEMPUNAVAIL] */
    struct ip ip;   /* ATTR_ADDR; 0.0.0.0 when it is not known */
    uint16_t port;
    bool esmtp;               /* ATTR_PROTO */
    str_t values[ATTR_COUNT]; /* xtext, as they came: views into the argument */
};
/* arg = "NAME=host ADDR=192.0.2.1". ERR_SYNTAX: also for an attribute that the command does not have, one
 * that stands there twice, and none at all. */
err_t xclient_parse(str_t arg, struct client_attrs *out) WARN_UNUSED;
err_t xforward_parse(str_t arg, struct client_attrs *out) WARN_UNUSED;
/* Takes what was said over; what was not said stays. */
void origin_take(struct origin *o, const struct client_attrs *said);

/* Servers, as far as how they write a Received: line tells them apart: bits 1 << enum received_format. */
enum received_format {
    RECEIVED_POSTFIX,  /* HELO (NAME [ADDRESS]), always; Barracuda and Proofpoint too */
    RECEIVED_SENDMAIL, /* the same, or HELO ([ADDRESS]); we and Cisco too */
    RECEIVED_EXIM,
    RECEIVED_EXCHANGE,
    RECEIVED_OPENSMTPD,
    RECEIVED_HARAKA,
    RECEIVED_QMAIL,
    RECEIVED_FORMAT_COUNT
};
const char *received_format_name(enum received_format f);
/* "postfix or sendmail" */
void received_formats_put(unsigned formats, struct sbuf *out);

struct received_line {
    struct origin client;
    str_t by;         /* view: the host */
    unsigned formats; /* who would write a line like this; never none */
    uint32_t label;   /* of the product's name behind the host, "(Postfix)"; 0: there is none */
};
/* Reads the value of a Received: field, folded or not: "from HELO (NAME [ADDRESS]) ... by HOST ...", as the
 * servers above write it. Only what the server wrote of its own knowledge is taken for the address, and never
 * what the client said in HELO; anything unusual is ERR_SYNTAX. */
err_t received_parse(str_t value, struct received_line *out) WARN_UNUSED;
/* Of a line that received_parse() does not take: the host behind its first "by"; absent: there is none. */
str_t received_by(str_t value);
/* The first `count` Received: field from the top of a header section (dot-stuffed or not); absent: there is
 * no such field, or it is cut off by the end of `headers`. The view is of the value. */
str_t received_find(str_t headers, unsigned number);

#endif
