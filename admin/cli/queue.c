/* admin/cli/queue.c: `postern queue …`. Exit status: 0 done, 1 no message matched or nothing was done, 2
 * wrong usage. */
#include "admin/cli/cli.h"
#include "admin/cli/show.h"
#include "core/clock.h"

#include <sysexits.h>
#include <unistd.h>

#define LIMIT_DEFAULT 100

/* --- paths --- */

char *cli_queue_path(const struct cli *cli, const char *verb, const char *more)
{
    struct gbuf b = {0};
    gbuf_printf(&b, "/api/v1/queue%s", verb);
    size_t params_at = b.n;
    if (cli->filter.n)
        gbuf_put(&b, cli->filter.p, cli->filter.n);
    gbuf_cstr(&b, more);
    if (cli->why)
        cli_encode(&b, "why", cli->why);
    gbuf_put(&b, "", 1);
    if (b.overflow) {
        fputs("postern: out of memory\n", stderr);
        exit(EX_OSERR);
    }
    if (b.p[params_at])
        b.p[params_at] = '?'; /* the first '&' */
    return b.p;
}

static json_t *ask(const struct cli *cli, const char *verb, const char *more, str_t content, int *status)
{
    char *path = cli_queue_path(cli, verb, more);
    json_t *json = cli_ask(cli, path, content, status);
    free(path);
    return json;
}

/* --- looking --- */

int cli_queue_list(const struct cli *cli)
{
    char more[64];
    int status;
    snprintf(more, sizeof more, "&limit=%u", (unsigned)(cli->limit ? cli->limit : LIMIT_DEFAULT));
    struct gbuf ids = {0};
    gbuf_cstr(&ids, more);
    for (int i = 0; i < cli->operand_count; i++)
        cli_encode(&ids, "id", cli->operands[i]);
    gbuf_put(&ids, "", 1);
    json_t *json = ask(cli, "", ids.p, STR_NONE, &status);
    gbuf_free(&ids);
    json_t *messages = json_object_get(json, "messages");
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        status = cli_shown(show_queue(messages, json_is_true(json_object_get(json, "cut")), cli->filter.n > 0,
                                      clock_wall_ns(), stdout));
    bool asked_for_some = cli->filter.n || cli->operand_count;
    if (json && !status && asked_for_some && json_array_size(messages) == 0)
        status = EXIT_REFUSED;
    json_decref(json);
    return status;
}

int cli_queue_stats(const struct cli *cli)
{
    int status;
    json_t *json = ask(cli, "/stats", "", STR_NONE, &status);
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        status = cli_shown(show_stats(json, clock_wall_ns(), stdout));
    json_decref(json);
    return status;
}

int cli_queue_show(const struct cli *cli)
{
    int worst = EXIT_SUCCESS;
    for (int i = 0; i < cli->operand_count; i++) {
        int status;
        struct gbuf id = {0};
        cli_encode(&id, "id", cli->operands[i]);
        gbuf_put(&id, "", 1);
        json_t *json = ask(cli, "/message", id.p, STR_NONE, &status);
        gbuf_free(&id);
        if (json && cli->json)
            cli_write_json(json);
        else if (json)
            status = cli_shown(show_message(json, clock_wall_ns(), stdout));
        json_decref(json);
        worst = status ? status : worst;
    }
    return worst;
}

int cli_queue_headers(const struct cli *cli)
{
    struct client_reply r;
    int status = EXIT_REFUSED;
    struct gbuf id = {0};
    cli_encode(&id, "id", cli->operands[0]);
    gbuf_put(&id, "", 1);
    char *path = cli_queue_path(cli, "/headers", id.p);
    gbuf_free(&id);
    err_t err = client_ask(cli->client, path, STR_NONE, &r);
    free(path);
    json_t *error = NULL;
    if (err) {
        cli_explain(cli, err, &r, &status);
    } else if (r.status != 200) {
        error = json_loadb(r.body.p ? r.body.p : "", r.body.n, 0, NULL);
        show_error(error, r.status, stderr);
    } else if (cli->json) {
        json_t *o = json_pack("{s:s%}", "headers", r.body.p ? r.body.p : "", r.body.n);
        cli_write_json(o ? o : json_null()); /* not UTF-8: null */
        json_decref(o);
        status = EXIT_SUCCESS;
    } else {
        show_text(gbuf_view(&r.body), stdout);
        status = EXIT_SUCCESS;
    }
    json_decref(error);
    client_reply_free(&r);
    return status;
}

