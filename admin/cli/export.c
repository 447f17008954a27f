/* admin/cli/export.c: `postern queue export`: messages into a file, and out of the queue when they are safe
 * in it.
 *
 * Some at a time are leased: posternd leaves them alone until we remove them or our connection ends. They are
 * removed when the file with them, and the mark that seals them, is on the disk. */
#include "admin/cli/cli.h"
#include "admin/cli/show.h"
#include "admin/transfer.h"
#include "core/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define LEASE_COUNT   100 /* messages a round and worker */
#define BUSY_TRIES    300 /* for those that are being tried at this moment */
#define BUSY_PAUSE_MS 200

struct export
{
    const struct cli *cli;
    int fd;
    char nonce[TRANSFER_NONCE_CHARS + 1];
    struct gbuf ids;                                       /* of this round, one a line */
    uint64_t count, round_count, failed_count, left_count; /* left: in the file, and could not be removed */
};

/* --- the file --- */

static bool write_all(struct export *x, str_t s)
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
static bool make_durable(struct export *x)
{
    if (fsync(x->fd) == 0 || errno == EINVAL || errno == EROFS)
        return true;
    fprintf(stderr, "postern: cannot write: %s\n", strerror(errno));
    return false;
}

static bool put_mark(struct export *x, enum transfer_item item)
{
    struct gbuf b = {0};
    transfer_put_mark(&b, x->nonce, item, x->count);
    bool ok = write_all(x, gbuf_view(&b)) && make_durable(x);
    gbuf_free(&b);
    return ok;
}

static bool put_open(struct export *x)
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

/* --- a round --- */

/* The ids leased, a new reference; NULL after telling why not. */
static json_t *lease(struct export *x, json_int_t *busy, int *status)
{
    char more[64];
    struct gbuf ids = {0};
    for (int i = 0; i < x->cli->operand_count; i++)
        gbuf_printf(&ids, "%s\n", x->cli->operands[i]);
    snprintf(more, sizeof more, "%s&limit=%d", x->cli->all ? "&all=1" : "", LEASE_COUNT);
    char *path = cli_queue_path(x->cli, "/lease", more);
    json_t *json = cli_ask(x->cli, path, ids.n ? gbuf_view(&ids) : STR(""), status);
    json_t *leased = json ? json_incref(json_object_get(json, "ids")) : NULL;
    *busy = json_integer_value(json_object_get(json, "busy"));
    json_decref(json);
    free(path);
    gbuf_free(&ids);
    return leased;
}

/* False: the export cannot go on. A message that cannot be read stays where it is. */
static bool export_one(struct export *x, const char *id)
{
    struct client_reply r;
    char path[80];
    struct gbuf b = {.max = TRANSFER_JSON_MAX + TRANSFER_DATA_MAX + 256};
    snprintf(path, sizeof path, "/api/v1/queue/record?id=%s", id);
    err_t err = client_ask(x->cli->client, path, STR_NONE, &r);
    bool ok = !err;
    if (err) {
        int status;
        cli_explain(x->cli, err, &r, &status);
    } else if (r.status != 200 || transfer_put_record(&b, x->nonce, gbuf_view(&r.body))) {
        fprintf(stderr, "postern: %s cannot be read; it stays in the queue\n", id);
        x->failed_count++;
    } else {
        ok = write_all(x, gbuf_view(&b));
        gbuf_printf(&x->ids, "%s\n", id);
        x->round_count++;
    }
    gbuf_free(&b);
    client_reply_free(&r);
    return ok;
}

/* They are on our disk: posternd lets them go. */
static bool let_go(struct export *x)
{
    int status;
    if (x->cli->keep)
        return true;
    json_t *json = cli_ask(x->cli, "/api/v1/queue/remove?leased=1&why=exported", gbuf_view(&x->ids), &status);
    uint64_t done = json ? (uint64_t)json_integer_value(json_object_get(json, "done")) : 0;
    json_decref(json);
    x->left_count += x->round_count - MIN(x->round_count, done);
    return !status && done == x->round_count;
}

static bool run_round(struct export *x, const json_t *leased)
{
    size_t i;
    const json_t *id;
    x->ids.n = 0;
    x->round_count = 0;
    json_array_foreach(leased, i, id) if (!export_one(x, json_string_value(id))) return false;
    x->count += x->round_count;
    return x->round_count == 0 || (put_mark(x, TRANSFER_SEALED) && let_go(x));
}

static bool run(struct export *x, int *status)
{
    const struct timespec pause = {.tv_nsec = BUSY_PAUSE_MS * (long)NS_PER_MS};
    for (unsigned tries = 0;;) {
        json_int_t busy;
        json_t *leased = lease(x, &busy, status);
        if (!leased)
            return false;
        size_t count = json_array_size(leased);
        bool ok = run_round(x, leased);
        json_decref(leased);
        if (!ok)
            return false;
        if (count)
            tries = 0;
        else if (!busy)
            return true;
        else if (++tries == BUSY_TRIES) {
            fprintf(stderr, "postern: %lld more are being tried all the time, or exported by somebody else\n",
                    (long long)busy);
            x->failed_count += (uint64_t)busy;
            return true;
        } else {
            nanosleep(&pause, NULL);
        }
    }
}

static void tell(const struct export *x)
{
    FILE *out = x->fd == STDOUT_FILENO ? stderr : stdout;
    if (x->cli->json) {
        json_t *o = json_pack("{s:I, s:I, s:I}", "exported", (json_int_t)x->count, "failed",
                              (json_int_t)x->failed_count, "left", (json_int_t)x->left_count);
        json_dumpf(o, out, JSON_INDENT(2));
        fputc('\n', out);
        json_decref(o);
    } else {
        fprintf(out, "%llu message%s exported%s.\n", (unsigned long long)x->count, x->count == 1 ? "" : "s",
                x->cli->keep ? ", and still in the queue" : "");
    }
    if (x->left_count)
        fprintf(stderr,
                "postern: %llu of them may still be in the queue here: look before you import the file\n",
                (unsigned long long)x->left_count);
}

int cli_queue_export(const struct cli *cli)
{
    struct export x = {.cli = cli, .fd = STDOUT_FILENO};
    int status = EXIT_REFUSED;
    if (!cli->filter.n && !cli->all && !cli->operand_count)
        return cli_usage("say which messages: ids, a filter, or --all");
    bool to_file = cli->output && strcmp(cli->output, "-") != 0;
    if (!to_file && isatty(STDOUT_FILENO))
        return cli_usage("say where to: -o FILE");
    if (to_file)
        x.fd = open(cli->output, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (x.fd < 0) {
        fprintf(stderr, "postern: %s: %s\n", cli->output, strerror(errno));
        return EX_CANTCREAT;
    }
    bool ok = put_open(&x) && run(&x, &status) && put_mark(&x, TRANSFER_END);
    if (to_file && close(x.fd))
        ok = false;
    tell(&x);
    gbuf_free(&x.ids);
    if (!ok)
        return status ? status : EXIT_REFUSED;
    return x.count && !x.failed_count ? EXIT_SUCCESS : EXIT_REFUSED;
}
