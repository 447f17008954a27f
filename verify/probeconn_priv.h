/* verify/probeconn_priv.h: one connection for probes.
 *
 *      DIALING --connected--> TALKING --first `ready`--> UP --idle for a while--> QUITTING
 *         |                      |                        |                         |
 *         +----------------------+-------> DOOMED <-------+-------------------------+
 *                                            |
 *                             `closed`: the next address, or the end
 */
#ifndef VERIFY_PROBECONN_PRIV_H
#define VERIFY_PROBECONN_PRIV_H

#include "net/conn.h"
#include "nexthop/attempt.h"
#include "verify/verifier_priv.h"

enum probeconn_state { PC_DIALING, PC_TALKING, PC_UP, PC_QUITTING, PC_DOOMED };

struct probeconn {
    struct backend *backend;
    struct link link; /* backend.conns */
    enum probeconn_state state;
    struct conn *conn;   /* behind this struct, conn_size() bytes */
    struct smtpc *smtpc; /* owned */
    struct timer timer;  /* of the stage */
    uint64_t progress_ms, busy_since_ms;

    struct attempt to;

    struct list batches; /* the engine's; batch.link */
    struct list lost;    /* handed back by it, judged when it said why */
    uint32_t batch_count;
    uint32_t out_count; /* recipients that it was asked and has not answered */
    uint32_t refused_count, transaction_count;
    uint64_t longest_ms;     /* that it took for an answer */
    uint32_t answered_count; /* recipients */
    bool spoke, failed, timed_out;
    struct found why; /* of a failure */
};

size_t probeconn_bytes(void);
bool probeconn_open(struct backend *b); /* false: out of memory, or no address to try */
bool probeconn_is_free(const struct probeconn *c, bool behind);
void probeconn_give(struct probeconn *c, struct batch *batch);
void probeconn_answered(struct probeconn *c, bool refused); /* one more answer */
void probeconn_close(struct probeconn *c);                  /* shutdown: what it was asked for comes back */
extern const struct smtpc_host probe_dialogue;              /* dialogue.c */
void probeconn_doom(struct probeconn *c);                   /* c->why says why */
void probeconn_settle(struct probeconn *c);                 /* arms the time-out of what it waits for now */

#endif
