/* daemon/verification.h: what all workers share of recipient verification: the verdicts, in memory and on
 * disk. Main thread. */
#ifndef DAEMON_VERIFICATION_H
#define DAEMON_VERIFICATION_H

#include "verify/verifier.h"

/* Boot, blocking, before the workers run. On errors text in `notes`. */
err_t verification_open(struct verify_shared *v, const struct config *c, unsigned worker_count,
                        struct gbuf *notes) WARN_UNUSED;
/* Reload: how long verdicts are to be kept. */
void verification_configured(struct verify_shared *v, const struct config *c);
/* For metrics_add_collector, with the struct as ctx: decisions by domain, ages in the cache. Any thread. */
void verification_collect(void *ctx, struct gbuf *out);
/* After the workers are gone: writes what is pending. A zeroed one is fine. */
void verification_close(struct verify_shared *v);

#endif
