/* relay/message_priv.h: an active message and its jobs. Everything but struct message itself is in its arena.
 */
#ifndef RELAY_MESSAGE_PRIV_H
#define RELAY_MESSAGE_PRIV_H

#include "relay/relay_priv.h"
#include "smtp/proto/envelope.h"

enum rcpt_result { RES_NONE, RES_SENT, RES_DEFERRED, RES_BOUNCED };

struct rcpt {
    uint32_t index; /* in the queue's record */
    enum rcpt_result result;
    bool report_due; /* delivered, and its sender wants to hear it from us (RFC 3461 NOTIFY=SUCCESS) */
    bool is_final;   /* delivered into the mailbox: LMTP */
    bool again;      /* refused for being one too many in its transaction: goes into the next one at once */
    struct envelope_rcpt to;
    struct answer answer; /* of DEFERRED, BOUNCED and SENT with a report due, and while `again` */
    struct dest *dest;    /* that settled it; alive as long as the message's jobs */
    struct rcpt *next;    /* of the job, while grouping */
};

struct job {
    struct message *msg;
    struct dest *dest;
    struct outconn *conn; /* which has it, else NULL */
    struct link link;     /* dest.ready, outconn.given or outconn.lost */
    struct job *next;     /* of the message */
    struct rcpt *first, *last;
    struct rcpt **rcpts; /* parallel to `to`; compacted when a part has its outcome and the rest goes again */
    struct envelope_rcpt *to;
    uint32_t rcpt_count, sent_count;
    uint8_t lost_count;
    bool again;           /* some recipient is */
    bool moved;           /* some recipient has its result since the last transaction began */
    bool maybe_delivered; /* lost after its end of data */
    bool damaged, body_open;
    uint64_t ready_ms, bytes; /* bytes: content sent so far, trace included */
    struct smtpc_tx tx;
    struct qbody body;
};

struct message {
    struct relay *relay;
    struct qmsg *m;   /* pinned by `load` until its report is written; ended by the relay alone */
    struct link link; /* relay.active, or relay.spare_messages */
    struct arena arena;
    size_t counted_bytes; /* of the arena, in relay.active_bytes */
    struct qload load;
    struct envelope env;
    struct rcpt *rcpts; /* those that were pending at activation */
    uint32_t rcpt_count, jobs_open;
    struct job *jobs;
    struct dest *called_by; /* took it from its list; counts it in `users` until its jobs start */
    struct dest *aside;     /* the first of its destinations that takes no more: there it waits */
    bool in_front;          /* of that list */
    uint64_t retry_due_ms;  /* when another of them is worth a look; 0 = none; wall clock */
    bool attempted;         /* a server was asked: the attempt counts */
    bool damaged;           /* content that cannot be read */
    bool cancelled;         /* shutdown: no attempt */
    bool is_late;           /* its sender is to be told so now */
    bool told;              /* the log said why it waits, and nothing was tried since */
    struct note *note;      /* why it waited before this attempt; may be NULL */
};

/* An operator wants no further transaction of it. */
static inline bool message_is_stopped(const struct message *msg)
{
    return msg->m->held || msg->m->owner_flags & OWNER_REMOVE;
}

/* message.c: one attempt from the heap to the heap */
void message_activate(struct relay *r, struct qmsg *m, struct dest *called_by); /* NULL: it was due */
void message_job_gone(
    struct message *msg); /* one of jobs_open; with the last one the message is settled, and may be gone */
void message_finish(struct message *msg); /* after the report, if any: back to the heap or out of the queue */
void message_free_spares(struct relay *r);

/* group.c */
/* Recipients into jobs; ERR_CORRUPT, ERR_VERSION, -ENOMEM: nothing was started. */
err_t message_group(struct message *msg) WARN_UNUSED;
void message_start_jobs(struct message *msg);
/* Every pending recipient bounces, since an operator removed the message. Errors: as message_group. */
err_t message_refuse(struct message *msg) WARN_UNUSED;
/* What waits for a connection does so no longer; the attempt may end, and the message be gone, in the call.
 */
void message_drop_waiting(struct message *msg);

/* outcome.c */
struct hop { /* for the log; absent texts are left out. NULL: nothing was tried */
    str_t relay, tls, cipher, verify;
    bool takes_dsn; /* offers DSN: what it accepts it will report by itself */
};
void rcpt_settle(struct message *msg, struct rcpt *rc, struct dest *d, enum rcpt_result res,
                 const struct answer *a, const struct hop *hop);
void job_ended(struct job *j); /* every recipient has its result, or the attempt is over for the rest; the job
                                  may be gone after it */
/* The same outcome for all recipients of a job that have none yet; then the job ends. */
void job_fail(struct job *j, enum rcpt_result res, const struct answer *a, const struct hop *hop);
/* The attempt ends without one for the rest: shutdown. */
void job_cancel(struct job *j);
/* Keeps only the recipients that still need a transaction; false: none do. */
bool job_compact(struct job *j);

/* report.c: tells the sender what is to be told after this attempt, with one report, durable before its
 * recipients are marked; then message_finish */
void report_settle(struct message *msg);

#endif
