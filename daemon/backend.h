/* daemon/backend.h: what the admin API asks, answered by asking each worker on its own thread. */
#ifndef DAEMON_BACKEND_H
#define DAEMON_BACKEND_H

#include "admin/admin.h"
#include "daemon/worker.h"

struct gateway;
void backend_init(struct admin_backend *b, struct gateway *g);

/* backend_queue.c, for backend_init */
json_t *backend_queue(void *ctx, struct queue_request *rq);
json_t *backend_message(void *ctx, uint64_t id, enum message_part part, struct gbuf *bytes);
json_t *backend_import(void *ctx, struct gbuf *record, bool parked);
void backend_lease_end(void *ctx, uint64_t lease);

#endif
