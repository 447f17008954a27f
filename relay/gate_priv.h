/* relay/gate_priv.h: how many connections a destination may have now, or when the next one. Pure: no clock,
 * no randomness of its own.
 *
 *      UP --last connection fails, none left--> DOWN --retry_at--> one trial connection --speaks--> UP
 *       |                                        ^                        |
 *       +-- a failure beside working ones:       +------ fails: longer ---+
 *           window shrinks to what works
 */
#ifndef RELAY_GATE_PRIV_H
#define RELAY_GATE_PRIV_H

#include "nexthop/backoff.h"

#define GATE_WINDOW_FIRST 3 /* connections to a next hop of which nothing is known yet */
#define GATE_BARREN_MAX   5 /* connections in a row that spoke but moved no message: as good as down */
#define GATE_GROW_PAUSE_MS                                                                                   \
    30000 /* after a refused extra connection the window does not grow for this long                         \
           */
#define GATE_JOBS_PER_CONN                                                                                   \
    16 /* a warm connection takes this many waiting jobs before another is worth its handshakes */
#define GATE_SLOW_MS 200 /* a job that waits longer than this asks for another connection anyway */

struct gate {
    uint32_t window, window_max;
    uint32_t connections; /* dialing or speaking */
    uint32_t speaking;    /* of these: the dialogue is up */
    uint32_t failures;    /* back-offs in a row */
    uint32_t barren;
    bool down;
    uint64_t retry_at_ms;   /* down: no connection before; monotonic */
    uint64_t grow_after_ms; /* monotonic */
};

enum gate_answer { GATE_OPEN, GATE_FULL, GATE_DOWN };

void gate_init(struct gate *g, uint32_t window_max);
void gate_set_window_max(struct gate *g, uint32_t window_max);
/* May a connection be opened at `now_ms`? */
enum gate_answer gate_may_connect(const struct gate *g, uint64_t now_ms);
/* How many to open for `waiting` jobs that found no free slot, the oldest for `waited_ms`. */
uint32_t gate_wanted(const struct gate *g, uint64_t now_ms, uint32_t waiting, uint64_t waited_ms);
/* A connection's dialogue is up. True: the destination was down and is no more (not before its time: a
 * connection begun earlier does not end a back-off by speaking). */
bool gate_spoke(struct gate *g, uint64_t now_ms);
/* A transaction got an answer of its own. True: as above. */
bool gate_moved(struct gate *g, uint64_t now_ms);
/* A connection is gone that did no good: could not be made, was refused, or broke before it moved anything.
 * `connections` and `speaking` no longer count it. True: the destination is down now, until retry_at_ms. */
bool gate_failed(struct gate *g, bool spoke, uint64_t now_ms, struct backoff b, uint64_t random);
/* No connection before a while: for names that do not resolve and TLS that cannot be had. */
void gate_shut(struct gate *g, uint64_t now_ms, struct backoff b, uint64_t random);

#endif
