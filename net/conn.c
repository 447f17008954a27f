/* net/conn.c: the life of a connection and its input; output is in conn_out.c, TLS in conn_tls.c. */
#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "net/conn_priv.h"

static_assert(sizeof(struct conn) <= 400, "an idle connection is cheap");

static void todo_run(struct tick_hook *h);
static void starved_run(struct tick_hook *h);
static void recv_done(struct op *op, int32_t res, uint32_t cqe_flags, bool more);

err_t conn_loop_create(struct conn_loop **out, struct loop *l)
{
    struct conn_loop *cl = calloc(1, sizeof *cl);
    *out = cl;
    if (!cl)
        return -ENOMEM;
    cl->loop = l;
    list_init(&cl->todo);
    list_init(&cl->starved);
    cl->todo_hook.run = todo_run;
    cl->starved_hook.run = starved_run;
    list_init(&cl->turns[0]);
    list_init(&cl->turns[1]);
    cl->turns_hook.run = conn_tls_turns;
    pool_init(&cl->chunks, "conn_chunks", sizeof(struct chunk), CHUNK_COUNT_MAX);
    pool_init(&cl->refs, "conn_refs", sizeof(struct piece), 0);
    pool_init(&cl->tls, "conn_tls", sizeof(struct conn_tls), 0);
    return 0;
}

void conn_loop_destroy(struct conn_loop *cl)
{
    while (cl->hot) {
        struct piece *next = cl->hot->next;
        pool_put(&cl->chunks, container_of(cl->hot, struct chunk, piece));
        cl->hot = next;
    }
    pool_free(&cl->chunks);
    pool_free(&cl->refs);
    pool_free(&cl->tls);
    free(cl);
}

/* ---- steps at the tick's end ---- */

void conn_schedule(struct conn *c)
{
    if (link_in_list(&c->todo))
        return;
    struct conn_loop *cl = conn_loop_of(c);
    list_push_back(&cl->todo, &c->todo);
    loop_at_tick_end(c->loop, &cl->todo_hook);
}

/* Kept bytes again. The chunk is off the queue during the callback, which may start TLS and so discard the
 * queue. */
static void offer_kept(struct conn *c)
{
    struct conn_loop *cl = conn_loop_of(c);
    while (c->state == CONN_OPEN && !c->paused) {
        struct chunk *chunk = pieces_take_chunk(&c->kept);
        if (!chunk)
            break;
        bool was_clear = !c->tls;
        size_t used = c->ops->data(c, chunk->piece.p, chunk->piece.n);
        must(used <= chunk->piece.n);
        if (used == chunk->piece.n || c->state != CONN_OPEN || (was_clear && c->tls)) {
            chunk_put(cl, chunk);
            continue;
        }
        chunk->piece.p += used;
        chunk->piece.n -= used;
        pieces_give_back(&c->kept, chunk);
        c->paused = true;
    }
}

static void tell_eof(struct conn *c)
{
    if (!c->got_eof || c->eof_told || c->state != CONN_OPEN || c->paused || c->kept.head)
        return;
    c->eof_told = true;
    if (c->ops->eof)
        c->ops->eof(c);
}

/* Receiving goes on while somebody reads, or will discard, what comes; a pause lets a little arrive. */
static bool wants_input(const struct conn *c)
{
    if (c->got_eof || c->state == CONN_DIALING || c->state >= CONN_CLOSING)
        return false;
    size_t kept_bytes = c->kept.bytes + (c->tls ? c->tls->fed_paused_bytes : 0);
    bool is_read = !c->paused && !(c->tls && conn_tls_waits(c));
    return c->state != CONN_OPEN || is_read || kept_bytes < KEPT_BYTES_MAX;
}

