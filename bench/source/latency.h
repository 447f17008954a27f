/* bench/source/latency.h: times of one stage, counted in buckets of at most 3 % width. Single thread. */
#ifndef BENCH_SOURCE_LATENCY_H
#define BENCH_SOURCE_LATENCY_H

#include "core/base.h"

/* Where a session's time goes. Commands of one group count from when the group was written. */
#define SOURCE_STAGE_LIST(X)                                                                                 \
    X(START, "start")     /* with a rate: from when the message was due to when a session took it up */      \
    X(CONNECT, "connect") /* to the connection */                                                            \
    X(GREETING, "greeting")                                                                                  \
    X(EHLO, "ehlo")                                                                                          \
    X(TLS, "tls") /* STARTTLS to the end of the handshake */                                                 \
    X(MAIL, "mail")                                                                                          \
    X(RCPT, "rcpt")                                                                                          \
    X(DATA, "data")                                                                                          \
    X(DOT, "dot")         /* end of the content to its reply */                                              \
    X(MESSAGE, "message") /* MAIL to the last reply; with a rate: from when it was due */

enum source_stage {
#define X(name, text) STAGE_##name,
    SOURCE_STAGE_LIST(X)
#undef X
        SOURCE_STAGES
};

#define LATENCY_SUB_BITS 5
#define LATENCY_BUCKETS  ((36 - LATENCY_SUB_BITS + 1) << LATENCY_SUB_BITS) /* up to 2^36 us: 19 hours */

struct latency {
    uint64_t count, sum_us, max_us;
    uint64_t buckets[LATENCY_BUCKETS];
};

void latency_add(struct latency *l, uint64_t ns);
void latency_merge(struct latency *sum, const struct latency *l);
double latency_quantile_ms(const struct latency *l, double q); /* the bucket's upper bound; 0 when empty */

#endif
