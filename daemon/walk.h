/* daemon/walk.h: an admin's request carried through a worker's queue, some messages a tick, so that a long
 * queue never stalls the loop. Worker's thread. */
#ifndef DAEMON_WALK_H
#define DAEMON_WALK_H

#include "admin/queue.h"
#include "daemon/ask.h"

/* ask_kind.begin; the argument is a struct queue_request. The answer:
 * {"matched", "done", "busy", "recipients", "bytes", "cut"}, and by verb "messages" (LIST, each with
 * "arrived_ms" to sort by), "ids" (LEASE; REMOVE of leased ones), "stats" (STATS). Changes are on the disk
 * when it comes; "error": they may not be. */
void walk_begin(struct ask *a);

/* What an exporter holds (admin/api.md) goes on; 0: what any of them holds. */
void lease_end(struct worker *w, uint64_t lease);

#endif
