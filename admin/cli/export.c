/* admin/cli/export.c: `postern queue export`: messages into a file, and out of the queue when they are safe
 * in it.
 *
 * Some at a time are leased: posternd leaves them alone until we remove them or our connection ends. They are
 * removed when the file with them, and the mark that seals them, is on the disk. */
#include "admin/cli/cli.h"
#include "admin/cli/export_file.h"
#include "admin/cli/show.h"
#include "core/clock.h"

#include <errno.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define LEASE_COUNT   100 /* messages a round and worker */
#define BUSY_TRIES    300 /* for those that are being tried at this moment */
#define BUSY_PAUSE_MS 200

struct export
{
    const struct cli *cli;
    struct export_file file;
    struct gbuf ids;                                       /* of this round, one a line */
    uint64_t count, round_count, failed_count, left_count; /* left: in the file, and could not be removed */
};

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
    snprintf(path, sizeof path, "/api/v1/queue/record?id=%s", id);
    err_t err = client_ask(x->cli->client, path, STR_NONE, &r);
    bool ok = !err;
    if (err) {
        int status;
        cli_explain(x->cli, err, &r, &status);
    } else if (r.status != 200 || (err = export_file_put(&x->file, gbuf_view(&r.body))) == ERR_CORRUPT) {
        fprintf(stderr, "postern: %s cannot be read; it stays in the queue\n", id);
        x->failed_count++;
    } else if (!err) {
        gbuf_printf(&x->ids, "%s\n", id);
        x->round_count++;
    } else {
        ok = false;
    }
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
    return x->round_count == 0 || (export_file_mark(&x->file, TRANSFER_SEALED, x->count) && let_go(x));
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
    FILE *out = x->file.fd == STDOUT_FILENO ? stderr : stdout;
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
    struct export x = {.cli = cli};
    int status = EXIT_REFUSED;
    if (!cli->filter.n && !cli->all && !cli->operand_count)
        return cli_usage("say which messages: ids, a filter, or --all");
    if ((!cli->output || !strcmp(cli->output, "-")) && isatty(STDOUT_FILENO))
        return cli_usage("say where to: -o FILE");
    if (!export_file_create(&x.file, cli->output))
        return EX_CANTCREAT;
    bool ok = run(&x, &status) && export_file_mark(&x.file, TRANSFER_END, x.count);
    tell(&x);
    ok = export_file_close(&x.file) && ok;
    gbuf_free(&x.ids);
    if (!ok)
        return status ? status : EXIT_REFUSED;
    return x.count && !x.failed_count ? EXIT_SUCCESS : EXIT_REFUSED;
}
