/* relay/crowd.c: messages that wait for a destination which takes no more now, because it is down, paused, or
 * has its share of the active messages. They stand aside in its list, in order, without memory of their own,
 * and are called when it has room: so one destination's 100,000 messages neither keep another's first one
 * waiting nor come back one by one to find it still down. Nobody scans anything: an end of a job, of a
 * back-off or of a trial makes the destination look at its own list.
 *
 * A message whose destinations differ stands aside at the first that turned it away. It is in the heap as
 * well: see aside_due_ms in message.c. */
#include "core/metrics.h"
#include "core/rng.h"
#include "relay/dest_priv.h"

#define LOOK_S      3600 /* a message aside is looked at this often: its lifetime, reports and routes go on */
#define ELSEWHERE_S 60   /* until a message that waits elsewhere asks again where it was turned away too */

/* A destination may have as many active messages as there are places free. So one alone takes half of all,
 * two a third each, and a place for the first message of another is left however many there are. */
static bool has_share(const struct dest *d, uint32_t users)
{
    const struct relay *r = d->relay;
    uint32_t free_count = r->active_max - MIN(r->active_max, r->active_count);
    size_t free_bytes = RELAY_ACTIVE_BYTES_MAX - MIN(RELAY_ACTIVE_BYTES_MAX, r->active_bytes);
    return users <= 1 || (users <= free_count && d->users_bytes <= free_bytes);
}

/* With `users` messages, the one in question among them. */
static bool takes(const struct dest *d, uint32_t users)
{
    if (d->paused)
        return false;
    if (!d->gate.down)
        return has_share(d, users);
    return loop_now_ms(d->relay->loop) >= d->gate.retry_at_ms && users <= RELAY_TRIAL_JOBS_MAX;
}

bool crowd_takes(const struct dest *d, const struct job *j)
{
    /* Nobody overtakes the list; but a message that also waits for others may never be first in it. */
    const struct message *msg = j->msg;
    if (msg->called_by == d)
        return takes(d, 1); /* it has its place, however many jobs it makes */
    bool is_next = !d->aside_count || msg->jobs->next;
    return is_next && takes(d, d->users);
}

static uint64_t elsewhere_due_ms(const struct dest *d)
{
    uint64_t now = loop_now_ms(d->relay->loop), wait_ms = ELSEWHERE_S * UINT64_C(1000);
    if (d->gate.down && d->gate.retry_at_ms > now)
        wait_ms = d->gate.retry_at_ms - now;
    return wall_ms() + wait_ms + rng_below(MIN(wait_ms / 10, 30000) + 1);
}

void crowd_turn_away(struct dest *d, struct job *j, bool in_front)
{
    struct message *msg = j->msg;
    if (!msg->aside) {
        msg->aside = d;
        msg->in_front = in_front;
    } else if (msg->aside != d) {
        uint64_t due_ms = elsewhere_due_ms(d);
        msg->retry_due_ms = msg->retry_due_ms ? MIN(msg->retry_due_ms, due_ms) : due_ms;
    }
    if (d->paused || !d->gate.down) {
        job_ended(j); /* its turn comes; nothing to tell */
        return;
    }
    struct answer a = d->last.a;
    if (!a.text.p)
        a.text = STR("the destination is down");
    job_fail(j, RES_DEFERRED, &a, NULL);
}

str_t crowd_reason(const struct dest *d)
{
    if (d->paused)
        return STR("paused by the administrator");
    if (!d->gate.down)
        return STR("waits for its turn: the destination has as much in work as it may have");
    return d->last.a.text.p ? d->last.a.text : STR("the destination is down");
}

uint64_t crowd_look_ms(void)
{
    return backoff_ms(1, (struct backoff){LOOK_S, LOOK_S}, rng_u64());
}

/* --- the list --- */

void crowd_add(struct dest *d, struct qmsg *m, bool in_front)
{
    m->owner = d;
    m->owner_flags |= OWNER_ASIDE;
    if (in_front)
        list_push_front(&d->aside, &m->owner_link);
    else
        list_push_back(&d->aside, &m->owner_link);
    d->aside_count++;
    metric_add(M_queue_aside, 1);
    dest_in_use(d);
    crowd_look(d);
}

void crowd_leave(struct qmsg *m)
{
    struct dest *d = m->owner;
    must(m->owner_flags & OWNER_ASIDE && d->aside_count > 0);
    m->owner = NULL;
    m->owner_flags &= ~(uint32_t)OWNER_ASIDE;
    list_remove(&m->owner_link);
    d->aside_count--;
    metric_add(M_queue_aside, -1);
    dest_check_idle(d);
}

void crowd_drop(struct dest *d)
{
    while (d->aside_count)
        crowd_leave(container_of(list_first(&d->aside), struct qmsg, owner_link));
}

/* One by one, as there is room: each may have another way now. What is turned away again goes to the end, so
 * that the order stays. */
void crowd_sort_again(struct dest *d)
{
    d->resort_count = d->aside_count;
    crowd_look(d);
}

/* --- calling --- */

void crowd_look(struct dest *d)
{
    if (!d->aside_count || link_in_list(&d->hungry_link))
        return;
    list_push_back(&d->relay->hungry, &d->hungry_link);
    relay_kick(d->relay);
}

void crowd_wake(struct timer *t)
{
    struct dest *d = container_of(t, struct dest, wake_timer);
    dest_mark_dirty(d); /* for jobs that wait for the rate */
    crowd_look(d);
}

static void call(struct dest *d, struct dest *by)
{
    struct qmsg *m = container_of(list_first(&d->aside), struct qmsg, owner_link);
    schedule_forget(d->relay, m);
    message_activate(d->relay, m, by);
}

/* False: enough for now; who ends a job, a back-off or a trial looks again. */
static bool call_next(struct dest *d)
{
    uint64_t now = loop_now_ms(d->relay->loop);
    if (!d->aside_count)
        return false;
    if (d->resort_count) {
        d->resort_count = MIN(d->resort_count, d->aside_count) - 1;
        call(d, NULL);
        return true;
    }
    if (takes(d, d->users + 1)) {
        call(d, d);
        return true;
    }
    if (d->gate.down && now < d->gate.retry_at_ms)
        timer_arm(d->relay->loop, &d->wake_timer, d->gate.retry_at_ms - now);
    return false;
}

void crowd_run(struct relay *r)
{
    uint32_t batch = 0;
    while (batch < RELAY_BATCH_MAX && schedule_has_room(r) && !list_empty(&r->hungry)) {
        struct dest *d = container_of(list_pop_front(&r->hungry), struct dest, hungry_link);
        if (!call_next(d))
            continue;
        if (!link_in_list(&d->hungry_link))
            list_push_back(&r->hungry, &d->hungry_link);
        batch++;
    }
    if (schedule_has_room(r) && !list_empty(&r->hungry))
        relay_kick(r);
}
