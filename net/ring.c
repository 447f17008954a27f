/* net/ring.c: the kernel's side of a loop: setup, operations, completions. The only file that includes
 * liburing.
 *
 * user_data of a submission is a pointer to its struct op; 0 for what nobody waits for (cancels, a MSG_RING
 * that arrived); a loop's address with TAG_WAKE for a MSG_RING that could not be delivered. */
#include <errno.h>
#include <liburing.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mailbox.h"
#include "net/ring_priv.h"

#define TAG_WAKE        UINT64_C(1)
#define BUFFER_GROUP    0
#define ENTRIES_DEFAULT 1024
#define CQ_FACTOR       4
#define BUFFERS_DEFAULT 1024
#define BUFFER_BYTES    16384
#define ADDRESS_COUNT   64 /* connects in one submission; more submit early */
/* Completions that wait for their callbacks: more than a tick's only where the kernel takes no submissions
 * before it is rid of them. 4 MiB of address space, memory only as far as it is used. */
#define BATCH_COUNT_MAX ((size_t)1 << 18)
#define PROBE_ENTRIES   4
#define PROBE_WAIT_NS   (100 * 1000 * 1000) /* a message between two rings of one thread takes microseconds */

struct ring {
    struct loop loop; /* first: every struct loop is the head of a struct ring */
    struct io_uring uring;
    struct io_uring_buf_ring *buffer_ring; /* mmap, owned */
    uint8_t *buffers;                      /* mmap, owned */
    uint32_t buffer_bytes;
    struct sockaddr_storage addresses[ADDRESS_COUNT]; /* of connects that the kernel has not seen yet */
    unsigned address_count;
};

static struct ring *ring_of(struct loop *l)
{
    return container_of(l, struct ring, loop);
}

/* ---- setup ---- */

/* SUBMIT_ALL: one bad operation must not hold up the ones behind it. */
#define SETUP_ALWAYS (IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL)

static const unsigned setup_flags[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN,
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
    0,
};

static err_t setup_ring(struct io_uring *u, unsigned entries, unsigned flags)
{
    struct io_uring_params p = {.flags = SETUP_ALWAYS | flags, .cq_entries = entries * CQ_FACTOR};
    return io_uring_queue_init_params(entries, u, &p);
}

/* Starts disabled: the thread that first uses the ring enables it and becomes its single issuer. */
static err_t setup_best(struct ring *r, unsigned entries, unsigned *flags)
{
    err_t err = -EINVAL;
    for (size_t i = 0; i < COUNT_OF(setup_flags) && err == -EINVAL; i++) {
        *flags = setup_flags[i];
        err = setup_ring(&r->uring, entries, *flags | IORING_SETUP_R_DISABLED);
    }
    return err;
}

/* Sends a message from one ring to another, as two workers would: some kernels refuse it for deferring rings.
 */
static bool probe_msg_ring(unsigned flags)
{
    struct io_uring from, to;
    if (setup_ring(&from, PROBE_ENTRIES, flags))
        return false;
    if (setup_ring(&to, PROBE_ENTRIES, flags)) {
        io_uring_queue_exit(&from);
        return false;
    }
    struct __kernel_timespec limit = {.tv_nsec = PROBE_WAIT_NS};
    struct io_uring_cqe *cqe = NULL;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&from);
    io_uring_prep_msg_ring(sqe, to.ring_fd, 0, 0, 0);
    io_uring_sqe_set_data64(sqe, 1);
    bool ok = io_uring_submit_and_wait_timeout(&from, &cqe, 1, &limit, NULL) >= 0 && cqe && cqe->res == 0;
    cqe = NULL;
    ok = ok && io_uring_wait_cqe_timeout(&to, &cqe, &limit) == 0 && cqe && cqe->user_data == 0;
    io_uring_queue_exit(&to);
    io_uring_queue_exit(&from);
    return ok;
}

/* What a worker's ring is for, and nothing else: whoever takes the process over gets no files or sockets from
 * it. In force from ring_claim() on. */
