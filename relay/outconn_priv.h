/* relay/outconn_priv.h: one outbound connection.
 *
 *      DIALING --connected--> TALKING --first `ready`--> UP --idle, old--> QUITTING
 *         |                      |                        |                   |
 *         +----------------------+--------> DOOMED <------+-------------------+
 *                                             |
 *                              `closed`: the next address, or the end
 */
#ifndef RELAY_OUTCONN_PRIV_H
#define RELAY_OUTCONN_PRIV_H

#include "nexthop/attempt.h"
#include "relay/dest_priv.h"

enum outconn_state { OC_DIALING, OC_TALKING, OC_UP, OC_QUITTING, OC_DOOMED };

struct outconn {
    struct relay *relay;
    struct dest *dest;
    struct link link, relay_link, pump_link; /* dest.conns, relay.conns, relay.pumps */
    enum outconn_state state;
    struct conn *conn;   /* behind this struct, conn_size() bytes */
    struct smtpc *smtpc; /* owned */
    struct timer timer;  /* of the stage */
    uint64_t opened_ms, progress_ms, busy_since_ms;

    struct attempt to;
    uint32_t options_generation;

    struct list given; /* jobs the engine has, in order */
    struct list lost;  /* handed back by it, judged when it said why */
    uint32_t given_count, message_count;
    struct job *streaming; /* whose content goes out now */
    size_t inflight_bytes;
    uint32_t piece_count;
    bool is_ready; /* the engine has slots that were not filled yet */
    bool in_gate;  /* the destination's gate counts it */
    bool spoke;    /* its dialogue was up */
    bool timed_out, failed;
    bool is_settling;       /* outconn_settle is on the stack */
    bool useless;           /* ended before it moved anything */
    struct kept_answer why; /* of a failure */
};

/* outconn.c: its life */
size_t outconn_bytes(void);
bool outconn_open(struct dest *d);       /* false: out of memory, or no candidate */
void outconn_give_up(struct outconn *c); /* shutdown's time is over */
void outconn_retire(struct outconn *c);  /* shutdown: ends when it has nothing to do */
void outconn_settle(
    struct outconn *c); /* after anything happened: pumps content, takes jobs, arms the time-out */
bool outconn_is_free(const struct outconn *c,
                     bool behind);             /* for one more job; `behind`: busy ones, else idle ones */
bool outconn_is_worn(const struct outconn *c); /* too old, or made under other options */
void outconn_take(struct outconn *c);
void outconn_leave_gate(struct outconn *c);
/* Ends the connection for a reason that the jobs and the destination will be told. */
void outconn_doom(struct outconn *c, const struct answer *why);
str_t outconn_mta(const struct outconn *c);
struct hop outconn_hop(const struct outconn *c);

/* dialogue.c: the engine's side */
extern const struct smtpc_host outconn_dialogue;
void outconn_judge_lost(struct outconn *c);

/* stream.c: content */
size_t stream_piece_bytes(void); /* of relay.piece_pool */
void stream_begin(struct outconn *c, struct job *j);
bool stream_pump(
    struct outconn *c); /* as far as the socket should take it; may end the content; true: did something */
void stream_drop(struct outconn *c); /* the job leaves in the middle */
void stream_run_pumps(struct relay *r);

#endif
