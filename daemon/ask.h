/* daemon/ask.h: a question of an admin thread to all workers. Each answers on its own thread, at once or some
 * turns of its loop later; the admin thread waits. */
#ifndef DAEMON_ASK_H
#define DAEMON_ASK_H

#include <jansson.h>

#include "daemon/worker.h"

#define ASK_PATIENCE_S      5   /* what a worker answers at once */
#define ASK_WALK_PATIENCE_S 600 /* a walk over a long queue, whose envelopes are read from the disk */

struct gateway;
struct question;

/* A worker's part of a question. */
struct ask {
    struct mail mail; /* private */
    struct question *q;
    struct worker *w;
    json_t *result;
    struct gbuf bytes;
};

/* What a question is about. */
struct ask_kind {
    /* On the worker's thread, once; must lead to one ask_answer(). Not called at a worker that is ending. */
    void (*begin)(struct ask *a);
    /* Of `arg`, when nobody needs it any more; any thread; NULL: not needed. */
    void (*free_arg)(void *arg);
    unsigned patience_s;
};

/* Takes `arg`. An array with what the workers answered, without those that had nothing to say; NULL: one of
 * them did not answer in time. `bytes` (may be NULL) gets what came with the last answer that had some. */
json_t *ask_workers(struct gateway *g, const struct ask_kind *kind, void *arg, struct gbuf *bytes);

/* --- on the worker's thread --- */

const void *ask_arg(const struct ask *a);   /* valid until ask_answer() */
bool ask_is_abandoned(const struct ask *a); /* the asker gave up: end soon */
/* Takes `result` (NULL: nothing to say) and what is in `bytes` (may be NULL). `a` is gone. */
void ask_answer(struct ask *a, json_t *result, struct gbuf *bytes);

/* JSON of what may be missing or not UTF-8, which JSON cannot say: null then. */
json_t *json_of_str(str_t s);
json_t *json_of_time(uint64_t wall_ms);                 /* 0: null */
str_t reason_of(const struct relay_message_info *info); /* why a message waits, in any case */
double seconds_since(uint64_t wall_ms);                 /* 0 for 0, and for what lies ahead */

#endif
