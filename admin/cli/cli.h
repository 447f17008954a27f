/* admin/cli/cli.h: what the files of the `postern` command share: its options, and asking for JSON. */
#ifndef ADMIN_CLI_CLI_H
#define ADMIN_CLI_CLI_H

#include <jansson.h>

#include "core/str.h"

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

struct cli {
    const char *socket_path;
    bool json;
    uint64_t limit;      /* 0: not given */
    const char *operand; /* behind the command; NULL: none */
};

/* The JSON of a good answer, or NULL after telling why not; then *status is the exit status. */
json_t *ask_json(const struct cli *cli, const char *path, bool post, int *status);
void write_json(const json_t *json);

/* ring.c: the ring files. */
int do_ring_resize(const struct cli *cli);
int do_ring_scrub(const struct cli *cli);

#endif
