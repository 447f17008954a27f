/* daemon/backend_ring.c: what an administrator does with the ring files. */
#include <errno.h>
#include <sys/statvfs.h>

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

static json_t *worker_size(struct worker *w, size_t unused)
{
    struct queue_stats qs;
    queue_stats(w->queue, &qs);
    return json_integer((json_int_t)qs.ring_bytes);
}

static json_t *worker_resize(struct worker *w, size_t bytes)
{
    err_t err = queue_resize(w->queue, bytes);
    return json_pack("{s:i, s:o}", "id", (int)w->index, "error",
                     err ? json_string(resize_text(err)) : json_null());
}

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

    json_t *sizes = ask_workers(g, worker_size, 0);
    if (!sizes)
        return NULL;
    check_disk(directory, sizes, bytes, problems);
    if (problems->n > 0)
        return sizes;
    json_decref(sizes);
    json_t *workers = ask_workers(g, worker_resize, bytes), *w;
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
                     "started", json_time(st.started_ms), "ended", json_time(st.ended_ms), "messages",
                     (json_int_t)st.message_count, "bytes", (json_int_t)st.read_bytes, "damaged",
                     (json_int_t)st.damaged_count, "unreadable", (json_int_t)st.unreadable_count);
}

static json_t *worker_scrub(struct worker *w, size_t limit)
{
    queue_scrub(w->queue);
    return json_pack("{s:i, s:o}", "id", (int)w->index, "scrub", ring_scrub_json(w->queue));
}

json_t *backend_scrub(void *ctx)
{
    json_t *workers = ask_workers(ctx, worker_scrub, 0);
    return workers ? json_pack("{s:o}", "workers", workers) : NULL;
}
