/* sandbox/user.c: see sandbox.h. */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/sandbox.h"

#define DEFAULT_USER "postern"

static err_t no_such_user(const char *name, struct gbuf *notes)
{
    gbuf_printf(notes, "user: there is no user %s here; make it (useradd --system %s) or name another one\n",
                name, name);
    return ERR_NOT_FOUND;
}

/* Not root: the name may only say who we are anyhow. */
static err_t check_own(uid_t wanted, const char *name, struct gbuf *notes)
{
    if (wanted == geteuid())
        return 0;
    gbuf_printf(notes, "user: only root can become %s; start posternd as root or as that user\n", name);
    return -EPERM;
}

err_t user_choose(struct user *u, str_t name, struct gbuf *notes)
{
    *u = (struct user){0};
    if (name.n >= sizeof u->name)
        return ERR_SYNTAX;
    if (name.n)
        memcpy(u->name, name.p, name.n);
    else
        memcpy(u->name, DEFAULT_USER, sizeof DEFAULT_USER);
    errno = 0;
    const struct passwd *p = getpwnam(u->name);
    if (!p && name.n)
        return no_such_user(u->name, notes);
    if (geteuid() != 0)
        return name.n ? check_own(p->pw_uid, u->name, notes) : 0;
    if (!p) {
        gbuf_cstr(notes,
                  "runs as root, as there is no user " DEFAULT_USER
                  "; make it (useradd --system " DEFAULT_USER ") and chown the spool, or name a user\n");
        return 0;
    }
    u->uid = p->pw_uid;
    u->gid = p->pw_gid;
    u->changes = u->uid != 0;
    return 0;
}

err_t user_give(const struct user *u, int fd)
{
    return u->changes && fchown(fd, u->uid, u->gid) < 0 ? -errno : 0;
}

static err_t change(const struct user *u)
{
    if (initgroups(u->name, u->gid) < 0 || setresgid(u->gid, u->gid, u->gid) < 0 ||
        setresuid(u->uid, u->uid, u->uid) < 0)
        return -errno;
    return setuid(0) == 0 ? -EPERM : 0; /* it must be for good */
}

/* While we still may: not ours to change without CAP_SETPCAP, and no_new_privs makes it moot then. */
static void drop_bounding_set(void)
{
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        (void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
}

static err_t drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return -errno;
    return syscall(SYS_capset, &head, none) < 0 ? -errno : 0;
}

err_t user_become(const struct user *u, struct gbuf *notes)
{
    drop_bounding_set();
    err_t err = u->changes ? change(u) : 0;
    if (!err)
        err = drop_capabilities();
    if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        err = -errno;
    if (err)
        gbuf_printf(notes, "user: cannot become %s without privileges: %s\n", u->changes ? u->name : "one",
                    err_text(err));
    return err;
}
