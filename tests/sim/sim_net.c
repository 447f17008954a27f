/* tests/sim/sim_net.c: sockets of the gateway and byte streams to its peers: latency, any segmentation, small
 * windows, resets, silence. The gateway's end is a descriptor, the peer's end is a struct stream. */
#include <errno.h>

#include "core/list.h"
#include "tests/sim/sim_net.h"

#define SOCKETS_MAX     512
#define SEGMENTS_MAX    24 /* of one send: more would only cost time */
#define COMPACT_BYTES   65536
#define MARKS_MAX       64
#define SEND_PIECES_MAX 64

struct pipe {
    struct gbuf bytes;     /* sent, from the first not taken on */
    size_t taken, arrived; /* offsets in it */
    uint64_t last_ns;      /* arrival of the last byte or FIN */
    uint64_t base;         /* what was dropped from the front of bytes */
    bool fin_sent, fin_arrived;
};

struct mark {
    uint64_t at;
    void (*taken)(uint64_t arg);
    uint64_t arg;
};

struct stream {
    struct link link;           /* in `streams` */
    const struct peer_ops *ops; /* NULL: the peer has left */
    void *ctx;
    struct endpoint peer_at;
    struct pipe up, down; /* to the gateway, to the peer */
    int fd;               /* the gateway's; -1: none (any more) */
    uint32_t refs;        /* events on their way, the peer, the gateway */
    bool broken, silent, peer_paused;
    struct op *recv_op, *send_op, *connect_op; /* that wait */
    struct iovec iov[SEND_PIECES_MAX];         /* of send_op */
    size_t iov_count;
    struct mark marks[MARKS_MAX];
    uint32_t mark_count;
    uint32_t latency_us, segment_max, window;
};

enum socket_kind { SOCKET_FREE, SOCKET_FRESH, SOCKET_LISTENER, SOCKET_STREAM };

static struct socket {
    enum socket_kind kind;
    struct endpoint at;
    struct stream *s;
    struct op *accept_op;
    struct stream *backlog[CLIENTS_MAX];
    size_t backlog_count;
} sockets[SOCKETS_MAX];
static struct list streams;

static struct socket *socket_of(int fd)
{
    must(sim_is_socket(fd) && fd - SIM_FD_FIRST < SOCKETS_MAX);
    return &sockets[fd - SIM_FD_FIRST];
}

/* ---- streams ---- */

static struct stream *stream_new(const struct peer_ops *ops, void *ctx)
{
    static const uint32_t latencies_us[] = {20, 200, 2000, 40000};
    static const uint32_t segments[] = {40, 536, 1460, 65536};
    static const uint32_t windows[] = {2048, 16384, 131072};
    struct stream *s = calloc(1, sizeof *s);
    must(s != NULL);
    s->ops = ops;
    s->ctx = ctx;
    s->fd = -1;
    s->refs = 1;
    s->latency_us = latencies_us[chance_below(COUNT_OF(latencies_us))];
    s->segment_max = segments[chance_below(COUNT_OF(segments))];
    s->window = windows[chance_below(COUNT_OF(windows))];
    list_push_back(&streams, &s->link);
    return s;
}

static void stream_free(struct stream *s)
{
    list_remove(&s->link);
    gbuf_free(&s->up.bytes);
    gbuf_free(&s->down.bytes);
    free(s);
}

static void unref(struct stream *s)
{
    if (--s->refs == 0)
        stream_free(s);
}

/* The peer's view ends. */
static void peer_hears_end(struct stream *s)
{
    const struct peer_ops *ops = s->ops;
    if (!ops)
        return;
    s->ops = NULL;
    ops->closed(s->ctx);
    unref(s);
}

static void peer_leaves(struct stream *s)
{
    if (!s->ops)
        return;
    s->ops = NULL;
    unref(s);
}

/* ---- bytes on the way ---- */

static void later(struct stream *s, uint64_t at_ns, event_fn *run, uint64_t arg)
{
    s->refs++;
    world_at(at_ns > W.now_ns ? at_ns - W.now_ns : 0, run, s, arg);
}

static uint64_t next_arrival(struct stream *s, struct pipe *p)
{
    uint64_t latency_ns = s->latency_us * SIM_US + chance_below(s->latency_us * SIM_US / 4 + 1);
    return p->last_ns = MAX(p->last_ns, W.now_ns + latency_ns);
}

static void pipe_put(struct stream *s, struct pipe *p, const void *bytes, size_t n, event_fn *arrived)
{
    gbuf_put(&p->bytes, bytes, n);
    must(!p->bytes.overflow);
    size_t segment = MAX((size_t)s->segment_max, n / SEGMENTS_MAX + 1);
    while (n > 0) {
        size_t part = 1 + (size_t)chance_below(MIN(n, segment));
        later(s, next_arrival(s, p), arrived, part);
        n -= part;
    }
}

