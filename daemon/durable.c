/* daemon/durable.c: see durable.h. */
#include "daemon/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "queue/fsio.h"

static err_t write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t wrote = write(fd, p, n);
        if (wrote < 0 && errno != EINTR)
            return -errno;
        if (wrote > 0) {
            p += wrote;
            n -= (size_t)wrote;
        }
    }
    return fsync(fd) ? -errno : 0;
}

err_t durable_write_json(const char *path, json_t *content)
{
    char fresh[PATH_MAX];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    char *text = content ? json_dumps(content, JSON_INDENT(2)) : NULL;
    json_decref(content);
    if (!text)
        return -ENOMEM;
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    err_t err = fd < 0 ? -errno : write_all(fd, text, strlen(text));
    if (fd >= 0)
        close(fd);
    if (!err)
        err = fsio_rename(fresh, path);
    free(text);
    return err;
}