/* --- changing --- */

struct verb {
    const char *path, *question, *done; /* "Hold", "held" */
};

bool cli_confirmed(void)
{
    char line[16];
    if (!isatty(STDIN_FILENO)) {
        fputs("\npostern: nobody can be asked here: say --yes\n", stderr);
        return false;
    }
    fputs(" [y/N] ", stderr);
    return fgets(line, sizeof line, stdin) && (line[0] == 'y' || line[0] == 'Y');
}

/* How many it would be, and whether that is wanted. */
static bool may_go_on(const struct cli *cli, const struct verb *v, const char *more, int *status)
{
    struct gbuf dry = {0};
    gbuf_cstr(&dry, more);
    gbuf_cstr(&dry, "&dry=1");
    gbuf_put(&dry, "", 1);
    json_t *json = ask(cli, v->path, dry.p, STR(""), status);
    gbuf_free(&dry);
    if (!json)
        return false;
    long long messages = (long long)json_integer_value(json_object_get(json, "matched"));
    long long recipients = (long long)json_integer_value(json_object_get(json, "recipients"));
    json_decref(json);
    *status = EXIT_REFUSED;
    if (messages == 0 && cli->destination && !strcmp(v->path, "/retry"))
        return true; /* it ends that one's back-off all the same */
    if (messages == 0) {
        fputs("No message matches.\n", stderr);
        return false;
    }
    fprintf(stderr, "%s %lld message%s with %lld recipient%s?", v->question, messages,
            messages == 1 ? "" : "s", recipients, recipients == 1 ? "" : "s");
    if (cli_confirmed())
        return true;
    fputs("Nothing was done.\n", stderr);
    return false;
}

static void tell(const json_t *json, const struct verb *v)
{
    long long matched = (long long)json_integer_value(json_object_get(json, "matched"));
    long long done = (long long)json_integer_value(json_object_get(json, "done"));
    long long busy = (long long)json_integer_value(json_object_get(json, "busy"));
    if (matched == 0)
        fputs("No message matches.\n", stderr);
    else
        printf("%lld message%s %s.\n", done, done == 1 ? "" : "s", v->done);
    if (busy && !strcmp(v->path, "/remove"))
        printf("%lld on their way right now: removed when the attempt ends, unless it delivers them.\n",
               busy);
    else if (busy)
        printf("%lld left as they were.\n", busy);
}

static int change(const struct cli *cli, const struct verb *v)
{
    int status;
    struct gbuf ids = {0};
    if (!cli->filter.n && !cli->all && !cli->operand_count)
        return cli_usage("say which messages: ids, a filter, or --all");
    if (cli->all && cli->operand_count)
        return cli_usage("either --all or ids");
    gbuf_cstr(&ids, "");
    for (int i = 0; i < cli->operand_count; i++)
        gbuf_printf(&ids, "%s\n", cli->operands[i]);
    char more[64];
    snprintf(more, sizeof more, "%s%s", cli->all ? "&all=1" : "", cli->bounce ? "&bounce=1" : "");
    /* Who names messages has said what is meant. */
    bool must_ask = !cli->yes && !cli->operand_count;
    if (must_ask && !may_go_on(cli, v, more, &status)) {
        gbuf_free(&ids);
        return status;
    }
    json_t *json = ask(cli, v->path, more, ids.n ? gbuf_view(&ids) : STR(""), &status);
    gbuf_free(&ids);
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        tell(json, v);
    if (json && json_integer_value(json_object_get(json, "matched")) == 0)
        status = EXIT_REFUSED;
    json_decref(json);
    return status;
}

int cli_queue_hold(const struct cli *cli)
{
    return change(cli, &(struct verb){"/hold", "Hold", "held"});
}

int cli_queue_release(const struct cli *cli)
{
    return change(cli, &(struct verb){"/release", "Release", "released"});
}

int cli_queue_retry(const struct cli *cli)
{
    return change(cli, &(struct verb){"/retry", "Try again now", "due now"});
}

int cli_queue_remove(const struct cli *cli)
{
    return change(cli,
                  &(struct verb){"/remove", cli->bounce ? "Remove, with reports to their senders," : "Remove",
                                 cli->bounce ? "removed; their senders get reports" : "removed"});
}
