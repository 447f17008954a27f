/* bench/queue/bench_priv.h: what the parts of postern-bench-queue share. One loop, one thread. */
#ifndef BENCH_QUEUE_PRIV_H
#define BENCH_QUEUE_PRIV_H

#include "core/list.h"
#include "net/loop.h"
#include "queue/queue.h"

struct bench_options {
    const char *directory;
    uint64_t ring_bytes;
    uint64_t message_count;
    uint32_t size_bytes; /* of each body */
    uint32_t session_count;
    uint32_t fill_percent; /* of the ring, by live messages */
    uint32_t rounds, round_ms;
};

/* Messages that are put into a ring one after the other by many senders at once. */
struct feed;
struct feed_sender {
    struct feed *feed;
    struct queue_writer *w;
    size_t sent;
};

struct feed {
    struct queue *q;
    const struct bench_options *opt;
    struct feed_sender *senders; /* owned */
    uint32_t running;
    bool keep;     /* leave them in the queue; else each is removed when it is durable, as if delivered */
    bool stopping; /* begin no more */
    uint64_t done_count;
    uint64_t limit; /* of done_count; 0: until `stopping` */
    bool (*enough)(struct feed *f);
    void (*ended)(struct feed *f); /* nothing is under way any more */
    void *ctx;
};
void feed_init(struct feed *f, struct queue *q, const struct bench_options *o);
void feed_start(struct feed *f);
void feed_free(struct feed *f);

struct queue *bench_open(const struct bench_options *o, uint32_t ring, uint64_t *ms);
int bench_commit(struct loop *l, const struct bench_options *o);
int bench_fill(struct loop *l, const struct bench_options *o);
int bench_recover(struct loop *l, const struct bench_options *o);
int bench_drain(struct loop *l, const struct bench_options *o);

#endif