static void pipe_take(struct pipe *p, size_t n)
{
    p->taken += n;
    if (p->taken < p->bytes.n && p->taken < COMPACT_BYTES)
        return;
    memmove(p->bytes.p, p->bytes.p + p->taken, p->bytes.n - p->taken);
    p->bytes.n -= p->taken;
    p->arrived -= p->taken;
    p->base += p->taken;
    p->taken = 0;
}

/* ---- the gateway reads ---- */

static void tell_marks(struct stream *s)
{
    uint32_t n = 0;
    while (n < s->mark_count && s->marks[n].at <= s->up.base + s->up.taken) {
        s->marks[n].taken(s->marks[n].arg);
        n++;
    }
    s->mark_count -= n;
    memmove(s->marks, s->marks + n, s->mark_count * sizeof s->marks[0]);
}

static void recv_ends(struct stream *s, int32_t res)
{
    struct op *op = s->recv_op;
    s->recv_op = NULL;
    sim_op_end(op, res, 0, false);
}

static void gateway_reads(struct stream *s)
{
    struct pipe *p = &s->up;
    while (s->recv_op && !s->broken && p->taken < p->arrived) {
        uint32_t flags;
        uint32_t n = sim_buffer_fill(p->bytes.p + p->taken, p->arrived - p->taken, &flags);
        if (n == 0) {
            recv_ends(s, -ENOBUFS);
            return;
        }
        pipe_take(p, n);
        bool more = !chance_ppm(20000); /* a kernel may end a multishot at any time */
        struct op *op = s->recv_op;
        if (!more)
            s->recv_op = NULL;
        sim_op_end(op, (int32_t)n, flags, more);
        tell_marks(s);
    }
    if (s->recv_op && s->broken)
        recv_ends(s, -ECONNRESET);
    else if (s->recv_op && p->fin_arrived && p->taken == p->arrived)
        recv_ends(s, 0);
}

static void up_arrived(void *ctx, uint64_t n)
{
    struct stream *s = ctx;
    if (s->fd >= 0 && !s->broken) {
        s->up.arrived += n;
        gateway_reads(s);
    } else if (s->ops && s->fd < 0) {
        peer_hears_end(s); /* nobody there: reset */
    }
    unref(s);
}

static void up_fin_arrived(void *ctx, uint64_t arg)
{
    struct stream *s = ctx;
    s->up.fin_arrived = true;
    if (s->fd >= 0)
        gateway_reads(s);
    unref(s);
}

/* ---- the gateway's connection breaks ---- */

static void send_ends(struct stream *s, int32_t res)
{
    struct op *op = s->send_op;
    s->send_op = NULL;
    sim_op_end(op, res, 0, false);
}

static void gateway_broken(struct stream *s)
{
    s->broken = true;
    if (s->recv_op)
        recv_ends(s, -ECONNRESET);
    if (s->send_op)
        send_ends(s, -ECONNRESET);
    if (s->connect_op) {
        sim_op_end(s->connect_op, -ECONNREFUSED, 0, false);
        s->connect_op = NULL;
    }
}

static void reset_arrived(void *ctx, uint64_t arg)
{
    struct stream *s = ctx;
    if (s->fd >= 0)
        gateway_broken(s);
    unref(s);
}

/* ---- the gateway writes ---- */

static void down_arrived(void *ctx, uint64_t n);

static void gateway_writes(struct stream *s)
{
    struct pipe *p = &s->down;
    size_t waiting = p->bytes.n - p->taken, room = s->window > waiting ? s->window - waiting : 0, total = 0;
    if (room == 0)
        return;
    if (chance_ppm(50000))
        room = 1 + chance_below(room);
    for (size_t i = 0; i < s->iov_count && total < room; i++) {
        size_t n = MIN(s->iov[i].iov_len, room - total);
        pipe_put(s, p, s->iov[i].iov_base, n, down_arrived);
        total += n;
    }
    send_ends(s, (int32_t)total);
}

static void peer_reads(struct stream *s)
{
    struct pipe *p = &s->down;
    if (s->peer_paused || !s->ops)
        return;
    s->refs++; /* the peer may leave in the call */
    size_t n = p->arrived - p->taken;
    if (n > 0) {
        s->ops->data(s->ctx, p->bytes.p + p->taken, n);
        pipe_take(p, n);
        if (s->send_op && s->fd >= 0)
            gateway_writes(s);
    }
    if (s->ops && p->fin_arrived)
        peer_hears_end(s);
    unref(s);
}

