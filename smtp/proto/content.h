/* smtp/proto/content.h: the only judge of line endings in message content. Pure, incremental, SIMD where it
 * pays. Content stays in the wire's dot-stuffed form. */
#ifndef SMTP_PROTO_CONTENT_H
#define SMTP_PROTO_CONTENT_H

#include "core/str.h"

/* Finds CRLF.CRLF (also at the very start: ".CRLF") and bare CR or LF. Zero-init is the start of content. */
struct content_scan {
    uint8_t state;           /* private */
    bool bare_cr, bare_lf;   /* seen so far */
    bool done;               /* the terminator was seen */
    uint64_t bytes;          /* content bytes so far, dot-stuffed, terminator's ".CRLF" not counted */
    uint64_t stuffing_bytes; /* of these, dots that the next reader takes off: RFC 1870 sizes lack them */
};

/* Scans up to the terminator. Returns bytes of `p` used, terminator included. *content_n: how many leading
 * bytes of `p` are content that can be stored now: bytes that may turn out to be the terminator's dot are
 * held back in the state, and *held (<= 4 bytes, before p) must be stored first when it is not empty. The
 * final CRLF belongs to the content. */
size_t content_scan(struct content_scan *s, const uint8_t *p, size_t n, str_t *held, size_t *content_n);

/* Rewrites bare CR and bare LF to CRLF (class `normalise`); bare LF never ends DATA. out_cap >= 2 * n + 2;
 * returns bytes out. `state` carries over calls. Runs on content already delimited by content_scan. */
size_t content_normalise(uint8_t *state, const uint8_t *p, size_t n, uint8_t *out);

/* Looks at the header section as it streams by. Zero-init is the start. */
struct header_scan {
    uint32_t received_count, bytes;
    bool has_date, has_message_id;
    bool non_ascii; /* in a field's value */
    bool done;      /* the end of the section was seen */
    bool cut_short; /* that was no empty line but something that is no header: more may follow */
    uint8_t state;
    uint8_t name_n;
    char name[16];
};
void header_scan(struct header_scan *h, const uint8_t *p, size_t n);

/* Dot-stuffing for content that we make (DSNs): every line ends in CRLF already. out must hold n + lines + 1.
 */
size_t content_stuff(const uint8_t *p, size_t n, uint8_t *out);

/* The same for octets that come in pieces (BDAT): a line starts at the beginning and behind CRLF. *state
 * carries over calls; it is zero at the beginning and whenever what came so far ends in CRLF. out must hold
 * n * 2. */
size_t content_stuff_octets(uint8_t *state, const uint8_t *p, size_t n, uint8_t *out);

#endif
