/* admin/cli/show_verify.h: the API's answers about recipient verification, for people. As show.h. */
#ifndef ADMIN_CLI_SHOW_VERIFY_H
#define ADMIN_CLI_SHOW_VERIFY_H

#include <jansson.h>

#include "core/str.h"

void show_verdict(const json_t *shown, uint64_t now_wall_ns, FILE *out);
void show_probe(const json_t *probe, FILE *out);
err_t show_verify_stats(const json_t *stats, FILE *out) WARN_UNUSED;
err_t show_backends(const json_t *backends, uint64_t now_wall_ns, FILE *out) WARN_UNUSED;

#endif