static void down_arrived(void *ctx, uint64_t n)
{
    struct stream *s = ctx;
    s->down.arrived += n;
    if (s->ops) {
        peer_reads(s);
    } else if (s->fd >= 0 && !s->broken) {
        later(s, W.now_ns + s->latency_us * SIM_US, reset_arrived, 0);
    }
    unref(s);
}

static void down_fin_arrived(void *ctx, uint64_t arg)
{
    struct stream *s = ctx;
    s->down.fin_arrived = true;
    peer_reads(s);
    unref(s);
}

static void send_fin_down(struct stream *s)
{
    if (s->down.fin_sent)
        return;
    s->down.fin_sent = true;
    later(s, next_arrival(s, &s->down), down_fin_arrived, 0);
}

/* ---- the peer's calls ---- */

static struct socket *listener_at(void)
{
    for (size_t i = 0; i < SOCKETS_MAX; i++)
        if (sockets[i].kind == SOCKET_LISTENER)
            return &sockets[i];
    return NULL;
}

static int socket_take(enum socket_kind kind)
{
    for (size_t i = 0; i < SOCKETS_MAX; i++)
        if (sockets[i].kind == SOCKET_FREE) {
            sockets[i] = (struct socket){.kind = kind};
            return SIM_FD_FIRST + (int)i;
        }
    must(!"more sockets than the simulation has");
    return -1;
}

static void accept_some(struct socket *listener)
{
    while (listener->accept_op && listener->backlog_count > 0) {
        struct stream *s = listener->backlog[0];
        memmove(listener->backlog, listener->backlog + 1, --listener->backlog_count * sizeof s);
        int fd = socket_take(SOCKET_STREAM);
        struct socket *k = socket_of(fd);
        k->s = s;
        k->at = listener->at;
        s->fd = fd; /* the backlog's reference is the socket's now */
        sim_op_end(listener->accept_op, fd, 0, true);
    }
}

static void dial_arrived(void *ctx, uint64_t arg)
{
    struct stream *s = ctx;
    struct socket *listener = listener_at();
    if (!s->ops) {
        unref(s);
    } else if (!listener || listener->backlog_count == COUNT_OF(listener->backlog)) {
        peer_hears_end(s);
        unref(s);
    } else {
        listener->backlog[listener->backlog_count++] = s;
        s->ops->connected(s->ctx, s);
        accept_some(listener);
    }
}

struct stream *stream_dial(const struct endpoint *from, const struct peer_ops *ops, void *ctx)
{
    struct stream *s = stream_new(ops, ctx);
    s->peer_at = *from;
    later(s, W.now_ns + s->latency_us * SIM_US, dial_arrived, 0);
    return s;
}

void stream_send(struct stream *s, const void *p, size_t n)
{
    if (s->ops && n > 0)
        pipe_put(s, &s->up, p, n, up_arrived);
}

void stream_mark(struct stream *s, void (*taken)(uint64_t arg), uint64_t arg)
{
    if (s->mark_count < MARKS_MAX) /* else it counts as never read: a check less, no false alarm */
        s->marks[s->mark_count++] = (struct mark){s->up.base + s->up.bytes.n, taken, arg};
}

void stream_pause(struct stream *s, bool paused)
{
    s->peer_paused = paused;
    peer_reads(s);
}

void stream_close(struct stream *s)
{
    if (!s->ops)
        return;
    later(s, next_arrival(s, &s->up), up_fin_arrived, 0);
    peer_leaves(s);
}

void stream_reset(struct stream *s)
{
    if (!s->ops)
        return;
    later(s, W.now_ns + s->latency_us * SIM_US, reset_arrived, 0);
    peer_leaves(s);
}

/* ---- the gateway's calls ---- */

void net_accept(int fd, struct op *op)
{
    struct socket *k = socket_of(fd);
    k->accept_op = op;
    accept_some(k);
}

static void connect_arrived(void *ctx, uint64_t arg)
{
    struct stream *s = ctx;
    if (s->connect_op && !s->broken) {
        sim_op_end(s->connect_op, 0, 0, false);
        s->connect_op = NULL;
        s->ops->connected(s->ctx, s);
    }
    unref(s);
}

