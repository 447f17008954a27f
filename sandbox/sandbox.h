/* sandbox/sandbox.h: what this process may still do once it runs: as whom, which files, which system calls.
 *
 * In this order, at boot, before the first thread: user_choose, user_become, files_lock. calls_lock comes
 * when the rings are made and before mail is taken: it is for all threads, and there is no new ring after it.
 * Nothing here can be undone by the process itself. What the rings may do is net/ring.c's. */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include <sys/types.h>

#include "core/str.h"
#include "core/err.h"

/* ---- as whom ---- */

struct user {
    bool changes; /* we are root and shall be this one */
    uid_t uid;
    gid_t gid;
    char name[33];
};

/* `name` absent: the user `postern`, if there is one and we are root; else we stay who we are. A user of that
 * name that does not exist, or that we cannot become, is an error. What an administrator should know goes to
 * `notes`, an error's reason too, as its last line. */
err_t user_choose(struct user *u, str_t name, struct gbuf *notes) WARN_UNUSED;
/* Gives it a file that we made, or a directory. Nothing to do when we stay who we are. */
err_t user_give(const struct user *u, int fd) WARN_UNUSED;
/* The user, its groups, no capabilities, and none to be had by any program. For the calling thread: before
 * there are others. */
err_t user_become(const struct user *u, struct gbuf *notes) WARN_UNUSED;

/* ---- which files ---- */

enum file_use {
    FILE_READ, /* a file, or everything below a directory */
    FILE_KEEP, /* a directory: everything below it may be made, written, renamed and removed */
    FILE_DOOR, /* a directory: sockets below it may be made and removed */
};

struct file_rule {
    const char *path; /* not owned */
    enum file_use use;
    bool is_parent; /* the directory that `path` stands in: files that are replaced by renaming stay known */
};

/* Landlock: nothing but these files from now on, and no signals to others. A path that does not exist is left
 * out. *on = false with a note when the kernel has none. For the calling thread and those that it makes. */
err_t files_lock(const struct file_rule *rules, size_t count, bool *on, struct gbuf *notes) WARN_UNUSED;
/* Would a rule let `path` be read? Looks at names, as links may lead elsewhere: for messages only. */
bool files_readable(const struct file_rule *rules, size_t count, const char *path);

/* ---- which system calls ---- */

/* seccomp: calls.def says what is left, for all threads. What no honest program of this kind does ends the
 * process; what else is not in the table does not exist (ENOSYS), as on an older kernel: libraries know what
 * to do then. *on = false with a note when the kernel has none. */
err_t calls_lock(bool *on, struct gbuf *notes) WARN_UNUSED;

#endif
