/* bench/sink/sink_priv.h: what the parts of postern-sink share. */
#ifndef BENCH_SINK_PRIV_H
#define BENCH_SINK_PRIV_H

#include <pthread.h>

#include "net/conn.h"
#include "net/listener.h"
#include "smtp/proto/content.h"

struct sink_options {
    struct endpoint at;
    unsigned thread_count;
    const char *maildir;     /* keep what comes in; NULL: count only */
    const char *ids_path;    /* append the X-Postern-Source id of every message taken */
    const char *reject_rcpt; /* substring of RCPT arguments answered 550 5.1.1 */
    const char *defer_rcpt;  /* the same, 450 4.2.0 */
    const char *refuse_data; /* reply to every end of data instead of 250; static text with code */
    bool lmtp;
    bool dsn;            /* offer it; the parameters are kept with the envelope */
    bool no_pipelining;  /* do not offer it */
    uint64_t exit_after; /* messages; 0 = run until a signal */
    bool quiet;
};

/* One per thread; counters are its own, read after the thread ended (or roughly, while it runs). */
struct sink_thread {
    const struct sink_options *opt;
    struct loop *loop;
    struct listener *listener;
    pthread_t thread;
    unsigned index;
    uint64_t connections, messages, recipients, bytes, bare_endings;
    int ids_fd;
};

void sink_accept(struct sink_thread *t, int fd, const struct endpoint *peer);
/* Called for each message taken, on its thread. */
void sink_message_taken(struct sink_thread *t);

/* A message being kept; plain blocking files: a demo and test aid, not the thing that is measured. */
struct kept_message;
struct kept_message *keep_begin(const char *maildir, unsigned thread_index, str_t envelope);
void keep_content(struct kept_message *k, const uint8_t *p,
                  size_t n); /* dot-stuffed; stored without the stuffing */
err_t keep_end(struct kept_message *k) WARN_UNUSED;
void keep_abort(struct kept_message *k); /* NULL is fine */
err_t keep_prepare(const char *maildir) WARN_UNUSED;

#endif
