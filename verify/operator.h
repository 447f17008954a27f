/* verify/operator.h: what an operator may ask a verifier; on the worker's own loop, by mail. What is known of
 * all addresses is in knowledge.h, and needs no worker. */
#ifndef VERIFY_OPERATOR_H
#define VERIFY_OPERATOR_H

#include "verify/verifier.h"

struct verifier_domain_info {
    str_t domain;
    enum watch_state state;
    int64_t canary_due_ms;  /* from now; < 0: overdue, when it is used next */
    int64_t refused_ago_ms; /* when an address that cannot exist was refused last; < 0: never */
    int64_t good_ago_ms;
};
struct verifier_backend_info { /* texts are valid during the call */
    str_t key;
    unsigned worker;
    enum breaker_state state;
    bool on_trial;                      /* one question is out, to see whether it is over */
    uint64_t state_for_ms, retry_in_ms; /* 0: now, or up */
    uint32_t failures;                  /* in a row */
    uint32_t connections, in_flight, queued;
    uint32_t connections_max, waiting_max, batch; /* batch: what it is asked for at once now */
    uint32_t refusals;   /* a connection, before it slows down or hangs up, as far as known */
    uint32_t rate_per_s; /* 0: no limit */
    const char *sender;  /* static: "empty", "token", "address" */
    str_t relay,
        reply; /* who answered last when it was not up, and what: "550 5.7.1 go away"; absent: nothing */
    const char *why; /* static; NULL */
    const struct verifier_domain_info *domains;
    size_t domain_count;
};
/* Only those of this worker. */
void verifier_each_backend(const struct verifier *v,
                           void (*each)(void *ctx, const struct verifier_backend_info *b), void *ctx);

/* Those with this key (absent: all) are asked again at once instead of when their time is over, and where
 * they took everything, canaries fly again. *count: how many were there; *hurried: for how many that meant
 * something. */
void verifier_retry(struct verifier *v, str_t key, uint32_t *count, uint32_t *hurried);

/* Is it this worker that asks about the address (or, when nobody can be asked, worker 0)? */
bool verifier_is_at_home(const struct verifier *v, const struct address *a);

/* All that is known of an address, and what RCPT would be answered. */
struct verifier_shown {
    bool is_local;                     /* else nobody but trusted clients may send to it */
    const struct cfg_verify *settings; /* of the policy in force */
    char key[VERIFY_KEY_MAX + 1];      /* "": it is never verified */
    struct verdict_record record;      /* state NONE: nothing is known */
    enum verdict_age age;
    uint32_t fresh_until_s, kept_until_s; /* wall clock; 0: not known, or pinned: for ever */
    bool has_list, is_listed;             /* no list: none is configured, or it cannot be read */
    char backend[256];                    /* its key, cut; "": there is no way to ask */
    enum breaker_state state;
    uint64_t retry_in_ms;
    enum watch_state watch;
    bool would_ask;              /* its server would be asked first, and the answer be its */
    struct verify_answer answer; /* else; to a stranger */
};
/* ERR_SYNTAX: no address. Only where verifier_is_at_home says so. */
err_t verifier_show(const struct verifier *v, str_t address, struct verifier_shown *out) WARN_UNUSED;

/* One probe with its dialogue, on a connection of its own. What it finds goes into the cache as usual, unless
 * it is dry. Embedded in its owner. */
struct probe_now {
    bool is_dry;
    void (*done)(struct probe_now *p);
    str_t transcript;    /* lines of "   12 ms C: RCPT TO:<bob@example.com>"; valid during done */
    enum reply_id reply; /* what RCPT would be answered now */
    const char *result;  /* static: a finding, and of a KNOWN one the verdict */
    const char *why;     /* static or NULL */
    bool is_answered;    /* the server spoke of the recipient, yes or no: `said` */
    enum verdict said;
    struct verdict_record before, after; /* what was known, and what is now, or would be */
    uint32_t ms;
    struct backend *backend; /* private */
};
/* 0: `done` follows. ERR_SYNTAX: no address; ERR_NOT_FOUND: no route; ERR_CLOSED: shutting down; -ENOMEM. */
err_t verifier_probe_now(struct verifier *v, str_t address, struct probe_now *p) WARN_UNUSED;

#endif
