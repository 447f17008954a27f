/* daemon/ports.c: see ports.h. */
#include "daemon/ports.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "net/listener.h"

#define PASSED_FIRST    3 /* SD_LISTEN_FDS_START */
#define PASSED_MAX      64
#define PORT_WAIT_COUNT 100
#define PORT_WAIT_MS    20

void ports_explain(const struct endpoint *at, err_t err, struct gbuf *notes)
{
    char text[64];
    struct sbuf b = SBUF_ON(text);
    endpoint_format(at, &b);
    gbuf_printf(notes, "cannot listen on " STR_FMT ": %s%s\n", STR_ARG(sbuf_view(&b)), err_text(err),
                err == -EADDRINUSE      ? "; another server is there (see ss -ltnp)"
                : err == -EADDRNOTAVAIL ? "; this machine has no such address"
                : err == -EACCES        ? "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
                                        : "");
}

static int *slot(const struct ports *p, size_t worker, size_t listener)
{
    must(worker < p->worker_count && listener < p->listener_count);
    return &p->fds[worker * p->listener_count + listener];
}

int ports_take(struct ports *p, size_t worker, size_t listener)
{
    int fd = *slot(p, worker, listener);
    *slot(p, worker, listener) = -1;
    return fd;
}

void ports_close(struct ports *p)
{
    for (size_t i = 0; p->fds && i < p->worker_count * p->listener_count; i++)
        if (p->fds[i] >= 0)
            close(p->fds[i]);
    free(p->fds);
    *p = (struct ports){0};
}

static err_t endpoint_of(int fd, struct endpoint *at)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
        return -errno;
    return endpoint_from_sockaddr((struct sockaddr *)&sa, at);
}

/* ---- passed by systemd ---- */

static unsigned passed_count(void)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    if (!pid || !count || strtol(pid, NULL, 10) != (long)getpid())
        return 0;
    long n = strtol(count, NULL, 10);
    (void)unsetenv("LISTEN_PID");
    (void)unsetenv("LISTEN_FDS");
    (void)unsetenv("LISTEN_FDNAMES");
    return n > 0 ? (unsigned)MIN(n, PASSED_MAX) : 0;
}

/* Every worker waits at the same socket. */
static err_t share(struct ports *p, size_t listener, int fd)
{
    if (*slot(p, 0, listener) >= 0)
        return -EEXIST;
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        return -errno;
    for (size_t w = 0; w < p->worker_count; w++) {
        int mine = fcntl(fd, F_DUPFD_CLOEXEC, PASSED_FIRST);
        if (mine < 0)
            return -errno;
        *slot(p, w, listener) = mine;
    }
    return 0;
}

static err_t refuse_passed(int fd, const struct endpoint *at, err_t err, struct gbuf *notes)
{
    char text[64];
    struct sbuf b = SBUF_ON(text);
    if (at)
        endpoint_format(at, &b);
    else
        sbuf_printf(&b, "number %d", fd);
    gbuf_printf(notes, "systemd passed a socket (" STR_FMT ") %s\n", STR_ARG(sbuf_view(&b)),
                err == ERR_NOT_FOUND
                    ? "that is none of `listeners`; write the same address there as in ListenStream=, with "
                      "its port (and BindIPv6Only=ipv6-only for [::])"
                : err == -EEXIST ? "twice; write each ListenStream= once"
                                 : "that cannot be listened on: it must be TCP (ListenStream=)");
    return err;
}

static err_t take_passed(struct ports *p, const struct config *c, int fd, struct gbuf *notes)
{
    struct endpoint at;
    int type = 0;
    socklen_t len = sizeof type;
    err_t err = endpoint_of(fd, &at);
    if (!err && (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM))
        err = ERR_UNSUPPORTED;
    if (err)
        return refuse_passed(fd, NULL, err, notes);
    err = ERR_NOT_FOUND;
    for (size_t i = 0; i < c->listener_count && err == ERR_NOT_FOUND; i++)
        if (c->listeners[i].at.port == at.port && ip_eq(&c->listeners[i].at.ip, &at.ip))
            err = share(p, i, fd);
    return err ? refuse_passed(fd, &at, err, notes) : 0;
}

/* ---- bound here ---- */

/* io_uring keeps the sockets of a process that was killed open for some milliseconds longer than the process.
 */
static err_t await_port(const struct endpoint *at)
{
    const struct timespec pause = {.tv_nsec = PORT_WAIT_MS * (long)NS_PER_MS};
    err_t err;
    for (unsigned n = 0; (err = listener_check(at)) == -EADDRINUSE && n < PORT_WAIT_COUNT; n++)
        nanosleep(&pause, NULL);
    return err;
}

static err_t bind_all(struct ports *p, size_t listener, const struct endpoint *at)
{
    struct endpoint one = *at;
    err_t err = await_port(at);
    for (size_t w = 0; !err && w < p->worker_count; w++) {
        err = listener_bind(slot(p, w, listener), &one);
        if (!err && w == 0) /* port 0: the others share the one that came of it */
            err = endpoint_of(*slot(p, 0, listener), &one);
    }
    return err;
}

err_t ports_open(struct ports *p, const struct config *c, unsigned worker_count, struct gbuf *notes)
{
    *p = (struct ports){.worker_count = worker_count, .listener_count = c->listener_count};
    p->fds = malloc(worker_count * c->listener_count * sizeof *p->fds);
    if (!p->fds)
        return -ENOMEM;
    for (size_t i = 0; i < worker_count * c->listener_count; i++)
        p->fds[i] = -1;
    unsigned passed = passed_count();
    for (unsigned i = 0; i < passed; i++) {
        err_t err = take_passed(p, c, PASSED_FIRST + (int)i, notes);
        if (err)
            return err;
        close(PASSED_FIRST + (int)i);
    }
    for (size_t i = 0; i < c->listener_count; i++) {
        err_t err = *slot(p, 0, i) < 0 ? bind_all(p, i, &c->listeners[i].at) : 0;
        if (err) {
            ports_explain(&c->listeners[i].at, err, notes);
            return err;
        }
    }
    return 0;
}
