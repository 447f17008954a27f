/* daemon/confine.c: see confine.h. */
#include "daemon/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATHS_BYTES_MAX ((size_t)64 << 20) /* no more than the configuration that they stand in */

/* What libraries read: names, time, CA certificates and DNSSEC's root key, themselves, and the machine's
 * cores. Nobody's secrets. */
static const struct file_rule system_rules[] = {
    {"/etc/hosts", FILE_READ, false},
    {"/etc/resolv.conf", FILE_READ, false},
    {"/etc/nsswitch.conf", FILE_READ, false},
    {"/etc/localtime", FILE_READ, false},
    {"/etc/ssl", FILE_READ, false},
    {"/usr/share/ca-certificates", FILE_READ, false},
    {"/usr/local/share/ca-certificates", FILE_READ, false},
    {"/usr/share/dns", FILE_READ, false},
    {"/usr/share/zoneinfo", FILE_READ, false},
    {"/usr/lib", FILE_READ, false},
    {"/lib64", FILE_READ, false},
    {"/dev/null", FILE_READ, false},
    {"/dev/urandom", FILE_READ, false},
    {"/proc/self", FILE_READ, false},
    {"/proc/sys/vm", FILE_READ, false},
    {"/sys/devices/system", FILE_READ, false},
};

err_t confine_choose(struct confine *f, const struct config *c, struct gbuf *notes)
{
    arena_init(&f->paths, PATHS_BYTES_MAX);
    return user_choose(&f->user, c->user, notes);
}

static err_t add(struct confine *f, str_t path, enum file_use use, bool is_parent)
{
    if (!path.n)
        return 0;
    if (f->rule_count == f->rule_cap) {
        size_t cap = f->rule_cap ? f->rule_cap * 2 : 64;
        struct file_rule *p = reallocarray(f->rules, cap, sizeof *p);
        if (!p)
            return -ENOMEM;
        f->rules = p;
        f->rule_cap = cap;
    }
    char *copy = arena_alloc(&f->paths, path.n + 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, path.p, path.n);
    copy[path.n] = '\0';
    f->rules[f->rule_count++] = (struct file_rule){copy, use, is_parent};
    return 0;
}

/* Called with every file that a configuration names to be read. */
typedef err_t each_fn(void *ctx, str_t path, struct mark at);

static err_t each_of_route(const struct cfg_route *r, each_fn *each, void *ctx)
{
    const str_t paths[] = {r->tls_peer.ca, r->tls_peer.certificate, r->tls_peer.key, r->auth.password_file};
    err_t err = 0;
    for (size_t i = 0; !err && i < COUNT_OF(paths); i++)
        if (paths[i].n)
            err = each(ctx, paths[i], r->mark);
    return err;
}

static err_t each_of_verify(const struct cfg_verify *v, each_fn *each, void *ctx)
{
    err_t err = v->list.n ? each(ctx, v->list, v->mark) : 0;
    return err || !v->has_route ? err : each_of_route(&v->route, each, ctx);
}

static err_t each_of_domains(const struct config *c, each_fn *each, void *ctx)
{
    err_t err = 0;
    for (size_t i = 0; !err && i < c->domain_count; i++) {
        const struct cfg_domain *one = &c->domains[i];
        if (one->has_route)
            err = each_of_route(&one->route, each, ctx);
        if (!err && one->has_verify)
            err = each_of_verify(&one->verify, each, ctx);
    }
    return err;
}

static err_t each_of_tls(const struct config *c, each_fn *each, void *ctx)
{
    err_t err = 0;
    for (size_t i = 0; !err && i < c->tls.certificate_count; i++) {
        const struct cfg_certificate *one = &c->tls.certificates[i];
        err = each(ctx, one->chain, one->mark);
        if (!err)
            err = each(ctx, one->key, one->key_mark);
    }
    for (size_t i = 0; !err && i < c->tls.client_count; i++)
        if (c->tls.clients[i].ca.n)
            err = each(ctx, c->tls.clients[i].ca, c->tls.clients[i].mark);
    return err;
}

static err_t each_file(const struct config *c, each_fn *each, void *ctx)
{
    err_t err = each_of_verify(&c->verify, each, ctx);
    if (!err)
        err = each_of_route(&c->destination, each, ctx);
    if (!err)
        err = each_of_tls(c, each, ctx);
    return err ? err : each_of_domains(c, each, ctx);
}

/* Where a link leads to is what Landlock looks at. NULL: to nothing yet. */
static const char *real_path(str_t path, char out[PATH_MAX])
{
    char text[PATH_MAX];
    snprintf(text, sizeof text, STR_FMT, STR_ARG(path));
    return realpath(text, out);
}

static bool was_added(const struct confine *f, str_t path)
{
    size_t from = f->rule_count - MIN(f->rule_count, (size_t)2); /* a link stands in two rules */
    for (size_t i = from; i < f->rule_count; i++)
        if (str_eq(str_cstr(f->rules[i].path), path))
            return true;
    return false;
}

static err_t add_file(void *ctx, str_t path, struct mark at)
{
    struct confine *f = ctx;
    char real[PATH_MAX];
    if (was_added(f, path)) /* a thousand domains with one list */
        return 0;
    err_t err = add(f, path, FILE_READ, true);
    if (err || !real_path(path, real) || str_eq(str_cstr(real), path))
        return err;
    return add(f, str_cstr(real), FILE_READ, true);
}

