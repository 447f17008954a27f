/* bench/source/source_priv.h: what the parts of postern-source share. */
#ifndef BENCH_SOURCE_PRIV_H
#define BENCH_SOURCE_PRIV_H

#include <pthread.h>

#include "bench/source/latency.h"
#include "core/list.h"
#include "net/conn.h"

#define SOURCE_SIZES_MAX 16

/* How far a transaction goes. */
enum source_until {
    UNTIL_DOT,  /* mail */
    UNTIL_RCPT, /* MAIL and RCPTs, then RSET or QUIT: what a server that verifies with us does */
    UNTIL_EHLO, /* a greeting and a name (and TLS), then QUIT */
};

struct source_size {
    uint32_t bytes, share; /* of the content, our own lines included; share of the messages, any unit */
};

struct source_options {
    struct endpoint to, from;
    uint32_t from_count; /* addresses from `from` on that sessions are spread over; 0 = the system's choice */
    unsigned thread_count;
    uint32_t session_count; /* at once, over all threads */
    uint64_t message_count; /* in all */
    uint32_t messages_per_session;
    uint32_t rcpts_per_message;
    struct source_size sizes[SOURCE_SIZES_MAX];
    unsigned size_count;
    const char *helo, *sender;
    const char *recipient, *unknown; /* "%" is replaced by a running number */
    uint64_t recipient_set;          /* the running number begins again after so many; 0 = never */
    uint32_t unknown_percent;        /* recipients that are made of `unknown` */
    const char *ids_path;            /* the ids of messages that got 250, one per line */
    const char *file;                /* send this message instead of made-up ones */
    const char *run_name;            /* first part of the ids */
    uint32_t retry_s;  /* keep trying to reconnect for this long; 0 = a lost connection is an error */
    uint32_t pipeline; /* commands of an envelope in one go, where the server offers it */
    uint32_t hold_s;   /* keep all sessions open after EHLO for so long, and say how many there are */
    double rate; /* messages a second over all threads, whatever the server does; 0 = as fast as it answers */
    enum source_until until;
    struct tls_context *tls; /* owned; STARTTLS when there is one */
    bool json;
};

/* Counters: a thread's own until it ended. */
struct source_results {
    uint64_t ok, refused,
        turned_away; /* turned away: all recipients unknown and refused, as they should be */
    uint64_t connects, lost, bytes, handshakes;
    uint64_t rcpt_taken, rcpt_deferred, rcpt_refused;
    uint64_t rcpt_wrong; /* known and refused for good, or unknown and taken */
    uint64_t last_ok_ns;
    char first_error[256];
    struct latency latency[SOURCE_STAGES];
};

struct source_thread {
    const struct source_options *opt;
    struct loop *loop;
    pthread_t thread;
    unsigned index;
    int ids_fd;
    uint32_t session_count, sessions_left;
    uint32_t held;     /* sessions that are open and held */
    struct pace *pace; /* owned */
    struct source_results results;
};

/* --- options.c, results.c --- */
/* 0, or the exit status: what was wrong is on stderr. */
int source_options_parse(int argc, char **argv, struct source_options *o);
void source_results_add(struct source_results *sum, const struct source_results *r);
void source_results_print(const struct source_options *o, const struct source_results *r, double elapsed_s);

/* --- body.c: the content behind our own lines; shared, immutable, dot-stuffed, ends in CRLF --- */
struct source_body {
    const uint8_t *p;
    size_t n;
    uint32_t crc; /* CRC-32C of it */
};
int source_bodies_make(const struct source_options *o); /* 0 or the exit status */
const struct source_body *source_body(const struct source_options *o, uint64_t number);

/* --- addresses.c: recipient i of message `number`; true: it is one of the unknown --- */
bool source_recipient(const struct source_options *o, uint64_t number, uint32_t i, struct sbuf *out);

/* --- pace.c: which message is next, and when. Loop thread only --- */
struct pace_waiter {
    void (*due)(struct pace_waiter *w); /* ask again */
    struct link link;
};
enum pace_answer { PACE_NOW, PACE_LATER, PACE_NONE };

err_t pace_create(struct pace **out, struct source_thread *t, uint64_t first, uint64_t count) WARN_UNUSED;
void pace_start(struct pace *p, uint64_t start_ns);
/* The next message and, with a rate, the moment at which it was due (else 0). PACE_LATER: `w` is called when
 * one is due. PACE_NONE: all have begun. */
enum pace_answer pace_next(struct pace *p, struct pace_waiter *w, uint64_t *number, uint64_t *due_ns);
void pace_hand_back(struct pace *p, uint64_t number); /* its connection broke: somebody sends it again */
bool pace_more(const struct pace *p);

/* --- session.c, source.c --- */
err_t source_sessions_start(struct source_thread *t) WARN_UNUSED; /* on the loop */
void source_thread_done(struct source_thread *t);  /* called on the loop when nothing is left to do */
void source_session_held(struct source_thread *t); /* called on the loop: one more waits after EHLO */

#endif