static void update_recv(struct conn *c)
{
    if (wants_input(c)) {
        if (c->recv_op.inflight > 0 || link_in_list(&c->starved))
            return;
        if (c->sparing)
            op_recv_once(c->loop, &c->recv_op, c->fd);
        else
            op_recv_multishot(c->loop, &c->recv_op, c->fd);
    } else if (c->recv_op.inflight > 0 && c->cancel_seq != c->loop->submit_seq + 1) {
        /* Once a submission, as often as it takes: the kernel does not find a read that it is busy with. */
        c->cancel_seq = c->loop->submit_seq + 1;
        op_cancel(c->loop, &c->recv_op);
    }
}

static void step(struct conn *c)
{
    if (c->state >= CONN_CLOSING) {
        conn_join(c);
        return;
    }
    if (c->tls && c->tls->starting)
        conn_tls_step(c);
    if (c->resuming) {
        c->resuming = c->paused = false;
        offer_kept(c);
        if (c->tls && !c->paused)
            conn_tls_pump(c);
        tell_eof(c);
    }
    conn_flush(c);
    update_recv(c);
}

static void todo_run(struct tick_hook *h)
{
    struct conn_loop *cl = container_of(h, struct conn_loop, todo_hook);
    for (unsigned n = 0; n < STEPS_PER_TICK; n++) {
        struct link *k = list_pop_front(&cl->todo);
        if (!k)
            return;
        step(container_of(k, struct conn, todo));
    }
    loop_at_tick_end(cl->loop, h);
}

/* ---- receiving ---- */

static void keep(struct conn *c, const uint8_t *p, size_t n)
{
    err_t err = pieces_copy(conn_loop_of(c), &c->kept, p, n);
    if (err)
        conn_close(c, err);
}

void conn_offer(struct conn *c, const uint8_t *p, size_t n)
{
    if (c->paused || c->kept.head) {
        keep(c, p, n);
        return;
    }
    bool was_clear = !c->tls;
    size_t used = c->ops->data(c, p, n);
    must(used <= n);
    if (used == n || c->state != CONN_OPEN)
        return;
    if (was_clear && c->tls) { /* RFC 3207: the clear rest is discarded */
        if (c->tls->takes_rest)
            conn_tls_input(c, p + used, n - used);
        return;
    }
    c->paused = true;
    keep(c, p + used, n - used);
}

void conn_note_eof(struct conn *c)
{
    c->got_eof = true;
    switch ((enum conn_state)c->state) {
    case CONN_OPEN:
        if (c->send_err)
            conn_close(c, c->send_err);
        else
            tell_eof(c);
        break;
    case CONN_LINGERING: conn_close(c, c->why); break;
    default: break;
    }
}

static void received(struct conn *c, const uint8_t *p, size_t n)
{
    if (c->state != CONN_OPEN)
        return; /* finishing: discarded */
    if (c->tls)
        conn_tls_input(c, p, n);
    else
        conn_offer(c, p, n);
}

static void starve(struct conn *c)
{
    struct conn_loop *cl = conn_loop_of(c);
    list_push_back(&cl->starved, &c->starved);
    c->loop->starved = &cl->starved_hook;
    /* The buffers may be back already, given by callbacks that ran before this one: then nobody else would
     * wake us. */
    if (ring_has_buffers(c->loop))
        loop_at_tick_end(c->loop, &cl->starved_hook);
}

static void starved_run(struct tick_hook *h)
{
    struct conn_loop *cl = container_of(h, struct conn_loop, starved_hook);
    struct loop *l = cl->loop;
    for (uint32_t n = l->buffer_count - l->buffers_out; n > 0; n--) {
        struct link *k = list_pop_front(&cl->starved);
        if (!k)
            break;
        update_recv(container_of(k, struct conn, starved));
    }
    /* Those may have nothing to read now and so give no buffer back; go on by ourselves. */
    if (list_empty(&cl->starved))
        l->starved = NULL;
    else if (ring_has_buffers(l))
        loop_at_tick_end(l, h);
}

