/* relay/relay_priv.h: the objects of the relay and who owns what.
 *
 *   struct qmsg     (queue)       waits in the heap by due time, or is active; with a destination that takes
 * no more now it also stands aside in that one's list (crowd.c)
 *   struct message  an active qmsg: envelope decoded, recipients grouped into jobs; its arena owns everything
 * below it struct job      one message to one destination, at most RELAY_RCPTS_MAX recipients: one
 * transaction struct dest     a next hop: endpoints, gate (window and back-off), jobs that are ready,
 * connections struct outconn  one connection with its protocol engine; holds the jobs it was given until they
 * have an outcome
 *
 * A job is on exactly one list at a time: dest.ready, outconn.given or outconn.lost. When it has an outcome
 * for every recipient it ends; when a message's last job ended the message is settled: bounces are reported,
 * the rest is deferred or gone. */
#ifndef RELAY_RELAY_PRIV_H
#define RELAY_RELAY_PRIV_H

#include "core/clock.h"
#include "core/map.h"
#include "core/pool.h"
#include "net/conn.h"
#include "nexthop/resolve.h"
#include "relay/gate_priv.h"
#include "relay/heap_priv.h"
#include "relay/relay.h"
#include "smtp/client/client.h"

#define RELAY_ACTIVE_MAX       20000              /* messages; the rest waits in the heap as due */
#define RELAY_ACTIVE_BYTES_MAX ((size_t)64 << 20) /* of their arenas */
#define RELAY_MESSAGE_BYTES_MAX                                                                              \
    ((size_t)16 << 20)           /* one arena: a 1 MiB record, its jobs, and a text per recipient */
#define RELAY_LOADS_MAX      64  /* envelope reads in flight */
#define RELAY_BATCH_MAX      256 /* activations a tick */
#define RELAY_RCPTS_MAX      100 /* per transaction: what every server must take (RFC 5321 4.5.3.1.8) */
#define RELAY_LOST_MAX       2   /* broken connections a job survives without being deferred */
#define RELAY_TRIAL_JOBS_MAX 16  /* messages that wait on the trial of a destination that was down */
#define RELAY_INFLIGHT_MAX                                                                                   \
    ((size_t)512 << 10) /* body bytes given to a socket and not yet taken by the kernel */
#define RELAY_CONN_AGE_MS    300000
#define RELAY_CHUNK_IDLE_MS  2000   /* a connection that was idle for longer gets its next message by DATA */
#define RELAY_DEST_LINGER_MS 300000 /* an unused destination is forgotten after this long */
#define RELAY_DEST_IDLE_MAX  2000   /* of them at most */

struct relay;
struct message;
struct job;
struct dest;
struct outconn;
struct dest_stats;

/* A reason shared by deferred messages that have the same one. (Those that stand aside need none: they have
 * their destination's.) */
struct note {
    struct link link; /* relay.notes */
    uint32_t refs;
    uint16_t key_n, text_n;
    char bytes[]; /* key, text */
};

/* The part of a configuration that the relay goes by; owned copies, since a reload frees the original. */
struct settings {
    struct hop_settings hop;
    struct backoff retry;
    uint64_t lifetime_ms, dsn_lifetime_ms;
    uint64_t delay_after_ms; /* 0 = never */
    uint64_t return_size_bytes;
    uint32_t dsn_rate; /* a minute and domain; 0 = no limit */
    enum double_bounces double_bounces;
};

struct relay {
    struct loop *loop;
    struct queue *queue;
    const struct policy *policy;
    uint64_t policy_generation;
    struct pauses *pauses; /* counted; NULL: nothing is paused */
    void (*learned)(void *ctx, str_t rcpt, enum smtpc_stage at, const struct smtp_reply *reply,
                    bool accepted);
    void *learned_ctx;
    unsigned worker;
    struct settings settings;

    struct heap heap;
    struct timer wake_timer; /* the heap's top is due */
    bool rescan;             /* out of memory while scheduling: the queue is walked for what was forgotten */
    struct list active;      /* messages */
    uint32_t active_count, active_max, loads_pending;
    size_t active_bytes;
    struct list hungry;         /* dest.hungry_link: have messages aside, and perhaps room for them */
    struct list spare_messages; /* with a warm arena */
    uint32_t spare_count;
    struct pool message_pool, conn_pool, piece_pool;
    struct list notes;
    struct note *held_note; /* the last one given to a held message: the next has the same reason, likely */
    struct cells *budget;   /* of all workers */

    struct smap destinations; /* owned values */
    struct list dirty;        /* dest.dirty_link: have jobs to hand out at the tick's end */
    struct list idle;         /* dest.idle_link, oldest first */
    uint32_t idle_count;
    struct timer sweep_timer;
    struct list pressed; /* dest.pressed_link: jobs wait though another connection is allowed; looked at again
                            by the timer */
    struct timer pressed_timer;
    struct tick_hook hook;
    struct resolver resolver;
    uint32_t conn_count;
    struct list conns; /* outconn.relay_link */
    struct list pumps; /* outconn.pump_link: have room for more of a body at the tick's end */

    bool draining;
    struct timer drain_timer;
    void (*drained)(void *ctx); /* NULL when it was called */
    void *drained_ctx;
};

/* qmsg.owner_flags: where it is, and what an operator wants of it; qmsg.owner: the message if active, the
 * destination if aside, else its note or NULL. */
enum {
    OWNER_SCHEDULED = 1, /* in the heap */
    OWNER_ACTIVE = 2,
    OWNER_ASIDE = 4,   /* in dest.aside; in the heap too, for its lifetime and other destinations' sake */
    OWNER_TOLD = 8,    /* the log said why it waits */
    OWNER_LEASED = 16, /* left alone until relay_lease_end() */
    OWNER_PLACES = OWNER_SCHEDULED | OWNER_ACTIVE | OWNER_ASIDE | OWNER_LEASED,
    OWNER_REMOVE = 32, /* as soon as its attempt ends */
    OWNER_BOUNCE = 64, /* it is not delivered any more but reported to its sender */
};

static inline uint64_t wall_ms(void)
{
    return clock_wall_ns() / NS_PER_MS;
}

/* relay.c */
void relay_kick(struct relay *r); /* schedule, dispatch and drain at this tick's end */

/* settings.c */
err_t settings_copy(struct settings *out, const struct config *c) WARN_UNUSED;
void settings_free(struct settings *s);

/* schedule.c */
void schedule_put(struct relay *r, struct qmsg *m, uint64_t due_ms);
/* Off the heap, and off its destination's list if it stands aside there; not for an active one. Its note, if
 * any, stays with it. */
void schedule_forget(struct relay *r, struct qmsg *m);
bool schedule_has_room(const struct relay *r); /* for one more active message */
void schedule_run(struct relay *r);
void schedule_wake(struct timer *t);

/* crowd.c */
void crowd_run(struct relay *r); /* calls messages that stand aside, one of each destination in turn */
void crowd_leave(struct qmsg *m);

/* note.c */
struct note *note_get(struct relay *r, struct note *like, str_t key,
                      str_t text); /* a reference; NULL when out of memory */
void note_put(struct note *n);
str_t note_key(const struct note *n);
str_t note_text(const struct note *n);

#endif
