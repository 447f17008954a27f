/* admin/cli/show.h: the API's answers for people. What is missing or of another type is shown as "-": daemon
 * and command may be of different versions. Results: 0 or -ENOMEM. */
#ifndef ADMIN_CLI_SHOW_H
#define ADMIN_CLI_SHOW_H

#include <jansson.h>

#include "core/str.h"

err_t show_status(const json_t *status, FILE *out) WARN_UNUSED;
/* `cut`: there are more; `filtered`: some were asked for. */
err_t show_queue(const json_t *messages, bool cut, bool filtered, uint64_t now_wall_ns,
                 FILE *out) WARN_UNUSED;
err_t show_stats(const json_t *stats, uint64_t now_wall_ns, FILE *out) WARN_UNUSED;
err_t show_message(const json_t *message, uint64_t now_wall_ns, FILE *out) WARN_UNUSED;
void show_text(str_t text, FILE *out); /* lines of mail, made safe for a terminal */
err_t show_destinations(const json_t *destinations, uint64_t now_wall_ns, FILE *out) WARN_UNUSED;
err_t show_edges(const json_t *answer, FILE *out) WARN_UNUSED;
void show_paused(const json_t *paused, FILE *out); /* nothing when nothing is */
void show_lines(const json_t *lines, FILE *out);
/* What a failed request says, with every problem on a line of its own; "postern: " in front of the first. */
void show_error(const json_t *error, long http_status, FILE *out);

#endif
