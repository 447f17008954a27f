/* admin/admin.h: the HTTP API over TCP (read only) and over the Unix socket (all), by libmicrohttpd on
 * threads of its own. It asks the workers through the functions given here and never touches their state.
 * What the endpoints say: admin/api.md. */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include <jansson.h>

#include "admin/queue.h"
#include "admin/verify.h"
#include "core/config.h"
#include "core/ip.h"

struct admin;

/* The daemon's side; called on admin threads, any number at a time; may block, for a walk over a long queue
 * up to minutes. JSON
 * results are new references, NULL on failure; their shapes stand in admin/api.md. */
struct admin_backend {
    json_t *(*status)(void *ctx);
    /* Takes `rq`. Changes are on the disk when it returns. */
    json_t *(*queue)(void *ctx, struct queue_request *rq);
    /* One message; `bytes` gets what MESSAGE_HEADERS and MESSAGE_WHOLE ask for. An empty object: it is not
     * there. */
    json_t *(*message)(void *ctx, uint64_t id, enum message_part part, struct gbuf *bytes);
    /* Takes `record` (transfer.h). `parked`: held until it is released. {"result": "queued", "there"
     * (already), "damaged", "full" or "failed", "held", "error"}. */
    json_t *(*import)(void *ctx, struct gbuf *record, bool parked);
    void (*lease_end)(void *ctx, uint64_t lease); /* what it holds goes on */
    json_t *(*destinations)(void *ctx);
    /* How edges write their Received lines, as far as that was learned. */
    json_t *(*edges)(void *ctx);
    /* Learn it anew, of one (ip) or of all (NULL). ERR_NOT_FOUND: no message came from that one. */
    err_t (*edges_forget)(void *ctx, const struct ip *ip);
    /* Starts giving every ring `bytes` (0: what the configuration says); the status tells how it goes on.
     * What is refused stands in `problems`, a line each. */
    json_t *(*resize)(void *ctx, uint64_t bytes, struct gbuf *problems);
    /* Starts a scrub of every ring; how it goes on is part of the status. */
    json_t *(*scrub)(void *ctx);
    /* 0 (warnings in `text`), or ERR_CONFIG with the problems in `text`, or another error. */
    err_t (*reload)(void *ctx, bool shrunk_lists_ok, struct gbuf *text);
    /* Of everything, or of one destination (`key` present), known or not. 0: durable and in force, *out tells
     * what is paused now. */
    err_t (*pause)(void *ctx, bool paused, str_t key, str_t by, json_t **out);
    /* One verb of recipient verification; *out is a new reference, or EXPORT's lines go to `lines`. Pins and
     * purges are in force when it returns, and on the disk if they say so. ERR_SYNTAX, ERR_NOT_FOUND,
     * ERR_UNSUPPORTED, ERR_FULL: `why` says what is wrong; ERR_TIMEOUT: the workers did not answer. */
    err_t (*verify)(void *ctx, const struct verify_request *rq, json_t **out, struct gbuf *lines,
                    struct sbuf *why);
    void *ctx;
};

/* Binds at once (errors at boot, text in `error`). Socket mode 0660; a socket file that nobody answers on is
 * replaced. GET /metrics, /api/v1/status, /api/v1/queue, /api/v1/destinations, POST /api/v1/reload,
 * /api/v1/pause, /api/v1/resume (Unix socket only). */
err_t admin_start(struct admin **out, const struct config *c, const struct admin_backend *backend,
                  struct sbuf *error) WARN_UNUSED;
/* Waits for a call of the backend that is running. Removes the socket file. NULL is fine. */
void admin_stop(struct admin *a);
uint16_t admin_port(const struct admin *a); /* of the TCP listener, 0 = none: for admin.listen with port 0 */

#endif
