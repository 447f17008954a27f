/* bench/queue/feed.c: senders that put messages into a ring. */
#include <stdlib.h>
#include <string.h>

#include "bench/queue/bench_priv.h"
#include "core/clock.h"

static const char content[] =
    "The quick brown fox jumps over the lazy dog, and the mail goes through the gateway.\r\n";
static const char meta[] = "0123456789abcdef sender@example.net 8BITMIME ENVID=0123456789";
static const char trace[] = "Received: from source.example.net (source.example.net [192.0.2.1])\r\n"
                            "\tby gw.example.com (Postern) with ESMTPS id 0123456789ABC\r\n"
                            "\tfor <user@example.com>; Tue, 24 Nov 2026 08:00:00 +0000\r\n";

static void sender_begin(struct feed_sender *s);

static bool feed_wants_more(struct feed *f)
{
    if (f->enough && f->enough(f))
        f->stopping = true;
    if (f->limit && f->done_count + f->running > f->limit) /* this one is counted in `running` */
        return false;
    return !f->stopping;
}

static void sender_end(struct feed *f)
{
    if (--f->running == 0)
        f->ended(f);
}

static void sender_done(void *ctx, err_t err, struct qmsg *m)
{
    struct feed_sender *s = ctx;
    must(err == 0);
    s->feed->done_count++;
    if (!s->feed->keep)
        queue_remove(s->feed->q, m);
    sender_begin(s);
}

static void sender_commit(struct feed_sender *s)
{
    const str_t rcpt = STR("user@example.com\0\0\0\0\0\0\0\0");
    uint64_t now_ms = clock_wall_ns() / NS_PER_MS;
    const struct queue_commit c = {.meta = str_cstr(meta),
                                   .trace = str_cstr(trace),
                                   .rcpts = &rcpt,
                                   .rcpt_count = 1,
                                   .arrived_ms = now_ms,
                                   .due_ms = now_ms,
                                   .done = sender_done,
                                   .ctx = s};
    queue_commit(s->w, &c);
}

static void sender_send(void *ctx)
{
    struct feed_sender *s = ctx;
    static char lines[64 * (sizeof content - 1)];
    if (!lines[0])
        for (size_t i = 0; i < 64; i++)
            memcpy(lines + i * (sizeof content - 1), content, sizeof content - 1);
    while (s->sent < s->feed->opt->size_bytes) {
        size_t n = MIN(sizeof lines, s->feed->opt->size_bytes - s->sent);
        size_t took = queue_append(s->w, lines, n, sender_send, s);
        s->sent += took;
        if (took < n)
            return;
    }
    sender_commit(s);
}

static void sender_begin(struct feed_sender *s)
{
    if (!feed_wants_more(s->feed)) {
        sender_end(s->feed);
        return;
    }
    s->sent = 0;
    must(queue_begin(s->feed->q, &s->w) == 0);
    sender_send(s);
}

void feed_init(struct feed *f, struct queue *q, const struct bench_options *o)
{
    *f = (struct feed){.q = q, .opt = o};
    f->senders = calloc(o->session_count, sizeof *f->senders);
    must(f->senders != NULL);
}

void feed_start(struct feed *f)
{
    f->stopping = false;
    f->running = f->opt->session_count;
    for (uint32_t i = 0; i < f->opt->session_count; i++) {
        f->senders[i].feed = f;
        sender_begin(&f->senders[i]);
    }
}

void feed_free(struct feed *f)
{
    free(f->senders);
}
