/* daemon/durable.h: small files of state in the spool. Blocking; any thread but a worker's. */
#ifndef DAEMON_DURABLE_H
#define DAEMON_DURABLE_H

#include <jansson.h>

#include "core/err.h"

/* The whole file, durable under its own name or not at all. Takes `content` (NULL: -ENOMEM). */
err_t durable_write_json(const char *path, json_t *content) WARN_UNUSED;

#endif
