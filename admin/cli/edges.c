/* admin/cli/edges.c: `postern edges`: how edges write their Received lines, as far as that was learned. */
#include "admin/cli/cli.h"
#include "admin/cli/show.h"

int cli_edges(const struct cli *cli)
{
    int status;
    json_t *json = cli_ask(cli, "/api/v1/edges", STR_NONE, &status);
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        status = cli_shown(show_edges(json, stdout));
    json_decref(json);
    return status;
}

/* `address` NULL: all. */
static int forget(const struct cli *cli, const char *address)
{
    struct gbuf path = {0};
    int status = EXIT_REFUSED;
    gbuf_cstr(&path, "/api/v1/edges/forget?");
    cli_encode(&path, address ? "address" : "all", address ? address : "1");
    gbuf_put(&path, "", 1);
    json_t *json = path.p ? cli_ask(cli, path.p, STR(""), &status) : NULL;
    gbuf_free(&path);
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        printf("How %s writes its Received lines is learned anew.\n", address ? address : "every edge");
    json_decref(json);
    return status;
}

int cli_edges_forget(const struct cli *cli)
{
    int status = EXIT_SUCCESS;
    if (!cli->operand_count == !cli->all)
        return cli_usage("edges forget: say which, as `postern edges` shows them, or --all");
    if (cli->all)
        return forget(cli, NULL);
    for (int i = 0; i < cli->operand_count; i++) {
        int one = forget(cli, cli->operands[i]);
        status = one ? one : status;
    }
    return status;
}
