/* daemon/certificates.h: tells people in time that a certificate ends: in the log, and in a metric. */
#ifndef DAEMON_CERTIFICATES_H
#define DAEMON_CERTIFICATES_H

#include <pthread.h>

#include "daemon/snapshot.h"

/* Has a lock of its own, as a scrape must not wait for a reload. */
struct certificates {
    pthread_mutex_t lock;
    struct tls_context *tls; /* counted; those in force; NULL: none */
    uint64_t warned_ns;      /* monotonic */
};

void certificates_init(struct certificates *c);
void certificates_free(struct certificates *c);
/* Main and admin thread, one at a time. Those of `s` are in force. */
void certificates_set(struct certificates *c, const struct snapshot *s);
/* A log line for each of `s` that ends within tls.warn_before. */
void certificates_warn(struct certificates *c, const struct snapshot *s);
void certificates_warn_daily(struct certificates *c, const struct snapshot *s);
void certificates_collect(struct certificates *c, struct gbuf *out); /* any thread */

#endif
