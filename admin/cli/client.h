/* admin/cli/client.h: requests to posternd over its Unix socket, all on one connection. */
#ifndef ADMIN_CLI_CLIENT_H
#define ADMIN_CLI_CLIENT_H

#include "core/str.h"

struct client;

struct client_reply {
    long status; /* of HTTP */
    struct gbuf body;
    char error[256]; /* why there is no reply */
};

struct client *client_open(const char *socket_path); /* NULL: out of memory, or a libcurl that cannot do it */
void client_close(struct client *c);                 /* NULL is fine */
/* A GET, or a POST of `content` when it is not absent. 0: there is a reply, whatever its status. ERR_CLOSED:
 * nobody can be reached there; other: the exchange broke. */
err_t client_ask(struct client *c, const char *path, str_t content, struct client_reply *out) WARN_UNUSED;
void client_reply_free(struct client_reply *r);

#endif
