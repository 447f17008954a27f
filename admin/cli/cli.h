/* admin/cli/cli.h: inside of the command: what its verbs share. */
#ifndef ADMIN_CLI_CLI_H
#define ADMIN_CLI_CLI_H

#include <jansson.h>

#include "core/base.h"

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

struct cli {
    const char *socket_path;
    bool json;
    uint64_t limit;          /* 0: not given */
    const char *destination; /* NULL: not given */
    const char *operand;     /* behind the command; NULL: none */
    const char *to;          /* --to; NULL: not given */
};

/* main.c */
/* The JSON of a good answer, or NULL after telling why not; then *status is the exit status. `post`: the body
 * of a POST; NULL: GET. */
json_t *cli_ask(const struct cli *cli, const char *path, const char *post, int *status);
void cli_write_json(const json_t *json);

/* ring.c */
int cli_resize(const struct cli *cli);
int cli_scrub(const struct cli *cli);

/* salvage.c: on files, whether posternd runs or not */
int cli_salvage(const struct cli *cli);

/* pause.c */
int cli_pause(const struct cli *cli);
int cli_resume(const struct cli *cli);

#endif
