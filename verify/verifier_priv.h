/* verify/verifier_priv.h: the objects of the prober and who owns what.
 *
 *   struct lookup    one address that sessions of this worker wait for; holds the request while it is here
 *   struct request   travels by mail to the backend's worker and back; that worker alone touches it meanwhile
 *   struct question  one address that a backend is, or will be, asked for; holds the requests that wait for
 * it struct backend   a route's servers: queue of questions, limits, breaker, connections, canaries by domain
 *   struct batch     questions of one transaction; on a connection's engine
 *   struct probeconn one connection (probeconn_priv.h)
 *
 * A lookup, with its request, comes back exactly once, whatever happens. A question is in its backend's queue
 * or in a batch, and ends with a finding that goes into the cache first and to all its requests then. */
#ifndef VERIFY_VERIFIER_PRIV_H
#define VERIFY_VERIFIER_PRIV_H

#include "core/clock.h"
#include "core/map.h"
#include "core/pool.h"
#include "nexthop/resolve.h"
#include "verify/answer.h"
#include "verify/breaker.h"
#include "verify/bucket.h"
#include "verify/patience.h"
#include "verify/token.h"
#include "verify/verifier.h"
#include "verify/watch.h"

#define PROBE_LOOKUPS_MAX 20000 /* per worker; further questions are answered 450 at once */
#define PROBE_BATCH_MAX   100   /* recipients a transaction: RFC 5321 4.5.3.1.8 */
#define PROBE_AGAIN_MAX   3     /* times a question goes back into the queue for the same reason */
#define PROBE_CONNECT_MS  15000 /* a probe has nobody who waits longer; the configuration may say less */
#define PROBE_STAGE_MS    60000
#define PROBE_SLOW_MS     200     /* behind a transaction that takes longer no other one is put */
#define BACKEND_LINGER_MS 3600000 /* an unused one is forgotten after this long */
#define BACKEND_SWEEP_MS  60000
#define PROBE_ADDRESS_MAX VERIFY_KEY_MAX

struct backend;
struct batch;
struct probeconn;
struct question;

/* What was found out, and for the log how. */
struct found {
    enum finding finding;
    struct verdict_record record; /* what is known now */
    bool probed;                  /* a server said what follows, just now */
    enum smtpc_stage at;
    int code;
    uint8_t status[3];
    const char *why; /* static */
    uint32_t ms;
    char text[ANSWER_TEXT_MAX + 1];
    char relay[64];
};

enum request_kind {
    REQUEST_ASK,
    REQUEST_REFRESH,      /* nobody waits: only if the backend has nothing better to do */
    REQUEST_LOOPED,       /* our own probe of this address came back to us */
    REQUEST_DATA_REFUSED, /* a delivery to it was refused after the content as unknown */
    REQUEST_RCPT_REFUSED, /* ... at RCPT */
};

struct request {
    struct mail mail;
    struct link link; /* the backend's worker: question.requests */
    struct verifier *from, *to;
    enum request_kind kind;
    bool is_known;    /* something was known once: likelier a real recipient than a guess */
    bool is_callback; /* its sender is such as a server has that verifies */
    struct ip client;
    uint16_t key_n, text_n, sender_n;
    char key[VERIFY_KEY_MAX], text[PROBE_ADDRESS_MAX];
    char sender[PROBE_ADDRESS_MAX]; /* another gateway's probe sender, to be passed on; sender_n 0: none */
    struct found found;             /* on the way back */
};

struct lookup {
    struct request request;
    struct verifier *verifier;
    struct link link; /* verifier.lookups_out */
    struct list asks;
    bool in_map;
    uint64_t started_ms;
    char reference[14];
    char backend[96]; /* its key, for the log; cut */
};

enum question_rank { RANK_KNOWN, RANK_ASKED, RANK_BACKGROUND, RANK_COUNT };

struct domain_watch {
    struct watch watch;
    struct link link; /* backend.watches: what was used last comes first */
    uint64_t used_ms;
    uint32_t question_count; /* that point here */
    char domain[ADDRESS_DOMAIN_MAX + 1];
    char good[PROBE_ADDRESS_MAX + 1]; /* a recipient that was taken last */
};

struct question {
    struct link link; /* backend.queue or batch.questions */
    struct backend *backend;
    struct domain_watch *domain;
    struct batch *batch; /* NULL: in the queue */
    struct list requests;
    enum question_rank rank;
    bool is_canary, is_utf8, in_map;
    bool is_ours; /* no other gateway's sender any more */
    uint8_t again_count;
    uint64_t asked_ms;
    uint16_t key_n, text_n, sender_n;
    char key[VERIFY_KEY_MAX], text[PROBE_ADDRESS_MAX];
    char sender[PROBE_ADDRESS_MAX]; /* passed on; sender_n 0: ours */
};

