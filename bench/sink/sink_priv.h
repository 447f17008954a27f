/* bench/sink/sink_priv.h: what the parts of postern-sink share. */
#ifndef BENCH_SINK_PRIV_H
#define BENCH_SINK_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "net/conn.h"
#include "net/listener.h"
#include "smtp/proto/content.h"

#define SINK_RULES_MAX 16

#define SINK_STAGE_LIST(X)                                                                                   \
    X(CONNECT, "connect") /* the greeting */                                                                 \
    X(EHLO, "ehlo")                                                                                          \
    X(MAIL, "mail")                                                                                          \
    X(RCPT, "rcpt")                                                                                          \
    X(DATA, "data")                                                                                          \
    X(DOT, "dot") /* the end of the content */

enum sink_stage {
#define X(name, text) SINK_##name,
    SINK_STAGE_LIST(X)
#undef X
        SINK_STAGES
};

/* What a stage answers instead of 2xx: to a share of what comes, or to what a pattern matches. */
struct sink_rule {
    enum sink_stage stage;
    const char *reply;
    char glob[256];   /* of the command line, ASCII case ignored; "" = by share */
    uint32_t percent; /* every so many of a hundred, evenly */
};

struct sink_options {
    struct endpoint at;
    unsigned thread_count;
    const char *maildir;  /* keep what comes in; NULL: count only */
    const char *ids_path; /* append the X-Postern-Source id of every message taken */
    struct sink_rule rules[SINK_RULES_MAX];
    unsigned rule_count;
    uint32_t delay_ms[SINK_STAGES];
    struct tls_context *tls; /* owned; STARTTLS is offered when there is one */
    bool lmtp;
    bool dsn;            /* offer it; the parameters are kept with the envelope */
    bool no_pipelining;  /* do not offer it */
    bool chunking;       /* offer it */
    bool check;          /* of postern-source's messages: bytes, and copies of one */
    uint64_t exit_after; /* messages; 0 = run until a signal */
    bool quiet;
};
/* 0, or the exit status: what was wrong is on stderr. */
int sink_options_parse(int argc, char **argv, struct sink_options *o);

#define SINK_COUNTER_LIST(X)                                                                                 \
    X(connections)                                                                                           \
    X(handshakes)                                                                                            \
    X(mails)                                                                                                 \
    X(rcpts) X(rcpts_taken) X(chunks) X(messages) X(recipients) X(bytes) X(bare_endings) X(refused)          \
        X(checked) X(damaged) X(copies)

/* Written by the own thread, read by main at any time. */
struct sink_counters {
#define X(name) _Atomic uint64_t name;
    SINK_COUNTER_LIST(X)
#undef X
};

static inline void sink_count(_Atomic uint64_t *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

struct sink_thread {
    const struct sink_options *opt;
    struct loop *loop;
    struct listener *listener;
    pthread_t thread;
    unsigned index;
    int ids_fd;
    uint32_t rule_turns[SINK_RULES_MAX]; /* how often a rule by share was asked */
    struct sink_counters n;
};

void sink_accept(struct sink_thread *t, int fd, const struct endpoint *peer);
/* Called for each message taken, on its thread. */
void sink_message_taken(struct sink_thread *t);

/* --- rules.c --- */
/* The reply that a rule gives at this stage, or NULL: as usual. `line`: the command, for patterns. */
const char *sink_rule_reply(struct sink_thread *t, enum sink_stage stage, str_t line);

/* --- check.c: are a message's bytes those that postern-source sent, and did it come before? --- */
struct sink_check {
    uint32_t crc, want_crc;
    uint64_t bytes, want_bytes;
    bool known; /* our line was found: what follows it is summed */
};
/* The head of a message, as far as it was seen. Returns the length of the head up to the end of our line, or
 * 0: not there. */
size_t sink_check_begin(struct sink_check *k, str_t head);
void sink_check_content(struct sink_check *k, const void *p, size_t n);
/* The id is "RUN.THREAD.NUMBER". Any thread. False: it was here before. */
bool sink_first_copy(str_t id);
/* The id in the head of a message, or STR_NONE. */
str_t sink_id(str_t head);

/* A message being kept; plain blocking files: a demo and test aid, not the thing that is measured. */
struct kept_message;
struct kept_message *keep_begin(const char *maildir, unsigned thread_index, str_t envelope);
void keep_content(struct kept_message *k, const uint8_t *p,
                  size_t n); /* dot-stuffed; stored without the stuffing */
err_t keep_end(struct kept_message *k) WARN_UNUSED;
void keep_abort(struct kept_message *k); /* NULL is fine */
err_t keep_prepare(const char *maildir) WARN_UNUSED;

#endif
