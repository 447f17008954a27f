/* admin/cli/verify.c: `postern verify …`. Exit status as for the others; `show` gives 0 whatever the verdict.
 */
#include "admin/cli/cli.h"
#include "admin/cli/show.h"
#include "admin/cli/show_verify.h"
#include "core/clock.h"

#include <sysexits.h>

#define EXPORT_PAGE 10000

/* "/api/v1/verify/VERB?…"; free it. */
static char *path_of(const struct cli *cli, const char *verb, const char *key, const char *value,
                     const char *more)
{
    struct gbuf b = {0};
    gbuf_printf(&b, "/api/v1/verify/%s?", verb);
    size_t params_at = b.n;
    if (cli->filter.n)
        gbuf_put(&b, cli->filter.p, cli->filter.n);
    if (key)
        cli_encode(&b, key, value);
    gbuf_cstr(&b, more);
    if (cli->why)
        cli_encode(&b, "why", cli->why);
    gbuf_put(&b, "", 1);
    if (b.overflow) {
        fputs("postern: out of memory\n", stderr);
        exit(EX_OSERR);
    }
    if (b.p[params_at] == '&') /* the first */
        memmove(b.p + params_at, b.p + params_at + 1, b.n - params_at - 1);
    return b.p;
}

static json_t *ask(const struct cli *cli, const char *verb, const char *key, const char *value,
                   const char *more, str_t content, int *status)
{
    char *path = path_of(cli, verb, key, value, more);
    json_t *json = cli_ask(cli, path, content, status);
    free(path);
    return json;
}

/* --- looking --- */

int cli_verify_show(const struct cli *cli)
{
    int worst = EXIT_SUCCESS;
    for (int i = 0; i < cli->operand_count; i++) {
        int status;
        json_t *json = ask(cli, "show", "address", cli->operands[i], "", STR_NONE, &status);
        if (json && cli->json)
            cli_write_json(json);
        else if (json)
            show_verdict(json, clock_wall_ns(), stdout);
        json_decref(json);
        worst = status ? status : worst;
    }
    return worst;
}

int cli_verify_stats(const struct cli *cli)
{
    int status;
    json_t *json = ask(cli, "stats", NULL, NULL, "", STR_NONE, &status);
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        status = cli_shown(show_verify_stats(json, stdout));
    json_decref(json);
    return status;
}

int cli_verify_backends(const struct cli *cli)
{
    int status;
    json_t *json = ask(cli, "backends", NULL, NULL, "", STR_NONE, &status);
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        status = cli_shown(show_backends(json, clock_wall_ns(), stdout));
    json_decref(json);
    return status;
}

/* The last address of some lines; a new one, free it. NULL: there is none. */
static char *last_address(str_t lines)
{
    if (lines.n && lines.p[lines.n - 1] == '\n')
        lines.n--;
    size_t from = (size_t)(str_rfind(lines, '\n') + 1);
    json_t *o = json_loadb(lines.p + from, lines.n - from, 0, NULL);
    const char *address = json_string_value(json_object_get(o, "address"));
    char *copy = address ? strdup(address) : NULL;
    json_decref(o);
    return copy;
}

/* Page by page, each in a moment of its own: what is learned meanwhile may be in it or not. */
int cli_verify_export(const struct cli *cli)
{
    char *after = NULL;
    int status = EXIT_SUCCESS;
    bool more = true;
    char limit[32];
    snprintf(limit, sizeof limit, "&limit=%d", EXPORT_PAGE);
    while (more && !status) {
        struct client_reply r;
        char *path = path_of(cli, "export", after ? "after" : NULL, after, limit);
        err_t err = client_ask(cli->client, path, STR_NONE, &r);
        free(path);
        free(after);
        after = NULL;
        if (err) {
            cli_explain(cli, err, &r, &status);
        } else if (r.status != 200) {
            json_t *error = json_loadb(r.body.p ? r.body.p : "", r.body.n, 0, NULL);
            show_error(error, r.status, stderr);
            json_decref(error);
            status = EXIT_REFUSED;
        } else if (r.body.n) {
            fwrite(r.body.p, 1, r.body.n, stdout);
            after = last_address(gbuf_view(&r.body));
        }
        more = after != NULL;
        client_reply_free(&r);
    }
    free(after);
    return status;
}

/* --- asking and changing --- */

int cli_verify_probe(const struct cli *cli)
{
    int status;
    json_t *json =
        ask(cli, "probe", "address", cli->operands[0], cli->no_store ? "&store=0" : "", STR(""), &status);
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        show_probe(json, stdout);
    json_decref(json);
    return status;
}

