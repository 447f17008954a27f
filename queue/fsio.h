/* queue/fsio.h: every touch of the disk by the queue. A link-time seam: the simulator links a disk that
 * holds, drops, reorders and garbles unsynced sectors. Blocking calls are for boot; the fsio_*_async ones
 * belong to the loop's thread. */
#ifndef QUEUE_FSIO_H
#define QUEUE_FSIO_H

#include <sys/uio.h>

#include "core/str.h"
#include "net/loop.h"

#define FSIO_ALIGN 4096u /* offsets, lengths and memory of all reads and writes */

struct fsio_file {
    int fd;
    bool direct;     /* O_DIRECT + RWF_DSYNC; else buffered writes with fdatasync */
    const char *why; /* static: why not direct */
    uint64_t bytes;
};

/* Opens for reading and writing; decides direct or buffered by file system (FUSE is always buffered: there
 * RWF_DSYNC through io_uring completes without a sync) and by trying an aligned read. Locks the file; waits
 * up to 10 s for a dead process's last write, then ERR_LOCKED. What earlier processes left in a cache is made
 * durable first. */
err_t fsio_open(struct fsio_file *f, const char *path) WARN_UNUSED;
/* New file of `bytes` zero bytes, written, synced, under a temporary name, renamed into place, directory
 * synced. */
err_t fsio_create(const char *path, uint64_t bytes) WARN_UNUSED;
/* A file that was cut short gets zero bytes, written and synced, up to `bytes`. */
err_t fsio_extend(struct fsio_file *f, uint64_t bytes) WARN_UNUSED;
/* Gives back what lies behind `bytes`. Blocking, on any thread; f->bytes is the caller's to change. */
err_t fsio_cut(const struct fsio_file *f, uint64_t bytes) WARN_UNUSED;
void fsio_close(struct fsio_file *f);
err_t fsio_read(struct fsio_file *f, void *p, size_t n, uint64_t at) WARN_UNUSED; /* blocking, whole */
err_t fsio_write_durable(struct fsio_file *f, const void *p, size_t n,
                         uint64_t at) WARN_UNUSED;               /* blocking, whole */
err_t fsio_rename(const char *from, const char *to) WARN_UNUSED; /* and syncs the directory */
err_t fsio_find(const char *path) WARN_UNUSED;                   /* 0, -ENOENT, -errno */
err_t fsio_remove(const char *path) WARN_UNUSED;
err_t fsio_append_file(const char *path, const void *p,
                       size_t n) WARN_UNUSED; /* corrupt/: create or append, synced */

/* One durable write or one read; embedded in its owner. Short transfers are continued inside; err 0 means all
 * of it, durable. */
struct fsio_io {
    void (*done)(struct fsio_io *io, err_t err);
    struct fsio_file *file;
    uint8_t *p;
    size_t n, moved;
    uint64_t at;
    struct loop *loop;
    struct op op;
    struct iovec iov;
    uint8_t step;
};
void fsio_write_durable_async(struct fsio_io *io, struct loop *l, struct fsio_file *f, const void *p,
                              size_t n, uint64_t at);
void fsio_read_async(struct fsio_io *io, struct loop *l, struct fsio_file *f, void *p, size_t n, uint64_t at);

#endif
