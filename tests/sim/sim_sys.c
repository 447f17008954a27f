/* tests/sim/sim_sys.c: what the product asks of the system beside its seams. The linker sends these calls
 * here
 * (--wrap, see tests/CMakeLists.txt). */
#include <errno.h>
#include <ifaddrs.h>
#include <pthread.h>
#include <unistd.h>

#include "core/log.h"
#include "core/log_priv.h"
#include "tests/sim/sim_net.h"

int __wrap_socket(int domain, int type, int protocol);
int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t n);
int __wrap_bind(int fd, const struct sockaddr *sa, socklen_t n);
int __wrap_listen(int fd, int backlog);
int __wrap_getsockname(int fd, struct sockaddr *sa, socklen_t *n);
int __wrap_getpeername(int fd, struct sockaddr *sa, socklen_t *n);
int __wrap_shutdown(int fd, int how);
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_getifaddrs(struct ifaddrs **out);
void __wrap_freeifaddrs(struct ifaddrs *all);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_tryjoin_np(pthread_t thread, void **result);
void __wrap_log_emit(enum log_event event, const struct log_field *fields, size_t count);

/* ---- sockets ---- */

int __wrap_socket(int domain, int type, int protocol)
{
    return sim_socket();
}

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t n)
{
    return 0;
}

int __wrap_bind(int fd, const struct sockaddr *sa, socklen_t n)
{
    return sim_bind(fd, sa);
}

int __wrap_listen(int fd, int backlog)
{
    sim_listen(fd);
    return 0;
}

static int tell(const struct endpoint *e, struct sockaddr *sa, socklen_t *n)
{
    if (!e) {
        errno = ENOTCONN;
        return -1;
    }
    struct sockaddr_storage s;
    socklen_t len = endpoint_to_sockaddr(e, &s);
    memcpy(sa, &s, MIN(len, *n));
    *n = len;
    return 0;
}

int __wrap_getsockname(int fd, struct sockaddr *sa, socklen_t *n)
{
    return tell(sim_socket_local(fd), sa, n);
}

int __wrap_getpeername(int fd, struct sockaddr *sa, socklen_t *n)
{
    return tell(sim_socket_peer(fd), sa, n);
}

int __wrap_shutdown(int fd, int how)
{
    sim_shutdown_write(fd);
    return 0;
}

int __wrap_close(int fd)
{
    if (!sim_is_socket(fd))
        return __real_close(fd);
    net_close(fd);
    return 0;
}

/* This machine's addresses are not part of the world. */
int __wrap_getifaddrs(struct ifaddrs **out)
{
    *out = NULL;
    return 0;
}

void __wrap_freeifaddrs(struct ifaddrs *all)
{
}

/* ---- threads: run in the call that makes them ---- */

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    *out = pthread_self();
    (void)run(arg);
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
    return 0;
}

int __wrap_pthread_tryjoin_np(pthread_t thread, void **result)
{
    return 0;
}

/* ---- the log is part of the history ---- */

void __wrap_log_emit(enum log_event event, const struct log_field *fields, size_t count)
{
    char text[LOG_LINE_BYTES_MAX];
    size_t n = log_line(LOG_LOGFMT, 0, log_event_level(event), log_event_name(event), fields, count, text);
    const char *from = memmem(text, n, "event=", 6);
    n = n > 0 && text[n - 1] == '\n' ? n - 1 : n;
    from = from ? from : text;
    trace("%s%.*s", W.dead ? "(dead) " : "", (int)(n - (size_t)(from - text)), from);
    if (event == EV_queue_damage && !W.dead)
        ledger_damage();
    if (event == EV_internal)
        violation("an internal error was logged");
}
