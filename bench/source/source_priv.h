/* bench/source/source_priv.h: what the parts of postern-source share. */
#ifndef BENCH_SOURCE_PRIV_H
#define BENCH_SOURCE_PRIV_H

#include <pthread.h>

#include "core/list.h"
#include "net/conn.h"

#define SOURCE_LATENCY_BUCKETS 64

struct source_options {
    struct endpoint to;
    unsigned thread_count;
    uint32_t session_count; /* at once, over all threads */
    uint64_t message_count; /* in all */
    uint32_t messages_per_session;
    uint32_t rcpts_per_message;
    uint32_t size_bytes; /* of the content, our id line included */
    const char *helo, *sender;
    const char *recipient; /* "%" is replaced by a running number */
    const char *ids_path;  /* the ids of messages that got 250, one per line */
    const char *file;      /* send this message instead of made-up ones */
    const char *run_name;  /* first part of the ids */
    uint32_t retry_s;      /* keep trying to reconnect for this long; 0 = a lost connection is an error */
    bool no_pipelining, json, quiet;
};

struct source_thread {
    const struct source_options *opt;
    struct loop *loop;
    pthread_t thread;
    unsigned index;
    int ids_fd;
    uint32_t session_count, sessions_left;
    uint64_t quota, begun; /* messages this thread sends; begun or handed back */
    struct list again;     /* ids that were under way when a connection broke: sent again first */
    /* results */
    uint64_t ok, refused, connects, lost, bytes;
    uint64_t last_ok_ns;
    uint64_t replies[6]; /* by class of the final reply */
    char first_error[256];
    uint64_t latency[SOURCE_LATENCY_BUCKETS]; /* log2 half-steps of microseconds, MAIL to the final reply */
};

const uint8_t *source_body(size_t *n); /* shared, immutable, dot-stuffed, ends in CRLF */
err_t source_sessions_start(struct source_thread *t) WARN_UNUSED; /* on the loop */
void source_thread_done(struct source_thread *t); /* called on the loop when nothing is left to do */

#endif
