/* bench/queue/commit.c: how fast a ring takes mail: an empty one, and one that is full of deferred mail up to
 * some percent. Both have been round at least once; rounds are interleaved, so that a slow minute of the
 * machine falls on both. */
#include <stdlib.h>

#include "bench/queue/bench_priv.h"
#include "core/clock.h"

enum { EMPTY, FULL, SIDES };

struct side {
    struct queue *q;
    struct feed feed;
    uint64_t warm_to_bytes; /* written_bytes at which its warm-up ends */
    struct queue_stats before;
    uint64_t count_before;
    double *per_second; /* owned; one for each round */
    double written, accepted, reappended;
};

struct commit_bench {
    struct loop *loop;
    const struct bench_options *opt;
    struct side side[SIDES];
    struct timer round_timer;
    uint32_t round, turn;
    uint64_t start_ns;
    uint32_t closing;
};

static void round_start(struct commit_bench *b);

/* ---- before: fill, then once round ---- */

static bool is_filled(struct feed *f)
{
    struct queue_stats s;
    queue_stats(f->q, &s);
    return s.live_bytes >= s.ring_bytes / 100 * f->opt->fill_percent;
}

static bool is_warm(struct feed *f)
{
    struct commit_bench *b = f->ctx;
    struct queue_stats s;
    queue_stats(f->q, &s);
    return s.written_bytes >= b->side[b->turn].warm_to_bytes;
}

static void warm_ended(struct feed *f);

static void warm_start(struct commit_bench *b)
{
    struct side *s = &b->side[b->turn];
    struct queue_stats now;
    queue_stats(s->q, &now);
    s->warm_to_bytes = now.written_bytes + now.ring_bytes * 3 / 2;
    s->feed.keep = false;
    s->feed.enough = is_warm;
    s->feed.ended = warm_ended;
    feed_start(&s->feed);
}

static void warm_ended(struct feed *f)
{
    struct commit_bench *b = f->ctx;
    f->enough = NULL;
    if (++b->turn < SIDES) {
        warm_start(b);
        return;
    }
    b->turn = 0;
    round_start(b);
}

static void filled(struct feed *f)
{
    struct commit_bench *b = f->ctx;
    b->turn = 0;
    warm_start(b);
}

/* ---- rounds ---- */

static void closed(void *ctx)
{
    struct commit_bench *b = ctx;
    if (--b->closing == 0)
        loop_stop(b->loop);
}

static void round_over(struct timer *t)
{
    struct commit_bench *b = container_of(t, struct commit_bench, round_timer);
    b->side[b->turn].feed.stopping = true;
}

static void round_ended(struct feed *f)
{
    struct commit_bench *b = f->ctx;
    struct side *s = &b->side[b->turn];
    struct queue_stats now;
    queue_stats(s->q, &now);
    double seconds = (double)(clock_mono_ns() - b->start_ns) / (double)NS_PER_S;
    s->per_second[b->round] = (double)(f->done_count - s->count_before) / seconds;
    s->written += (double)(now.written_bytes - s->before.written_bytes);
    s->accepted += (double)(now.accepted_bytes - s->before.accepted_bytes);
    s->reappended += (double)(now.reappended_bytes - s->before.reappended_bytes);
    if (++b->turn == SIDES) {
        b->turn = 0;
        b->round++;
    }
    if (b->round < b->opt->rounds) {
        round_start(b);
        return;
    }
    b->closing = SIDES;
    for (unsigned i = 0; i < SIDES; i++)
        queue_close(b->side[i].q, closed, b);
}

static void round_start(struct commit_bench *b)
{
    struct side *s = &b->side[b->turn];
    s->feed.ended = round_ended;
    queue_stats(s->q, &s->before);
    s->count_before = s->feed.done_count;
    b->start_ns = clock_mono_ns();
    timer_arm(b->loop, &b->round_timer, b->opt->round_ms);
    feed_start(&s->feed);
}

/* ---- the end ---- */

static void print_side(const struct commit_bench *b, unsigned i, const char *name)
{
    const struct side *s = &b->side[i];
    printf("\"%s\": {\"per_second\": [", name);
    for (uint32_t r = 0; r < b->opt->rounds; r++)
        printf("%s%.1f", r ? ", " : "", s->per_second[r]);
    printf("], \"write_amplification\": %.3f, \"moved_per_accepted\": %.3f}", s->written / s->accepted,
           s->reappended / s->accepted);
}

int bench_commit(struct loop *l, const struct bench_options *o)
{
    struct commit_bench b = {.loop = l, .opt = o, .round_timer.fire = round_over};
    for (unsigned i = 0; i < SIDES; i++) {
        struct side *s = &b.side[i];
        s->q = bench_open(o, i, NULL);
        s->per_second = calloc(o->rounds, sizeof *s->per_second);
        if (!s->q || !s->per_second)
            return 1;
        queue_start(s->q, l);
        feed_init(&s->feed, s->q, o);
        s->feed.ctx = &b;
    }
    struct feed *f = &b.side[FULL].feed;
    f->keep = true;
    f->enough = is_filled;
    f->ended = filled;
    feed_start(f);
    loop_run(l);
    printf("{");
    print_side(&b, EMPTY, "empty");
    printf(", ");
    print_side(&b, FULL, "full");
    printf("}\n");
    for (unsigned i = 0; i < SIDES; i++) {
        feed_free(&b.side[i].feed);
        free(b.side[i].per_second);
    }
    return 0;
}
