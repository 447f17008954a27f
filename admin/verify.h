/* admin/verify.h: what a request wants of recipient verification; handed to the daemon, which answers in
 * JSON. Plain data without owners. */
#ifndef ADMIN_VERIFY_H
#define ADMIN_VERIFY_H

#include "core/str.h"

enum verify_verb {
    VERIFY_SHOW,
    VERIFY_PROBE,
    VERIFY_PIN,
    VERIFY_UNPIN,
    VERIFY_PURGE,
    VERIFY_EXPORT,
    VERIFY_STATS,
    VERIFY_BACKENDS,
    VERIFY_RETRY
};

#define VERIFY_TEXT_MAX 511 /* of an address or a backend's key */

struct verify_request {
    enum verify_verb verb;
    char address[VERIFY_TEXT_MAX + 1];
    char backend[VERIFY_TEXT_MAX + 1]; /* RETRY: "" is all */
    bool good;                         /* PIN: always good, else always unknown */
    bool no_store;                     /* PROBE: what it finds is only told */
    bool dry;                          /* PURGE: only count */
    /* PURGE without an address, EXPORT: all that is given must hold. */
    char domain[256];
    bool takes_good, takes_unknown, takes_pinned; /* none of them: any */
    uint32_t older_s, younger_s;                  /* since its server said so; 0: any */
    /* EXPORT */
    char after[VERIFY_TEXT_MAX + 1]; /* the address that the last page ended with */
    size_t limit;
};

#endif
