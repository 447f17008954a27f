/* core/config.c: loading a file into a struct config: defaults, then the tree by the schema, then what keys
 * mean together. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/config_priv.h"

static void fill_all_defaults(struct loader *l)
{
    static const struct cfg_listener port_25 = {.at = {.ip = {.b = {[10] = 0xff, [11] = 0xff}}, .port = 25}};
    struct config *c = l->config;

    /* Every section whose keys count from struct config: those reached by CHILD rows, and the top. */
    schema_fill_defaults(l, SECTION_top, c);
    for (size_t i = 0; i < schema_key_count; i++)
        if (schema_keys[i].child != SECTION_COUNT)
            schema_fill_defaults(l, schema_keys[i].child, c);
    c->listeners = arena_alloc(l->arena, sizeof *c->listeners);
    if (c->listeners) {
        *c->listeners = port_25;
        c->listener_count = 1;
    }
}

/* hostname and what depends on it. */
static void finish_names(struct loader *l, const struct node *top)
{
    struct config *c = l->config;
    char name[256];

    if (!node_find(top, "hostname")) {
        if (gethostname(name, sizeof name) != 0)
            name[0] = '\0';
        name[sizeof name - 1] = '\0';
        str_t own = str_cstr(name);
        if (domain_name_fault(own, false) || str_find(own, '.') < 0)
            diag_error(l->diag, (struct mark){0},
                       "hostname: is missing, and this machine's own name \"" STR_FMT
                       "\" is not a full one; write hostname: gw.example.com",
                       STR_ARG(clip(own)));
        c->hostname = lower_copy(l->arena, own);
    }
    c->has_postmaster = c->postmaster.n > 0;
    if (!c->has_postmaster)
        c->postmaster = arena_printf(l->arena, "postmaster@" STR_FMT, STR_ARG(c->hostname));
}

/* TLS that is required, and cannot be had, would be a closed door. */
static void finish_tls(struct loader *l, const struct node *top)
{
    static const char *const classes[] = {"stranger", "edge", "trusted"};
    const struct config *c = l->config;
    const struct node *level = node_find(node_find(top, "tls"), "level");

    if (c->tls.certificate_count || node_find(node_find(top, "tls"), "certificates"))
        return;
    for (size_t i = 0; i < c->listener_count; i++)
        if (c->listeners[i].tls >= LISTENER_TLS_REQUIRE)
            diag_error(
                l->diag, c->listeners[i].tls_mark,
                "tls: needs a certificate; write tls: { certificates: [ { chain: /etc/postern/cert.pem, key: "
                "/etc/postern/key.pem } ] } at the top of the file");
    for (size_t i = 0; i < COUNT_OF(classes); i++) {
        const struct node *n = node_find(level, classes[i]);
        if (n && c->tls.level[i] == CLIENT_TLS_REQUIRE)
            diag_error(l->diag, n->mark,
                       "%s: needs a certificate; write certificates: [ { chain: /etc/postern/cert.pem, key: "
                       "/etc/postern/key.pem } ] beside level",
                       classes[i]);
    }
    if (c->tls.client_count)
        diag_error(l->diag, c->tls.clients[0].mark,
                   "clients: can show certificates only where there is TLS; write certificates: [ { chain: "
                   "/etc/postern/cert.pem, key: /etc/postern/key.pem } ] beside it");
}

static void finish_retry(struct loader *l, const struct node *top)
{
    const struct config *c = l->config;
    const struct node *map = node_find(top, "retry"), *first = node_find(map, "first"),
                      *max = node_find(map, "max");

    if (c->retry.first_s > c->retry.max_s)
        diag_error(l->diag,
                   max     ? max->mark
                   : first ? first->mark
                           : (struct mark){0},
                   "max: the longest wait (%u s) is shorter than the first (%u s); write a max of %u or more",
                   c->retry.max_s, c->retry.first_s, c->retry.first_s);
}

static void load_tree(struct loader *l, const struct node *top)
{
    static const struct node empty = {.kind = NODE_MAP, .mark = {1, 1}};
    struct config *c = l->config;
    unsigned errors_before = l->diag->error_count;

    if (!top || top->is_null)
        top = &empty;
    if (top->kind != NODE_MAP) {
        diag_error(
            l->diag, top->mark,
            "the file is %s where a map is needed; write keys and values, such as hostname: gw.example.com",
            node_kind_name(top->kind));
        return;
    }
    config_read_verify(l, top);
    schema_read_map(l, SECTION_top, top, c);
    if (too_many_errors(l))
        return;
    finish_names(l, top);
    finish_tls(l, top);
    /* These compare values, and a value with an error of its own would be blamed twice. */
    if (l->diag->error_count == errors_before || c->retry.first_s <= c->retry.max_s)
        finish_retry(l, top);
    config_finish_destination(l, top);
    c->dns.has_resolver = c->dns.resolver.port != 0;
    c->admin.has_listen = node_find(node_find(top, "admin"), "listen") != NULL;
}

err_t config_load_text(str_t yaml, const char *name, struct config **out, struct diag *d)
{
    struct config *c = calloc(1, sizeof *c);
    struct arena tree;
    struct node *top;
    unsigned errors_before = d->error_count;

    *out = NULL;
    if (!c)
        return -ENOMEM;
    if (!d->file)
        d->file = name;
    arena_init(&c->arena, CONFIG_ARENA_BYTES_MAX);
    arena_init(&tree, CONFIG_ARENA_BYTES_MAX);
    struct loader l = {.config = c, .arena = &c->arena, .diag = d};
    c->file = arena_str(&c->arena, str_cstr(name));
    fill_all_defaults(&l);
    must(d->error_count == errors_before); /* config.def has a fallback that its own type refuses */
    err_t err = yaml_parse(yaml, &tree, &top, d);
    if (!err)
        load_tree(&l, top);
    if (!err && c->arena.overflow)
        diag_error(d, (struct mark){0}, "the file is too large; make it smaller");
    if (!err && d->error_count > errors_before)
        err = ERR_CONFIG;
    arena_free(&tree);
    if (err) {
        config_free(c);
        return err;
    }
    *out = c;
    return 0;
}

/* Reads what there is, one byte more than allowed at most, so that a device or a growing file cannot fill the
 * memory. */
static err_t read_all(int fd, struct gbuf *text)
{
    char chunk[16384];

    text->max = CONFIG_FILE_BYTES_MAX + sizeof chunk;
    while (text->n <= CONFIG_FILE_BYTES_MAX) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        gbuf_put(text, chunk, (size_t)n);
        if (text->overflow)
            return -ENOMEM;
    }
    return 0;
}

err_t config_read_file(const char *path, struct gbuf *text, struct diag *d)
{
    if (!d->file)
        d->file = path;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    err_t err = fd < 0 ? -errno : read_all(fd, text);
    if (fd >= 0)
        close(fd);
    if (!err)
        return 0;
    diag_error(d, (struct mark){0}, "cannot be read: %s", err_text(err));
    return ERR_CONFIG;
}

err_t config_load_file(const char *path, struct config **out, struct diag *d)
{
    struct gbuf text = {0};
    *out = NULL;
    err_t err = config_read_file(path, &text, d);
    if (!err)
        err = config_load_text(gbuf_view(&text), path, out, d);
    gbuf_free(&text);
    return err;
}

void config_free(struct config *c)
{
    if (!c)
        return;
    arena_free(&c->arena);
    free(c);
}
