/* relay/relay.h: takes durable messages to their next hops. One per worker, loop thread only. */
#ifndef RELAY_RELAY_H
#define RELAY_RELAY_H

#include "net/dns.h"
#include "net/tls.h"
#include "policy/policy.h"
#include "queue/queue.h"
#include "relay/pauses.h"

struct relay;

struct relay_options {
    struct loop *loop;
    struct queue *queue;
    struct dns *dns;
    const struct policy *policy;
    struct tls_context *tls, *tls_verify; /* client contexts; may be NULL (then TLS_MAY means off) */
    unsigned worker;
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

/* For `postern queue list` and status; a snapshot of one message. Texts are valid until the next call on the
 * relay. */
struct relay_message_info {
    uint64_t id, arrived_ms, due_ms, bytes;
    uint32_t attempts, rcpt_count, rcpt_pending;
    const char *state; /* "active", "deferred", "held" */
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
