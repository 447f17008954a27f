/* smtp/proto/reply.h: replies out (server) and in (client). Pure; any thread. */
#ifndef SMTP_PROTO_REPLY_H
#define SMTP_PROTO_REPLY_H

#include "core/err.h"
#include "core/str.h"

enum reply_id {
#define REPLY(id, code, enhanced, text) R_##id,
#include "smtp/proto/reply.def"
#undef REPLY
    R_COUNT
};

struct reply_def {
    int code;
    str_t enhanced, text;
};
const struct reply_def *reply_def(enum reply_id id);
/* "550 5.7.1 text\r\n"; with `detail` present: "550 5.7.1 text: detail". Detail is cleaned of CR, LF,
 * controls and non-ASCII, and cut where the line would pass 512 bytes (RFC 5321 4.5.3.1.5). */
void reply_write(struct sbuf *out, enum reply_id id, str_t detail);

/* A parsed reply of a server we talk to. Views point into the parser; copy what is kept. */
struct smtp_reply {
    int code;            /* 200..599 */
    uint8_t enhanced[3]; /* class, subject, detail(capped 255); class 0 = none was given */
    str_t text; /* all lines joined by '\n'; enhanced codes stripped (the first line's, and where it is
                 * repeated); controls and broken UTF-8 replaced by '?' */
    uint32_t line_count;
};

#define REPLY_TEXT_MAX  2048 /* longer text is cut, never refused */
#define REPLY_LINE_MAX  4096 /* a longer line: ERR_SYNTAX */
#define REPLY_LINES_MAX 256

/* Incremental parser (RFC 5321 4.2); takes bare LF at line ends too. Zero-init is ready. */
struct reply_parser {
    char text[REPLY_TEXT_MAX];
    char line[REPLY_LINE_MAX];
    uint32_t text_n, line_n, line_count;
    int code;
    bool done;
    struct smtp_reply reply;
};
/* Consumes at most one reply's bytes: returns consumed; *err 0 and *done set when a whole reply is in
 * p->reply (valid until the next call); ERR_SYNTAX when the peer talks nonsense: close the connection. */
size_t reply_parse(struct reply_parser *p, const uint8_t *bytes, size_t n, bool *done, err_t *err);

#endif
