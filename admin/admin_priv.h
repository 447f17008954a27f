/* admin/admin_priv.h: inside of admin: doors (listen.c), requests (http.c), life (admin.c). */
#ifndef ADMIN_ADMIN_PRIV_H
#define ADMIN_ADMIN_PRIV_H

#include <pthread.h>
#include <sys/types.h>
#include <sys/un.h>

#include <microhttpd.h>

#include "admin/admin.h"
#include "core/list.h"

#define LISTEN_BACKLOG 64

/* --- listen.c: sockets that listen, or words why not --- */

struct unix_door {
    char path[sizeof((struct sockaddr_un){0}.sun_path)];
    dev_t device; /* the file that we made: at the end only that one is removed */
    ino_t inode;
};

err_t listen_tcp(const struct endpoint *at, int *fd, struct sbuf *error) WARN_UNUSED;
err_t listen_unix(str_t path, struct unix_door *door, int *fd, struct sbuf *error) WARN_UNUSED;
void listen_unix_remove(const struct unix_door *door);

/* --- http.c --- */

struct admin {
    struct admin_backend backend;
    pthread_mutex_t backend_lock; /* TCP and Unix have a thread each; the backend sees one call at a time */
    struct door {
        struct admin *admin;
        struct MHD_Daemon *http; /* owned; NULL: not open */
        bool may_change;         /* the Unix socket: its mode says who may */
        struct list visitors;    /* connections, the longest there first */
        unsigned visitor_count;
    } tcp, local;
    struct unix_door unix_door;
    uint16_t port;
};

enum MHD_Result http_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                             const char *version, const char *body, size_t *body_bytes, void **state);
void http_completed(void *cls, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode how);

#endif
