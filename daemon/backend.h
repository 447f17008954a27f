/* daemon/backend.h: what the admin API asks, answered by asking each worker on its own thread. */
#ifndef DAEMON_BACKEND_H
#define DAEMON_BACKEND_H

#include "admin/admin.h"
#include "daemon/worker.h"

struct gateway;
struct queue;
void backend_init(struct admin_backend *b, struct gateway *g);

/* For the backend's own files. An array with one element per worker that answered in time; NULL when one did
 * not. `answer` runs on the worker's thread. */
json_t *ask_workers(struct gateway *g, json_t *(*answer)(struct worker *w, size_t limit), size_t limit);
json_t *json_time(uint64_t wall_ms); /* null for 0 */

/* backend_ring.c: the ring files. */
json_t *backend_resize(void *ctx, uint64_t bytes, struct gbuf *problems);
json_t *ring_resize_json(const struct queue *q);  /* null: none is under way */
json_t *ring_resize_error(const struct queue *q); /* of the last one; null: none */
json_t *backend_scrub(void *ctx);
json_t *ring_scrub_json(const struct queue *q);

#endif
