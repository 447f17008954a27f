/* sandbox/files.c: see sandbox.h. Landlock by its system calls: Debian 12's headers know less than its
 * kernels. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/sandbox.h"

#define NR_CREATE_RULESET 444
#define NR_ADD_RULE       445
#define NR_RESTRICT_SELF  446
#define CREATE_VERSION    1U
#define RULE_PATH         1

#define EXECUTE    (UINT64_C(1) << 0)
#define WRITE_FILE (UINT64_C(1) << 1)
#define READ_FILE  (UINT64_C(1) << 2)
#define READ_DIR   (UINT64_C(1) << 3)
#define REMOVE_DIR (UINT64_C(1) << 4)
#define REMOVE     (UINT64_C(1) << 5)
#define MAKE_DIR   (UINT64_C(1) << 7)
#define MAKE_REG   (UINT64_C(1) << 8)
#define MAKE_SOCK  (UINT64_C(1) << 9)
#define REFER      (UINT64_C(1) << 13) /* since ABI 2 */
#define TRUNCATE   (UINT64_C(1) << 14) /* 3 */

#define SCOPE_ABSTRACT_UNIX (UINT64_C(1) << 0) /* 6 */
#define SCOPE_SIGNAL        (UINT64_C(1) << 1)

/* What a rule for a file may name; the rest is of directories. */
#define OF_FILES (EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE)

struct ruleset {
    uint64_t fs, net, scoped;
};

struct path_beneath {
    uint64_t allowed;
    int32_t parent_fd;
} __attribute__((packed));

static const uint64_t rights_of[] = {
    [FILE_READ] = READ_FILE | READ_DIR,
    [FILE_KEEP] =
        READ_FILE | READ_DIR | WRITE_FILE | REMOVE_DIR | REMOVE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE,
    [FILE_DOOR] = READ_DIR | REMOVE | MAKE_SOCK,
};

/* All rights that this kernel's Landlock can take away. */
static uint64_t handled(long abi)
{
    static const uint8_t bits[] = {[1] = 13, [2] = 14, [3] = 15, [4] = 15, [5] = 16};
    size_t i = abi < (long)sizeof bits ? (size_t)abi : sizeof bits - 1;
    return (UINT64_C(1) << bits[i]) - 1;
}

/* The directory that a path stands in: "/" for "/file". */
static const char *parent_of(const char *path, char *out, size_t cap)
{
    snprintf(out, cap, "%s", path);
    char *slash = strrchr(out, '/');
    if (!slash)
        return ".";
    slash[slash == out] = '\0';
    return out;
}

static err_t add_rule(int set, const struct file_rule *r, uint64_t known)
{
    char text[4096];
    const char *path = r->is_parent ? parent_of(r->path, text, sizeof text) : r->path;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == EACCES || errno == ENOTDIR ? 0 : -errno;
    struct stat st;
    err_t err = fstat(fd, &st) < 0 ? -errno : 0;
    struct path_beneath rule = {.allowed = rights_of[r->use] & known, .parent_fd = fd};
    if (!S_ISDIR(st.st_mode))
        rule.allowed &= OF_FILES;
    if (!err && syscall(NR_ADD_RULE, set, RULE_PATH, &rule, 0) < 0)
        err = -errno;
    close(fd);
    return err;
}

static err_t lock(int set, const struct file_rule *rules, size_t count, uint64_t known)
{
    for (size_t i = 0; i < count; i++) {
        err_t err = add_rule(set, &rules[i], known);
        if (err)
            return err;
    }
    return syscall(NR_RESTRICT_SELF, set, 0) < 0 ? -errno : 0;
}

err_t files_lock(const struct file_rule *rules, size_t count, bool *on, struct gbuf *notes)
{
    *on = false;
    long abi = syscall(NR_CREATE_RULESET, NULL, 0, CREATE_VERSION);
    if (abi < 1) {
        gbuf_printf(notes,
                    "sandbox: this kernel has no Landlock (%s): every file that the user may touch can be\n",
                    err_text(-errno));
        return 0;
    }
    if (abi < 3)
        gbuf_printf(notes,
                    "sandbox: Landlock of this kernel is version %ld: it does not forbid truncating files\n",
                    abi);
    struct ruleset attr = {.fs = handled(abi), .scoped = abi >= 6 ? SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL : 0};
    size_t bytes = abi >= 6 ? sizeof attr : sizeof attr.fs;
    int set = (int)syscall(NR_CREATE_RULESET, &attr, bytes, 0);
    err_t err = set < 0 ? -errno : lock(set, rules, count, attr.fs);
    if (set >= 0)
        close(set);
    if (err)
        gbuf_printf(notes, "sandbox: Landlock cannot be switched on: %s; `sandbox: off` goes without\n",
                    err_text(err));
    *on = !err;
    return err;
}

static bool is_below(const char *path, const char *directory)
{
    size_t n = strlen(directory);
    if (strncmp(path, directory, n) != 0)
        return false;
    return path[n] == '\0' || path[n] == '/' || (n && directory[n - 1] == '/');
}

bool files_readable(const struct file_rule *rules, size_t count, const char *path)
{
    for (size_t i = 0; i < count; i++) {
        char text[4096];
        const char *allowed =
            rules[i].is_parent ? parent_of(rules[i].path, text, sizeof text) : rules[i].path;
        if (rules[i].use != FILE_DOOR && is_below(path, allowed))
            return true;
    }
    return false;
}
