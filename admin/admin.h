/* admin/admin.h: the HTTP API over TCP (read only) and over the Unix socket (all), by libmicrohttpd on a thread of its own. It
 * asks the workers through the functions given here and never touches their state. */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include <jansson.h>

#include "core/config.h"

struct admin;

/* The daemon's side; called on the admin thread, may block up to a few seconds. JSON results are new references, NULL on failure. */
struct admin_backend {
    json_t *(*status)(void *ctx);
    /* Newest last; `limit` messages at most. */
    json_t *(*queue_list)(void *ctx, size_t limit);
    json_t *(*destinations)(void *ctx);
    /* 0, or ERR_CONFIG with the problems in `text`. */
    err_t (*reload)(void *ctx, struct gbuf *text);
    void *ctx;
};

/* Binds at once (errors at boot, text in `error`). Socket mode 0660. GET /metrics, /api/v1/status, /api/v1/queue, /api/v1/destinations,
 * POST /api/v1/reload (Unix socket only). */
err_t admin_start(struct admin **out, const struct config *c, const struct admin_backend *backend, struct sbuf *error) WARN_UNUSED;
void admin_stop(struct admin *a);

#endif
