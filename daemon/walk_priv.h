/* daemon/walk_priv.h: inside of walk.c, walk_verbs.c and census.c. */
#ifndef DAEMON_WALK_PRIV_H
#define DAEMON_WALK_PRIV_H

#include "daemon/walk.h"
#include "smtp/proto/envelope.h"

/* --- census.c: figures of the whole queue --- */

struct census;
struct census *census_new(void); /* NULL: out of memory */
void census_add(struct census *c, const struct qmsg *m, const struct relay_message_info *info);
json_t *census_json(const struct census *c);
void census_free(struct census *c); /* NULL is fine */

/* --- walk.c --- */

struct walk {
    struct worker_task task;
    struct ask *ask;
    struct worker *w;
    const struct queue_request *rq; /* the question's */
    struct queue_cursor cursor;
    size_t id_at; /* next of the filter's ids, when it has some */
    bool at_end;
    struct tick_hook hook;
    struct list reading; /* visits */
    uint32_t reading_count;
    size_t reading_bytes;
    struct queue_sync sync;
    bool is_syncing;

    size_t matched, done, busy;
    uint64_t recipients, bytes;
    bool cut;
    json_t *list;          /* owned; messages or ids */
    struct census *census; /* owned */
};

/* What is known of a message that is looked at. */
struct look {
    struct qmsg *m;
    struct relay_message_info info;
    const struct qload *load; /* NULL: its envelope was not wanted, or cannot be read */
    struct envelope env;
};

/* --- walk_verbs.c --- */

bool walk_matches(const struct walk *k, const struct look *l);
/* Does what the request asks for; the message may be gone. */
void walk_act(struct walk *k, struct look *l);

#endif
