/* admin/listen.c: the two doors of the admin API. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/admin_priv.h"

#define SOCKET_MODE 0660 /* owner and group administrate */

static err_t fail(struct sbuf *error, const char *key, str_t what, const char *why, err_t err)
{
    sbuf_printf(error, "%s " STR_FMT ": %s", key, STR_ARG(what), why);
    return err;
}

err_t listen_tcp(const struct endpoint *at, int *fd, struct sbuf *error)
{
    char text[64];
    struct sbuf name = SBUF_ON(text);
    struct sockaddr_storage sa;
    socklen_t n = endpoint_to_sockaddr(at, &sa);
    int on = 1;

    endpoint_format(at, &name);
    int s = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s < 0 || setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(s, (const struct sockaddr *)&sa, n) < 0 || listen(s, LISTEN_BACKLOG) < 0) {
        err_t err = -errno;
        if (s >= 0)
            close(s);
        return fail(error, "admin.listen", sbuf_view(&name),
                    err == -EADDRINUSE ? "another server listens there (see ss -ltnp)" : strerror(-err), err);
    }
    *fd = s;
    return 0;
}

/* Removes a socket file that was left behind. A file of another kind, or a socket with somebody behind it, is
 * an error. */
static err_t make_room(const struct sockaddr_un *sa, str_t path, struct sbuf *error)
{
    struct stat st;
    if (lstat(sa->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : fail(error, "admin.socket", path, strerror(errno), -errno);
    if (!S_ISSOCK(st.st_mode))
        return fail(error, "admin.socket", path, "there is a file of that name that is not a socket",
                    -EEXIST);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s < 0)
        return fail(error, "admin.socket", path, strerror(errno), -errno);
    int rc = connect(s, (const struct sockaddr *)sa, sizeof *sa);
    err_t err = rc < 0 ? -errno : 0;
    close(s);
    if (rc == 0 || err == -EAGAIN)
        return fail(error, "admin.socket", path,
                    "another process answers there; is posternd running already?", -EADDRINUSE);
    if (err != -ECONNREFUSED)
        return fail(error, "admin.socket", path, strerror(-err), err);
    if (unlink(sa->sun_path) < 0 && errno != ENOENT)
        return fail(error, "admin.socket", path, strerror(errno), -errno);
    return 0;
}

static err_t bind_here(int s, const struct sockaddr_un *sa, struct unix_door *door)
{
    struct stat st;
    /* Nobody can connect between bind and listen, so the mode is right before the first does. */
    if (bind(s, (const struct sockaddr *)sa, sizeof *sa) < 0 || chmod(sa->sun_path, SOCKET_MODE) < 0 ||
        lstat(sa->sun_path, &st) < 0 || listen(s, LISTEN_BACKLOG) < 0)
        return -errno;
    door->device = st.st_dev;
    door->inode = st.st_ino;
    memcpy(door->path, sa->sun_path, sizeof door->path);
    return 0;
}

err_t listen_unix(str_t path, struct unix_door *door, int *fd, struct sbuf *error)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (path.n >= sizeof sa.sun_path || memchr(path.p, '\0', path.n))
        return fail(error, "admin.socket", path, "the path of a socket may have 107 characters at most",
                    -ENAMETOOLONG);
    memcpy(sa.sun_path, path.p, path.n);
    err_t err = make_room(&sa, path, error);
    if (err)
        return err;
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    err = s < 0 ? -errno : bind_here(s, &sa, door);
    if (err) {
        if (s >= 0)
            close(s);
        return fail(error, "admin.socket", path,
                    err == -ENOENT ? "its directory does not exist" : strerror(-err), err);
    }
    *fd = s;
    return 0;
}

void listen_unix_remove(const struct unix_door *door)
{
    struct stat st;
    if (door->path[0] && lstat(door->path, &st) == 0 && st.st_dev == door->device && st.st_ino == door->inode)
        unlink(door->path);
}
