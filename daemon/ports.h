/* daemon/ports.h: the sockets to listen on, bound before privileges go: by ourselves, one for each worker and
 * listener, or by systemd (sd_listen_fds(3)), one that all workers share. Main thread, at boot. */
#ifndef DAEMON_PORTS_H
#define DAEMON_PORTS_H

#include "core/config.h"

struct ports {
    int *fds; /* owned, as the sockets that nobody has taken: [worker * listener_count + listener] */
    size_t worker_count, listener_count;
};

/* Sockets that were passed are matched to `listeners` by their addresses; one that fits none is an error, and
 * listeners without one are bound here. Why not, with what to do, in `notes`. */
err_t ports_open(struct ports *p, const struct config *c, unsigned worker_count,
                 struct gbuf *notes) WARN_UNUSED;
int ports_take(struct ports *p, size_t worker, size_t listener); /* the caller's then */
void ports_close(struct ports *p);                               /* what is left */
void ports_explain(const struct endpoint *at, err_t err, struct gbuf *notes);

#endif
