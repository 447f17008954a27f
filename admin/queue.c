/* admin/queue.c: see queue.h. */
#include "admin/queue.h"

struct queue_request *queue_request_new(enum queue_verb verb)
{
    struct queue_request *rq = calloc(1, sizeof *rq);
    if (rq)
        rq->verb = verb;
    return rq;
}

void queue_request_free(struct queue_request *rq)
{
    if (!rq)
        return;
    filter_free(&rq->filter);
    free(rq);
}
