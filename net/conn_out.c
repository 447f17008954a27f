/* net/conn_out.c: a connection's output: small writes are copied into pool chunks, large ones stay in their
 * owner's memory; a tick's worth leaves in one send. */
#include <errno.h>

#include "net/conn_priv.h"

/* ---- chunks and queues ---- */

static struct chunk *chunk_of(struct piece *piece)
{
    return container_of(piece, struct chunk, piece);
}

static struct chunk *chunk_get(struct conn_loop *cl)
{
    struct chunk *chunk;
    if (cl->hot) {
        chunk = chunk_of(cl->hot);
        cl->hot = cl->hot->next;
        cl->hot_count--;
    } else {
        chunk = pool_get(&cl->chunks);
        if (!chunk)
            return NULL;
    }
    chunk->piece = (struct piece){.p = chunk->bytes};
    return chunk;
}

void chunk_put(struct conn_loop *cl, struct chunk *chunk)
{
    if (cl->hot_count == HOT_CHUNK_MAX) {
        pool_put(&cl->chunks, chunk);
        return;
    }
    chunk->piece.next = cl->hot;
    cl->hot = &chunk->piece;
    cl->hot_count++;
}

static void push_back(struct piece_queue *q, struct piece *piece)
{
    piece->next = NULL;
    if (q->tail)
        q->tail->next = piece;
    else
        q->head = piece;
    q->tail = piece;
}

static struct piece *pop_front(struct piece_queue *q)
{
    struct piece *piece = q->head;
    q->head = piece->next;
    if (!q->head)
        q->tail = NULL;
    q->bytes -= piece->n;
    if (piece->ref)
        q->ref_bytes -= piece->n;
    return piece;
}

static size_t chunk_room(struct piece *piece)
{
    struct chunk *chunk = chunk_of(piece);
    return sizeof chunk->bytes - (size_t)(piece->p + piece->n - chunk->bytes);
}

err_t pieces_copy(struct conn_loop *cl, struct piece_queue *q, const void *p, size_t n)
{
    const uint8_t *from = p;
    while (n > 0) {
        struct piece *tail = q->tail;
        if (!tail || tail->ref || chunk_room(tail) == 0) {
            struct chunk *chunk = chunk_get(cl);
            if (!chunk)
                return -ENOMEM;
            tail = &chunk->piece;
            push_back(q, tail);
        }
        /* Behind what a send under way covers: the kernel does not look there. */
        size_t part = MIN(n, chunk_room(tail));
        memcpy(chunk_of(tail)->bytes + (size_t)(tail->p + tail->n - chunk_of(tail)->bytes), from, part);
        tail->n += part;
        q->bytes += part;
        from += part;
        n -= part;
    }
    return 0;
}

static err_t pieces_ref(struct conn_loop *cl, struct piece_queue *q, struct conn_ref *ref, size_t n)
{
    struct piece *piece = pool_get(&cl->refs);
    if (!piece)
        return -ENOMEM;
    *piece = (struct piece){.p = ref->p, .n = n, .ref = ref};
    push_back(q, piece);
    q->bytes += n;
    q->ref_bytes += n;
    return 0;
}

void pieces_move(struct piece_queue *to, struct piece_queue *from)
{
    if (!from->head)
        return;
    if (to->tail)
        to->tail->next = from->head;
    else
        to->head = from->head;
    to->tail = from->tail;
    to->bytes += from->bytes;
    to->ref_bytes += from->ref_bytes;
    *from = (struct piece_queue){0};
}

static void pop_and_free(struct conn_loop *cl, struct piece_queue *q)
{
    struct piece *piece = pop_front(q);
    struct conn_ref *ref = piece->ref;
    if (!ref) {
        chunk_put(cl, chunk_of(piece));
        return;
    }
    pool_put(&cl->refs, piece);
    ref->release(ref); /* last: it may write */
}

/* Empty pieces at the new front go too: refs of no bytes. */
void pieces_consume(struct conn_loop *cl, struct piece_queue *q, size_t n)
{
    must(n <= q->bytes);
    while (q->head && n >= q->head->n) {
        n -= q->head->n;
        pop_and_free(cl, q);
    }
    if (n == 0)
        return;
    q->head->p += n;
    q->head->n -= n;
    q->bytes -= n;
    if (q->head->ref)
        q->ref_bytes -= n;
}

void pieces_drop(struct conn_loop *cl, struct piece_queue *q)
{
    while (q->head)
        pop_and_free(cl, q);
}

struct chunk *pieces_take_chunk(struct piece_queue *q)
{
    return q->head ? chunk_of(pop_front(q)) : NULL;
}

void pieces_give_back(struct piece_queue *q, struct chunk *chunk)
{
    chunk->piece.next = q->head;
    q->head = &chunk->piece;
    if (!q->tail)
        q->tail = &chunk->piece;
    q->bytes += chunk->piece.n;
}

/* ---- writing ---- */

/* What the owner writes goes here; with TLS it is encrypted when it is about to leave. */
static struct piece_queue *write_queue(struct conn *c)
{
    return c->tls ? &c->tls->plain : &c->wire;
}

static bool writable(const struct conn *c)
{
    return c->state <= CONN_OPEN && !c->send_err;
}

