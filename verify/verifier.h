/* verify/verifier.h: is this recipient real? One per worker, loop thread only but where said.
 *
 *   worker of the session                         worker that owns the backend (hash of the route's key)
 *   verifier_ask ── list, pin, cache: at once
 *       └─ else: lookup (one per address) ──mail──► probe (one per address over all workers) ─► backend:
 *                    ▲                                  batches, pooled connections, breaker, canaries
 *                    └───────────────mail──────────────┘ the verdict went into the cache before
 *
 * Each backend is one worker's business, so that single flight, batching and caps hold over all workers
 * without a lock. Probes use connections of their own; a paused or full queue does not stop them. */
#ifndef VERIFY_VERIFIER_H
#define VERIFY_VERIFIER_H

#include "net/dns.h"
#include "net/tls.h"
#include "policy/policy.h"
#include "verify/answer.h"
#include "verify/breaker.h"
#include "verify/knowledge.h"
#include "verify/list.h"
#include "verify/tally.h"
#include "verify/token.h"
#include "verify/triage.h"
#include "verify/watch.h"

struct verifier;

/* What all workers share; the daemon makes it. `workers` is filled before the first loop runs. */
struct verify_shared {
    struct knowledge known;
    struct tally **tallies; /* one per worker; NULL: nobody counts */
    struct verifier **workers;
    unsigned worker_count;
    uint8_t token_key[TOKEN_KEY_BYTES]; /* of the probe sender's token; random per start */
};

struct verifier_options {
    struct verify_shared *shared;
    struct loop *loop;
    struct dns *dns;
    const struct policy *policy;
    unsigned worker;
};
err_t verifier_create(struct verifier **out, const struct verifier_options *opt) WARN_UNUSED;
void verifier_destroy(struct verifier *v); /* after verifier_drain's callback, of all workers */
void verifier_set_policy(struct verifier *v, const struct policy *p); /* keeps no pointer into the old one */
/* Answers everything that waits with "later" and closes connections; goes on answering like that. `drained`
 * once nothing of this worker's is out any more. What it has out is at other workers' verifiers: their loops
 * run until all are drained. */
void verifier_drain(struct verifier *v, void (*drained)(void *ctx), void *ctx);

/* The recipient lists in force, in place of those before; copies the paths and takes references. A list that
 * is named in the settings and not here could not be read: its recipients are answered "later". */
struct verify_list {
    str_t path;
    struct verdict_key_rules
        rules; /* of the keys in it: a file that serves under two rules stands here twice */
    struct recipient_list *list;
    bool is_doubtful; /* smaller than before the restart by more than list_shrink: who is not in it is
                         answered "later" */
    bool is_new;      /* whose keeps these: read just now */
    bool is_refused;  /* ... and the file changed since, to something that was refused: */
    struct file_mark refused;
};
/* The one that these settings name; NULL: none of them. */
const struct verify_list *verify_list_find(const struct verify_list *lists, size_t count,
                                           const struct cfg_verify *s);
err_t verifier_set_lists(struct verifier *v, const struct verify_list *lists, size_t count) WARN_UNUSED;

/* --- sessions --- */

struct verify_answer {
    enum reply_id reply; /* R_rcpt_ok, or the refusal */
    bool shadow;         /* enforce: false: `reply` is R_rcpt_ok, `would` is what it would have been */
    enum reply_id would;
    enum answer_source source;
    char reference[14]; /* that the reply carries and the log explains; "" when nothing is hidden */
};

struct verify_query {
    const struct address *address; /* canonical */
    str_t text;                    /* the whole address */
    str_t sender;                  /* "" = null */
    enum client_class class;
    struct ip client;
    const struct policy *policy; /* the session's snapshot */
    bool known_only;             /* memory is short: nobody is asked; 452 when it is not known */
};

/* Embedded in the session; one question at a time. */
struct verify_ask {
    void (*done)(struct verify_ask *a, const struct verify_answer *answer);
    /* private */
    struct link link;
    struct timer timer;
    struct verifier *verifier;
    void *lookup;
    const struct policy *policy;
    uint8_t class;
};
/* 0: *now is the answer. ERR_PENDING: `done` comes later, at the latest after the class's wait; the query's
 * memory is not needed after return, but the policy stays valid. Never fails otherwise. */
err_t verifier_ask(struct verifier *v, const struct verify_query *q, struct verify_ask *a,
                   struct verify_answer *now) WARN_UNUSED;
void verifier_cancel(struct verify_ask *a); /* any time; no callback after it */
/* A recipient that will be asked for in a moment (pipelined behind this one): starts its probe. */
void verifier_hint(struct verifier *v, const struct verify_query *q);
/* Is `sender` (of MAIL) or `rcpt` an address of one of our probes, with a valid token? Any thread. */
bool verifier_is_token(const struct verify_shared *s, const struct config *c, const struct address *a);

/* --- what others learned for free; any worker's own verifier --- */

/* The outcome of a delivery to a local recipient, at RCPT or after the content. */
void verifier_learn_delivery(struct verifier *v, const struct address *rcpt, enum smtpc_stage at,
                             const struct smtp_reply *reply, bool accepted);
/* A message of a trusted client was taken, in the name of this address: a hint, where nothing is known of it;
 * what its server said, yes or no, counts for as long as it is kept. */
void verifier_learn_sender(struct verifier *v, const struct address *sender);

#endif
