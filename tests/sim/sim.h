/* tests/sim/sim.h: one gateway process in a simulated world: time, chance, network, disk and peers come from
 * one seed. Single-threaded. docs/simulation.md explains it for people.
 *
 * The product is linked as it is, but for net/ring.c, net/dns*.c, queue/fsio*.c, core/clock.c and core/rng.c
 * (sim_ring.c, sim_dns.c, sim_fsio.c, sim_world.c take their places) and a few system calls (sim_sys.c). */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "core/clock.h"
#include "core/ip.h"
#include "core/str.h"

struct loop;
struct op;
struct queue;

/* ---- sim_world.c: time, chance, events, trace ---- */

#define SIM_US UINT64_C(1000)
#define SIM_MS UINT64_C(1000000)
#define SIM_S  UINT64_C(1000000000)

#define SIM_BACKLOG_SEED UINT64_C(1000000) /* from here on worlds have a backlog */

/* What a seed makes of a run. */
struct sim_traits {
    uint32_t segment_bytes, segment_count; /* the ring's geometry */
    uint32_t sector_bytes;                 /* what a power cut keeps or loses in one piece */
    uint32_t recv_buffer_bytes, recv_buffer_count;
    uint32_t client_count, client_pause_ms;
    uint32_t server_mood_ms;      /* how long a next hop stays as it is, on average */
    uint32_t crash_every_ms;      /* on average, besides the crashes within writes */
    uint32_t crash_write_ppm;     /* of durable writes that a crash interrupts or follows */
    uint32_t crash_boot_ppm;      /* of blocking disk calls during recovery */
    uint32_t peer_trouble_ppm;    /* how often a peer misbehaves where it could */
    uint32_t disk_fault_every_ms; /* 0: never */
    uint32_t rot_every_ms;        /* a flipped bit at rest; 0: never */
    uint32_t body_bytes_max;
    uint32_t lifetime_s;
    uint32_t scrub_s;         /* 0: no scrub */
    uint32_t resize_every_ms; /* on average, to any size; 0: never */
    bool has_backlog; /* one next hop is down most of the time */
    bool flushes_all; /* a durable write also makes durable what earlier processes left in the cache */
};

struct world {
    uint64_t seed, now_ns, steps, steps_max;
    struct sim_traits traits;
    bool dead;    /* the process crashed: what it still does has no effect on anything */
    bool healing; /* no more trouble and no new mail: everything must come to rest */
    bool finished;
    uint64_t trace_hash;
    uint64_t crash_count, power_cut_count, rot_count;
    uint64_t kept_crash_count; /* crashes of a ring with kept segments */
};
extern struct world W;

void world_begin(uint64_t seed, uint64_t steps_max);
void world_end(void);
uint64_t chance_u64(void);
uint64_t chance_below(uint64_t bound);
bool chance_ppm(uint32_t ppm);
uint64_t chance_around(uint64_t mean); /* exponential: the wait for something that comes at random */

typedef void event_fn(void *ctx, uint64_t arg);
/* The world's events wait while the process is dead; its own (what its kernel does for it) go on. */
void world_at(uint64_t after_ns, event_fn *run, void *ctx, uint64_t arg);
void process_at(uint64_t after_ns, event_fn *run, void *ctx, uint64_t arg);
/* Runs the next event at or before `until_ns` and sets the time to it; false: there is none. */
bool world_step(uint64_t until_ns);
bool process_events_left(void);

