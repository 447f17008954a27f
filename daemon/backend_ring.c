/* daemon/backend_ring.c: what an administrator does with the ring files. */
#include "daemon/backend.h"
#include "queue/queue.h"

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
