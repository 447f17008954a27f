/* nexthop/answer.h: what a server, or we, said of a recipient or of a next hop; and one that outlives what it
 * came from. Pure; any thread. */
#ifndef NEXTHOP_ANSWER_H
#define NEXTHOP_ANSWER_H

#include "core/arena.h"
#include "net/dns.h"
#include "smtp/proto/reply.h"

#define ANSWER_TEXT_MAX 256 /* of a server's text kept and logged, bytes */

struct answer {
    int code;          /* 0: no SMTP reply */
    uint8_t status[3]; /* class 0: derive from the code */
    str_t text;
    str_t mta; /* who said it; absent: we did */
};

struct kept_answer {
    struct answer a; /* views into the arrays below: do not copy the struct */
    char text[ANSWER_TEXT_MAX], mta[DNS_NAME_MAX + 1];
};

void answer_keep(struct kept_answer *out, const struct answer *a);
struct answer answer_copy(struct arena *arena, const struct answer *a);
struct answer answer_of_reply(const struct smtp_reply *reply, str_t mta); /* views */
str_t answer_code(const struct answer *a, struct sbuf *out); /* "550 5.1.1"; absent without code */

#endif