static void recv_failed(struct conn *c, err_t err)
{
    switch (err) {
    case -ECANCELED: /* by update_recv, or a full completion ring ended the multishot */
    case -EINTR:
    case -EAGAIN: return;
    case -ENOBUFS: starve(c); return;
    default: break;
    }
    /* Lingering: all was sent, how the peer takes its leave does not matter. */
    conn_close(c, c->state == CONN_LINGERING ? c->why : c->send_err ? c->send_err : err);
}

static void recv_done(struct op *op, int32_t res, uint32_t cqe_flags, bool more)
{
    struct conn *c = container_of(op, struct conn, recv_op);
    if (res > 0) {
        struct loop *l = c->loop;
        struct rbuf b = loop_buffer(l, res, cqe_flags);
        received(c, b.p, b.n);
        loop_buffer_return(l, b.id);
        /* A multishot read fetches all that the socket has, megabytes, before it can be cancelled. */
        c->sparing = c->paused || (c->sparing && b.more);
    } else if (c->state < CONN_CLOSING) {
        if (res < 0)
            recv_failed(c, res);
        else if (c->tls)
            conn_tls_truncated(c);
        else
            conn_note_eof(c);
    }
    if (c->state >= CONN_CLOSING)
        conn_join(c);
    else
        update_recv(c);
}

/* ---- opening ---- */

static void timed_out(struct timer *t)
{
    struct conn *c = container_of(t, struct conn, timer);
    switch ((enum conn_state)c->state) {
    case CONN_OPEN: conn_close(c, c->send_err); break;     /* the last input did not come */
    case CONN_LINGERING: conn_close(c, c->why); break;     /* the peer does not hang up; all was sent */
    default: conn_close(c, c->why ? c->why : ERR_TIMEOUT); /* dialing, or output left */
    }
}

static void init(struct conn *c, struct loop *l, int fd, const struct conn_ops *ops, void *ctx)
{
    must(ops->data && ops->closed);
    *c = (struct conn){.ops = ops, .ctx = ctx, .loop = l, .fd = fd};
    c->recv_op.done = recv_done;
    c->send_op.done = conn_send_done;
    c->timer.fire = timed_out;
}

void conn_open(struct conn *c, struct loop *l, int fd, const struct conn_ops *ops, void *ctx)
{
    init(c, l, fd, ops, ctx);
    c->state = CONN_OPEN; /* TCP_NODELAY is inherited from the listening socket */
    update_recv(c);
}

static void dial_done(struct op *op, int32_t res, uint32_t cqe_flags, bool more)
{
    struct conn *c = container_of(op, struct conn, control_op);
    if (c->state >= CONN_CLOSING) {
        conn_join(c);
        return;
    }
    if (res < 0 && res != -EISCONN) {
        conn_close(c, res);
        return;
    }
    timer_disarm(c->loop, &c->timer);
    c->state = CONN_OPEN;
    update_recv(c);
    conn_schedule(c); /* what was written before */
    if (c->ops->connected)
        c->ops->connected(c);
}

