/* net/timer.h: the hierarchical timer wheel under timer_arm(). Pure: time comes in as an argument. One
 * thread.
 *
 * Level 0 has one slot per 8 ms tick, each level above has slots 64 times as wide. A timer stands on the
 * level of the highest bit in which its due tick differs from now, so that it moves down at most once per
 * level. */
#ifndef NET_TIMER_H
#define NET_TIMER_H

#include "net/loop.h"

#define WHEEL_TICK_MS      UINT64_C(8)
#define WHEEL_SLOT_BITS    6
#define WHEEL_SLOT_COUNT   (1u << WHEEL_SLOT_BITS)
#define WHEEL_LEVEL_COUNT  7                                 /* 8 ms * 64^7: a thousand years of uptime */
#define WHEEL_AFTER_MS_MAX (UINT64_C(50) * 24 * 3600 * 1000) /* longer is cut to this */
#define WHEEL_NEVER        UINT64_MAX

struct wheel {
    uint64_t now_tick;
    struct list due;                        /* expired, not yet fired */
    uint64_t used_slots[WHEEL_LEVEL_COUNT]; /* a bit per slot that holds a timer */
    struct list slots[WHEEL_LEVEL_COUNT][WHEEL_SLOT_COUNT];
};

void wheel_init(struct wheel *w, uint64_t now_ms);
void wheel_arm(struct wheel *w, struct timer *t,
               uint64_t due_ms); /* moves an armed one; past means the next tick */
void wheel_disarm(struct wheel *w, struct timer *t);
/* When wheel_run() has something to do next: 0 = at once, WHEEL_NEVER = nothing armed. */
uint64_t wheel_next_ms(const struct wheel *w);
/* Moves on to `now_ms` and fires at most `max_count` timers in the order of their ticks; returns how many. */
unsigned wheel_run(struct wheel *w, uint64_t now_ms, unsigned max_count);

#endif
