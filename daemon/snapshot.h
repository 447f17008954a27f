/* daemon/snapshot.h: one generation of configuration: compiled policy and TLS. Immutable, counted, shared by
 * all threads.
 *
 * A session in a transaction may keep its generation for minutes, far longer than an epoch section may last,
 * so retirement is by counting: each worker holds one reference per generation that its sessions still use.
 */
#ifndef DAEMON_SNAPSHOT_H
#define DAEMON_SNAPSHOT_H

#include "net/dns.h"
#include "net/tls.h"
#include "policy/policy.h"

struct snapshot {
    unsigned refs; /* atomic */
    uint64_t generation;
    struct policy *policy;          /* owned; policy_config() is the configuration */
    struct tls_context *tls_server; /* owned; NULL when no certificate is configured */
};

/* Takes `c` in every case. Problems go to `d` (ERR_CONFIG then). Blocking: resolves the names of networks. */
err_t snapshot_build(struct snapshot **out, struct config *c, struct dns *dns, uint64_t generation,
                     struct diag *d) WARN_UNUSED;
/* Loads a file and builds. `dns` NULL: a resolver is started for the time of the call (--check). */
err_t snapshot_load(struct snapshot **out, const char *path, struct dns *dns, uint64_t generation,
                    struct diag *d) WARN_UNUSED;
struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s); /* NULL is fine */

#endif
