/* bench/sink/maildir.c: keeps messages in a Maildir, byte for byte as they came over the wire, without
 * dot-stuffing. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/sink/sink_priv.h"
#include "core/clock.h"

struct kept_message {
    FILE *file;
    char tmp[1024], final[1024];
    int line_at; /* 0 = at a line's start, 1 = CR seen, 2 = inside a line */
    bool failed;
};

err_t keep_prepare(const char *maildir)
{
    static const char *const parts[] = {"", "/tmp", "/new", "/cur"};
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s%s", maildir, parts[i]);
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return -errno;
    }
    return 0;
}

struct kept_message *keep_begin(const char *maildir, unsigned thread_index, str_t envelope)
{
    static _Atomic unsigned serial;
    struct kept_message *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    char name[128];
    snprintf(name, sizeof name, "%llu.%u_%u_%u.sink", (unsigned long long)(clock_wall_ns() / NS_PER_MS),
             (unsigned)getpid(), thread_index, ++serial);
    snprintf(k->tmp, sizeof k->tmp, "%s/tmp/%s", maildir, name);
    snprintf(k->final, sizeof k->final, "%s/new/%s", maildir, name);
    k->file = fopen(k->tmp, "wb");
    if (!k->file) {
        free(k);
        return NULL;
    }
    fwrite(envelope.p, 1, envelope.n, k->file);
    return k;
}

void keep_content(struct kept_message *k, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (k->line_at == 0 && p[i] == '.') {
            k->line_at = 2; /* the stuffed dot */
            continue;
        }
        putc(p[i], k->file);
        k->line_at = p[i] == '\r' ? 1 : p[i] == '\n' && k->line_at == 1 ? 0 : 2;
    }
}

err_t keep_end(struct kept_message *k)
{
    bool bad = ferror(k->file);
    bad = fclose(k->file) != 0 || bad;
    err_t err = bad ? -EIO : rename(k->tmp, k->final) < 0 ? -errno : 0;
    if (err)
        (void)unlink(k->tmp);
    free(k);
    return err;
}

void keep_abort(struct kept_message *k)
{
    if (!k)
        return;
    fclose(k->file);
    (void)unlink(k->tmp);
    free(k);
}
