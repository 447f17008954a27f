/* daemon/snapshot.h: one generation of configuration: compiled policy and TLS. Immutable, counted, shared by
 * all threads.
 *
 * A session in a transaction may keep its generation for minutes, far longer than an epoch section may last,
 * so retirement is by counting: each worker holds one reference per generation that its sessions still use.
 */
#ifndef DAEMON_SNAPSHOT_H
#define DAEMON_SNAPSHOT_H

#include "daemon/lists.h"
#include "daemon/names.h"
#include "net/tls.h"
#include "policy/policy.h"

struct snapshot {
    unsigned refs; /* atomic */
    uint64_t generation;
    struct policy *policy;          /* owned; policy_config() is the configuration */
    struct tls_context *tls_server; /* owned; NULL when no certificate is configured */
    struct verify_list *lists;      /* owned; the files named in `verify`, as they were read */
    size_t list_count;
};

/* Takes `c` in every case. `previous`: the generation in force, NULL at boot. `lists` and `rule`:
 * as in lists_load. Problems go to `d` (ERR_CONFIG then). Blocking: resolves
 * host names, for three times dns.timeout at most. */
err_t snapshot_build(struct snapshot **out, struct config *c, struct dns *dns, struct names *names,
                     const struct snapshot *previous, const struct lists *lists, enum lists_rule rule,
                     struct diag *d) WARN_UNUSED;
struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s); /* NULL is fine */

#endif
