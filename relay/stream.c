/* relay/stream.c: a message's content from the queue's memory to the socket without a copy. */
#include "relay/outconn_priv.h"

struct piece { /* of a body, in the socket's hands */
    struct conn_ref ref;
    struct qslice *slice;
    struct outconn *conn;
};

size_t stream_piece_bytes(void)
{
    return sizeof(struct piece);
}

static void piece_release(struct conn_ref *ref)
{
    struct piece *p = container_of(ref, struct piece, ref);
    struct outconn *c = p->conn;
    c->inflight_bytes -= p->ref.n;
    c->piece_count--;
    queue_slice_release(p->slice);
    pool_put(&c->relay->piece_pool, p);
    c->progress_ms = loop_now_ms(c->relay->loop);
    /* Not from here: the connection is in the middle of its own work. */
    if (c->streaming && !link_in_list(&c->pump_link) && c->inflight_bytes <= RELAY_INFLIGHT_MAX / 2) {
        list_push_back(&c->relay->pumps, &c->pump_link);
        relay_kick(c->relay);
    }
}

void stream_run_pumps(struct relay *r)
{
    struct link *k;
    while ((k = list_pop_front(&r->pumps)))
        outconn_settle(container_of(k, struct outconn, pump_link));
}

static void body_ready(struct qbody *b)
{
    struct job *j = container_of(b, struct job, body);
    outconn_settle(j->conn);
}

static void close_body(struct job *j)
{
    if (j->body_open)
        queue_body_close(&j->body);
    j->body_open = false;
}

void stream_begin(struct outconn *c, struct job *j)
{
    must(!c->streaming && !j->body_open);
    c->streaming = j;
    j->bytes = j->msg->load.trace.n;
    j->body.ready = body_ready;
    queue_body_open(&j->body, &j->msg->load);
    j->body_open = true;
    if (j->msg->load.trace.n)
        conn_write(c->conn, j->msg->load.trace.p, j->msg->load.trace.n);
}

void stream_drop(struct outconn *c)
{
    struct job *j = c->streaming;
    c->streaming = NULL;
    if (j)
        close_body(j);
}

/* What was announced is neither exceeded nor missed: behind a chunk the server reads commands. */
static bool keeps_word(const struct job *j, size_t more, bool ends)
{
    uint64_t said = j->tx.chunk_bytes, all = j->bytes + more;
    return !said || (ends ? all == said : all <= said);
}

static err_t give_piece(struct outconn *c, struct job *j)
{
    struct piece *p = pool_get(&c->relay->piece_pool);
    if (!p)
        return ERR_LIMIT;
    err_t err = queue_body_next(&j->body, &p->slice);
    if (!err && !keeps_word(j, p->slice->n, false)) {
        queue_slice_release(p->slice);
        err = ERR_CORRUPT;
    }
    if (err) {
        pool_put(&c->relay->piece_pool, p);
        return err == ERR_EOF && !keeps_word(j, 0, true) ? ERR_CORRUPT : err;
    }
    p->conn = c;
    p->ref = (struct conn_ref){.p = p->slice->p, .n = p->slice->n, .release = piece_release};
    c->inflight_bytes += p->ref.n;
    c->piece_count++;
    j->bytes += p->ref.n;
    conn_write_ref(c->conn, &p->ref);
    return 0;
}

bool stream_pump(struct outconn *c)
{
    struct job *j = c->streaming;
    bool moved = false;
    while (c->inflight_bytes < RELAY_INFLIGHT_MAX) {
        err_t err = give_piece(c, j);
        if (err == ERR_PENDING)
            return moved;
        if (err) {
            stream_drop(c);
            if (err == ERR_EOF) {
                smtpc_content_end(c->smtpc, &j->tx);
            } else {
                /* Half a message was sent: the connection must break before the server can take it for a
                 * whole one. */
                j->damaged = err == ERR_CORRUPT;
                j->lost_count = RELAY_LOST_MAX;
                smtpc_content_abort(c->smtpc, &j->tx);
            }
            return true;
        }
        moved = true;
    }
    return moved;
}