/* A line of the run's history: hashed, the last thousands kept for a violation's report. */
void trace(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* Prints what was broken, the seed and the tail of the history; exits with 1. */
_Noreturn void violation(const char *fmt, ...) PRINTF_LIKE(1, 2);
void trace_on_abort(void); /* so does a failed must() */
extern bool trace_to_stdout;

/* ---- sim_ring.c: the gateway's loop ---- */

void sim_op_begin(struct loop *l, struct op *op);
/* From an event: hands a completion to the loop. The last one unless `more`. */
void sim_op_end(struct op *op, int32_t res, uint32_t flags, bool more);
/* The same after a while. */
void sim_op_end_after(uint64_t after_ns, struct op *op, int32_t res);
/* A provided buffer filled with at most `n` bytes: how many; 0 = none is free. `flags` is for sim_op_end. */
uint32_t sim_buffer_fill(const void *p, size_t n, uint32_t *flags);
uint32_t sim_buffer_bytes(void);

/* ---- sim_net.c: byte streams between the gateway and its peers ---- */

struct stream;

/* The peer's side; each may be called until stream_close() or stream_reset(). */
struct peer_ops {
    void (*connected)(void *ctx, struct stream *s);
    void (*data)(void *ctx, const char *p, size_t n);
    void (*closed)(void *ctx); /* the gateway closed or reset it, or refused: s is gone */
};

/* A peer dials the gateway's listener; `closed` comes if nobody listens. */
struct stream *stream_dial(const struct endpoint *from, const struct peer_ops *ops, void *ctx);
void stream_send(struct stream *s, const void *p, size_t n);
/* Tells `taken` once when the gateway has read everything sent so far; never if it does not live to. */
void stream_mark(struct stream *s, void (*taken)(uint64_t arg), uint64_t arg);
void stream_pause(struct stream *s, bool paused); /* the peer stops reading */
void stream_close(struct stream *s);              /* FIN behind what was sent */
void stream_reset(struct stream *s);

/* The gateway dials: asks who is there. Fills ops and ctx (then `connected` follows), or says how it fails:
 * 0, -ECONNREFUSED, -ETIMEDOUT for silence. */
err_t servers_dialled(const struct endpoint *to, const struct peer_ops **ops, void **ctx);

void net_begin(void);
void net_crash(bool silent); /* every socket of the gateway is gone; `silent`: peers hear nothing of it */
void net_end(void);

/* What sim_ring.c asks for, on the gateway's sockets. */
void net_accept(int fd, struct op *op);
void net_connect(int fd, struct op *op, const struct sockaddr *sa, socklen_t len);
void net_recv(int fd, struct op *op);
void net_send(int fd, struct op *op, const struct iovec *iov, size_t count);
void net_close(int fd);
bool net_cancel(const struct op *op); /* true: it waited, and does no more */

/* ---- sim_fsio.c: the disk ---- */

void disk_begin(void);
void disk_end(void);
void disk_crash(bool power_cut); /* what becomes of the write in flight, and of what is only in the cache */
void disk_fault(uint64_t for_ns);
void disk_heal(void);
bool disk_is_faulty(void);
uint64_t disk_fault_count(void); /* failed reads and writes so far */
void disk_rot(void);             /* flips one bit at rest */

/* ---- sim_gateway.c: lives of the process ---- */

void gateway_run(void); /* life after life until the world has come to rest */
void gateway_crash(bool power_cut);
uint64_t gateway_life(void);
void gateway_was_full(bool full); /* at its end: progress may have found no room */

/* How the life ended in which a reply was read: may what it said be forgotten? */
bool gateway_may_forget(uint64_t life, uint64_t since_ns);

/* ---- sim_client.c, sim_server.c, sim_ledger.c ---- */

#define CLIENTS_MAX 12
void clients_begin(void);
bool clients_are_idle(void);
void clients_end(void);

void servers_begin(void);
void servers_heal(void);
void servers_end(void);

#define RCPTS_MAX 10

enum rcpt_kind { RCPT_GOOD, RCPT_SLOW_START, RCPT_UNKNOWN };

struct submission_rcpt {
    uint8_t kind, domain;
    bool taken;                    /* the gateway said 250 to RCPT */
    bool refused;                  /* a next hop said 5xx: a bounce is due */
    bool acked;                    /* the last delivery's 250 was read by the gateway ... */
    uint64_t acked_life, acked_ns; /* ... then */
    uint32_t index;                /* among those taken */
    uint32_t attempts, deliveries, reports, successes; /* successes: reports of one */
};

enum submission_state {
    SUB_SENDING,
    SUB_DOTTED, /* all was sent: anything may come of it */
    SUB_ACCEPTED,
    SUB_REFUSED,
};

struct submission {
    uint32_t number;
    uint8_t state;
    bool null_sender, trusted;
    bool wants_success; /* NOTIFY=SUCCESS,FAILURE */
    uint32_t body_bytes;
    bool had_faults; /* refused when the disk had failed before */
    uint64_t queue_id, sent_ns;
    uint32_t rcpt_count, taken_count;
    struct submission_rcpt rcpts[RCPTS_MAX];
};

void ledger_begin(void);
void ledger_end(void);
struct submission *ledger_new(void);
void ledger_accepted(struct submission *s, uint64_t queue_id);
void ledger_refused(struct submission *s);
struct submission *ledger_find(uint32_t number);                /* NULL: never was */
void ledger_body(const struct submission *s, struct gbuf *out); /* as the client wrote it, not dot-stuffed */
void ledger_rcpt(const struct submission *s, uint32_t i, struct sbuf *out);
/* A recipient's address as a next hop sees it. */
struct submission_rcpt *ledger_rcpt_find(str_t address, struct submission **s);
/* The next hop took it, on a connection of the process's life `life`: content as it came, dot-unstuffed.
 * Checked. Returns the `arg` for stream_mark(). */
uint64_t ledger_delivered(struct submission *s, struct submission_rcpt *r, str_t content, uint64_t life);
void ledger_acked(uint64_t arg);
void ledger_report(str_t content); /* a message with the null sender came to a sender's server */
#define SIM_WARN_AFTER_S 60        /* dsn.delay_after */
bool servers_offer_dsn(void);      /* then reports of success are theirs to make */
void ledger_check_recovered(struct queue *q);
void ledger_check_end(struct queue *q);
void ledger_damage(void); /* the gateway reported damage */
void ledger_summary(char *out, size_t n);

#endif