/* Which sender a probe has: of ours, or another gateway's. */
enum sender_kind { PROBE_EMPTY, PROBE_TOKEN, PROBE_FIXED, PROBE_PASSED_ON };

struct batch {
    struct smtpc_tx tx;
    struct link link; /* probeconn.batches or lost */
    struct backend *backend;
    struct probeconn *conn;
    struct question *questions[PROBE_BATCH_MAX]; /* NULL: has its finding, or went back */
    struct envelope_rcpt rcpts[PROBE_BATCH_MAX];
    enum sender_kind sender_kind;
    bool was_crowded;
    uint32_t taken_count; /* answered before the server had enough of recipients */
    uint64_t began_ms;
    uint16_t sender_n;
    char sender[PROBE_ADDRESS_MAX];
};

struct backend_limits {
    uint32_t connections, batch, rate_per_s, waiting;
};

struct transcript { /* of probe_now */
    struct gbuf lines;
    struct gbuf part; /* received, no line yet */
    uint64_t began_ms;
};

struct backend {
    struct verifier *verifier;
    str_t key;
    struct arena arena; /* owns key and hosts */
    struct target target;
    enum route_protocol protocol;
    struct hop_access *access; /* counted */
    uint64_t policy_generation;
    struct link idle_link;
    uint64_t used_ms;

    /* A backend of its own for one probe with a transcript, in no map. */
    struct probe_now *now; /* NULL: of all other backends, or told already */
    bool probe_ended;
    struct transcript *transcript; /* owned */

    struct backend_limits limits;
    struct breaker breaker;
    struct bucket bucket;
    struct patience patience;     /* refusals a connection */
    const struct probeconn *bold; /* the only one that goes on beyond that, to find out more; NULL: none */
    uint32_t batch_limit;         /* what its server is known to take */
    uint64_t batch_limit_until_ms;
    uint32_t lately_asked, lately_refused; /* recipients; how many of the next ones will be unknown? */
    bool refuses_empty;                    /* adaptive: probes come with a token */
    uint64_t refuses_empty_until_ms;
    struct found last; /* why it is not up */

    struct list queue[RANK_COUNT]; /* questions */
    uint32_t queued_count, batch_count;
    struct smap questions; /* by key: queued and in flight */
    struct list watches;
    struct smap watches_by_domain;
    struct timer rate_timer, canary_timer;
    uint64_t canary_due_ms; /* of the timer */
    bool canary_out;        /* one at a time: domains may be many, and are not ours to choose */
    struct tick_hook hook;

    struct list conns;
    uint32_t conn_count, dialing_count, speaking_count;
    uint64_t open_after_ms; /* it refused one more connection */
    struct candidates candidates;
    struct resolve *resolving;
};

struct verifier {
    struct verify_shared *shared;
    struct loop *loop;
    const struct policy *policy;
    uint64_t policy_generation;
    unsigned worker;
    struct hop_settings hop;
    struct resolver resolver;
    struct verify_list *lists; /* owned, paths and references too */
    size_t list_count;

    /* What sessions here wait for. */
    struct smap lookups;     /* by key */
    struct list lookups_out; /* all */
    struct pool lookup_pool;

    /* The backends that are this worker's. */
    struct smap backends;
    struct list private_backends; /* of verifier_probe_now: idle_link */
    struct pool question_pool, batch_pool, conn_pool;
    uint32_t conn_count;
    struct timer sweep_timer;

    bool draining;
    void (*drained)(void *ctx); /* NULL when it was called */
    void *drained_ctx;
    struct tick_hook drain_hook;
};

static inline uint32_t wall_s(void)
{
    return (uint32_t)(clock_wall_ns() / NS_PER_S);
}

/* lookup.c: the asking side */
void lookup_returned(struct mail *m);
struct lookup *lookup_new(struct verifier *v, enum request_kind kind, const struct verify_query *q, str_t key,
                          bool in_map); /* NULL: too many */
void lookup_send(struct lookup *l, const struct route *route);
bool lookup_is_suspicious(const struct verify_query *q, const struct cfg_verify *s);
void lookup_join(struct lookup *l, struct verify_ask *a, const struct verify_query *q);
void lookup_conclude(struct lookup *l, const struct found *f); /* all who wait get their answer */
void verifier_enforce(const struct cfg_verify *s,
                      struct verify_answer *out); /* shadow mode refuses nothing */
