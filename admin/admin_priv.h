/* admin/admin_priv.h: inside of admin: doors (listen.c), requests (http*.c), life (admin.c). */
#ifndef ADMIN_ADMIN_PRIV_H
#define ADMIN_ADMIN_PRIV_H

#include <pthread.h>
#include <sys/types.h>
#include <sys/un.h>

#include <microhttpd.h>

#include "admin/admin.h"
#include "core/list.h"

#define LISTEN_BACKLOG 64
#define IDLE_S         30u /* a client that says nothing */

/* --- listen.c: sockets that listen, or words why not --- */

struct unix_door {
    char path[sizeof((struct sockaddr_un){0}.sun_path)];
    dev_t device; /* the file that we made: at the end only that one is removed */
    ino_t inode;
};

err_t listen_tcp(const struct endpoint *at, int *fd, struct sbuf *error) WARN_UNUSED;
err_t listen_unix(str_t path, struct unix_door *door, int *fd, struct sbuf *error) WARN_UNUSED;
void listen_unix_remove(const struct unix_door *door);

/* --- admin.c --- */

/* A connection. Its own thread, but for `link`. */
struct visitor {
    struct link link; /* door.visitors */
    int fd;           /* libmicrohttpd's */
    uint64_t lease;   /* of messages that it exports; 0 = none */
};

struct admin {
    struct admin_backend backend;
    struct door {
        struct admin *admin;
        struct MHD_Daemon *http; /* owned; NULL: not open */
        bool is_local;           /* the Unix socket: its mode says who may change things and read mail */
        pthread_mutex_t lock;    /* guards what follows */
        struct list visitors;    /* connections, the longest there first */
        unsigned visitor_count;
    } tcp, local;
    struct unix_door unix_door;
    uint16_t port;
};

/* --- http.c --- */

/* One request; made at its first callback, freed by http_completed(). */
struct request {
    struct admin *admin;
    struct MHD_Connection *connection;
    const struct endpoint_row *row; /* NULL: answered already, or to be refused */
    struct gbuf body;
    bool too_long;
};

struct answer {
    unsigned status;
    const char *type;
    char *body; /* malloc'd, owned; NULL: out of memory */
    size_t n;
};

#define TYPE_JSON "application/json"
#define TYPE_TEXT "text/plain; charset=utf-8"

enum MHD_Result http_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                             const char *version, const char *body, size_t *body_bytes, void **state);
void http_completed(void *cls, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode how);

struct answer answer_json(unsigned status, json_t *json); /* takes it */
struct answer answer_error(unsigned status, const char *text);
struct answer answer_backend(json_t *json); /* takes it; NULL: the workers did not answer */
struct answer answer_bytes(const char *type, struct gbuf *bytes);     /* takes them */
const char *request_param(const struct request *rq, const char *key); /* NULL: not given */
struct visitor *request_visitor(const struct request *rq);            /* NULL: not known */
/* The user behind a Unix socket: "root uid:0 pid:4711". */
void request_who(const struct request *rq, struct sbuf *out);
void log_change(const struct request *rq, const char *what, const char *result, const char *why);

/* --- http_queue.c --- */

struct answer get_queue(struct request *rq);
struct answer get_queue_stats(struct request *rq);
struct answer get_message(struct request *rq);
struct answer get_headers(struct request *rq);
struct answer post_hold(struct request *rq);
struct answer post_release(struct request *rq);
struct answer post_retry(struct request *rq);
struct answer post_remove(struct request *rq);
struct answer post_lease(struct request *rq);
struct answer get_record(struct request *rq);
struct answer post_import(struct request *rq);

/* --- http_edges.c --- */

struct answer get_edges(struct request *rq);
struct answer post_edges_forget(struct request *rq);

/* --- http_verify.c --- */

struct answer get_verify_show(struct request *rq);
struct answer get_verify_export(struct request *rq);
struct answer get_verify_stats(struct request *rq);
struct answer get_verify_backends(struct request *rq);
struct answer post_verify_probe(struct request *rq);
struct answer post_verify_pin(struct request *rq);
struct answer post_verify_unpin(struct request *rq);
struct answer post_verify_purge(struct request *rq);
struct answer post_verify_retry(struct request *rq);

#endif
