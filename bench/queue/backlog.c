/* bench/queue/backlog.c: a queue of many messages: filling it, finding it again, sending it off from a cold
 * ring. Each is a run of its own, so that memory and reads are those of the one thing. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/queue/bench_priv.h"
#include "core/clock.h"

struct proc_io {
    uint64_t bytes, calls;
};

/* What this process has read so far: every pread is counted, also those that miss the page cache. */
static struct proc_io proc_reads(void)
{
    struct proc_io io = {0};
    FILE *f = fopen("/proc/self/io", "r");
    char name[32];
    unsigned long long value;
    while (f && fscanf(f, "%31s %llu", name, &value) == 2) {
        if (strcmp(name, "rchar:") == 0)
            io.bytes = value;
        else if (strcmp(name, "syscr:") == 0)
            io.calls = value;
    }
    if (f)
        fclose(f);
    return io;
}

static uint64_t resident_bytes(void)
{
    unsigned long long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    if (f)
        fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ---- fill ---- */

static void closed(void *ctx)
{
    loop_stop(ctx);
}

static void filled(struct feed *f)
{
    queue_close(f->q, closed, f->ctx);
}

int bench_fill(struct loop *l, const struct bench_options *o)
{
    struct feed f;
    uint64_t ms;
    struct queue *q = bench_open(o, 0, &ms);
    if (!q)
        return 1;
    feed_init(&f, q, o);
    f.keep = true;
    f.limit = o->message_count;
    f.ended = filled;
    f.ctx = l;
    uint64_t start_ns = clock_mono_ns();
    queue_start(q, l);
    feed_start(&f);
    loop_run(l);
    double seconds = (double)(clock_mono_ns() - start_ns) / (double)NS_PER_S;
    printf("{\"messages\": %llu, \"create_ms\": %llu, \"per_second\": %.1f}\n",
           (unsigned long long)f.done_count, (unsigned long long)ms, (double)f.done_count / seconds);
    feed_free(&f);
    return 0;
}

/* ---- recover ---- */

int bench_recover(struct loop *l, const struct bench_options *o)
{
    uint64_t resident = resident_bytes(), ms;
    struct proc_io before = proc_reads();
    struct queue *q = bench_open(o, 0, &ms);
    if (!q)
        return 1;
    struct proc_io after = proc_reads();
    uint64_t resident_after = resident_bytes();
    struct queue_stats s;
    queue_stats(q, &s);
    printf("{\"messages\": %llu, \"ms\": %llu, \"read_bytes\": %llu, \"read_calls\": %llu, "
           "\"used_bytes\": %llu, \"ring_bytes\": %llu, \"resident_bytes\": %llu, \"entry_bytes\": %zu}\n",
           (unsigned long long)s.message_count, (unsigned long long)ms,
           (unsigned long long)(after.bytes - before.bytes), (unsigned long long)(after.calls - before.calls),
           (unsigned long long)s.used_bytes, (unsigned long long)s.ring_bytes,
           (unsigned long long)(resident_after - resident), sizeof(struct qmsg));
    queue_start(q, l);
    queue_close(q, closed, l);
    loop_run(l);
    return 0;
}

/* ---- drain ---- */

struct drain;
struct drain_reader {
    struct drain *d;
    struct qload load;
    struct qbody body;
    struct arena arena;
};

struct drain {
    struct loop *loop;
    struct queue *q;
    struct qmsg **all; /* owned; oldest first, as the scheduler takes them after a start */
    uint64_t count, next, done;
    uint64_t bytes;
    uint32_t running;
    struct drain_reader *readers; /* owned */
};

static void reader_next(struct drain_reader *r);

static void reader_end(struct drain_reader *r)
{
    struct drain *d = r->d;
    struct qmsg *m = r->load.m;
    queue_body_close(&r->body);
    queue_load_end(&r->load);
    arena_free(&r->arena);
    queue_remove(d->q, m);
    d->done++;
}

/* True when the message is at its end. */
static bool reader_body(struct drain_reader *r)
{
    struct qslice *s;
    err_t err;
    while ((err = queue_body_next(&r->body, &s)) == 0) {
        r->d->bytes += s->n;
        queue_slice_release(s);
    }
    if (err == ERR_PENDING)
        return false;
    must(err == ERR_EOF);
    reader_end(r);
    return true;
}

static void body_ready(struct qbody *b)
{
    struct drain_reader *r = container_of(b, struct drain_reader, body);
    if (reader_body(r))
        reader_next(r);
}

static void load_done(struct qload *ld)
{
    struct drain_reader *r = container_of(ld, struct drain_reader, load);
    must(ld->err == 0);
    queue_body_open(&r->body, ld);
    if (reader_body(r))
        reader_next(r);
}

static void reader_next(struct drain_reader *r)
{
    struct drain *d = r->d;
    while (d->next < d->count) {
        arena_init(&r->arena, 2 << 20);
        r->load.done = load_done;
        r->body.ready = body_ready;
        err_t err = queue_load(d->q, d->all[d->next++], &r->arena, &r->load);
        if (err == ERR_PENDING)
            return;
        must(err == 0);
        queue_body_open(&r->body, &r->load);
        if (!reader_body(r))
            return;
    }
    if (--d->running == 0)
        queue_close(d->q, closed, d->loop);
}

static bool collect(void *ctx, struct qmsg *m)
{
    struct drain *d = ctx;
    d->all[d->count++] = m;
    return true;
}

struct drain_starter {
    struct mail mail;
    struct drain *d;
    uint32_t reader_count;
};

static void drain_start(struct mail *m)
{
    struct drain_starter *st = container_of(m, struct drain_starter, mail);
    struct drain *d = st->d;
    d->running = st->reader_count;
    for (uint32_t i = 0; i < st->reader_count; i++) {
        d->readers[i].d = d;
        reader_next(&d->readers[i]);
    }
}

int bench_drain(struct loop *l, const struct bench_options *o)
{
    struct drain d = {.loop = l, .q = bench_open(o, 0, NULL)};
    if (!d.q)
        return 1;
    struct queue_stats s;
    queue_stats(d.q, &s);
    d.all = calloc(s.message_count + 1, sizeof(struct qmsg *));
    d.readers = calloc(o->session_count, sizeof *d.readers);
    must(d.all && d.readers);
    queue_each(d.q, collect, &d);
    queue_start(d.q, l);
    struct drain_starter st = {.mail.deliver = drain_start, .d = &d, .reader_count = o->session_count};
    uint64_t start_ns = clock_mono_ns();
    loop_post(l, &st.mail);
    loop_run(l);
    double seconds = (double)(clock_mono_ns() - start_ns) / (double)NS_PER_S;
    printf("{\"messages\": %llu, \"seconds\": %.3f, \"per_second\": %.1f, \"mib_per_second\": %.1f}\n",
           (unsigned long long)d.done, seconds, (double)d.done / seconds,
           (double)d.bytes / seconds / (1 << 20));
    free(d.all);
    free(d.readers);
    return 0;
}
