/* daemon/gateway.h: the process: what boot made, what reload swaps, what drain takes down. Main thread unless
 * said. */
#ifndef DAEMON_GATEWAY_H
#define DAEMON_GATEWAY_H

#include <pthread.h>

#include "admin/admin.h"
#include "daemon/certificates.h"
#include "daemon/confine.h"
#include "daemon/pause.h"
#include "daemon/worker.h"
#include "smtp/server/edge_lines.h"
#include "smtp/server/strangers.h"

struct gateway {
    const char *config_path;
    bool log_is_file;
    int lock_fd; /* the spool's lock; held until exit */
    uint64_t started_wall_ns;
    int signal_fd, drained_fd; /* what the main thread waits for */
    unsigned drained_count;
    struct dns *dns;               /* owned */
    struct cells *budget;          /* of reports; owned */
    struct strangers *strangers;   /* owned */
    struct edge_lines *edge_lines; /* owned */
    struct verify_shared verify;   /* what it points to is owned */
    struct worker *workers;        /* owned */
    unsigned worker_count;
    struct admin *admin; /* owned */
    struct confine confine;
    struct ports ports;
    struct certificates certificates;

    pthread_mutex_t lock;     /* guards what follows; the admin thread reads it and reloads */
    struct snapshot *current; /* counted */
    struct gbuf config_text;  /* what `current` was made from */
    struct names names;
    struct lists lists;
    struct pause_state pause;
    bool draining;
};

/* Boots everything from `path`: 0, or an exit status of sysexits.h after telling why on standard error. */
int gateway_boot(struct gateway *g, const char *path);
/* Serves until SIGTERM or SIGINT, reloads on SIGHUP, then drains. Returns the exit status. */
int gateway_run(struct gateway *g);
/* Ends what runs and frees what there is, whether boot came to its end or not; the log is stopped last. A
 * second SIGTERM or SIGINT cuts the drain short. */
void gateway_end(struct gateway *g);
/* Any thread. The configuration file again; on errors the old one stays and `text` says why. A list of
 * recipients that shrank much is an error, unless that is fine. */
err_t gateway_reload(struct gateway *g, bool shrunk_lists_ok, struct gbuf *text);

#endif
