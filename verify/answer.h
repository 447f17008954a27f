/* verify/answer.h: what was found out about a recipient, and what RCPT is answered for it, by the settings of
 * its domain. Pure. */
#ifndef VERIFY_ANSWER_H
#define VERIFY_ANSWER_H

#include "core/config.h"
#include "smtp/proto/reply.h"
#include "verify/verdict.h"

enum finding {
    FINDING_KNOWN,       /* a list, a pin, the cache, or the server's yes or no: the record says */
    FINDING_FULL,        /* exists, but takes nothing now */
    FINDING_LATER,       /* the server, asked for it, said neither */
    FINDING_NO_SMTPUTF8, /* the server cannot have such an address */
    FINDING_DOWN,        /* its server cannot be asked */
    FINDING_REFUSES_US,  /* ... does not talk to us */
    FINDING_LOOPS,       /* ... asked us about it */
    FINDING_OWN_PROBE,   /* the question is one of our own */
    FINDING_BLIND,       /* its server takes every recipient */
    FINDING_OVERFLOW,    /* too many wait already */
    FINDING_TIMEOUT,     /* the client's wait is over; the probe goes on */
    FINDING_NO_ROUTE,
    FINDING_CLOSING, /* shutdown */
};
const char *finding_name(enum finding f);

/* What decided: source.def. */
enum answer_source {
#define SOURCE(id, name, help) FROM_##id,
#include "verify/source.def"
#undef SOURCE
    FROM_COUNT
};
const char *answer_source_name(enum answer_source s);
enum answer_source finding_source(enum finding f);

/* What RCPT would be answered if refusals are enforced. `record`: what is known of the address now (state
 * NONE: nothing). */
enum reply_id answer_for(const struct cfg_verify *s, enum finding f, const struct verdict_record *record,
                         uint32_t now_s, enum answer_source *source);

struct verdict_times verify_times(const struct cfg_verify *s);
struct verdict_key_rules verify_key_rules(const struct cfg_verify *s);
/* A cached answer must be asked for again before it is given. Like verdict_age's STALE, and in cautious mode
 * an unknown one whose second look is due. */
enum verdict_age verify_age(const struct cfg_verify *s, const struct verdict_record *r, uint32_t now_s);
/* verdict_apply, with two differences. The time of the first refusal in a row is kept, which `cautious`
 * needs. And what is hardly older stays as it is, byte for byte: busy recipients are delivered to many times
 * a second, and each would be a write to the cache and to the disk. */
struct verdict_record verify_apply(struct verdict_record old, enum verdict answer, enum verdict_source source,
                                   bool canary_passed, const struct verdict_times *t, uint32_t now_s);

#endif