static err_t dial_socket(int *out, sa_family_t family, const struct endpoint *from)
{
    int on = 1;
    *out = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*out < 0 || setsockopt(*out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
        return -errno;
    if (!from)
        return 0;
    /* The port is chosen at connect, by the whole four-tuple: more than 28,000 connections from one address.
     */
    if (from->port == 0 && setsockopt(*out, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on))
        return -errno;
    struct sockaddr_storage sa;
    socklen_t len = endpoint_to_sockaddr(from, &sa);
    return bind(*out, (struct sockaddr *)&sa, len) ? -errno : 0;
}

void conn_dial(struct conn *c, struct loop *l, const struct endpoint *to, const struct endpoint *from,
               uint32_t timeout_ms, const struct conn_ops *ops, void *ctx)
{
    init(c, l, -1, ops, ctx);
    c->state = CONN_DIALING;
    c->dialed = true;
    struct sockaddr_storage sa;
    socklen_t len = endpoint_to_sockaddr(to, &sa);
    err_t err = dial_socket(&c->fd, sa.ss_family, from);
    if (err) {
        conn_close(c, err);
        return;
    }
    c->control_op.done = dial_done;
    op_connect(l, &c->control_op, c->fd, (struct sockaddr *)&sa, len);
    timer_arm(l, &c->timer, timeout_ms);
}

size_t conn_size(void)
{
    return sizeof(struct conn);
}

void *conn_ctx(const struct conn *c)
{
    return c->ctx;
}

struct loop *conn_loop(const struct conn *c)
{
    return c->loop;
}

int conn_fd(const struct conn *c)
{
    return c->fd;
}

bool conn_closing(const struct conn *c)
{
    return c->state >= CONN_FINISHING || c->send_err;
}

void conn_pause(struct conn *c)
{
    c->paused = true;
    c->resuming = false;
}

void conn_resume(struct conn *c)
{
    if (c->state > CONN_OPEN)
        return;
    /* Even if not paused yet: `data` may resume first and then return less than it got. */
    c->resuming = true;
    conn_schedule(c);
}

/* ---- closing ---- */

void conn_finish_why(struct conn *c, uint32_t linger_ms, err_t why)
{
    if (c->state >= CONN_FINISHING)
        return;
    if (c->state == CONN_DIALING || c->send_err) {
        conn_close(c, c->send_err ? c->send_err : why);
        return;
    }
    c->state = CONN_FINISHING;
    c->why = why;
    timer_arm(c->loop, &c->timer, linger_ms);
    conn_schedule(c);
}

void conn_finish(struct conn *c, uint32_t linger_ms)
{
    conn_finish_why(c, linger_ms, 0);
}

void conn_part(struct conn *c, uint32_t patience_ms)
{
    c->parting = !c->tls;
    conn_finish_why(c, patience_ms, 0);
}

void conn_output_gone(struct conn *c)
{
    c->state = CONN_LINGERING;
    if (c->got_eof || c->parting) {
        conn_close(c, c->why);
        return;
    }
    /* The call itself, as io_uring hands a shutdown to a kernel thread; on TCP it does not wait. Fails only
     * if the peer is gone, which the receive tells. */
    (void)shutdown(c->fd, SHUT_WR);
}

void conn_close(struct conn *c, err_t why)
{
    if (c->state >= CONN_CLOSING)
        return;
    c->state = CONN_CLOSING;
    c->why = why;
    timer_disarm(c->loop, &c->timer);
    list_remove(&c->starved);
    op_cancel(c->loop, &c->recv_op);
    op_cancel(c->loop, &c->send_op);
    op_cancel(c->loop, &c->control_op);
    conn_schedule(c); /* `closed` comes from the loop even if nothing is in flight */
}

static void finish_close(struct conn *c)
{
    struct conn_loop *cl = conn_loop_of(c);
    list_remove(&c->todo);
    pieces_drop(cl, &c->wire); /* releases may come back in here to write: dropped as well */
    pieces_drop(cl, &c->kept);
    if (c->tls)
        conn_tls_free(c);
    c->state = CONN_CLOSED;
    c->ops->closed(c, c->why); /* last: the memory may be gone */
}

static void descriptor_closed(struct op *op, int32_t res, uint32_t cqe_flags, bool more)
{
    struct conn *c = container_of(op, struct conn, control_op);
    c->fd = -1;
    conn_join(c);
}

/* The descriptor goes right behind the cancels, in the same submission: what is still in flight holds the
 * file by itself. The memory waits for all of it. */
void conn_join(struct conn *c)
{
    if (c->state == CONN_CLOSING && c->control_op.inflight == 0) {
        c->state = CONN_DESCRIPTOR;
        if (c->fd >= 0) {
            c->control_op.done = descriptor_closed;
            op_close(c->loop, &c->control_op, c->fd);
        }
    }
    if (c->state == CONN_DESCRIPTOR && !c->recv_op.inflight && !c->send_op.inflight &&
        !c->control_op.inflight)
        finish_close(c);
}