void conn_write(struct conn *c, const void *p, size_t n)
{
    if (!writable(c) || n == 0)
        return;
    struct piece_queue *q = write_queue(c);
    if (n > COPIED_BYTES_MAX - MIN(q->bytes - q->ref_bytes, COPIED_BYTES_MAX)) {
        conn_close(c, ERR_LIMIT);
        return;
    }
    err_t err = pieces_copy(conn_loop_of(c), q, p, n);
    if (err)
        conn_close(c, err);
    else
        conn_schedule(c);
}

void conn_write_ref(struct conn *c, struct conn_ref *ref)
{
    must(c->state != CONN_CLOSED);
    /* Dropped: an empty piece in its place, so that the release still comes from the loop and not from in
     * here. */
    size_t n = writable(c) ? ref->n : 0;
    err_t err = pieces_ref(conn_loop_of(c), write_queue(c), ref, n);
    if (err) {
        conn_close(c, err);
        ref->release(ref); /* there is no memory to remember it */
    } else if (c->state < CONN_CLOSING) {
        conn_schedule(c);
    }
}

size_t conn_pending_bytes(const struct conn *c)
{
    return c->wire.bytes + (c->tls ? c->tls->plain.bytes : 0);
}

/* ---- sending ---- */

/* Scratch for one sendmsg. False: this submission has used it all; the caller sends one piece without. */
static bool take_scratch(struct conn_loop *cl, struct iovec **iov, struct msghdr **msg)
{
    if (cl->submit_seq != cl->loop->submit_seq) {
        cl->submit_seq = cl->loop->submit_seq;
        cl->iovec_count = cl->message_count = 0;
    }
    if (cl->iovec_count + SEND_PIECES_MAX > SEND_IOVECS || cl->message_count == SEND_MESSAGES)
        return false;
    *iov = &cl->iovecs[cl->iovec_count];
    *msg = &cl->messages[cl->message_count++];
    return true;
}

static unsigned fill_iovecs(const struct piece_queue *q, struct iovec *iov)
{
    unsigned count = 0;
    size_t bytes = 0;
    for (const struct piece *k = q->head; k && count < SEND_PIECES_MAX && bytes < SEND_BYTES_MAX;
         k = k->next) {
        size_t n = MIN(k->n, SEND_BYTES_MAX - bytes);
        if (n == 0)
            continue;
        iov[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)k->p, .iov_len = n};
        bytes += n;
    }
    return count;
}

static void submit_send(struct conn *c)
{
    /* WAITALL: the kernel goes on after a partial send by itself. MORE: conn_output_gone() follows at once,
     * and the end of the stream travels with the last words instead of in a packet of its own. */
    const int flags = MSG_NOSIGNAL | MSG_WAITALL | (c->state == CONN_FINISHING ? MSG_MORE : 0);
    struct conn_loop *cl = conn_loop_of(c);
    struct iovec *iov;
    struct msghdr *msg;
    const struct piece *head = c->wire.head;
    if (!head->next || head->n >= SEND_BYTES_MAX || !take_scratch(cl, &iov, &msg)) {
        op_send(c->loop, &c->send_op, c->fd, head->p, (uint32_t)MIN(head->n, SEND_BYTES_MAX), flags);
        return;
    }
    unsigned count = fill_iovecs(&c->wire, iov);
    cl->iovec_count += count;
    *msg = (struct msghdr){.msg_iov = iov, .msg_iovlen = count};
    op_sendmsg(c->loop, &c->send_op, c->fd, msg, flags);
}

void conn_flush(struct conn *c)
{
    if ((c->state != CONN_OPEN && c->state != CONN_FINISHING) || c->send_op.inflight > 0 || c->send_err)
        return;
    struct conn_loop *cl = conn_loop_of(c);
    if (c->tls)
        conn_tls_encrypt(c);
    pieces_consume(cl, &c->wire, 0);
    if (c->state != CONN_OPEN && c->state != CONN_FINISHING)
        return; /* a release closed it, or encryption failed */
    if (c->wire.head)
        submit_send(c);
    else if (c->state == CONN_FINISHING)
        conn_output_gone(c);
}

static void drop_output(struct conn *c)
{
    pieces_drop(conn_loop_of(c), &c->wire);
    if (c->tls)
        pieces_drop(conn_loop_of(c), &c->tls->plain);
}

/* How long the input of a dead socket may take to say that it is dead. */
#define LAST_INPUT_MS 1000

static void send_failed(struct conn *c, err_t err)
{
    c->send_err = err;
    drop_output(c);
    /* A server that hangs up says why ("421 ..."): let what has arrived be read before the end is told. */
    if (c->state == CONN_OPEN && c->recv_op.inflight > 0 && !c->paused)
        timer_arm(c->loop, &c->timer, LAST_INPUT_MS);
    else
        conn_close(c, err);
}

void conn_send_done(struct op *op, int32_t res, uint32_t cqe_flags, bool more)
{
    struct conn *c = container_of(op, struct conn, send_op);
    if (res > 0)
        pieces_consume(conn_loop_of(c), &c->wire, (size_t)res);
    if (c->state >= CONN_CLOSING) {
        conn_join(c);
        return;
    }
    if (res == 0)
        res = -EPIPE; /* nothing taken of something */
    if (res < 0 && res != -EINTR && res != -EAGAIN) {
        send_failed(c, res);
        return;
    }
    if (c->state == CONN_OPEN && res > 0 && conn_pending_bytes(c) == 0 && c->ops->drained)
        c->ops->drained(c);
    if (c->wire.head || conn_pending_bytes(c) > 0 || c->state == CONN_FINISHING)
        conn_schedule(c);
}
