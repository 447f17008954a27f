/* daemon/names.h: the host names of a configuration, looked up while a policy is built.
 *
 * The last answer of each is remembered: a resolver that is down at a reload must not turn the edge and the
 * internal network, known by name, into strangers. One build at a time; blocking. */
#ifndef DAEMON_NAMES_H
#define DAEMON_NAMES_H

#include "core/map.h"
#include "net/dns.h"

/* Zero-initialised: empty. */
struct names {
    struct smap known; /* owned; a name that left the configuration stays, some 400 bytes of it */
};

/* One build's questions. */
struct names_lookup {
    struct names *names; /* not owned */
    struct dns *dns;     /* not owned */
    struct diag *diag;
    uint64_t until_ns; /* monotonic; what is not asked by then counts as unknown for now */
    bool is_late;      /* told */
};

/* For struct policy_resolver; `ctx` is a names_lookup. */
size_t names_resolve(void *ctx, str_t name, struct ip *out, size_t max);
void names_free(struct names *n);

#endif
