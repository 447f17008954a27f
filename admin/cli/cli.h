/* admin/cli/cli.h: what the commands of `postern` share. */
#ifndef ADMIN_CLI_CLI_H
#define ADMIN_CLI_CLI_H

#include <jansson.h>

#include "admin/cli/client.h"

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

/* Options that only some commands take. */
enum takes {
    TAKES_LIMIT = 1,
    TAKES_FILTER = 2,
    TAKES_YES = 4,
    TAKES_WHY = 8,
    TAKES_BOUNCE = 16,
    TAKES_KEEP = 32,
    TAKES_OUTPUT = 64,
    TAKES_DESTINATION = 128,
    TAKES_TO = 256,
    TAKES_VERDICT = 512,
    TAKES_NO_STORE = 1024,
    TAKES_WHICH = TAKES_FILTER | TAKES_DESTINATION,
};

struct cli {
    const char *socket_path;
    struct client *client; /* owned; opened by main() */
    bool json;
    unsigned given;     /* of enum takes */
    uint64_t limit;     /* 0: not given */
    struct gbuf filter; /* owned; "&sender=…&older=…", encoded */
    bool all, yes, bounce, keep, no_store;
    const char *why, *output, *destination, *to;
    char *const *operands;
    int operand_count;
};

/* The JSON of a good answer, or NULL after telling why not; then *status is the exit status. */
json_t *cli_ask(const struct cli *cli, const char *path, str_t content, int *status);
void cli_write_json(const json_t *json);
void cli_explain(const struct cli *cli, err_t err, const struct client_reply *r, int *status);
int cli_shown(err_t err); /* of a show_* function, as exit status */
PRINTF_LIKE(1, 2) int cli_usage(const char *fmt, ...);
/* "/api/v1/queue/VERB" with the filter and `more` ("&a=b…") behind a '?'; NUL-terminated; free it. */
char *cli_queue_path(const struct cli *cli, const char *verb, const char *more);
void cli_encode(struct gbuf *out, const char *key, const char *value); /* "&key=value" */

/* ring.c */
int cli_resize(const struct cli *cli);
int cli_scrub(const struct cli *cli);

/* salvage.c: on files, whether posternd runs or not */
int cli_salvage(const struct cli *cli);

/* edges.c */
int cli_edges(const struct cli *cli);
int cli_edges_forget(const struct cli *cli);
/* pause.c */
int cli_pause(const struct cli *cli);
int cli_resume(const struct cli *cli);
/* queue.c */
int cli_queue_list(const struct cli *cli);
int cli_queue_show(const struct cli *cli);
int cli_queue_headers(const struct cli *cli);
int cli_queue_stats(const struct cli *cli);
int cli_queue_hold(const struct cli *cli);
int cli_queue_release(const struct cli *cli);
int cli_queue_retry(const struct cli *cli);
int cli_queue_remove(const struct cli *cli);
bool cli_confirmed(void); /* the answer to a question on stderr; no, when nobody is there to be asked */
/* verify.c */
int cli_verify_show(const struct cli *cli);
int cli_verify_probe(const struct cli *cli);
int cli_verify_pin(const struct cli *cli);
int cli_verify_unpin(const struct cli *cli);
int cli_verify_purge(const struct cli *cli);
int cli_verify_export(const struct cli *cli);
int cli_verify_stats(const struct cli *cli);
int cli_verify_backends(const struct cli *cli);
int cli_verify_retry(const struct cli *cli);
/* export.c, import.c */
int cli_queue_export(const struct cli *cli);
int cli_queue_import(const struct cli *cli);

#endif