static bool restrict_ring(struct ring *r)
{
    static const uint8_t ops[] = {
        IORING_OP_ACCEPT,   IORING_OP_CONNECT,  IORING_OP_RECV,     IORING_OP_SEND,        IORING_OP_SENDMSG,
        IORING_OP_READ,     IORING_OP_READV,    IORING_OP_WRITEV,   IORING_OP_FSYNC,       IORING_OP_CLOSE,
        IORING_OP_SHUTDOWN, IORING_OP_POLL_ADD, IORING_OP_MSG_RING, IORING_OP_ASYNC_CANCEL};
    static const uint8_t registers[] = {IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS};
    struct io_uring_restriction rules[COUNT_OF(ops) + COUNT_OF(registers) + 1] = {0};
    unsigned n = 0;
    for (size_t i = 0; i < COUNT_OF(ops); i++)
        rules[n++] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = ops[i]};
    for (size_t i = 0; i < COUNT_OF(registers); i++)
        rules[n++] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_REGISTER_OP,
                                                   .register_op = registers[i]};
    rules[n++] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
                                               .sqe_flags = IOSQE_BUFFER_SELECT | IOSQE_CQE_SKIP_SUCCESS};
    return syscall(__NR_io_uring_register, r->uring.ring_fd, IORING_REGISTER_RESTRICTIONS, rules, n) == 0;
}

static void note_features(struct ring *r, unsigned flags)
{
    struct loop_features *f = &r->loop.features;
    f->single_issuer = flags & IORING_SETUP_SINGLE_ISSUER;
    f->defer_taskrun = flags & IORING_SETUP_DEFER_TASKRUN;
    f->coop_taskrun = flags & IORING_SETUP_COOP_TASKRUN;
    f->restricted = restrict_ring(r);
    f->buffer_ring = true;      /* else loop_create failed */
    f->multishot_accept = true; /* 5.19, as the buffer ring */
    f->multishot_recv =
        f->single_issuer; /* both came with 6.0, and no flag of recv can be probed without traffic */
    f->msg_ring = probe_msg_ring(flags);
    struct io_uring_probe *probe = io_uring_get_probe_ring(&r->uring);
    if (probe) {
        f->send_zc = io_uring_opcode_supported(probe, IORING_OP_SEND_ZC);
        io_uring_free_probe(probe);
    }
}

