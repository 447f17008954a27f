/* admin/cli/client.h: one request to posternd over its Unix socket. */
#ifndef ADMIN_CLI_CLIENT_H
#define ADMIN_CLI_CLIENT_H

#include "core/str.h"

struct client_reply {
    long status; /* of HTTP */
    struct gbuf body;
    char error[256]; /* why there is no reply */
};

/* `post`: the body of a POST; NULL: GET. 0: there is a reply, whatever its status. ERR_CLOSED: nobody can be
 * reached there; other: the exchange broke. */
err_t client_ask(const char *socket_path, const char *path, const char *post,
                 struct client_reply *out) WARN_UNUSED;
void client_reply_free(struct client_reply *r);

#endif
