/* queue/fsio_boot.c: files appear, are opened, renamed and removed. Blocking: boot, and threads of their own.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "queue/fsio.h"

#define CREATE_STEP_BYTES ((size_t)1 << 20)
#define PATH_BYTES        4096
#define LOCK_WAIT_COUNT   500
#define LOCK_WAIT_MS      20

static const char why_fuse[] = "a FUSE file system: RWF_DSYNC through io_uring would complete without a sync";
static const char why_refused[] = "the file system refuses O_DIRECT";
static const char why_read[] = "an aligned direct read failed";

static err_t sync_directory_of(const char *path)
{
    char dir[PATH_BYTES];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof dir)
        return -ENAMETOOLONG;
    memcpy(dir, path, n);
    dir[n] = 0;
    int fd = open(n ? dir : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    err_t err = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return err;
}

/* Is a direct read of one block possible? Some file systems take O_DIRECT at open and refuse it at the first
 * read. */
static bool direct_read_works(int fd)
{
    void *p = aligned_alloc(FSIO_ALIGN, FSIO_ALIGN);
    bool ok = p && pread(fd, p, FSIO_ALIGN, 0) >= 0;
    free(p);
    return ok;
}

static const char *why_not_direct(int fd)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) == 0 && (uint32_t)fs.f_type == FUSE_SUPER_MAGIC)
        return why_fuse;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_DIRECT) < 0)
        return why_refused;
    if (direct_read_works(fd))
        return NULL;
    return fcntl(fd, F_SETFL, flags) < 0 ? why_refused : why_read;
}

/* io_uring keeps the files of a process that was killed open, and so locked, until its last write has ended:
 * what was read before that would be overwritten behind our back. */
static err_t lock_exclusively(int fd)
{
    const struct timespec pause = {.tv_nsec = LOCK_WAIT_MS * 1000 * 1000};
    for (unsigned n = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; n++) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (n == LOCK_WAIT_COUNT)
            return ERR_LOCKED;
        nanosleep(&pause, NULL);
    }
    return 0;
}

err_t fsio_open(struct fsio_file *f, const char *path)
{
    *f = (struct fsio_file){.fd = open(path, O_RDWR | O_CLOEXEC)};
    if (f->fd < 0)
        return -errno;
    struct stat st;
    err_t err = lock_exclusively(f->fd);
    if (!err && fstat(f->fd, &st) < 0)
        err = -errno;
    /* The last write of a process that was killed may be in a cache: what we read, and build on, must not go
     * with a power cut. */
    if (!err && fdatasync(f->fd) < 0)
        err = -errno;
    if (err) {
        fsio_close(f);
        return err;
    }
    f->bytes = (uint64_t)st.st_size;
    f->why = why_not_direct(f->fd);
    f->direct = f->why == NULL;
    return 0;
}

void fsio_close(struct fsio_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

static err_t write_all(int fd, const uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t got = write(fd, p, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

static err_t fill_with_zeros(int fd, uint64_t bytes)
{
    /* Reserves first, so that a full disk is told before gigabytes were written. Not every file system can.
     */
    if (fallocate(fd, 0, 0, (off_t)bytes) < 0 && errno != EOPNOTSUPP && errno != ENOSYS)
        return -errno;
    uint8_t *zeros = calloc(1, CREATE_STEP_BYTES);
    if (!zeros)
        return -ENOMEM;
    err_t err = 0;
    for (uint64_t left = bytes; left > 0 && !err;) {
        size_t n = (size_t)MIN(left, (uint64_t)CREATE_STEP_BYTES);
        err = write_all(fd, zeros, n);
        left -= n;
    }
    free(zeros);
    if (!err && fsync(fd) < 0)
        err = -errno;
    return err;
}

err_t fsio_create(const char *path, uint64_t bytes)
{
    char temporary[PATH_BYTES];
    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary)
        return -ENAMETOOLONG;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    err_t err = fill_with_zeros(fd, bytes);
    if (close(fd) < 0 && !err)
        err = -errno;
    if (!err)
        err = fsio_rename(temporary, path);
    if (err)
        (void)unlink(temporary);
    return err;
}

err_t fsio_extend(struct fsio_file *f, uint64_t bytes)
{
    uint64_t at = ALIGN_UP(f->bytes, FSIO_ALIGN); /* ftruncate pads a sector that was cut through */
    uint8_t *zeros = aligned_alloc(FSIO_ALIGN, CREATE_STEP_BYTES);
    if (!zeros)
        return -ENOMEM;
    memset(zeros, 0, CREATE_STEP_BYTES);
    err_t err = ftruncate(f->fd, (off_t)bytes) < 0 || fsync(f->fd) < 0 ? -errno : 0;
    while (at < bytes && !err) {
        size_t n = (size_t)MIN(bytes - at, (uint64_t)CREATE_STEP_BYTES);
        err = fsio_write_durable(f, zeros, n, at);
        at += n;
    }
    free(zeros);
    if (!err)
        f->bytes = bytes;
    return err;
}

err_t fsio_cut(const struct fsio_file *f, uint64_t bytes)
{
    return ftruncate(f->fd, (off_t)bytes) < 0 || fsync(f->fd) < 0 ? -errno : 0;
}

err_t fsio_rename(const char *from, const char *to)
{
    return rename(from, to) < 0 ? -errno : sync_directory_of(to);
}

err_t fsio_find(const char *path)
{
    return access(path, F_OK) < 0 ? -errno : 0;
}

err_t fsio_remove(const char *path)
{
    return unlink(path) < 0 ? -errno : sync_directory_of(path);
}

/* Opens for appending; makes the folder when it is missing (not its parents). */
static int open_for_append(const char *path)
{
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    int fd = open(path, flags, 0600);
    const char *slash = strrchr(path, '/');
    if (fd >= 0 || errno != ENOENT || !slash)
        return fd;
    char dir[PATH_BYTES];
    size_t n = (size_t)(slash - path);
    if (n >= sizeof dir)
        return -1;
    memcpy(dir, path, n);
    dir[n] = 0;
    if (mkdir(dir, 0700) < 0 || sync_directory_of(dir))
        return -1;
    return open(path, flags, 0600);
}

err_t fsio_append_file(const char *path, const void *p, size_t n)
{
    int fd = open_for_append(path);
    if (fd < 0)
        return -errno;
    err_t err = write_all(fd, p, n);
    if (!err && fsync(fd) < 0)
        err = -errno;
    if (close(fd) < 0 && !err)
        err = -errno;
    return err ? err : sync_directory_of(path);
}