static void *map_zeroed(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static size_t buffer_ring_bytes(const struct ring *r)
{
    return r->loop.buffer_count * sizeof(struct io_uring_buf);
}

static void buffer_publish(struct ring *r, uint16_t id)
{
    io_uring_buf_ring_add(r->buffer_ring, r->buffers + (size_t)id * r->buffer_bytes, r->buffer_bytes, id,
                          io_uring_buf_ring_mask(r->loop.buffer_count), 0);
    io_uring_buf_ring_advance(r->buffer_ring, 1);
}

static err_t setup_buffers(struct ring *r)
{
    r->buffer_ring = map_zeroed(buffer_ring_bytes(r));
    r->buffers = map_zeroed((size_t)r->loop.buffer_count * r->buffer_bytes);
    if (!r->buffer_ring || !r->buffers)
        return -ENOMEM;
    struct io_uring_buf_reg reg = {.ring_addr = (uint64_t)(uintptr_t)r->buffer_ring,
                                   .ring_entries = r->loop.buffer_count,
                                   .bgid = BUFFER_GROUP};
    err_t err = io_uring_register_buf_ring(&r->uring, &reg, 0);
    if (err)
        return err == -EINVAL ? ERR_UNSUPPORTED : err; /* before 5.19 */
    io_uring_buf_ring_init(r->buffer_ring);
    for (uint32_t id = 0; id < r->loop.buffer_count; id++)
        buffer_publish(r, (uint16_t)id);
    return 0;
}

static void free_memory(struct ring *r)
{
    if (r->buffer_ring)
        must(munmap(r->buffer_ring, buffer_ring_bytes(r)) == 0);
    if (r->buffers)
        must(munmap(r->buffers, (size_t)r->loop.buffer_count * r->buffer_bytes) == 0);
    if (r->loop.batch)
        must(munmap(r->loop.batch, BATCH_COUNT_MAX * sizeof *r->loop.batch) == 0);
    free(r);
}

static void free_parts(struct ring *r)
{
    struct loop *l = &r->loop;
    if (l->conns)
        conn_loop_destroy(l->conns);
    if (l->mailbox)
        mailbox_destroy(l->mailbox);
    if (l->event_fd >= 0)
        close(l->event_fd);
    io_uring_queue_exit(&r->uring);
    free_memory(r);
}

static err_t setup_parts(struct ring *r, unsigned flags)
{
    struct loop *l = &r->loop;
    err_t err = setup_buffers(r);
    if (err)
        return err;
    note_features(r, flags);
    l->batch = map_zeroed(BATCH_COUNT_MAX * sizeof *l->batch);
    if (!l->batch)
        return -ENOMEM;
    err = loop_mail_create(l);
    if (err)
        return err;
    return conn_loop_create(&l->conns, l);
}

err_t loop_create(struct loop **out, const struct loop_options *opt)
{
    *out = NULL;
    uint32_t buffer_count = opt->buffer_count ? opt->buffer_count : BUFFERS_DEFAULT;
    must((buffer_count & (buffer_count - 1)) == 0 && buffer_count <= 32768);
    struct ring *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    struct loop *l = &r->loop;
    l->event_fd = -1;
    l->cpu = opt->cpu;
    l->name = opt->name;
    l->buffer_count = buffer_count;
    r->buffer_bytes = opt->buffer_bytes ? opt->buffer_bytes : BUFFER_BYTES;
    l->now_ns = clock_mono_ns();
    l->now_ms = l->now_ns / NS_PER_MS;
    list_init(&l->hooks);
    list_init(&l->running_hooks);
    wheel_init(&l->wheel, l->now_ms);
    unsigned flags;
    err_t err = setup_best(r, opt->entries ? opt->entries : ENTRIES_DEFAULT, &flags);
    if (err) {
        free_memory(r);
        return err;
    }
    err = setup_parts(r, flags);
    if (err) {
        free_parts(r);
        return err;
    }
    *out = l;
    return 0;
}

const char *loop_create_hint(err_t err)
{
    switch (err) {
    case -ENOSYS: return "this kernel has no io_uring; Linux 5.19 or newer with CONFIG_IO_URING is needed";
    case -EPERM:
    case -EACCES:
        return "io_uring is forbidden here: set sysctl kernel.io_uring_disabled=0, and in a container let "
               "the seccomp "
               "profile allow io_uring_setup, io_uring_enter and io_uring_register";
    case -ENOMEM:
        return "not enough memory for io_uring; raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the unit) or free "
               "memory";
    case -EINVAL:
    case ERR_UNSUPPORTED: return "this kernel's io_uring is too old; Linux 5.19 or newer is needed";
    case -EMFILE:
    case -ENFILE: return "out of file descriptors; raise RLIMIT_NOFILE (LimitNOFILE= in the unit)";
    default: return err_text(err);
    }
}

void loop_destroy(struct loop *l)
{
    if (!l)
        return;
    must(l->ops_inflight == 0 && list_empty(&l->hooks));
    free_parts(ring_of(l));
}

/* liburing 2.3 declares io_uring_enable_rings() but its shared library does not export it. */
static int enable_ring(const struct io_uring *u)
{
    return (int)syscall(__NR_io_uring_register, u->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

void ring_claim(struct loop *l)
{
    must(enable_ring(&ring_of(l)->uring) == 0);
    l->claimed = true;
    l->owner = pthread_self();
}

void ring_attach(struct loop *l)
{
    (void)io_uring_register_ring_fd(
        &ring_of(l)->uring); /* saves a descriptor lookup per turn; can do without */
}

void ring_detach(struct loop *l)
{
    if (ring_of(l)->uring.enter_ring_fd != ring_of(l)->uring.ring_fd)
        (void)io_uring_unregister_ring_fd(&ring_of(l)->uring);
}

/* ---- entering and reaping ---- */

/* Those that have run make room at the front. */
static bool batch_has_room(struct loop *l)
{
    if (l->batch_at == l->batch_count)
        l->batch_at = l->batch_count = 0;
    if (LIKELY(l->batch_count < BATCH_COUNT_MAX))
        return true;
    l->batch_count -= l->batch_at;
    memmove(l->batch, l->batch + l->batch_at, l->batch_count * sizeof *l->batch);
    l->batch_at = 0;
    return l->batch_count < BATCH_COUNT_MAX;
}

/* Copies up to `count_max` completions behind those that wait already; what finds no room stays with the
 * kernel. */
void ring_reap(struct loop *l, uint32_t count_max)
{
    struct io_uring *u = &ring_of(l)->uring;
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;
    io_uring_for_each_cqe(u, head, cqe)
    {
        if (count == count_max || !batch_has_room(l))
            break;
        l->batch[l->batch_count++] = (struct completion){cqe->user_data, cqe->res, cqe->flags};
        count++;
    }
    io_uring_cq_advance(u, count);
    l->cqe_count += count;
}

bool ring_completions_left(const struct loop *l)
{
    const struct ring *r = container_of(l, const struct ring, loop);
    return l->batch_at != l->batch_count || io_uring_cq_ready(&r->uring) != 0;
}

/* What `enter` may say without anything being wrong: time is up, a signal, the kernel is short of memory for
 * now, or it wants completions taken first. What was not taken stays queued and goes with the next turn. */
static bool enter_result_fine(int res)
{
    return res >= 0 || res == -ETIME || res == -EINTR || res == -EAGAIN || res == -EBUSY || res == -ENOMEM;
}

static void note_submitted(struct loop *l)
{
    if (io_uring_sq_ready(&ring_of(l)->uring) == 0) {
        l->submit_seq++;
        ring_of(l)->address_count = 0;
    }
}

void ring_enter(struct loop *l, uint64_t wait_ns)
{
    struct io_uring *u = &ring_of(l)->uring;
    struct io_uring_cqe *cqe;
    int res;
    if (wait_ns == 0) {
        res = io_uring_submit_and_get_events(u);
    } else if (wait_ns == RING_FOREVER) {
        res = io_uring_submit_and_wait_timeout(u, &cqe, 1, NULL, NULL);
    } else {
        struct __kernel_timespec ts = {.tv_sec = (int64_t)(wait_ns / NS_PER_S),
                                       .tv_nsec = (long long)(wait_ns % NS_PER_S)};
        res = io_uring_submit_and_wait_timeout(u, &cqe, 1, &ts, NULL);
    }
    must(enter_result_fine(res));
    note_submitted(l);
}

/* The submission ring is full in the middle of a callback: hand it over now. Completions are only copied. */
static void flush(struct loop *l)
{
    while (io_uring_sq_space_left(&ring_of(l)->uring) == 0 || ring_of(l)->address_count == ADDRESS_COUNT) {
        int res = io_uring_submit(&ring_of(l)->uring);
        must(enter_result_fine(res));
        note_submitted(l);
        if (res < 0)
            ring_reap(l, UINT32_MAX);
    }
}

void ring_run(struct loop *l, uint32_t count_max)
{
    for (; count_max > 0 && l->batch_at != l->batch_count; count_max--) {
        struct completion c =
            l->batch[l->batch_at++]; /* a copy: a callback that submits may move the batch */
        if (c.user_data == 0)
            continue;
        if (c.user_data & TAG_WAKE) {
            loop_wake_by_event((struct loop *)(uintptr_t)(c.user_data & ~TAG_WAKE));
            continue;
        }
        if (UNLIKELY(c.res <= 0)) {
            if (c.res == -ENOBUFS)
                l->nobufs_count++;
            if (c.flags & IORING_CQE_F_BUFFER) /* taken from the ring, yet nothing in it */
                buffer_publish(ring_of(l), (uint16_t)(c.flags >> IORING_CQE_BUFFER_SHIFT));
        }
        struct op *op = (struct op *)(uintptr_t)c.user_data;
        bool more = c.flags & IORING_CQE_F_MORE;
        if (!more) {
            must(op->inflight > 0);
            op->inflight--;
            l->ops_inflight--;
        }
        op->done(op, c.res, c.flags, more);
    }
}

/* ---- operations ---- */

static struct io_uring_sqe *sqe_get(struct loop *l)
{
    if (UNLIKELY(!l->claimed))
        ring_claim(l);
    must(pthread_equal(l->owner, pthread_self()));
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring_of(l)->uring);
    if (UNLIKELY(!sqe)) {
        flush(l);
        sqe = io_uring_get_sqe(&ring_of(l)->uring);
    }
    must(sqe != NULL);
    l->sqe_count++;
    return sqe;
}

static void owned_by(struct loop *l, struct io_uring_sqe *sqe, struct op *op)
{
    io_uring_sqe_set_data(sqe, op);
    op->inflight++;
    l->ops_inflight++;
}

void op_accept_multishot(struct loop *l, struct op *op, int listen_fd)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    if (l->features.multishot_accept)
        io_uring_prep_multishot_accept(sqe, listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    else
        io_uring_prep_accept(sqe, listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    owned_by(l, sqe, op);
}

void op_connect(struct loop *l, struct op *op, int fd, const struct sockaddr *sa, socklen_t len)
{
    struct ring *r = ring_of(l);
    must(len <= sizeof r->addresses[0]);
    if (r->address_count == ADDRESS_COUNT)
        flush(l);
    struct io_uring_sqe *sqe = sqe_get(l);
    struct sockaddr_storage *copy = &r->addresses[r->address_count++];
    memcpy(copy, sa, len);
    io_uring_prep_connect(sqe, fd, (struct sockaddr *)copy, len);
    owned_by(l, sqe, op);
}

void op_recv_once(struct loop *l, struct op *op, int fd)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_recv(sqe, fd, NULL, ring_of(l)->buffer_bytes, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    owned_by(l, sqe, op);
}

void op_recv_multishot(struct loop *l, struct op *op, int fd)
{
    if (!l->features.multishot_recv) {
        op_recv_once(l, op, fd);
        return;
    }
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    owned_by(l, sqe, op);
}

void op_recv(struct loop *l, struct op *op, int fd, void *buf, uint32_t n)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_recv(sqe, fd, buf, n, 0);
    owned_by(l, sqe, op);
}

void op_send(struct loop *l, struct op *op, int fd, const void *buf, uint32_t n, int msg_flags)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_send(sqe, fd, buf, n, msg_flags);
    owned_by(l, sqe, op);
}

void op_sendmsg(struct loop *l, struct op *op, int fd, const struct msghdr *msg, int msg_flags)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_sendmsg(sqe, fd, msg, (unsigned)msg_flags);
    owned_by(l, sqe, op);
}