/* Of one address; 1 when it is in force and not on the disk. */
static int change_one(const struct cli *cli, const char *verb, const char *address, const char *more,
                      const char *done)
{
    int status;
    json_t *json = ask(cli, verb, "address", address, more, STR(""), &status);
    if (!json)
        return status;
    const char *note = json_string_value(json_object_get(json, "note"));
    const char *error = json_string_value(json_object_get(json, "error"));
    if (cli->json) {
        cli_write_json(json);
    } else {
        printf("%s %s%s.\n", address, done, error ? ", but not on disk" : "");
        if (error)
            fprintf(stderr, "postern: %s\n", error);
        if (note)
            fprintf(stderr, "Note: %s.\n", note);
    }
    json_decref(json);
    return error ? EXIT_REFUSED : EXIT_SUCCESS;
}

int cli_verify_pin(const struct cli *cli)
{
    if (cli->operand_count != 2 || (strcmp(cli->operands[1], "good") && strcmp(cli->operands[1], "unknown")))
        return cli_usage("verify pin: say an address, and good or unknown");
    bool good = !strcmp(cli->operands[1], "good");
    return change_one(cli, "pin", cli->operands[0], good ? "&verdict=good" : "&verdict=unknown",
                      good ? "is always good" : "is always unknown");
}

int cli_verify_unpin(const struct cli *cli)
{
    int worst = EXIT_SUCCESS;
    for (int i = 0; i < cli->operand_count; i++) {
        int status = change_one(cli, "unpin", cli->operands[i], "", "is not pinned");
        worst = status ? status : worst;
    }
    return worst;
}

/* How many it would be, and whether that is wanted. */
static bool may_purge(const struct cli *cli, const char *all, int *status)
{
    struct gbuf dry = {0};
    gbuf_printf(&dry, "%s&dry=1%c", all, '\0');
    json_t *json = ask(cli, "purge", NULL, NULL, dry.p, STR(""), status);
    gbuf_free(&dry);
    if (!json)
        return false;
    long long count = (long long)json_integer_value(json_object_get(json, "matched"));
    json_decref(json);
    *status = EXIT_REFUSED;
    fprintf(stderr, "Forget %lld verdict%s?", count, count == 1 ? "" : "s");
    if (cli_confirmed())
        return true;
    fputs("Nothing was done.\n", stderr);
    return false;
}

static int purge_many(const struct cli *cli)
{
    int status;
    const char *all = cli->all ? "&all=1" : "";
    if (!cli->yes && !may_purge(cli, all, &status))
        return status;
    json_t *json = ask(cli, "purge", NULL, NULL, all, STR(""), &status);
    if (!json)
        return status;
    const char *error = json_string_value(json_object_get(json, "error"));
    long long done = (long long)json_integer_value(json_object_get(json, "done"));
    if (cli->json)
        cli_write_json(json);
    else
        printf("%lld verdict%s forgotten; pins stay.\n", done, done == 1 ? "" : "s");
    if (error)
        fprintf(stderr, "postern: the store still has some: %s\n", error);
    json_decref(json);
    return error ? EXIT_REFUSED : EXIT_SUCCESS;
}

int cli_verify_purge(const struct cli *cli)
{
    int worst = EXIT_SUCCESS;
    bool many = cli->all || cli->filter.n;
    if (many == (cli->operand_count > 0))
        return cli_usage("verify purge: say addresses, @DOMAIN, a filter, or --all");
    for (int i = 0; i < cli->operand_count; i++) {
        const char *word = cli->operands[i];
        int status;
        if (*word == '@') {
            struct cli one = *cli;
            one.filter = (struct gbuf){0};
            cli_encode(&one.filter, "domain", word + 1);
            status = purge_many(&one);
            gbuf_free(&one.filter);
        } else {
            status = change_one(cli, "purge", word, "", "is forgotten");
        }
        worst = status ? status : worst;
    }
    return many ? purge_many(cli) : worst;
}

int cli_verify_retry(const struct cli *cli)
{
    int status;
    bool one = cli->operand_count > 0;
    if (one == cli->all)
        return cli_usage("verify retry: say a server as `postern verify backends` shows it, or --all");
    json_t *json = ask(cli, "retry", one ? "backend" : NULL, one ? cli->operands[0] : NULL,
                       one ? "" : "&all=1", STR(""), &status);
    if (json && cli->json) {
        cli_write_json(json);
    } else if (json) {
        long long hurried = (long long)json_integer_value(json_object_get(json, "hurried"));
        if (hurried)
            printf("%lld will be asked again with the next recipient, or by a canary now.\n", hurried);
        else
            puts("None of them is left alone.");
    }
    json_decref(json);
    return status;
}
