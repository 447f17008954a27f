/* net/listener.c: see listener.h. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "core/log.h"
#include "net/listener.h"

#define BACKLOG         4096
#define TURNED_AWAY_MAX 64  /* in one turn, for want of descriptors */
#define RETRY_MS        100 /* after a failed accept: time for sessions to end and give descriptors back */
/* Not sent yet and still taken from us: what a client does not read shows here, not as megabytes of the
 * kernel's. */
#define NOTSENT_BYTES (16 << 10)

struct listener {
    struct endpoint at;
    int fd;    /* owned */
    int spare; /* owned: a descriptor to give up for a moment when there are no others; -1: not now */
    bool started, paused, closing;
    bool any;       /* a wildcard address: the local one differs per connection */
    bool exhausted; /* an episode without descriptors, logged once */
    struct loop *loop;
    struct op accept;
    struct timer retry;
    struct tick_hook closed;
    const struct listener_ops *ops;
    void *ctx; /* the owner's */
};

/* ---- opening ---- */

static err_t set_option(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) ? -errno : 0;
}

static err_t set_address_options(int fd, int family)
{
    err_t err = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (!err && family == AF_INET6)
        err = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    return err;
}

static err_t set_options(int fd, int family)
{
    err_t err = set_address_options(fd, family);
    if (!err)
        err = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (!err) /* accepted sockets inherit both: no syscall for each */
        err = set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (!err)
        err = set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_BYTES);
    return err;
}

err_t listener_check(const struct endpoint *at)
{
    struct sockaddr_storage sa;
    socklen_t len = endpoint_to_sockaddr(at, &sa);
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    err_t err = set_address_options(fd, sa.ss_family);
    if (!err && bind(fd, (const struct sockaddr *)&sa, len))
        err = -errno;
    close(fd);
    return err;
}

err_t listener_bind(int *out, const struct endpoint *at)
{
    struct sockaddr_storage sa;
    socklen_t len = endpoint_to_sockaddr(at, &sa);
    *out = -1;
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    err_t err = set_options(fd, sa.ss_family);
    if (!err && bind(fd, (const struct sockaddr *)&sa, len))
        err = -errno;
    if (err) {
        close(fd);
        return err;
    }
    *out = fd;
    return 0;
}

static err_t listen_on(struct listener *ln)
{
    struct sockaddr_storage bound;
    socklen_t bound_len = sizeof bound;
    if (listen(ln->fd, BACKLOG) || getsockname(ln->fd, (struct sockaddr *)&bound, &bound_len))
        return -errno;
    err_t err = endpoint_from_sockaddr((struct sockaddr *)&bound, &ln->at);
    ln->any = ip_is_any(&ln->at.ip);
    return err;
}

err_t listener_adopt(struct listener **out, int fd)
{
    struct listener *ln = calloc(1, sizeof *ln);
    err_t err = -ENOMEM;
    *out = NULL;
    if (ln) {
        ln->fd = fd;
        ln->spare = -1;
        err = listen_on(ln);
    }
    if (err) {
        free(ln);
        close(fd);
        return err;
    }
    *out = ln;
    return 0;
}

err_t listener_open(struct listener **out, const struct endpoint *at)
{
    int fd;
    *out = NULL;
    err_t err = listener_bind(&fd, at);
    return err ? err : listener_adopt(out, fd);
}

const struct endpoint *listener_endpoint(const struct listener *ln)
{
    return &ln->at;
}

/* ---- accepting ---- */

static void arm(struct listener *ln)
{
    if (!ln->paused && !ln->closing && ln->accept.inflight == 0 && !timer_armed(&ln->retry))
        op_accept_multishot(ln->loop, &ln->accept, ln->fd);
}

static void retry(struct timer *t)
{
    arm(container_of(t, struct listener, retry));
}

static void accept_one(struct listener *ln, int fd)
{
    struct sockaddr_storage sa;
    struct endpoint peer, local = ln->at;
    socklen_t len = sizeof sa;
    bool ok = getpeername(fd, (struct sockaddr *)&sa, &len) == 0 &&
              endpoint_from_sockaddr((struct sockaddr *)&sa, &peer) == 0;
    if (ok && ln->any) {
        len = sizeof sa;
        ok = getsockname(fd, (struct sockaddr *)&sa, &len) == 0 &&
             endpoint_from_sockaddr((struct sockaddr *)&sa, &local) == 0;
    }
    if (ok)
        ln->ops->accepted(ln->ctx, fd, &peer, &local);
    else
        close(fd); /* gone already: ENOTCONN */
}

