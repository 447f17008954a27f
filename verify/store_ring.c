/* verify/store_ring.c: the bounded queue of writes (after Dmitry Vyukov's). Each slot says whose turn it is,
 * so that a producer needs one compare-and-swap and copies its record without keeping others out. */
#include <errno.h>
#include <sched.h>

#include "verify/store_priv.h"

#define SLOT(g, position) (&(g)->slots[(position) & (STORE_RING_SLOTS - 1)])

_Static_assert((STORE_RING_SLOTS & (STORE_RING_SLOTS - 1)) == 0, "positions are masked");

err_t store_ring_init(struct store_ring *g)
{
    g->slots = calloc(STORE_RING_SLOTS, sizeof *g->slots);
    if (!g->slots)
        return -ENOMEM;
    for (uint64_t i = 0; i < STORE_RING_SLOTS; i++)
        atomic_init(&g->slots[i].turn, i);
    return 0;
}

void store_ring_free(struct store_ring *g)
{
    free(g->slots);
}

uint64_t store_ring_push(struct store_ring *g, str_t key, const struct verdict_record *r)
{
    must(key.n > 0 && key.n <= VERIFY_KEY_MAX);
    uint64_t at = atomic_load_explicit(&g->tail, memory_order_relaxed);
    for (;;) {
        struct store_put *p = SLOT(g, at);
        uint64_t turn = atomic_load_explicit(&p->turn, memory_order_acquire);
        if (turn == at) {
            if (!atomic_compare_exchange_weak_explicit(&g->tail, &at, at + 1, memory_order_relaxed,
                                                       memory_order_relaxed))
                continue;
            p->record = *r;
            p->key_bytes = (uint16_t)key.n;
            memcpy(p->key, key.p, key.n);
            atomic_store_explicit(&p->turn, at + 1, memory_order_release);
            return at;
        }
        if (turn < at)
            return UINT64_MAX;
        at = atomic_load_explicit(&g->tail, memory_order_relaxed);
    }
}

uint64_t store_ring_tail(const struct store_ring *g)
{
    return atomic_load_explicit(&g->tail, memory_order_acquire);
}

uint64_t store_ring_head(const struct store_ring *g)
{
    return atomic_load_explicit(&g->head, memory_order_relaxed);
}

const struct store_put *store_ring_peek(struct store_ring *g)
{
    uint64_t head = store_ring_head(g);
    const struct store_put *p = SLOT(g, head);
    while (atomic_load_explicit(&p->turn, memory_order_acquire) != head + 1)
        sched_yield();
    return p;
}

void store_ring_pop(struct store_ring *g)
{
    uint64_t head = store_ring_head(g);
    atomic_store_explicit(&SLOT(g, head)->turn, head + STORE_RING_SLOTS, memory_order_release);
    atomic_store_explicit(&g->head, head + 1, memory_order_relaxed);
}
