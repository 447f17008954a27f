/* admin/cli/pause.c: `postern queue pause` and `resume`. */
#include "admin/cli/cli.h"
#include "admin/cli/show.h"

static int change(const struct cli *cli, const char *path, json_t **out)
{
    int status = EXIT_REFUSED;
    json_t *request = cli->destination ? json_pack("{s:s}", "destination", cli->destination) : NULL;
    char *body = request ? json_dumps(request, JSON_COMPACT) : NULL;
    *out = NULL;
    if (cli->destination && !body)
        fputs("postern: the destination's key is not UTF-8\n", stderr);
    else
        *out = cli_ask(cli, path, body ? str_cstr(body) : STR(""), &status);
    free(body);
    json_decref(request);
    if (*out && cli->json)
        cli_write_json(*out);
    return status;
}

static const char *unless_changed(const json_t *answer, const char *text)
{
    return json_is_true(json_object_get(answer, "changed")) ? "" : text;
}

int cli_pause(const struct cli *cli)
{
    json_t *answer;
    int status = change(cli, "/api/v1/pause", &answer);
    if (answer && !cli->json) {
        printf("Sending to %s is %spaused. Mail is taken in and waits; `postern queue resume%s%s` lets it go "
               "on.\n",
               cli->destination ? cli->destination : "all destinations", unless_changed(answer, "already "),
               cli->destination ? " --destination " : "", cli->destination ? cli->destination : "");
        if (json_is_false(json_object_get(answer, "known")))
            fputs("No destination of this name is in use now (`postern destinations` lists those that are); "
                  "it counts when one comes.\n",
                  stderr);
    }
    json_decref(answer);
    return status;
}

int cli_resume(const struct cli *cli)
{
    json_t *answer;
    int status = change(cli, "/api/v1/resume", &answer);
    if (answer && !cli->json) {
        printf("Sending to %s is %s.\n", cli->destination ? cli->destination : "all destinations",
               *unless_changed(answer, "no") ? "not paused; nothing was changed" : "resumed");
        show_paused(json_object_get(answer, "paused"), stdout);
    }
    json_decref(answer);
    return status;
}
