/* tests/sim/sim_worker.h: the gateway's worker: the same parts in the same order as daemon/worker.c, without
 * the thread and with a small ring. */
#ifndef TESTS_SIM_SIM_WORKER_H
#define TESTS_SIM_SIM_WORKER_H

#include "policy/policy.h"
#include "queue/queue.h"

/* `p` and all later ones live as long as the worker. */
err_t worker_open(const struct policy *p, struct gbuf *notes) WARN_UNUSED;
void worker_run(void); /* after worker_open: until it is drained; then nothing of it is left */
bool worker_is_up(void);
struct queue *worker_queue(void); /* from worker_open until the drain closes it, else NULL */
bool worker_is_idle(void);        /* up, and nothing is queued but what is held */
bool worker_is_full(void);        /* so full that progress records may have to wait for space */
void worker_print_queue(void);

/* From the world's events; nothing happens when it is not up. */
void worker_reload(const struct policy *p);
void worker_drain(bool now);
uint32_t worker_kept_count(void); /* segments of its ring, now */
void worker_resize(uint64_t ring_bytes);

#endif