static err_t collect(struct confine *f, const struct config *c, const char *config_path)
{
    err_t err = 0;
    for (size_t i = 0; !err && i < COUNT_OF(system_rules); i++)
        err = add(f, str_cstr(system_rules[i].path), system_rules[i].use, system_rules[i].is_parent);
    if (!err)
        err = add(f, str_cstr(config_path), FILE_READ, true);
    if (!err)
        err = add(f, c->spool_directory, FILE_KEEP, false);
    if (!err)
        err = add(f, c->verdicts.store, FILE_KEEP, false);
    if (!err)
        err = add(f, c->admin.socket, FILE_DOOR, true);
    return err ? err : each_file(c, add_file, f);
}

/* Made while there is nothing in the way yet, and given to the user that we shall be. */
static err_t prepare_directory(const struct confine *f, const char *key, str_t path, struct gbuf *notes)
{
    bool is_new = mkdir(path.p, 0700) == 0;
    struct stat st;
    int fd = is_new || errno == EEXIST ? open(path.p, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    err_t err = fd < 0 || fstat(fd, &st) < 0 ? -errno : is_new ? user_give(&f->user, fd) : 0;
    if (fd >= 0)
        close(fd);
    if (err) {
        gbuf_printf(notes, "%s: cannot make " STR_FMT ": %s\n", key, STR_ARG(path), err_text(err));
    } else if (!is_new && f->user.changes && st.st_uid != f->user.uid) {
        gbuf_printf(notes,
                    "%s: " STR_FMT " does not belong to the user %s; chown -R %s: " STR_FMT
                    ", or write `user: root`\n",
                    key, STR_ARG(path), f->user.name, f->user.name, STR_ARG(path));
        err = -EACCES;
    }
    return err;
}

err_t confine_spool(const struct confine *f, const struct config *c, struct gbuf *notes)
{
    return prepare_directory(f, "spool.directory", c->spool_directory, notes);
}

/* As root we can make the socket's directory, as /run is empty when the machine starts. */
static err_t prepare_door(const struct confine *f, str_t socket, struct gbuf *notes)
{
    const char *slash = memrchr(socket.p, '/', socket.n);
    char text[4096];
    if (!f->user.changes || !slash || slash == socket.p)
        return 0;
    snprintf(text, sizeof text, "%.*s", (int)(slash - socket.p), socket.p);
    if (access(text, F_OK) == 0 || errno != ENOENT)
        return 0; /* whose it is shows when the socket is made */
    err_t err = prepare_directory(f, "admin.socket", str_cstr(text), notes);
    return err ? err : chmod(text, 0750) < 0 ? -errno : 0;
}

err_t confine_enter(struct confine *f, const struct config *c, const char *config_path, struct gbuf *notes)
{
    if (c->verdicts.store.n) /* without it we only forget */
        (void)prepare_directory(f, "verdicts.store", c->verdicts.store, notes);
    err_t err = prepare_door(f, c->admin.socket, notes);
    if (!err && (c->sandbox || f->user.changes))
        err = user_become(&f->user, notes);
    if (err)
        return err;
    if (!c->sandbox) {
        gbuf_cstr(notes, "sandbox: off, by the configuration\n");
        return 0;
    }
    err = collect(f, c, config_path);
    return err ? err : files_lock(f->rules, f->rule_count, &f->files_locked, notes);
}

err_t confine_seal(struct confine *f, const struct config *c, struct gbuf *notes)
{
    return c->sandbox ? calls_lock(&f->calls_locked, notes) : 0;
}

struct check {
    const struct confine *confine;
    struct diag *diag;
};

static err_t check_file(void *ctx, str_t path, struct mark at)
{
    const struct check *k = ctx;
    char text[PATH_MAX], real[PATH_MAX];
    snprintf(text, sizeof text, STR_FMT, STR_ARG(path));
    int fd = open(text, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* access(2) does not know of Landlock */
    bool is_denied = fd < 0 && errno == EACCES;
    if (fd >= 0)
        close(fd);
    const char *to = is_denied ? real_path(path, real) : NULL;
    if (!is_denied || files_readable(k->confine->rules, k->confine->rule_count, to ? to : text))
        return 0; /* what is wrong then, if anything, is said by who reads it */
    bool is_link = to && strcmp(to, text) != 0;
    diag_error(k->diag, at,
               STR_FMT "%s%s"
               " stands in a directory that the sandbox of this process cannot read, as no file there "
               "was named when it started; restart posternd, or move the file beside the others",
               STR_ARG(path), is_link ? ", a link to " : "", is_link ? to : "");
    return 0;
}

err_t confine_check(const struct confine *f, const struct config *c, struct diag *d)
{
    struct check k = {f, d};
    unsigned before = d->error_count;
    if (!f->files_locked)
        return 0;
    err_t err = each_file(c, check_file, &k);
    return err ? err : d->error_count > before ? ERR_CONFIG : 0;
}

void confine_free(struct confine *f)
{
    free(f->rules);
    arena_free(&f->paths);
    *f = (struct confine){0};
}
