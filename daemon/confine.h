/* daemon/confine.h: the sandbox of this daemon: which files a configuration needs, and when what is given up.
 * Main thread; confine_check() under the gateway's lock. */
#ifndef DAEMON_CONFINE_H
#define DAEMON_CONFINE_H

#include "core/config.h"
#include "sandbox/sandbox.h"

struct confine {
    struct user user;
    struct file_rule *rules; /* owned, with their paths in `paths` */
    size_t rule_count, rule_cap;
    struct arena paths;
    bool files_locked, calls_locked;
};

/* Who we shall be; first of all. */
err_t confine_choose(struct confine *f, const struct config *c, struct gbuf *notes) WARN_UNUSED;
/* The spool's directory: there, and the user's. */
err_t confine_spool(const struct confine *f, const struct config *c, struct gbuf *notes) WARN_UNUSED;
/* When what needs privileges is done and before the first thread is made: the user, no privileges, Landlock.
 */
err_t confine_enter(struct confine *f, const struct config *c, const char *config_path,
                    struct gbuf *notes) WARN_UNUSED;
/* When the rings are made, before mail is taken: seccomp. */
err_t confine_seal(struct confine *f, const struct config *c, struct gbuf *notes) WARN_UNUSED;
/* A reload: files named in `c` that stand where Landlock lets us read nothing are an error that says so. */
err_t confine_check(const struct confine *f, const struct config *c, struct diag *d) WARN_UNUSED;
void confine_free(struct confine *f);

#endif
