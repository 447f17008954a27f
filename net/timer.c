/* net/timer.c: see timer.h. */
#include "net/timer.h"
#include "net/ring_priv.h"

void wheel_init(struct wheel *w, uint64_t now_ms)
{
    w->now_tick = now_ms / WHEEL_TICK_MS;
    list_init(&w->due);
    for (unsigned level = 0; level < WHEEL_LEVEL_COUNT; level++) {
        w->used_slots[level] = 0;
        for (unsigned slot = 0; slot < WHEEL_SLOT_COUNT; slot++)
            list_init(&w->slots[level][slot]);
    }
}

/* Where a tick after now_tick stands. */
static void locate(const struct wheel *w, uint64_t tick, unsigned *level, unsigned *slot)
{
    unsigned highest_bit = 63 - (unsigned)__builtin_clzll(tick ^ w->now_tick);
    *level = highest_bit / WHEEL_SLOT_BITS;
    must(*level < WHEEL_LEVEL_COUNT);
    *slot = (unsigned)(tick >> (*level * WHEEL_SLOT_BITS)) & (WHEEL_SLOT_COUNT - 1);
}

static void insert(struct wheel *w, struct timer *t)
{
    uint64_t tick = (t->due_ms + WHEEL_TICK_MS - 1) / WHEEL_TICK_MS; /* rounded up: never early */
    if (tick <= w->now_tick) {
        list_push_back(&w->due, &t->link);
        return;
    }
    unsigned level, slot;
    locate(w, tick, &level, &slot);
    list_push_back(&w->slots[level][slot], &t->link);
    w->used_slots[level] |= UINT64_C(1) << slot;
}

void wheel_arm(struct wheel *w, struct timer *t, uint64_t due_ms)
{
    wheel_disarm(w, t);
    /* Not into `due` directly, even if late: a timer that re-arms itself with 0 must not starve the loop. */
    t->due_ms = MAX(due_ms, (w->now_tick + 1) * WHEEL_TICK_MS);
    insert(w, t);
}

void wheel_disarm(struct wheel *w, struct timer *t)
{
    if (!link_in_list(&t->link))
        return;
    /* The last one of a slot has the slot's head on both sides; that tells which bit to clear. */
    struct link *head = t->link.prev == t->link.next ? t->link.next : NULL;
    list_remove(&t->link);
    const struct list *slot = (const struct list *)(const void *)head;
    const struct list *first = &w->slots[0][0], *end = first + WHEEL_LEVEL_COUNT * WHEEL_SLOT_COUNT;
    if (slot >= first && slot < end) {
        size_t index = (size_t)(slot - first);
        w->used_slots[index / WHEEL_SLOT_COUNT] &= ~(UINT64_C(1) << (index % WHEEL_SLOT_COUNT));
    }
}

/* The earliest slot in use. All of a lower level comes before all of a higher one. */
static bool next_slot(const struct wheel *w, unsigned *level, unsigned *slot, uint64_t *tick)
{
    for (unsigned i = 0; i < WHEEL_LEVEL_COUNT; i++) {
        if (!w->used_slots[i])
            continue;
        *level = i;
        *slot = (unsigned)__builtin_ctzll(w->used_slots[i]);
        unsigned shift = i * WHEEL_SLOT_BITS;
        uint64_t above = w->now_tick >> (shift + WHEEL_SLOT_BITS) << (shift + WHEEL_SLOT_BITS);
        *tick = above | ((uint64_t)*slot << shift);
        return true;
    }
    return false;
}

uint64_t wheel_next_ms(const struct wheel *w)
{
    if (!list_empty(&w->due))
        return 0;
    unsigned level, slot;
    uint64_t tick;
    return next_slot(w, &level, &slot, &tick) ? tick * WHEEL_TICK_MS : WHEEL_NEVER;
}

static void advance(struct wheel *w, uint64_t to_tick)
{
    unsigned level, slot;
    uint64_t tick;
    while (next_slot(w, &level, &slot, &tick) && tick <= to_tick) {
        w->now_tick = tick;
        w->used_slots[level] &= ~(UINT64_C(1) << slot);
        struct list *l = &w->slots[level][slot];
        for (struct link *k; (k = list_pop_front(l));) /* a level down, or due */
            insert(w, container_of(k, struct timer, link));
    }
    w->now_tick = MAX(w->now_tick, to_tick);
}

unsigned wheel_run(struct wheel *w, uint64_t now_ms, unsigned max_count)
{
    advance(w, now_ms / WHEEL_TICK_MS);
    unsigned count = 0;
    for (struct link *k; count < max_count && (k = list_pop_front(&w->due)); count++) {
        struct timer *t = container_of(k, struct timer, link);
        t->fire(t);
    }
    return count;
}

void timer_arm(struct loop *l, struct timer *t, uint64_t after_ms)
{
    /* loop_now_ms() is rounded down; one more millisecond keeps the promise to be never early. */
    wheel_arm(&l->wheel, t, l->now_ms + 1 + MIN(after_ms, WHEEL_AFTER_MS_MAX));
}

void timer_disarm(struct loop *l, struct timer *t)
{
    wheel_disarm(&l->wheel, t);
}

bool timer_armed(const struct timer *t)
{
    return link_in_list(&t->link);
}
