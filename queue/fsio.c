/* queue/fsio.c: reads and durable writes, blocking for boot and asynchronous for the loop.
 *
 * Durable is one of two ways: a direct write with RWF_DSYNC, or a buffered write and then fdatasync. After a
 * failed fdatasync the kernel may have dropped the dirty pages, so it alone is never tried again: the caller
 * writes the same bytes anew. */
#include "queue/fsio.h"

#include <errno.h>
#include <unistd.h>

static bool is_transient(int64_t res)
{
    return res == -EINTR || res == -EAGAIN;
}

/* Direct I/O goes on only at a multiple of the alignment: what is past it is moved again. 0 = no way forward.
 */
static size_t advance(const struct fsio_file *f, size_t moved, size_t n, size_t got)
{
    size_t to = moved + got;
    if (f->direct && to < n)
        to = ALIGN_DOWN(to, FSIO_ALIGN);
    return to - moved;
}

/* ---- blocking ---- */

static err_t read_some(struct fsio_file *f, uint8_t *p, size_t n, uint64_t at, size_t *moved)
{
    ssize_t got = pread(f->fd, p + *moved, n - *moved, (off_t)(at + *moved));
    if (got < 0)
        return is_transient(-errno) ? 0 : -errno;
    size_t step = advance(f, *moved, n, (size_t)got);
    *moved += step;
    return step ? 0 : -EIO; /* also at the end of the file: nobody asks beyond it */
}

err_t fsio_read(struct fsio_file *f, void *p, size_t n, uint64_t at)
{
    err_t err = 0;
    for (size_t moved = 0; moved < n && !err;)
        err = read_some(f, p, n, at, &moved);
    return err;
}

static err_t write_some(struct fsio_file *f, const uint8_t *p, size_t n, uint64_t at, size_t *moved)
{
    struct iovec iov = {.iov_base = (uint8_t *)p + *moved, .iov_len = n - *moved};
    ssize_t got = pwritev2(f->fd, &iov, 1, (off_t)(at + *moved), f->direct ? RWF_DSYNC : 0);
    if (got < 0)
        return is_transient(-errno) ? 0 : -errno;
    size_t step = advance(f, *moved, n, (size_t)got);
    *moved += step;
    return step ? 0 : -EIO;
}

err_t fsio_write_durable(struct fsio_file *f, const void *p, size_t n, uint64_t at)
{
    err_t err = 0;
    for (size_t moved = 0; moved < n && !err;)
        err = write_some(f, p, n, at, &moved);
    if (!err && !f->direct && fdatasync(f->fd) < 0)
        err = -errno;
    return err;
}

/* ---- on the loop ---- */

enum step { STEP_READ, STEP_WRITE, STEP_SYNC };

static void submit(struct fsio_io *io)
{
    if (io->step == STEP_SYNC) {
        op_fdatasync(io->loop, &io->op, io->file->fd);
        return;
    }
    io->iov = (struct iovec){.iov_base = io->p + io->moved, .iov_len = io->n - io->moved};
    if (io->step == STEP_READ)
        op_readv(io->loop, &io->op, io->file->fd, &io->iov, 1, io->at + io->moved);
    else
        op_writev(io->loop, &io->op, io->file->fd, &io->iov, 1, io->at + io->moved,
                  io->file->direct ? RWF_DSYNC : 0);
}

static void moved_some(struct fsio_io *io, size_t got)
{
    size_t step = advance(io->file, io->moved, io->n, got);
    io->moved += step;
    if (step == 0) {
        io->done(io, -EIO);
    } else if (io->moved < io->n) {
        submit(io);
    } else if (io->step == STEP_WRITE && !io->file->direct) {
        io->step = STEP_SYNC;
        submit(io);
    } else {
        io->done(io, 0);
    }
}

static void op_done(struct op *op, int32_t res, uint32_t cqe_flags, bool more)
{
    struct fsio_io *io = container_of(op, struct fsio_io, op);
    if (is_transient(res))
        submit(io);
    else if (res < 0)
        io->done(io, res);
    else if (io->step == STEP_SYNC)
        io->done(io, 0);
    else
        moved_some(io, (size_t)res);
}

static void start(struct fsio_io *io, struct loop *l, struct fsio_file *f, void *p, size_t n, uint64_t at)
{
    must(n > 0 && n % FSIO_ALIGN == 0 && at % FSIO_ALIGN == 0 && (uintptr_t)p % FSIO_ALIGN == 0);
    io->loop = l;
    io->file = f;
    io->p = p;
    io->n = n;
    io->at = at;
    io->moved = 0;
    io->op.done = op_done;
    submit(io);
}

void fsio_write_durable_async(struct fsio_io *io, struct loop *l, struct fsio_file *f, const void *p,
                              size_t n, uint64_t at)
{
    io->step = STEP_WRITE;
    start(io, l, f, (void *)p, n, at);
}

void fsio_read_async(struct fsio_io *io, struct loop *l, struct fsio_file *f, void *p, size_t n, uint64_t at)
{
    io->step = STEP_READ;
    start(io, l, f, p, n, at);
}
