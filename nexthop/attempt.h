/* nexthop/attempt.h: one connection's way through the addresses of a target: which one it is at, which it has
 * tried, and in what TLS. Pure; one thread. */
#ifndef NEXTHOP_ATTEMPT_H
#define NEXTHOP_ATTEMPT_H

#include "nexthop/target.h"

#define ATTEMPT_TRIES_MAX 5 /* addresses tried for one connection */

struct attempt {
    struct endpoint at;
    char host[DNS_NAME_MAX + 1];
    char relay[64];            /* `at`, for the log */
    struct hop_access *access; /* counted, until attempt_end() */
    struct tls_context *tls;   /* of `access`; NULL: in the clear */
    enum smtpc_tls level;
    bool lock_step;
    bool tls_broke; /* the handshake failed, another way will do at the same address */

    /* attempt-private */
    uint32_t index, generation; /* of the candidate */
    uint32_t tried, count;      /* tried: a bit per candidate */
};

/* Goes to the next address; failed_too: there is nothing else to hope for. False: *t is at none, and there is
 * no use in asking again. */
bool attempt_next(struct attempt *t, const struct candidates *c, struct hop_access *access, bool failed_too,
                  uint64_t now_ms);
/* What the protocol engine is to do there; views of `access`, and of `hostname`. */
struct smtpc_options attempt_options(const struct attempt *t, const char *hostname, bool lmtp);
str_t attempt_server_name(const struct attempt *t);
void attempt_end(struct attempt *t); /* twice is fine */
/* The candidate that it is at; NULL: resolved anew since. */
struct candidate *attempt_candidate(const struct attempt *t, const struct candidates *c);
/* The handshake failed. Was it to go on from an earlier session, a full one is tried at once at the same
 * address, whatever the level. Opportunistic TLS does without from now on, there and at once. */
void attempt_tls_failed(struct attempt *t, const struct candidates *c, bool tried_resuming);
/* It failed with several commands unanswered: because of that, as far as one can tell? Silence is; a
 * connection that ended is when nothing was ever `done` on it, since warm ones end at any time. True: from
 * now on it gets a command at a time, and did not before. */
bool attempt_pipelining_failed(struct attempt *t, const struct candidates *c, const struct smtpc *engine,
                               bool timed_out, bool done);
/* The connection failed; `spoke`: not for want of a server there. True: as candidates_failed(). */
bool attempt_failed(struct attempt *t, const struct candidates *c, bool spoke, uint64_t now_ms);

#endif
