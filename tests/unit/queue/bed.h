/* tests/unit/queue/bed.h: a ring in a fresh folder, a loop to drive it, and messages whose content follows
 * from a seed, so that whatever comes back can be checked. */
#ifndef TESTS_UNIT_QUEUE_BED_H
#define TESTS_UNIT_QUEUE_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/metrics.h"
#include "net/loop.h"
#include "queue/queue_priv.h"

#define BED_UNUSED __attribute__((unused))

struct bed {
    char dir[64];
    struct loop *loop;
    struct queue *q;
    struct queue_options opt;
    struct gbuf notes;
    uint32_t live_count; /* told of by the last open or adopt */
    uint64_t live_last_arrived_ms;
    bool live_in_order;
    bool closed;
};

BED_UNUSED static void bed_live(void *ctx, struct qmsg *m)
{
    struct bed *b = ctx;
    b->live_count++;
    b->live_in_order &= m->arrived_ms >= b->live_last_arrived_ms;
    b->live_last_arrived_ms = m->arrived_ms;
}

BED_UNUSED static void bed_make(struct bed *b)
{
    memset(b, 0, sizeof *b);
    log_set(LOG_LOGFMT, LOG_ERROR);
    /* Most tests care for what is written, not for how fast a disk is: memory, when there is such a place. */
#ifdef BED_ON_DISK
    const char *base = "/tmp";
#else
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
#endif
    snprintf(b->dir, sizeof b->dir, "%s/postern-queue-XXXXXX", base);
    assert_non_null(mkdtemp(b->dir));
    b->opt = (struct queue_options){.directory = str_cstr(b->dir),
                                    .ring_bytes = 4 << 20,
                                    .segment_bytes = 256 << 10,
                                    .high_water_percent = 90,
                                    .hot_bytes = 4 << 20,
                                    .progress_flush_ms = 8};
}

BED_UNUSED static err_t bed_try_open(struct bed *b)
{
    gbuf_free(&b->notes);
    b->live_count = 0;
    b->live_last_arrived_ms = 0;
    b->live_in_order = true;
    return queue_open(&b->q, &b->opt, bed_live, b, &b->notes);
}

BED_UNUSED static void bed_start(struct bed *b)
{
    const struct loop_options small = {.entries = 64, .buffer_count = 4, .buffer_bytes = 1024, .cpu = -1};
    assert_int_equal(loop_create(&b->loop, &small), 0);
    loop_stop(
        b->loop); /* loop_run() then does what there is to do and comes back: bed_run_until() drives it */
    queue_start(b->q, b->loop);
}

BED_UNUSED static void bed_open(struct bed *b)
{
    err_t err = bed_try_open(b);
    if (err)
        print_message("%s: %.*s\n", err_text(err), (int)b->notes.n, b->notes.p);
    assert_int_equal(err, 0);
    bed_start(b);
}

BED_UNUSED static void bed_run_until(struct bed *b, const volatile bool *flag)
{
    while (!*flag)
        loop_run(b->loop);
}

BED_UNUSED static void bed_closed(void *ctx)
{
    ((struct bed *)ctx)->closed = true;
}

BED_UNUSED static void bed_close(struct bed *b)
{
    b->closed = false;
    queue_close(b->q, bed_closed, b);
    bed_run_until(b, &b->closed);
    loop_destroy(b->loop);
    b->q = NULL;
    b->loop = NULL;
}

BED_UNUSED static void bed_reopen(struct bed *b)
{
    bed_close(b);
    bed_open(b);
}

BED_UNUSED static void bed_remove_folder(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        char file[512];
        if (e->d_name[0] == '.')
            continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        if (unlink(file) < 0)
            bed_remove_folder(file);
    }
    closedir(d);
    rmdir(path);
}

BED_UNUSED static void bed_destroy(struct bed *b)
{
    if (b->q)
        bed_close(b);
    gbuf_free(&b->notes);
    bed_remove_folder(b->dir);
}

BED_UNUSED static bool bed_noted(const struct bed *b, const char *text)
{
    return b->notes.n > 0 && memmem(b->notes.p, b->notes.n, text, strlen(text)) != NULL;
}

