/* admin/admin.c: opens the doors and closes them again. */
#include "admin/admin.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin/admin_priv.h"

#define CONNECTIONS_MAX 32 /* a scraper, a console and a few people; each may cost MEMORY_BYTES */
#define MEMORY_BYTES    ((size_t)32 << 10) /* request line and headers; MHD answers 431 or 414 past it */

/* --- who is inside ---
 *
 * Each connection has a thread of its own, which may wait long for the workers. The idle time-out does not
 * end a client that sends a byte now and then; when all places are taken the one that is there longest has to
 * go, so that nobody can keep the next one out. */

static void visitor_came(struct door *door, struct MHD_Connection *c, void **state)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct visitor *v = info ? calloc(1, sizeof *v) : NULL;
    if (!v)
        return; /* not known, so never asked to go */
    v->fd = info->connect_fd;
    *state = v;
    pthread_mutex_lock(&door->lock);
    list_push_back(&door->visitors, &v->link);
    if (++door->visitor_count > CONNECTIONS_MAX) {
        struct visitor *first = container_of(list_pop_front(&door->visitors), struct visitor, link);
        door->visitor_count--;
        (void)shutdown(first->fd, SHUT_RDWR); /* its thread needs a moment to see it */
    }
    pthread_mutex_unlock(&door->lock);
}

static void visitor_left(struct door *door, void **state)
{
    struct visitor *v = *state;
    if (!v)
        return;
    pthread_mutex_lock(&door->lock);
    if (link_in_list(&v->link)) {
        list_remove(&v->link);
        door->visitor_count--;
    }
    pthread_mutex_unlock(&door->lock);
    if (v->lease)
        door->admin->backend.lease_end(door->admin->backend.ctx, v->lease);
    free(v);
    *state = NULL;
}

static void connection_changed(void *cls, struct MHD_Connection *c, void **state,
                               enum MHD_ConnectionNotificationCode what)
{
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        visitor_came(cls, c, state);
    else
        visitor_left(cls, state);
}

/* --- doors --- */

static err_t serve(struct door *door, int fd, struct sbuf *error)
{
    /* poll: select() cannot watch descriptors above 1023, of which a busy gateway has many. */
    const unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL;
    door->http = MHD_start_daemon(
        flags, 0, NULL, NULL, http_request, door, MHD_OPTION_LISTEN_SOCKET, (MHD_socket)fd,
        MHD_OPTION_CONNECTION_LIMIT, 4u * CONNECTIONS_MAX, MHD_OPTION_NOTIFY_CONNECTION, connection_changed,
        door, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_BYTES,
        MHD_OPTION_NOTIFY_COMPLETED, http_completed, NULL, MHD_OPTION_END);
    if (door->http)
        return 0; /* which owns the socket from here on */
    close(fd);
    sbuf_cstr(error, "admin: the HTTP server does not start");
    return -ENOMEM;
}

static err_t open_tcp(struct admin *a, const struct endpoint *at, struct sbuf *error)
{
    struct sockaddr_storage sa;
    socklen_t n = sizeof sa;
    struct endpoint bound;
    int fd;
    err_t err = listen_tcp(at, &fd, error);
    if (err)
        return err;
    if (getsockname(fd, (struct sockaddr *)&sa, &n) == 0 &&
        !endpoint_from_sockaddr((struct sockaddr *)&sa, &bound))
        a->port = bound.port;
    return serve(&a->tcp, fd, error);
}

static err_t open_local(struct admin *a, str_t path, struct sbuf *error)
{
    int fd;
    err_t err = listen_unix(path, &a->unix_door, &fd, error);
    return err ? err : serve(&a->local, fd, error);
}

err_t admin_start(struct admin **out, const struct config *c, const struct admin_backend *backend,
                  struct sbuf *error)
{
    *out = NULL;
    struct admin *a = calloc(1, sizeof *a);
    if (!a) {
        sbuf_cstr(error, "out of memory");
        return -ENOMEM;
    }
    a->backend = *backend;
    a->tcp = (struct door){.admin = a};
    a->local = (struct door){.admin = a, .is_local = true};
    struct door *const doors[] = {&a->tcp, &a->local};
    for (size_t i = 0; i < COUNT_OF(doors); i++) {
        pthread_mutex_init(&doors[i]->lock, NULL);
        list_init(&doors[i]->visitors);
    }

    err_t err = c->admin.socket.n ? open_local(a, c->admin.socket, error) : 0;
    if (!err && c->admin.has_listen)
        err = open_tcp(a, &c->admin.listen, error);
    if (err) {
        admin_stop(a);
        return err;
    }
    *out = a;
    return 0;
}

void admin_stop(struct admin *a)
{
    if (!a)
        return;
    if (a->tcp.http)
        MHD_stop_daemon(a->tcp.http);
    listen_unix_remove(&a->unix_door); /* while we still listen: nobody takes it for one left behind */
    if (a->local.http)
        MHD_stop_daemon(a->local.http);
    pthread_mutex_destroy(&a->tcp.lock);
    pthread_mutex_destroy(&a->local.lock);
    free(a);
}

uint16_t admin_port(const struct admin *a)
{
    return a->port;
}
