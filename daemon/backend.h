/* daemon/backend.h: what the admin API asks, answered by asking each worker on its own thread. */
#ifndef DAEMON_BACKEND_H
#define DAEMON_BACKEND_H

#include "admin/admin.h"
#include "daemon/worker.h"

struct gateway;
struct queue;
void backend_init(struct admin_backend *b, struct gateway *g);

/* backend_queue.c, for backend_init */
json_t *backend_queue(void *ctx, struct queue_request *rq);
json_t *backend_message(void *ctx, uint64_t id, enum message_part part, struct gbuf *bytes);
json_t *backend_import(void *ctx, struct gbuf *record, bool parked);
void backend_lease_end(void *ctx, uint64_t lease);

/* backend_ring.c: the ring files. */
json_t *backend_resize(void *ctx, uint64_t bytes, struct gbuf *problems);
json_t *ring_resize_json(const struct queue *q);  /* null: none is under way */
json_t *ring_resize_error(const struct queue *q); /* of the last one; null: none */
json_t *backend_scrub(void *ctx);
json_t *ring_scrub_json(const struct queue *q);

#endif
