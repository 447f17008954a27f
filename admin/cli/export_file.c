/* admin/cli/export_file.c: see export_file.h. */
#include "admin/cli/export_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/clock.h"

static bool write_all(struct export_file *x, str_t s)
{
    while (s.n > 0) {
        ssize_t n = write(x->fd, s.p, s.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            fprintf(stderr, "postern: cannot write: %s\n", strerror(errno));
            return false;
        }
        s = str_sub(s, (size_t)n, s.n);
    }
    return true;
}

/* What is not a file, a pipe say, cannot be synced: then that is up to its reader. */
static bool make_durable(struct export_file *x)
{
    if (fsync(x->fd) == 0 || errno == EINVAL || errno == EROFS)
        return true;
    fprintf(stderr, "postern: cannot write: %s\n", strerror(errno));
    return false;
}

static bool put_open(struct export_file *x)
{
    uint8_t random[TRANSFER_NONCE_CHARS / 2];
    char date[40], host[256] = "";
    struct gbuf b = {0};
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return false;
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(x->nonce + 2 * i, 3, "%02x", random[i]);
    size_t n = clock_rfc3339(clock_wall_ns(), date);
    (void)gethostname(host, sizeof host - 1);
    json_t *about =
        json_pack("{s:s, s:s%, s:s}", "host", host, "date", date, n, "by", "postern " POSTERN_VERSION);
    char *text = about ? json_dumps(about, JSON_COMPACT) : NULL;
    transfer_put_open(&b, x->nonce, text ? str_cstr(text) : STR("{}"));
    bool ok = write_all(x, gbuf_view(&b));
    free(text);
    json_decref(about);
    gbuf_free(&b);
    return ok;
}

bool export_file_create(struct export_file *x, const char *name)
{
    bool to_file = name && strcmp(name, "-") != 0;
    x->fd = to_file ? open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : STDOUT_FILENO;
    if (x->fd < 0)
        fprintf(stderr, "postern: %s: %s\n", name, strerror(errno));
    return x->fd >= 0 && put_open(x);
}

err_t export_file_put(struct export_file *x, str_t record)
{
    struct gbuf b = {.max = TRANSFER_JSON_MAX + TRANSFER_DATA_MAX + 256};
    err_t err = transfer_put_record(&b, x->nonce, record);
    if (err == -ENOMEM)
        fputs("postern: out of memory\n", stderr);
    if (!err && !write_all(x, gbuf_view(&b)))
        err = -EIO;
    gbuf_free(&b);
    return err;
}

bool export_file_mark(struct export_file *x, enum transfer_item item, uint64_t count)
{
    struct gbuf b = {0};
    transfer_put_mark(&b, x->nonce, item, count);
    bool ok = write_all(x, gbuf_view(&b)) && make_durable(x);
    gbuf_free(&b);
    return ok;
}

bool export_file_close(struct export_file *x)
{
    if (x->fd < 0 || x->fd == STDOUT_FILENO)
        return true;
    bool ok = close(x->fd) == 0;
    x->fd = -1;
    return ok;
}
