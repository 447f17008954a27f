/* relay/steer.c: what an operator does to waiting messages and destinations. */
#include "core/log.h"
#include "relay/dest_priv.h"

static bool is_active(const struct qmsg *m)
{
    return m->owner_flags & OWNER_ACTIVE;
}

bool relay_is_busy(const struct qmsg *m)
{
    return is_active(m);
}

bool relay_is_leased(const struct qmsg *m)
{
    return m->owner_flags & OWNER_LEASED;
}

/* The reason of a message that waits; its reference to the old one goes. */
static void set_note(struct qmsg *m, struct note *n)
{
    note_put(m->owner);
    m->owner = n;
}

/* --- hold, release --- */

static struct note *held_note(struct relay *r, const struct qmsg *m, str_t text)
{
    const struct note *old = m->owner;
    struct note *n = note_get(r, r->held_note, old ? note_key(old) : STR_NONE, text);
    if (n && n != r->held_note) {
        note_put(r->held_note);
        r->held_note = n;
        n->refs++;
    }
    return n;
}

void relay_hold(struct relay *r, struct qmsg *m, str_t text)
{
    queue_set_held(r->queue, m, true);
    if (is_active(m)) {
        message_drop_waiting(m->owner);
        return;
    }
    schedule_forget(r, m);
    set_note(m, held_note(r, m, text));
}

void relay_release(struct relay *r, struct qmsg *m)
{
    if (!m->held || m->owner_flags & (OWNER_BOUNCE | OWNER_REMOVE))
        return;
    queue_set_held(r->queue, m, false);
    if (m->owner_flags & OWNER_PLACES) /* it goes on when its attempt or its lease ends */
        return;
    set_note(m, NULL);
    schedule_put(r, m, wall_ms());
}

/* --- retry --- */

static void end_backoff(struct dest *d)
{
    uint64_t now = loop_now_ms(d->relay->loop);
    d->refused_until_ms = 0;
    d->candidates.fresh_until_ms = 0; /* ask DNS again */
    if (d->gate.down && d->gate.retry_at_ms > now)
        d->gate.retry_at_ms = now;
    dest_mark_dirty(d);
    crowd_look(d);
}

bool relay_retry_destination(struct relay *r, str_t key)
{
    struct dest *d = smap_get(&r->destinations, key);
    if (d)
        end_backoff(d);
    return d != NULL;
}

void relay_retry(struct relay *r, struct qmsg *m)
{
    if (m->held || m->owner_flags & (OWNER_ACTIVE | OWNER_LEASED))
        return;
    if (m->owner_flags & OWNER_ASIDE) { /* first in line, first called, now that the back-off is over */
        end_backoff(m->owner);
        return;
    }
    const struct note *n = m->owner;
    if (n && n->key_n)
        (void)relay_retry_destination(r, note_key(n));
    queue_set_due(r->queue, m, wall_ms(), m->attempts);
    schedule_forget(r, m);
    schedule_put(r, m, MIN(m->arrived_ms, wall_ms())); /* all are due; the oldest goes first */
}

/* --- remove --- */

static void remove_now(struct relay *r, struct qmsg *m)
{
    uint64_t now = wall_ms();
    LOG(removed, LF_QID("id", m->id), LF_CSTR("reason", "removed by the administrator"),
        LF_U64("age_s", now > m->arrived_ms ? (now - m->arrived_ms) / 1000 : 0));
    schedule_forget(r, m);
    set_note(m, NULL);
    m->owner_flags = 0;
    queue_remove(r->queue, m);
}

void relay_remove(struct relay *r, struct qmsg *m, bool bounce)
{
    if (!is_active(m) && !bounce) {
        remove_now(r, m);
        return;
    }
    m->owner_flags |= bounce ? OWNER_BOUNCE : OWNER_REMOVE;
    queue_set_held(r->queue, m, true);
    if (is_active(m)) {
        message_drop_waiting(m->owner);
        return;
    }
    schedule_forget(r, m);
    schedule_put(r, m, wall_ms());
}

/* --- lease --- */

bool relay_lease(struct relay *r, struct qmsg *m)
{
    if (m->owner_flags & (OWNER_LEASED | OWNER_REMOVE | OWNER_BOUNCE))
        return false;
    if (is_active(m))
        message_drop_waiting(m->owner); /* its attempt may end in it, with recipients left */
    if (is_active(m))
        return false;
    schedule_forget(r, m);
    m->owner_flags |= OWNER_LEASED;
    return true;
}

void relay_lease_end(struct relay *r, struct qmsg *m)
{
    must(m->owner_flags & OWNER_LEASED);
    m->owner_flags &= ~(uint32_t)OWNER_LEASED;
    if (!m->held)
        schedule_put(r, m, m->due_ms);
}

str_t relay_destination_of(const struct relay *r, str_t address, struct route *route)
{
    struct address parsed;
    if (address_parse_mailbox(address, &parsed) || policy_route(r->policy, &parsed, route))
        return STR_NONE;
    return route->key;
}
