/* tests/sim/sim_ring.c: stands in for net/ring.c. The kernel's side of the gateway's loop is the simulated
 * network (sim_net.c) and disk (sim_fsio.c); waiting in the kernel lets the world go on. */
#include <errno.h>
#include <unistd.h>

#include "net/ring_priv.h"
#include "tests/sim/sim.h"

#define BATCH_FIRST   256
#define FLAG_BUFFER   1u
#define BUFFER_SHIFT  16
#define TURN_NS       (20 * SIM_US) /* what a turn costs at most; on average half of it */
#define IDLE_TURNS    20000         /* turns in a row in which nothing happened: the loop spins */
#define DEAD_LIMIT_NS (600 * SIM_S) /* a dead process must come apart within this time */

static struct ring {
    struct loop loop;
    struct completion *cq; /* owned */
    size_t cq_count, cq_cap;
    uint8_t *buffers;   /* owned */
    uint16_t *free_ids; /* owned */
    uint32_t free_count, buffer_bytes, batch_capacity;
    uint64_t idle_turns, dead_since_ns;
} * ring; /* one process, one worker */

/* ---- setup ---- */

err_t loop_create(struct loop **out, const struct loop_options *opt)
{
    must(!ring);
    ring = calloc(1, sizeof *ring);
    must(ring != NULL);
    struct loop *l = &ring->loop;
    l->event_fd = -1;
    l->cpu = -1;
    l->buffer_count = W.traits.recv_buffer_count;
    ring->buffer_bytes = W.traits.recv_buffer_bytes;
    ring->buffers = malloc((size_t)l->buffer_count * ring->buffer_bytes);
    ring->free_ids = malloc(l->buffer_count * sizeof *ring->free_ids);
    ring->batch_capacity = BATCH_FIRST;
    l->batch = malloc(ring->batch_capacity * sizeof *l->batch);
    must(ring->buffers && ring->free_ids && l->batch);
    while (ring->free_count < l->buffer_count) {
        ring->free_ids[ring->free_count] = (uint16_t)ring->free_count;
        ring->free_count++;
    }
    l->now_ns = W.now_ns;
    l->now_ms = l->now_ns / NS_PER_MS;
    list_init(&l->hooks);
    list_init(&l->running_hooks);
    wheel_init(&l->wheel, l->now_ms);
    l->features =
        (struct loop_features){.multishot_accept = true, .multishot_recv = true, .buffer_ring = true};
    must(loop_mail_create(l) == 0 && conn_loop_create(&l->conns, l) == 0);
    *out = l;
    return 0;
}

const char *loop_create_hint(err_t err)
{
    return err_text(err);
}

void loop_destroy(struct loop *l)
{
    must(l->ops_inflight == 0 && list_empty(&l->hooks));
    must(l->buffers_out == 0 && ring->cq_count == 0);
    conn_loop_destroy(l->conns);
    mailbox_destroy(l->mailbox);
    close(l->event_fd);
    free(l->batch);
    free(ring->cq);
    free(ring->buffers);
    free(ring->free_ids);
    free(ring);
    ring = NULL;
}

void ring_claim(struct loop *l)
{
    l->claimed = true;
    l->owner = pthread_self();
}

void ring_attach(struct loop *l)
{
}

void ring_detach(struct loop *l)
{
}

/* ---- completions ---- */

void sim_op_begin(struct loop *l, struct op *op)
{
    op->inflight++;
    l->ops_inflight++;
}

void sim_op_end(struct op *op, int32_t res, uint32_t flags, bool more)
{
    if (ring->cq_count == ring->cq_cap) {
        ring->cq_cap = ring->cq_cap ? ring->cq_cap * 2 : BATCH_FIRST;
        ring->cq = realloc(ring->cq, ring->cq_cap * sizeof *ring->cq);
        must(ring->cq != NULL);
    }
    ring->cq[ring->cq_count++] = (struct completion){(uint64_t)(uintptr_t)op, res, flags << 1 | more};
}

static void op_ends(void *ctx, uint64_t res)
{
    sim_op_end(ctx, (int32_t)(int64_t)res, 0, false);
}

void sim_op_end_after(uint64_t after_ns, struct op *op, int32_t res)
{
    process_at(after_ns, op_ends, op, (uint64_t)(int64_t)res);
}

/* ---- turns ---- */

static void look_for_trouble(const struct loop *l, bool something_happened)
{
    ring->idle_turns = something_happened ? 0 : ring->idle_turns + 1;
    if (ring->idle_turns > IDLE_TURNS)
        violation("the loop spins: %u turns in which nothing happened", IDLE_TURNS);
    if (!W.dead)
        ring->dead_since_ns = W.now_ns;
    else if (W.now_ns - ring->dead_since_ns > DEAD_LIMIT_NS)
        violation("the process does not come apart: %llu operations in flight",
                  (unsigned long long)l->ops_inflight);
}

void ring_enter(struct loop *l, uint64_t wait_ns)
{
    W.now_ns += chance_below(TURN_NS);
    uint64_t until_ns = wait_ns > UINT64_MAX / 2 ? UINT64_MAX : W.now_ns + wait_ns;
    bool happened = wait_ns > 0 || ring->cq_count > 0 || l->mail_waiting;
    while (ring->cq_count == 0 && !l->mail_waiting && world_step(until_ns))
        happened = true;
    if (ring->cq_count == 0 && !l->mail_waiting) {
        if (until_ns == UINT64_MAX)
            violation("a deadlock: nothing is left to happen");
        W.now_ns = MAX(W.now_ns, until_ns);
    }
    l->submit_seq++;
    look_for_trouble(l, happened);
}

