/* verify/watch.h: does a backend tell good recipients of a domain from unknown ones? Found out by canaries:
 * an address that cannot exist, now and then, and beside it one that is known to be good. Pure; monotonic
 * times.
 *
 *     UNTRIED ──refused──► TELLS ◄──────refused───────────────────────────┐
 *        └──taken twice──► ACCEPTS_ALL ──a delivery is refused, after its content, as unknown──► DATA_STAGE
 *
 * Those that take everything are asked again daily, and when a delivery is refused at RCPT as unknown.
 */
#ifndef VERIFY_WATCH_H
#define VERIFY_WATCH_H

#include "core/base.h"

enum watch_state { WATCH_UNTRIED, WATCH_TELLS, WATCH_ACCEPTS_ALL, WATCH_DATA_STAGE };
const char *watch_name(enum watch_state s);

struct watch {
    enum watch_state state;
    bool is_out;                        /* a canary flies */
    uint32_t taken_count;               /* in a row */
    uint64_t due_ms;                    /* the next one; 0: not in use yet */
    uint64_t taken_at_ms;               /* the last one, while they are taken */
    uint64_t refused_at_ms, good_at_ms; /* an unknown one was refused, a good one taken; 0: never */
};

/* The domain is in use: the first canary goes a while later. Not together with what is asked first: servers
 * that see an address that cannot exist first sometimes sulk. */
void watch_used(struct watch *w, uint32_t canary_s, uint64_t now_ms, uint64_t random);
bool watch_due(const struct watch *w, uint32_t canary_s, uint64_t now_ms);
void watch_good(struct watch *w, uint64_t now_ms); /* a real recipient was taken */

/* What the canary saw. True: the state is another one. */
bool watch_taken(struct watch *w, uint32_t canary_s, uint64_t now_ms, uint64_t random);
bool watch_refused(struct watch *w, uint32_t canary_s, uint64_t now_ms, uint64_t random);
void watch_unsettled(struct watch *w, uint64_t now_ms); /* nothing */
void watch_told(struct watch *w,
                uint64_t now_ms); /* an unknown one was refused, at RCPT of a delivery: look again */
bool watch_data_refused(struct watch *w, uint64_t now_ms);

/* Probing is of no use: everything is taken. */
static inline bool watch_is_blind(const struct watch *w)
{
    return w->state >= WATCH_ACCEPTS_ALL;
}
/* It was just seen to tell one from the other: its first refusal may be believed. */
bool watch_passed(const struct watch *w, uint32_t canary_s, uint64_t now_ms);

#endif