BED_UNUSED static void bed_ring_path(const struct bed *b, char *out, size_t n)
{
    snprintf(out, n, "%s/ring-%02u", b->dir, b->opt.ring_index);
}

/* The folder as a power cut would leave it: what is on the disk now, in another folder. */
BED_UNUSED static void bed_crash_copy(const struct bed *b, struct bed *copy)
{
    char from[128], to[128];
    bed_make(copy);
    copy->opt = b->opt;
    copy->opt.directory = str_cstr(copy->dir);
    bed_ring_path(b, from, sizeof from);
    bed_ring_path(copy, to, sizeof to);
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(in >= 0 && out >= 0);
    static char buffer[1 << 16];
    for (ssize_t n; (n = read(in, buffer, sizeof buffer)) > 0;)
        assert_int_equal(write(out, buffer, (size_t)n), n);
    close(in);
    close(out);
}

/* ---- content ---- */

BED_UNUSED static uint8_t bed_byte(uint32_t seed, uint64_t i)
{
    return (uint8_t)(seed * 31 + i * 7 + (i >> 8) * 13 + (i >> 16));
}

BED_UNUSED static void bed_fill(uint8_t *p, uint32_t seed, uint64_t at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = bed_byte(seed, at + i);
}

/* ---- putting in ---- */

struct put {
    struct bed *b;
    struct queue_writer *w;
    uint32_t seed, rcpt_count;
    uint64_t bytes, sent;
    size_t piece; /* 0: pieces of changing sizes */
    bool commit_when_sent;
    volatile bool done, sent_all;
    err_t err;
    struct qmsg *m;
    uint64_t id, arrived_ms;
};

BED_UNUSED static void put_done(void *ctx, err_t err, struct qmsg *m)
{
    struct put *p = ctx;
    p->err = err;
    p->m = m;
    p->w = NULL;
    p->done = true;
    assert_true((err == 0) == (m != NULL));
}

BED_UNUSED static void put_commit(struct put *p)
{
    char meta[32], trace[64];
    snprintf(meta, sizeof meta, "meta:%u", p->seed);
    snprintf(trace, sizeof trace, "Received: by test; %u\r\n", p->seed);
    str_t *rcpts = calloc(p->rcpt_count, sizeof *rcpts);
    char(*names)[32] = calloc(p->rcpt_count, sizeof *names);
    for (uint32_t i = 0; i < p->rcpt_count; i++) {
        snprintf(names[i], sizeof names[i], "rcpt-%u-%u", p->seed, i);
        rcpts[i] = str_cstr(names[i]);
    }
    const struct queue_commit c = {.meta = str_cstr(meta),
                                   .trace = str_cstr(trace),
                                   .rcpts = rcpts,
                                   .rcpt_count = p->rcpt_count,
                                   .arrived_ms = p->arrived_ms ? p->arrived_ms : p->seed,
                                   .due_ms = p->seed,
                                   .done = put_done,
                                   .ctx = p};
    queue_commit(p->w, &c);
    memset(names, 'x', p->rcpt_count * sizeof *names); /* everything was copied */
    free(names);
    free(rcpts);
}

BED_UNUSED static void put_send(void *ctx)
{
    struct put *p = ctx;
    static uint8_t buffer[100000];
    while (p->sent < p->bytes) {
        size_t n = p->piece ? p->piece : 1 + (size_t)(p->sent * 2654435761u >> 5) % 70000;
        n = MIN(n, (size_t)(p->bytes - p->sent));
        bed_fill(buffer, p->seed, p->sent, n);
        size_t took = queue_append(p->w, buffer, n, put_send, p);
        p->sent += took;
        if (took < n)
            return;
    }
    p->sent_all = true;
    if (p->commit_when_sent)
        put_commit(p);
}

BED_UNUSED static void put_start(struct bed *b, struct put *p)
{
    p->b = b;
    if (p->rcpt_count == 0)
        p->rcpt_count = 1;
    assert_int_equal(queue_begin(b->q, &p->w), 0);
    p->id = queue_writer_id(p->w);
    put_send(p);
}

