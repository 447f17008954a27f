/* queue/sync.c: those who wait until the progress made so far is on the disk. */
#include "queue/queue_priv.h"

void queue_sync(struct queue *q, struct queue_sync *s)
{
    must(q->loop && !q->closing);
    s->batch = 0;
    list_push_back(&q->syncs, &s->link);
    q->urgent = true;
    qbatch_request(q);
}

void queue_sync_cancel(struct queue_sync *s)
{
    list_remove(&s->link);
}

void qsync_sealed(struct queue *q)
{
    if (!list_empty(&q->dirty)) /* no room for it: the flush timer tries again */
        return;
    LIST_EACH(&q->syncs, k)
    {
        struct queue_sync *s = container_of(k, struct queue_sync, link);
        if (s->batch == 0)
            s->batch = q->next_batch;
    }
}

/* Those that are due leave the list first: a callback may start or cancel another one. */
static void end_due(struct queue *q, bool all, err_t err)
{
    struct list due;
    list_init(&due);
    LIST_EACH(&q->syncs, k)
    {
        const struct queue_sync *s = container_of(k, struct queue_sync, link);
        if (!all && (s->batch == 0 || s->batch > q->durable_batch))
            continue;
        list_remove(k);
        list_push_back(&due, k);
    }
    for (struct link *k; (k = list_pop_front(&due));) {
        struct queue_sync *s = container_of(k, struct queue_sync, link);
        s->done(s, err);
    }
}

void qsync_durable(struct queue *q)
{
    if (!list_empty(&q->syncs))
        end_due(q, false, 0);
}

void qsync_fail_all(struct queue *q, err_t err)
{
    if (!list_empty(&q->syncs))
        end_due(q, true, err);
}
