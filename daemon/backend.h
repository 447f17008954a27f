/* daemon/backend.h: what the admin API asks, answered by asking each worker on its own thread. */
#ifndef DAEMON_BACKEND_H
#define DAEMON_BACKEND_H

#include "admin/admin.h"
#include "daemon/worker.h"

struct gateway;
void backend_init(struct admin_backend *b, struct gateway *g);

#endif
