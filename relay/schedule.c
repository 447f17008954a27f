/* relay/schedule.c: which message is tried when. Everything goes through the heap, also what is due at once,
 * so that a backlog and new mail share one order. */
#include "relay/dest_priv.h"

#define WAKE_MS_MAX 60000 /* due times are wall clock: look again this often, in case it was set */

void schedule_put(struct relay *r, struct qmsg *m, uint64_t due_ms)
{
    if (heap_push(&r->heap, m, due_ms)) {
        /* Nothing is lost: the queue has it, and the walk in rescan() finds it by its flags. */
        r->rescan = true;
        m->owner_flags &= ~(uint32_t)OWNER_SCHEDULED;
    } else {
        m->owner_flags |= OWNER_SCHEDULED;
    }
    relay_kick(r);
}

void schedule_forget(struct relay *r, struct qmsg *m)
{
    must(!(m->owner_flags & OWNER_ACTIVE));
    if (m->owner_flags & OWNER_SCHEDULED)
        heap_remove(&r->heap, m);
    m->owner_flags &= ~(uint32_t)OWNER_SCHEDULED;
    if (m->owner_flags & OWNER_ASIDE)
        crowd_leave(m);
}

static bool rescan_one(void *ctx, struct qmsg *m)
{
    struct relay *r = ctx;
    bool is_wanted = !m->held || m->owner_flags & OWNER_BOUNCE;
    if (!(m->owner_flags & (OWNER_SCHEDULED | OWNER_ACTIVE | OWNER_LEASED)) && is_wanted && m->rcpt_pending)
        schedule_put(r, m, m->due_ms);
    return !r->rescan;
}

bool schedule_has_room(const struct relay *r)
{
    return !r->draining && r->active_count < r->active_max && r->active_bytes < RELAY_ACTIVE_BYTES_MAX &&
           r->loads_pending < RELAY_LOADS_MAX;
}

/* Activates what is due, a bounded batch a tick. Without room, the end of an active message kicks the relay
 * again. */
void schedule_run(struct relay *r)
{
    if (r->draining)
        return;
    uint64_t now = wall_ms();
    const struct heap_entry *top;
    uint32_t batch = 0;
    while (batch < RELAY_BATCH_MAX && schedule_has_room(r) && (top = heap_top(&r->heap)) &&
           top->due_ms <= now) {
        struct qmsg *m = top->m;
        schedule_forget(r, m);
        message_activate(r, m, NULL);
        batch++;
    }
    top = heap_top(&r->heap);
    if (top && top->due_ms <= now && schedule_has_room(r))
        relay_kick(r); /* the next batch in the next turn */
    else if (top && schedule_has_room(r))
        timer_arm(r->loop, &r->wake_timer, MIN(top->due_ms - now, WAKE_MS_MAX));
    else if (r->rescan)
        timer_arm(r->loop, &r->wake_timer, WAKE_MS_MAX);
}

void schedule_wake(struct timer *t)
{
    struct relay *r = container_of(t, struct relay, wake_timer);
    if (r->rescan) {
        r->rescan = false;
        queue_each(r->queue, rescan_one, r);
    }
    relay_kick(r);
}
