/* daemon/backend_ring.c: what an administrator does with the ring files. */
#include <errno.h>
#include <sys/statvfs.h>

#include "daemon/ask.h"
#include "daemon/backend.h"
#include "daemon/gateway.h"
#include "queue/queue.h"

/* ---- resize ---- */

json_t *ring_resize_json(const struct queue *q)
{
    struct queue_resize_state st;
    queue_resize_state(q, &st);
    if (!st.step)
        return json_null();
    return json_pack("{s:s, s:I, s:I}", "step", st.step, "target", (json_int_t)st.target_bytes, "filled",
                     (json_int_t)st.filled_bytes);
}

static const char *resize_text(err_t err)
{
    switch (err) {
    case ERR_LOCKED: return "it is being resized already; `postern status` shows how far it is";
    case ERR_LIMIT: return "a ring has at least 8 and at most 1048576 segments, whose size stays as it is";
    case ERR_FULL: return "what is queued needs more room than that";
    default: return err_text(err);
    }
}

json_t *ring_resize_error(const struct queue *q)
{
    struct queue_resize_state st;
    queue_resize_state(q, &st);
    return st.err && !st.step ? json_string(resize_text(st.err)) : json_null();
}

static void worker_size(struct ask *a)
{
    struct queue_stats qs;
    queue_stats(a->w->queue, &qs);
    ask_answer(a, json_integer((json_int_t)qs.ring_bytes), NULL);
}

static void worker_resize(struct ask *a)
{
    const uint64_t *bytes = ask_arg(a);
    err_t err = queue_resize(a->w->queue, *bytes);
    ask_answer(a,
               json_pack("{s:i, s:o}", "id", (int)a->w->index, "error",
                         err ? json_string(resize_text(err)) : json_null()),
               NULL);
}

static const struct ask_kind SIZE = {.begin = worker_size, .patience_s = ASK_PATIENCE_S};
static const struct ask_kind RESIZE = {
    .begin = worker_resize, .free_arg = free, .patience_s = ASK_PATIENCE_S};

/* Whether the file system has room is asked here, where it may take a while; the last word is the write's. */
static void check_disk(const char *directory, const json_t *sizes, uint64_t bytes, struct gbuf *problems)
{
    struct statvfs fs;
    uint64_t needed = 0;
    size_t i;
    json_t *size;
    json_array_foreach(sizes, i, size)
    {
        uint64_t now = (uint64_t)json_integer_value(size);
        needed += bytes > now ? bytes - now : 0;
    }
    if (needed == 0 || statvfs(directory, &fs) < 0)
        return;
    uint64_t there = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (needed > there)
        gbuf_printf(problems, "%llu MiB more are needed, and the file system of %s has %llu MiB\n",
                    (unsigned long long)(needed >> 20), directory, (unsigned long long)(there >> 20));
}

json_t *backend_resize(void *ctx, uint64_t bytes, struct gbuf *problems)
{
    struct gateway *g = ctx;
    char directory[4096];
    pthread_mutex_lock(&g->lock);
    const struct config *c = policy_config(g->current->policy);
    bytes = bytes ? bytes : c->ring_size_bytes;
    snprintf(directory, sizeof directory, STR_FMT, STR_ARG(c->spool_directory));
    pthread_mutex_unlock(&g->lock);

    json_t *sizes = ask_workers(g, &SIZE, NULL, NULL);
    if (!sizes)
        return NULL;
    check_disk(directory, sizes, bytes, problems);
    if (problems->n > 0)
        return sizes;
    json_decref(sizes);
    uint64_t *wanted = malloc(sizeof *wanted);
    if (!wanted)
        return NULL;
    *wanted = bytes;
    json_t *workers = ask_workers(g, &RESIZE, wanted, NULL), *w;
    size_t i;
    json_array_foreach(workers, i, w)
    {
        const char *error = json_string_value(json_object_get(w, "error"));
        if (error)
            gbuf_printf(problems, "ring-%02d: %s\n", (int)json_integer_value(json_object_get(w, "id")),
                        error);
    }
    return workers ? json_pack("{s:I, s:o}", "bytes", (json_int_t)bytes, "workers", workers) : NULL;
}

/* ---- scrub ---- */

json_t *ring_scrub_json(const struct queue *q)
{
    struct queue_scrub_state st;
    queue_scrub_state(q, &st);
    return json_pack("{s:b, s:b, s:o, s:o, s:I, s:I, s:I, s:I}", "running", st.running, "hurried", st.hurried,
                     "started", json_of_time(st.started_ms), "ended", json_of_time(st.ended_ms), "messages",
                     (json_int_t)st.message_count, "bytes", (json_int_t)st.read_bytes, "damaged",
                     (json_int_t)st.damaged_count, "unreadable", (json_int_t)st.unreadable_count);
}

static void worker_scrub(struct ask *a)
{
    queue_scrub(a->w->queue);
    ask_answer(a, json_pack("{s:i, s:o}", "id", (int)a->w->index, "scrub", ring_scrub_json(a->w->queue)),
               NULL);
}

static const struct ask_kind SCRUB = {.begin = worker_scrub, .patience_s = ASK_PATIENCE_S};

json_t *backend_scrub(void *ctx)
{
    json_t *workers = ask_workers(ctx, &SCRUB, NULL, NULL);
    return workers ? json_pack("{s:o}", "workers", workers) : NULL;
}
