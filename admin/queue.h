/* admin/queue.h: what a request wants of the queue; handed to the daemon, which answers in JSON. */
#ifndef ADMIN_QUEUE_H
#define ADMIN_QUEUE_H

#include "admin/filter.h"

enum queue_verb {
    QUEUE_LIST,
    QUEUE_STATS,
    QUEUE_HOLD,
    QUEUE_RELEASE,
    QUEUE_RETRY,
    QUEUE_REMOVE,
    QUEUE_LEASE
};

enum message_part { MESSAGE_ENVELOPE, MESSAGE_HEADERS, MESSAGE_WHOLE };

/* malloc'd; owned by whoever holds it. */
struct queue_request {
    enum queue_verb verb;
    struct filter filter;
    size_t limit;   /* LIST, LEASE: messages, at most; else 0 = no limit */
    bool dry;       /* only count */
    bool bounce;    /* REMOVE */
    uint64_t lease; /* LEASE, REMOVE: the number of the lease; 0 = none */
    char who[128], why[256];
};

struct queue_request *queue_request_new(enum queue_verb verb); /* NULL: out of memory */
void queue_request_free(struct queue_request *rq);             /* NULL is fine */

#endif
