/* verify/triage.h: what a server's answer to a probe means. Pure. Only "no such user" at RCPT may become a
 * refusal of the recipient; everything else is about the backend, about us, or about now (semantics 4.6). */
#ifndef VERIFY_TRIAGE_H
#define VERIFY_TRIAGE_H

#include "smtp/client/client.h"

enum triage {
    TRIAGE_GOOD,
    TRIAGE_UNKNOWN,    /* no such user: 5.1.1 and its kin, DBEB's 5.4.1 */
    TRIAGE_DISABLED,   /* 5.2.1; takes no mail from outside */
    TRIAGE_FULL,       /* mailbox full: 452 4.2.2, whatever class it came in */
    TRIAGE_LATER,      /* this recipient, for now: greylisting and other 4xx at RCPT */
    TRIAGE_CROWDED,    /* too many recipients in this transaction: 452 4.5.3: ask again in the next one */
    TRIAGE_SENDER,     /* the probe's sender is refused, at MAIL or at RCPT: try another sender */
    TRIAGE_REFUSES_US, /* our address, our HELO, policy: not about the recipient; an alarm */
    TRIAGE_BACKEND,    /* the server is not well: 4xx before RCPT, 421, unreachable, broken dialogue */
    TRIAGE_LOOP,       /* 554 5.4.6: it asked us */
};
const char *triage_name(enum triage t);

/* `reply` NULL: no answer (time-out, broken connection, could not connect). *why (may be NULL) gets a static
 * text for logs. By the table in triage.def. */
enum triage triage_reply(enum smtpc_stage at, const struct smtp_reply *reply, const char **why);

#endif
