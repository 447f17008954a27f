/* daemon/pause.h: what an operator has stopped, kept over restarts in the file `paused` of the spool. One
 * thread at a time, as the admin's backend is; but for pause_collect(), on any thread. */
#ifndef DAEMON_PAUSE_H
#define DAEMON_PAUSE_H

#include <pthread.h>

#include <jansson.h>

#include "relay/pauses.h"

struct pause_state {
    pthread_mutex_t
        lock;           /* of `all` and `keys`, between a change and a scrape, which no reload may hold up */
    char *path;         /* owned */
    json_t *all;        /* owned: {"since", "by"}, or NULL: not everything */
    json_t *keys;       /* owned: object, key of a destination -> the same */
    struct pauses *now; /* counted: what the workers are told; NULL: nothing is paused */
};

void pause_init(struct pause_state *s); /* nothing is paused */
/* Boot. A missing file means that nothing is paused, and so does a damaged one, which is put aside and told
 * in `notes`. -ENOMEM. */
err_t pause_load(struct pause_state *s, str_t spool_directory, struct gbuf *notes) WARN_UNUSED;
/* `key` absent: everything. 0: in force and durable; *changed: it was not so before. Errors: nothing changed.
 */
err_t pause_set(struct pause_state *s, bool paused, str_t key, str_t by, bool *changed) WARN_UNUSED;
/* {"all": {"since", "by"} or null, "destinations": [{"key", "since", "by"}]}; NULL: out of memory. */
json_t *pause_json(const struct pause_state *s);
void pause_collect(struct pause_state *s, struct gbuf *out); /* metrics */
void pause_free(struct pause_state *s);

#endif