void net_connect(int fd, struct op *op, const struct sockaddr *sa, socklen_t len)
{
    struct endpoint to;
    must(endpoint_from_sockaddr(sa, &to) == 0);
    const struct peer_ops *ops = NULL;
    void *ctx = NULL;
    err_t err = W.dead ? -ECONNREFUSED : servers_dialled(&to, &ops, &ctx);
    struct stream *s = stream_new(ops, ctx);
    s->peer_at = to;
    s->fd = fd;
    s->connect_op = op;
    struct socket *k = socket_of(fd);
    k->kind = SOCKET_STREAM;
    k->s = s;
    if (W.dead) {
        gateway_broken(s);
        return;
    }
    if (!err)
        s->refs++; /* one for the gateway, one for the peer */
    if (err != -ETIMEDOUT)
        later(s, W.now_ns + s->latency_us * SIM_US, err ? reset_arrived : connect_arrived, 0);
}

void net_recv(int fd, struct op *op)
{
    struct stream *s = socket_of(fd)->s;
    s->recv_op = op;
    gateway_reads(s);
}

void net_send(int fd, struct op *op, const struct iovec *iov, size_t count)
{
    struct stream *s = socket_of(fd)->s;
    s->send_op = op;
    must(count <= COUNT_OF(s->iov));
    memcpy(s->iov, iov, count * sizeof *iov); /* as the kernel does: only the bytes must stay */
    s->iov_count = count;
    if (s->broken)
        send_ends(s, -ECONNRESET);
    else
        gateway_writes(s);
}

/* The gateway's end goes: by close(), or with the process. */
static void gateway_leaves(struct stream *s, bool silent)
{
    if (s->silent)
        return;
    s->silent = silent;
    if (!silent && s->ops)
        send_fin_down(s);
}

void net_close(int fd)
{
    struct socket *k = socket_of(fd);
    must(k->kind != SOCKET_FREE && !k->accept_op);
    for (size_t i = 0; i < k->backlog_count; i++) {
        peer_hears_end(k->backlog[i]);
        unref(k->backlog[i]);
    }
    if (k->s) {
        must(!k->s->recv_op && !k->s->send_op && !k->s->connect_op);
        k->s->fd = -1;
        if (!k->s->broken)
            gateway_leaves(k->s, false);
        unref(k->s);
    }
    k->kind = SOCKET_FREE;
}

bool net_cancel(const struct op *op)
{
    for (size_t i = 0; i < SOCKETS_MAX; i++) {
        struct socket *k = &sockets[i];
        struct op **const waiting[] = {&k->accept_op, k->s ? &k->s->recv_op : NULL,
                                       k->s ? &k->s->send_op : NULL, k->s ? &k->s->connect_op : NULL};
        for (size_t w = 0; k->kind != SOCKET_FREE && w < COUNT_OF(waiting); w++)
            if (waiting[w] && *waiting[w] == op) {
                *waiting[w] = NULL;
                return true;
            }
    }
    return false;
}

/* Between two processes nobody listens: dials are refused by the machine itself. */
void net_crash(bool silent)
{
    for (size_t i = 0; i < SOCKETS_MAX; i++) {
        struct socket *k = &sockets[i];
        if (k->kind == SOCKET_LISTENER) {
            for (size_t b = 0; b < k->backlog_count; b++) {
                struct stream *s = k->backlog[b];
                if (!silent)
                    later(s, W.now_ns + s->latency_us * SIM_US, down_fin_arrived, 0);
                unref(s);
            }
            k->backlog_count = 0;
        }
        if (k->kind == SOCKET_STREAM && k->s) {
            gateway_leaves(k->s, silent);
            gateway_broken(k->s);
        }
    }
}

void net_begin(void)
{
    list_init(&streams);
    memset(sockets, 0, sizeof sockets);
}

void net_end(void)
{
    for (size_t i = 0; i < SOCKETS_MAX; i++)
        must(sockets[i].kind == SOCKET_FREE); /* a descriptor that leaked */
    LIST_EACH(&streams, k)
    stream_free(container_of(k, struct stream, link));
}

/* ---- what net/conn.c and net/listener.c ask the kernel beside the loop ---- */

int sim_socket(void)
{
    return socket_take(SOCKET_FRESH);
}

int sim_bind(int fd, const struct sockaddr *sa)
{
    must(endpoint_from_sockaddr(sa, &socket_of(fd)->at) == 0);
    return 0;
}

void sim_listen(int fd)
{
    socket_of(fd)->kind = SOCKET_LISTENER;
}

const struct endpoint *sim_socket_local(int fd)
{
    return &socket_of(fd)->at;
}

const struct endpoint *sim_socket_peer(int fd)
{
    const struct socket *k = socket_of(fd);
    return k->s && !k->s->broken ? &k->s->peer_at : NULL;
}

void sim_shutdown_write(int fd)
{
    struct stream *s = socket_of(fd)->s;
    if (s && !s->broken)
        send_fin_down(s);
}