void op_readv(struct loop *l, struct op *op, int fd, const struct iovec *iov, unsigned iov_count,
              uint64_t offset)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_readv(sqe, fd, iov, iov_count, offset);
    owned_by(l, sqe, op);
}

void op_writev(struct loop *l, struct op *op, int fd, const struct iovec *iov, unsigned iov_count,
               uint64_t offset, int rwf_flags)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_writev2(sqe, fd, iov, iov_count, offset, rwf_flags);
    owned_by(l, sqe, op);
}

void op_fdatasync(struct loop *l, struct op *op, int fd)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    owned_by(l, sqe, op);
}

void op_close(struct loop *l, struct op *op, int fd)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_close(sqe, fd);
    owned_by(l, sqe, op);
}

void op_shutdown(struct loop *l, struct op *op, int fd, int how)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_shutdown(sqe, fd, how);
    owned_by(l, sqe, op);
}

void op_poll(struct loop *l, struct op *op, int fd, uint32_t poll_mask)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_poll_add(sqe, fd, poll_mask);
    owned_by(l, sqe, op);
}

void op_cancel(struct loop *l, struct op *target)
{
    if (target->inflight == 0)
        return;
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_cancel(sqe, target, target->inflight > 1 ? IORING_ASYNC_CANCEL_ALL : 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, 0);
}