BED_UNUSED static struct qmsg *bed_put(struct bed *b, uint32_t seed, uint64_t bytes, uint32_t rcpt_count,
                                       size_t piece)
{
    struct put p = {
        .seed = seed, .bytes = bytes, .rcpt_count = rcpt_count, .piece = piece, .commit_when_sent = true};
    put_start(b, &p);
    bed_run_until(b, &p.done);
    assert_int_equal(p.err, 0);
    assert_ptr_equal(queue_find(b->q, p.id), p.m);
    return p.m;
}

/* ---- getting out ---- */

struct get {
    struct qload ld;
    struct qbody body;
    struct arena arena;
    volatile bool woken;
};

BED_UNUSED static void get_loaded(struct qload *ld)
{
    container_of(ld, struct get, ld)->woken = true;
}

BED_UNUSED static void get_ready(struct qbody *body)
{
    container_of(body, struct get, body)->woken = true;
}

BED_UNUSED static err_t get_load(struct bed *b, struct qmsg *m, struct get *g)
{
    memset(g, 0, sizeof *g);
    arena_init(&g->arena, 2 << 20);
    g->ld.done = get_loaded;
    g->body.ready = get_ready;
    err_t err = queue_load(b->q, m, &g->arena, &g->ld);
    if (err != ERR_PENDING)
        return err;
    bed_run_until(b, &g->woken);
    return g->ld.err;
}

BED_UNUSED static err_t get_next(struct bed *b, struct get *g, struct qslice **s)
{
    g->woken = false;
    err_t err = queue_body_next(&g->body, s);
    if (err != ERR_PENDING)
        return err;
    bed_run_until(b, &g->woken);
    err = queue_body_next(&g->body, s);
    assert_int_not_equal(err, ERR_PENDING);
    return err;
}

BED_UNUSED static void get_end(struct get *g)
{
    queue_body_close(&g->body);
    queue_load_end(&g->ld);
    arena_free(&g->arena);
}

/* Reads a whole message and compares it with what its seed says. 0, or why it could not be read. */
BED_UNUSED static err_t bed_check(struct bed *b, struct qmsg *m, uint32_t *seed_out)
{
    struct get g;
    err_t err = get_load(b, m, &g);
    if (err) {
        get_end(&g);
        return err;
    }
    uint64_t seed;
    assert_true(str_starts(g.ld.meta, STR("meta:")));
    assert_int_equal(str_to_u64(str_sub(g.ld.meta, 5, 20), &seed), 0);
    char text[64];
    snprintf(text, sizeof text, "Received: by test; %u\r\n", (unsigned)seed);
    assert_true(str_eq(g.ld.trace, str_cstr(text)));
    for (uint32_t i = 0; i < m->rcpt_count; i++) {
        snprintf(text, sizeof text, "rcpt-%u-%u", (unsigned)seed, i);
        assert_true(str_eq(g.ld.rcpts[i], str_cstr(text)));
    }
    queue_body_open(&g.body, &g.ld);
    uint64_t at = 0;
    struct qslice *s;
    while ((err = get_next(b, &g, &s)) == 0) {
        for (size_t i = 0; i < s->n; i++)
            if (s->p[i] != bed_byte((uint32_t)seed, at + i))
                fail_msg("message %u differs at %llu", (unsigned)seed, (unsigned long long)(at + i));
        at += s->n;
        queue_slice_release(s);
    }
    if (err == ERR_EOF) {
        assert_int_equal(at, m->body_bytes);
        err = 0;
    }
    get_end(&g);
    if (seed_out)
        *seed_out = (uint32_t)seed;
    return err;
}

/* Lets the loop turn until what is marked is on the disk. */
BED_UNUSED static void bed_settle(struct bed *b)
{
    while (!list_empty(&b->q->dirty) || !list_empty(&b->q->sealed) || b->q->super.writing)
        loop_run(b->loop);
}

BED_UNUSED static struct qmsg *bed_by_id(struct bed *b, uint64_t id)
{
    struct qmsg *m = queue_find(b->q, id);
    assert_non_null(m);
    return m;
}

#endif
