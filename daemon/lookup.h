/* daemon/lookup.h: one message of a worker's queue for the admin API. Worker's thread. */
#ifndef DAEMON_LOOKUP_H
#define DAEMON_LOOKUP_H

#include "admin/queue.h"
#include "daemon/ask.h"

struct lookup_request {
    uint64_t id;
    enum message_part part;
};

/* ask_kind.begin; the argument is a struct lookup_request. No answer: the message is not here. */
void lookup_begin(struct ask *a);

#endif