void op_cancel_fd(struct loop *l, int fd)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_cancel_fd(sqe, fd, IORING_ASYNC_CANCEL_ALL);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, 0);
}

/* ---- wake-ups ---- */

void ring_read_event(struct loop *l)
{
    struct io_uring_sqe *sqe = sqe_get(l);
    io_uring_prep_read(sqe, l->event_fd, &l->event_count, sizeof l->event_count, 0);
    owned_by(l, sqe, &l->event_op);
}

void ring_wake(struct loop *from, struct loop *to)
{
    struct io_uring_sqe *sqe = sqe_get(from);
    io_uring_prep_msg_ring(sqe, ring_of(to)->uring.ring_fd, 0, 0, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)to | TAG_WAKE);
}

/* ---- provided buffers ---- */

struct rbuf loop_buffer(struct loop *l, int32_t res, uint32_t cqe_flags)
{
    must(res > 0 && (cqe_flags & IORING_CQE_F_BUFFER));
    struct ring *r = ring_of(l);
    uint16_t id = (uint16_t)(cqe_flags >> IORING_CQE_BUFFER_SHIFT);
    must(id < l->buffer_count && (uint32_t)res <= r->buffer_bytes);
    l->buffers_out++;
    return (struct rbuf){.p = r->buffers + (size_t)id * r->buffer_bytes,
                         .n = (uint32_t)res,
                         .id = id,
                         .more = cqe_flags & IORING_CQE_F_SOCK_NONEMPTY};
}

void loop_buffer_return(struct loop *l, uint16_t id)
{
    must(id < l->buffer_count && l->buffers_out > 0);
    l->buffers_out--;
    buffer_publish(ring_of(l), id);
    if (UNLIKELY(l->starved != NULL))
        loop_at_tick_end(l, l->starved);
}
