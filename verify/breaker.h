/* verify/breaker.h: may a backend be asked now? Pure: no clock, no randomness of its own. Times are
 * monotonic.
 *
 *              answers about recipients                  UP: as often as its limits allow
 *         ┌───────────────────────────────────────┐
 *         ▼                                       │      else: nothing before retry_at; then one trial, and
 *        UP ──"later" and nothing else────► SUSPECT      while that is out nothing more. Until then all its
 *         ├───cannot be reached, breaks───► DOWN         addresses are answered from this one record.
 *         ├───refuses us──────────────────► REFUSES_US   (an alarm)
 *         └───our own question came back──► LOOP         (an alarm)
 */
#ifndef VERIFY_BREAKER_H
#define VERIFY_BREAKER_H

#include "nexthop/backoff.h"

#define BREAKER_LATER_MAX 20  /* RCPT answers in a row that settle nothing: probably it settles nothing now  \
                               */
#define BREAKER_REFUSED_MAX 3 /* recipients in a row refused as if we were meant */

enum breaker_state {
    BREAKER_UP,
    BREAKER_SUSPECT,
    BREAKER_DOWN,
    BREAKER_REFUSES_US,
    BREAKER_LOOP,
    BREAKER_STATES
};
const char *breaker_name(enum breaker_state s);

struct breaker { /* zero: up */
    enum breaker_state state;
    bool on_trial;        /* one is on its way */
    uint32_t failures;    /* back-offs in a row */
    uint32_t later_count; /* in a row, and */
    uint32_t refused_count;
    uint64_t retry_at_ms, since_ms;
};

enum breaker_leave { BREAKER_GO, BREAKER_TRY, BREAKER_ON_TRIAL, BREAKER_WAIT };
/* GO: ask. TRY: ask once, with breaker_begin_trial. ON_TRIAL: it will be known soon. WAIT: not before
 * retry_at. */
enum breaker_leave breaker_leave(const struct breaker *b, uint64_t now_ms);
void breaker_begin_trial(struct breaker *b);
void breaker_end_trial(struct breaker *b); /* it came to nothing, for no fault of the backend */

/* What happened. True: the state is another one. */
bool breaker_answered(struct breaker *b, uint64_t now_ms); /* yes or no for a recipient */
bool breaker_later(struct breaker *b, uint64_t now_ms, uint64_t random);
bool breaker_failed(struct breaker *b, uint64_t now_ms, uint64_t random); /* and no other connection works */
/* `at_rcpt`: it may be about the one recipient after all. */
bool breaker_refused(struct breaker *b, bool at_rcpt, uint64_t now_ms, uint64_t random);
bool breaker_looped(struct breaker *b, uint64_t now_ms, uint64_t random);

#endif