void listener_turn_away(int fd, str_t words)
{
    if (words.n)
        (void)send(fd, words.p, words.n, MSG_DONTWAIT | MSG_NOSIGNAL);
    close(fd);
}

static void take_spare(struct listener *ln)
{
    if (ln->spare < 0 && ln->ops->no_files)
        ln->spare = fcntl(ln->fd, F_DUPFD_CLOEXEC, 0);
}

static void drop_spare(struct listener *ln)
{
    if (ln->spare >= 0)
        close(ln->spare);
    ln->spare = -1;
}

/* False: nobody waits, or somebody else was quicker to take what we gave up. */
static bool turn_away(struct listener *ln)
{
    unsigned count = 0;
    if (ln->spare < 0)
        return false;
    drop_spare(ln);
    for (; count < TURNED_AWAY_MAX; count++) {
        int fd = accept4(ln->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            break;
        ln->ops->no_files(ln->ctx, fd);
    }
    take_spare(ln);
    return count > 0;
}

static void say_exhausted(struct listener *ln, const char *text, err_t err)
{
    if (!ln->exhausted)
        LOG(internal, LF_CSTR("text", text), LF_ERR("err", err));
    ln->exhausted = true;
}

static void accept_failed(struct listener *ln, err_t err)
{
    switch (err) {
    case -ECANCELED: /* paused */
    case -ECONNABORTED:
    case -EPROTO:
    case -EINTR:
    case -EAGAIN: return; /* this connection is lost, the next may be fine */
    case -EMFILE:
    case -ENFILE:
        say_exhausted(ln, "out of file descriptors, clients get 421 or wait; raise LimitNOFILE=", err);
        if (turn_away(ln))
            return; /* there may be more of them */
        break;
    case -ENOMEM:
    case -ENOBUFS:
        say_exhausted(ln, "the kernel has no memory for another connection, accepting pauses", err);
        break;
    default: break; /* something that must not turn into a busy loop */
    }
    timer_arm(ln->loop, &ln->retry, RETRY_MS);
}

static void finish_close(struct listener *ln)
{
    drop_spare(ln);
    close(ln->fd);
    timer_disarm(ln->loop, &ln->retry);
    list_remove(&ln->closed.link);
    ln->ops->closed(ln->ctx, ln);
    free(ln);
}

static void accepted(struct op *op, int32_t res, uint32_t cqe_flags, bool more)
{
    struct listener *ln = container_of(op, struct listener, accept);
    if (ln->closing) {
        if (res >= 0)
            close(res);
        if (!more)
            finish_close(ln);
        return;
    }
    if (res >= 0) {
        ln->exhausted = false;
        take_spare(ln);
        accept_one(ln, res);
    } else {
        accept_failed(ln, res);
    }
    arm(ln); /* listener_close() in the callback is fine: it frees later */
}

static void closed_later(struct tick_hook *h)
{
    finish_close(container_of(h, struct listener, closed));
}

void listener_start(struct listener *ln, struct loop *l, const struct listener_ops *ops, void *ctx)
{
    must(!ln->started);
    ln->started = true;
    ln->loop = l;
    ln->ops = ops;
    ln->ctx = ctx;
    ln->accept.done = accepted;
    ln->retry.fire = retry;
    ln->closed.run = closed_later;
    take_spare(ln);
    arm(ln);
}

void listener_pause(struct listener *ln)
{
    must(ln->started);
    ln->paused = true;
    op_cancel(ln->loop, &ln->accept);
}

void listener_resume(struct listener *ln)
{
    must(ln->started);
    ln->paused = false;
    arm(ln); /* while the cancel of listener_pause() is on its way, its completion arms */
}

void listener_close(struct listener *ln)
{
    if (!ln->started) {
        close(ln->fd);
        free(ln);
        return;
    }
    if (ln->closing)
        return;
    ln->closing = true;
    if (ln->accept.inflight > 0)
        op_cancel(ln->loop, &ln->accept);
    else
        loop_at_tick_end(ln->loop, &ln->closed);
}
