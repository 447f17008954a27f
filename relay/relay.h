/* relay/relay.h: takes durable messages to their next hops. One per worker, loop thread only. */
#ifndef RELAY_RELAY_H
#define RELAY_RELAY_H

#include "net/dns.h"
#include "net/tls.h"
#include "policy/policy.h"
#include "queue/queue.h"
#include "relay/budget.h"
#include "relay/pauses.h"
#include "smtp/client/client.h"

struct relay;

struct relay_options {
    struct loop *loop;
    struct queue *queue;
    struct dns *dns;
    const struct policy *policy;
    struct cells *budget; /* of reports; outlives all relays */
    unsigned worker;
    /* Optional: what a server said of a recipient, at RCPT or after the content. */
    void (*learned)(void *ctx, str_t rcpt, enum smtpc_stage at, const struct smtp_reply *reply,
                    bool accepted);
    void *learned_ctx;
    uint32_t active_max; /* messages in work at a time; 0 = 20000. For tests */
};

err_t relay_create(struct relay **out, const struct relay_options *opt) WARN_UNUSED;
void relay_destroy(struct relay *r); /* after relay_drain's callback */
void relay_take(struct relay *r,
                struct qmsg *m); /* a message just became durable, or was recovered: schedule it by due_ms */
void relay_set_policy(
    struct relay *r,
    const struct policy *p); /* reload; the relay keeps no pointer into the old one after return */
/* No transaction is begun any more with what is paused; those in the air end. Its messages wait, their
 * lifetime goes on. The relay takes a reference of its own. */
void relay_set_pauses(struct relay *r, struct pauses *p);
/* May be called again, to shorten the time. Stop starting transactions, let those in the air end (at most
 * `timeout_ms`), close connections, then call `drained`. Messages stay queued. DNS lookups under way are
 * waited for, since the resolver holds their memory: up to dns.timeout longer. */
void relay_drain(struct relay *r, uint32_t timeout_ms, void (*drained)(void *ctx), void *ctx);

/* --- what an operator may do (steer.c). None of it may be called from inside a callback of the relay. --- */

/* Being tried: in a server's hands, or about to be. What is done to it takes effect when the attempt ends. */
bool relay_is_busy(const struct qmsg *m);
bool relay_is_leased(const struct qmsg *m);
/* No attempts until it is released, over restarts too. `text` says why, to people. */
void relay_hold(struct relay *r, struct qmsg *m, str_t text);
void relay_release(struct relay *r, struct qmsg *m); /* tried at once */
/* Due now; the back-off of where it last failed ends. Not of one that is held. */
void relay_retry(struct relay *r, struct qmsg *m);
/* The back-off of one destination ends. False: there is no such destination. */
bool relay_retry_destination(struct relay *r, str_t key);
/* Out of the queue, at once unless it is busy; m may be gone. With `bounce`, its sender gets a report first.
 * What takes time is held meanwhile, so that nothing of it is delivered after a restart. */
void relay_remove(struct relay *r, struct qmsg *m, bool bounce);
/* Left alone, for who takes it elsewhere, until it is removed or the lease ends; not over restarts. False: it
 * is busy, or leased. */
bool relay_lease(struct relay *r, struct qmsg *m);
void relay_lease_end(struct relay *r, struct qmsg *m);
/* Where a recipient would go now: the destination's key, in `route`; absent: nowhere. */
str_t relay_destination_of(const struct relay *r, str_t address, struct route *route);

/* For `postern queue list` and status; a snapshot of one message. Texts are valid until the next call on the
 * relay. */
struct relay_message_info {
    uint64_t id, arrived_ms, due_ms, bytes;
    uint32_t attempts, rcpt_count, rcpt_pending;
    const char *state; /* "active", "deferred", "held", "leased" */
    str_t last_text;   /* why it waits; absent if it never failed since start */
    str_t destination; /* of its first pending recipient, if known */
};
void relay_message_info(const struct relay *r, const struct qmsg *m, struct relay_message_info *out);

struct relay_destination_info {
    str_t key;
    uint32_t connections, window, jobs;
    uint32_t aside; /* messages that wait until it takes more */
    bool down, paused;
    uint64_t retry_at_ms; /* wall clock */
    str_t last_text;
};
void relay_each_destination(const struct relay *r,
                            void (*each)(void *ctx, const struct relay_destination_info *d), void *ctx);
uint64_t relay_oldest_arrived_ms(const struct relay *r); /* 0 = empty */

#endif