void ring_reap(struct loop *l, uint32_t count_max)
{
    size_t n = MIN(ring->cq_count, (size_t)count_max);
    if (l->batch_at == l->batch_count)
        l->batch_at = l->batch_count = 0;
    if (n == 0)
        return;
    while (l->batch_count + n > ring->batch_capacity) {
        ring->batch_capacity *= 2;
        l->batch = realloc(l->batch, ring->batch_capacity * sizeof *l->batch);
        must(l->batch != NULL);
    }
    memcpy(l->batch + l->batch_count, ring->cq, n * sizeof *ring->cq);
    l->batch_count += (uint32_t)n;
    ring->cq_count -= n;
    memmove(ring->cq, ring->cq + n, ring->cq_count * sizeof *ring->cq);
}

void ring_run(struct loop *l, uint32_t count_max)
{
    for (; count_max > 0 && l->batch_at != l->batch_count; count_max--) {
        struct completion c = l->batch[l->batch_at++];
        struct op *op = (struct op *)(uintptr_t)c.user_data;
        bool more = c.flags & 1;
        if (!more) {
            must(op->inflight > 0);
            op->inflight--;
            l->ops_inflight--;
        }
        op->done(op, c.res, c.flags >> 1, more);
    }
}

bool ring_completions_left(const struct loop *l)
{
    return l->batch_at != l->batch_count || ring->cq_count > 0;
}

/* ---- operations ---- */

void op_accept_multishot(struct loop *l, struct op *op, int listen_fd)
{
    sim_op_begin(l, op);
    net_accept(listen_fd, op);
}

void op_connect(struct loop *l, struct op *op, int fd, const struct sockaddr *sa, socklen_t len)
{
    sim_op_begin(l, op);
    net_connect(fd, op, sa, len);
}

void op_recv_multishot(struct loop *l, struct op *op, int fd)
{
    sim_op_begin(l, op);
    net_recv(fd, op);
}

/* More than asked for does no harm. */
void op_recv_once(struct loop *l, struct op *op, int fd)
{
    op_recv_multishot(l, op, fd);
}

void op_send(struct loop *l, struct op *op, int fd, const void *buf, uint32_t n, int msg_flags)
{
    const struct iovec iov = {.iov_base = (void *)buf, .iov_len = n};
    sim_op_begin(l, op);
    net_send(fd, op, &iov, 1);
}

void op_sendmsg(struct loop *l, struct op *op, int fd, const struct msghdr *msg, int msg_flags)
{
    sim_op_begin(l, op);
    net_send(fd, op, msg->msg_iov, msg->msg_iovlen);
}

void op_close(struct loop *l, struct op *op, int fd)
{
    sim_op_begin(l, op);
    net_close(fd);
    sim_op_end(op, 0, 0, false);
}

void op_cancel(struct loop *l, struct op *target)
{
    if (target == &l->event_op ? target->inflight > 0 : net_cancel(target))
        sim_op_end(target, -ECANCELED, 0, false);
}

#define NEVER_USED(what) must(!what " is not part of the simulation")

void op_recv(struct loop *l, struct op *op, int fd, void *buf, uint32_t n)
{
    NEVER_USED("op_recv");
}

void op_readv(struct loop *l, struct op *op, int fd, const struct iovec *iov, unsigned iov_count,
              uint64_t offset)
{
    NEVER_USED("op_readv");
}

void op_writev(struct loop *l, struct op *op, int fd, const struct iovec *iov, unsigned iov_count,
               uint64_t offset, int rwf_flags)
{
    NEVER_USED("op_writev");
}

void op_fdatasync(struct loop *l, struct op *op, int fd)
{
    NEVER_USED("op_fdatasync");
}

void op_shutdown(struct loop *l, struct op *op, int fd, int how)
{
    NEVER_USED("op_shutdown");
}

void op_poll(struct loop *l, struct op *op, int fd, uint32_t poll_mask)
{
    NEVER_USED("op_poll");
}

void op_cancel_fd(struct loop *l, int fd)
{
    NEVER_USED("op_cancel_fd");
}

/* ---- wake-ups: there is no other thread ---- */

void ring_read_event(struct loop *l)
{
    sim_op_begin(l, &l->event_op);
}

void ring_wake(struct loop *from, struct loop *to)
{
}

/* ---- provided buffers ---- */

uint32_t sim_buffer_fill(const void *p, size_t n, uint32_t *flags)
{
    if (ring->free_count == 0)
        return 0;
    uint16_t id = ring->free_ids[--ring->free_count];
    uint32_t take = (uint32_t)MIN(n, (size_t)ring->buffer_bytes);
    memcpy(ring->buffers + (size_t)id * ring->buffer_bytes, p, take);
    *flags = (uint32_t)id << BUFFER_SHIFT | FLAG_BUFFER;
    return take;
}

struct rbuf loop_buffer(struct loop *l, int32_t res, uint32_t cqe_flags)
{
    must(res > 0 && cqe_flags & FLAG_BUFFER);
    l->buffers_out++;
    uint16_t id = (uint16_t)(cqe_flags >> BUFFER_SHIFT);
    return (struct rbuf){.p = ring->buffers + (size_t)id * ring->buffer_bytes, .n = (uint32_t)res, .id = id};
}

void loop_buffer_return(struct loop *l, uint16_t id)
{
    must(l->buffers_out > 0 && ring->free_count < l->buffer_count);
    l->buffers_out--;
    ring->free_ids[ring->free_count++] = id;
    if (l->starved)
        loop_at_tick_end(l, l->starved);
}