/* The answer by the settings; `reference` is given where something is hidden. */
void verifier_conclude(const struct cfg_verify *s, enum finding f, const struct verdict_record *record,
                       const char *reference, struct verify_answer *out);
void verifier_check_drained(struct verifier *v);
/* Into the log; `key` and `lookup` (NULL: nobody asked) make the reference. */
void found_log(const struct found *f, str_t key, str_t text, str_t backend, const char *lookup,
               uint32_t waiting, uint64_t ms);

/* known.c: without asking anybody */
struct known {
    const struct cfg_verify *settings;
    str_t key; /* absent: nobody to be verified */
    struct verdict_record record;
    enum verdict_age age;
    const struct verify_list *list; /* NULL: none was looked into */
    bool is_listed;
    char key_bytes[VERIFY_KEY_MAX];
};
/* True: *out is the answer. */
bool known_answer(struct verifier *v, const struct verify_query *q, struct known *k,
                  struct verify_answer *out);
/* The same for an operator: the cache does not count it as a use. */
bool known_look(const struct verifier *v, const struct verify_query *q, struct known *k,
                struct verify_answer *out);
void verifier_count(struct verifier *v, const struct policy *p, const struct address *a,
                    const struct verify_answer *answer);

/* owner.c: requests in, findings out */
void request_arrived(struct mail *m);
void request_answer(struct request *r,
                    const struct found *f); /* on its way back; the request is not ours any more */
/* Ends it: all its requests get `f`; the question is gone. */
void question_end(struct question *q, const struct found *f);
/* What the server said of it, or that nothing came: ends it, or puts it back into the queue. */
void question_answered(struct question *q, enum smtpc_stage at, const struct smtp_reply *reply, str_t relay);
void question_lost(struct question *q, bool may_go_again, const struct found *why);
void found_fill(struct found *f, enum smtpc_stage at, const struct smtp_reply *reply, str_t relay,
                const char *why);
/* A verdict into cache and store; returns what is known then. Any worker. */
struct verdict_record verifier_learn(struct verifier *v, str_t key, const struct cfg_verify *s,
                                     enum verdict answer, enum verdict_source source, bool canary_passed);
/* While the backend is not asked: what its addresses are answered. */
void backend_found(const struct backend *b, struct found *out);
void backend_answer_queue(struct backend *b, const struct found *f);

/* backend.c */
struct backend *backend_get(struct verifier *v, const struct route *route, const struct cfg_verify *s);
struct backend *backend_new(struct verifier *v, const struct route *route, const struct cfg_verify *s);
void backend_free(struct backend *b);
/* NULL: no room. May free one that no question points to. */
struct domain_watch *backend_domain(struct backend *b, str_t domain);
struct question *question_new(struct backend *b, struct domain_watch *d, str_t key, str_t text,
                              enum question_rank rank); /* NULL: too many */
void question_free(struct question *q);
void question_enqueue(struct question *q, bool in_front);
void backend_kick(struct backend *b);
void backend_sweep(struct timer *t);
void backend_close(struct backend *b); /* shutdown */
bool backend_is_at(const struct backend *b, const struct ip *ip);
/* After anything that may have moved the breaker: logs, counts, alarms, and answers the queue if need be. */
enum breaker_state backend_state(const struct backend *b);
void backend_moved(struct backend *b, enum breaker_state was, const struct found *why);

/* dispatch.c: questions to connections */
void backend_count(struct backend *b, bool refused);
void backend_dispatch(struct tick_hook *h);
void backend_rate(struct timer *t);
void batch_done(struct batch *batch); /* the engine is done with it; what is left in it goes back */
/* True: it goes again, with another sender. */
bool sender_refused(struct question *q, const struct batch *batch, const struct smtp_reply *reply,
                    str_t relay);
/* Anybody can write a sender that is passed on: only a yes to it, and its loop, is believed. True: it goes
 * again, with ours. */
bool sender_forsaken(struct question *q, const struct batch *batch);
bool batch_crowded(struct question *q); /* true: it goes again, with fewer beside it */

/* canary.c */
void canary_check(struct backend *b, struct domain_watch *d, const struct cfg_verify *s);
void canary_timer(struct timer *t);
void canary_answered(struct question *q, enum triage t);
void canary_say(struct backend *b, struct domain_watch *d, enum watch_state was);

/* probe_now.c; the transcript's are of no effect for a backend without one */
void probe_now_ended(struct backend *b, struct probe_now *p, const struct question *q, const struct found *f);
void probe_now_over(struct backend *b); /* its connections are gone: frees it */
void transcript_note(struct backend *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void transcript_sent(struct backend *b, str_t bytes);
void transcript_received(struct backend *b, str_t bytes);

#endif
