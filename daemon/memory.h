/* daemon/memory.h: jemalloc: an arena per worker, and its statistics in the metrics. Without jemalloc
 * (sanitizers) all no-ops. */
#ifndef DAEMON_MEMORY_H
#define DAEMON_MEMORY_H

#include "core/base.h"

void memory_start(void);        /* boot: registers the metrics collector */
void memory_thread_start(void); /* a worker's thread: gives it an arena of its own */
/* In use, without what pools keep for later; some 10 ms old at most. 0: not known. Any thread. */
uint64_t memory_used_bytes(void);
bool memory_is_watched(void); /* memory_used_bytes() is known */
const char *memory_allocator(void);

#endif
