/* relay/message.c: one attempt at a message: load, group, (jobs run), settle, finish. */
#include "relay/message_priv.h"

#include <errno.h>
#include <inttypes.h>

#include "core/log.h"
#include "core/rng.h"
#include "relay/dest_priv.h"

#define SPARES_MAX 256 /* idle message objects that keep an arena chunk */

static struct message *message_new(struct relay *r)
{
    struct link *k = list_pop_front(&r->spare_messages);
    if (k) {
        r->spare_count--;
        struct message *msg = container_of(k, struct message, link);
        struct arena arena = msg->arena;
        *msg = (struct message){.relay = r, .arena = arena};
        return msg;
    }
    struct message *msg = pool_get(&r->message_pool);
    if (!msg)
        return NULL;
    msg->relay = r;
    arena_init(&msg->arena, RELAY_MESSAGE_BYTES_MAX);
    return msg;
}

/* Unpins the queue's message, which is gone with it when nothing of it is pending. */
static void message_free(struct message *msg)
{
    struct relay *r = msg->relay;
    for (struct job *j = msg->jobs; j; j = j->next) {
        j->dest->users_bytes -= msg->counted_bytes;
        dest_user_gone(j->dest);
    }
    queue_load_end(&msg->load);
    list_remove(&msg->link);
    r->active_count--;
    r->active_bytes -= msg->counted_bytes;
    arena_reset(&msg->arena);
    if (r->spare_count < SPARES_MAX) {
        list_push_front(&r->spare_messages, &msg->link);
        r->spare_count++;
    } else {
        arena_free(&msg->arena);
        pool_put(&r->message_pool, msg);
    }
    relay_kick(r);
}

void message_free_spares(struct relay *r)
{
    struct link *k;
    while ((k = list_pop_front(&r->spare_messages))) {
        struct message *msg = container_of(k, struct message, link);
        arena_free(&msg->arena);
        pool_put(&r->message_pool, msg);
    }
    r->spare_count = 0;
}

/* Leaves the active state with the message still queued; `note` (may be NULL) moves to it, or it goes aside
 * and has its destination's reason. */
static struct qmsg *message_release(struct message *msg, struct note *note)
{
    struct qmsg *m = msg->m;
    m->owner = note;
    m->owner_flags =
        (m->owner_flags & ~(uint32_t)(OWNER_PLACES | OWNER_TOLD)) | (msg->told ? OWNER_TOLD : 0u);
    if (msg->note && msg->note != note)
        note_put(msg->note);
    if (msg->aside && !m->held)
        crowd_add(msg->aside, m, msg->in_front);
    message_free(msg);
    return m;
}

static void message_put_back(struct message *msg, struct note *note, uint64_t due_ms)
{
    struct relay *r = msg->relay;
    struct qmsg *m = message_release(msg, note);
    if (!m->held || m->owner_flags & OWNER_BOUNCE) /* it may have been held meanwhile */
        schedule_put(r, m, due_ms);
}

/* What cannot be read is kept, not sent and not dropped: for a person to look at. */
static void message_hold(struct message *msg, const char *what)
{
    struct relay *r = msg->relay;
    LOG(queue_damage, LF_U64("ring", r->worker), LF_QID("id", msg->m->id), LF_CSTR("text", what));
    queue_set_held(r->queue, msg->m, true);
    message_release(msg, note_get(r, NULL, STR_NONE, str_cstr(what)));
}

/* Its place at the destination that called it is the job's from here on. */
static void called_is_here(struct message *msg)
{
    if (msg->called_by)
        dest_user_gone(msg->called_by);
}

static void load_failed(struct message *msg, err_t err)
{
    called_is_here(msg);
    if (err == ERR_CORRUPT || err == ERR_VERSION) {
        message_hold(msg, "the message's envelope is damaged: held");
        return;
    }
    LOG(queue_error, LF_U64("ring", msg->relay->worker), LF_ERR("err", err),
        LF_CSTR("text", "a message cannot be loaded; tried again later"));
    uint64_t wait_ms = backoff_ms(1, msg->relay->settings.retry, rng_u64());
    message_put_back(msg, msg->note, wall_ms() + wait_ms);
}

static void loaded(struct message *msg)
{
    bool refused = msg->m->owner_flags & OWNER_BOUNCE;
    if (message_is_stopped(msg) && !refused) { /* while it was loaded */
        called_is_here(msg);
        msg->cancelled = true;
        message_finish(msg);
        return;
    }
    err_t err = envelope_decode(msg->load.meta, &msg->env);
    if (!err)
        err = refused ? message_refuse(msg) : message_group(msg);
    if (err) {
        load_failed(msg, err);
        return;
    }
    msg->counted_bytes = msg->arena.bytes_used;
    msg->relay->active_bytes += msg->counted_bytes;
    for (struct job *j = msg->jobs; j; j = j->next)
        j->dest->users_bytes += msg->counted_bytes;
    called_is_here(msg);
    message_start_jobs(msg);
}

static void load_done(struct qload *ld)
{
    struct message *msg = container_of(ld, struct message, load);
    msg->relay->loads_pending--;
    relay_kick(msg->relay); /* there is room for another one */
    if (ld->err)
        load_failed(msg, ld->err);
    else
        loaded(msg);
}

void message_activate(struct relay *r, struct qmsg *m, struct dest *called_by)
{
    struct message *msg = message_new(r);
    if (!msg) {
        schedule_put(r, m, wall_ms() + 1000);
        return;
    }
    msg->m = m;
    msg->note = m->owner;
    msg->told = msg->note || m->owner_flags & OWNER_TOLD;
    msg->called_by = called_by;
    if (called_by) {
        called_by->users++;
        dest_in_use(called_by);
    }
    m->owner = msg;
    m->owner_flags = (m->owner_flags & ~(uint32_t)OWNER_PLACES) | OWNER_ACTIVE;
    list_push_back(&r->active, &msg->link);
    r->active_count++;
    msg->load.done = load_done;
    err_t err = queue_load(r->queue, m, &msg->arena, &msg->load);
    if (err == ERR_PENDING)
        r->loads_pending++;
    else if (err)
        load_failed(msg, err);
    else
        loaded(msg);
}

static void expire(struct message *msg, uint64_t lifetime_ms)
{
    for (uint32_t i = 0; i < msg->rcpt_count; i++) {
        struct rcpt *rc = &msg->rcpts[i];
        bool is_untried = rc->result == RES_NONE && msg->aside;
        if (rc->result != RES_DEFERRED && !is_untried)
            continue;
        str_t reason = is_untried ? crowd_reason(msg->aside) : rc->answer.text;
        struct answer a = {.status = {5, 4, 7}, .mta = rc->answer.mta};
        a.text =
            arena_printf(&msg->arena, "not delivered within %" PRIu64 " hours; the last reason was: " STR_FMT,
                         lifetime_ms / 3600000, STR_ARG(reason));
        rcpt_settle(msg, rc, NULL, RES_BOUNCED, &a, &(struct hop){0});
    }
}

static uint64_t lifetime_of(const struct message *msg)
{
    const struct settings *s = &msg->relay->settings;
    return msg->env.sender.n ? s->lifetime_ms : s->dsn_lifetime_ms;
}

static bool is_late(const struct message *msg)
{
    uint64_t after_ms = msg->relay->settings.delay_after_ms;
    return after_ms && msg->env.sender.n && !msg->m->warned && wall_ms() >= msg->m->arrived_ms + after_ms;
}

static void settle(struct message *msg)
{
    if (msg->damaged) {
        message_hold(msg, "the message's content is damaged: held");
        return;
    }
    uint64_t lifetime_ms = lifetime_of(msg);
    if (wall_ms() >= msg->m->arrived_ms + lifetime_ms)
        expire(msg, lifetime_ms);
    msg->is_late = is_late(msg);
    report_settle(msg);
}

void message_job_gone(struct message *msg)
{
    must(msg->jobs_open > 0);
    if (--msg->jobs_open == 0)
        settle(msg);
}

/* Why it waits now: the last recipient that was put off says it. Aside, its destination does. */
static struct note *deferral_note(struct message *msg)
{
    if (msg->aside)
        return NULL;
    for (uint32_t i = msg->rcpt_count; i-- > 0;) {
        const struct rcpt *rc = &msg->rcpts[i];
        struct dest *d = rc->dest;
        if (rc->result != RES_DEFERRED || !d)
            continue;
        struct note *n = note_get(msg->relay, d->note, d->key, rc->answer.text);
        if (n && n != d->note) { /* the destination remembers it, so that the next message shares it */
            note_put(d->note);
            d->note = n;
            n->refs++;
        }
        return n;
    }
    return msg->note;
}

static void message_done(struct message *msg, const char *reason)
{
    struct qmsg *m = msg->m;
    uint64_t now = wall_ms();
    LOG(removed, LF_QID("id", m->id), LF_CSTR("reason", reason),
        LF_U64("age_s", now > m->arrived_ms ? (now - m->arrived_ms) / 1000 : 0));
    note_put(msg->note);
    m->owner = NULL;
    m->owner_flags = 0;
    message_free(msg);
}

/* When it is looked at again, whatever the destination that it waits for does: when its sender is to be told
 * that it is late, at the end of its lifetime, or when another of its destinations may take it. */
static uint64_t aside_due_ms(const struct message *msg, uint64_t now)
{
    uint64_t due_ms = now + crowd_look_ms(), end_ms = msg->m->arrived_ms + lifetime_of(msg);
    uint64_t late_ms = msg->m->arrived_ms + msg->relay->settings.delay_after_ms;
    if (end_ms > now)
        due_ms = MIN(due_ms, end_ms);
    if (late_ms > now)
        due_ms = MIN(due_ms, late_ms);
    return msg->retry_due_ms ? MIN(due_ms, msg->retry_due_ms) : due_ms;
}

void message_finish(struct message *msg)
{
    struct relay *r = msg->relay;
    struct qmsg *m = msg->m;
    if (m->rcpt_pending == 0) {
        message_done(msg, "done");
        return;
    }
    if (m->owner_flags & OWNER_REMOVE) { /* message_free unpins it: then it is gone */
        queue_remove(r->queue, m);
        message_done(msg, "removed by the administrator");
        return;
    }
    /* A destination that takes no more costs no attempt and no record: after a restart everything is tried at
     * once anyway. */
    uint64_t now = wall_ms(), due_ms = msg->cancelled ? now
                                       : msg->aside   ? aside_due_ms(msg, now)
                                                      : UINT64_MAX;
    if (msg->attempted || due_ms == UINT64_MAX) {
        uint32_t attempts = m->attempts + 1;
        due_ms = MIN(due_ms, now + backoff_ms(attempts, r->settings.retry, rng_u64()));
        queue_set_due(r->queue, m, due_ms, attempts);
    }
    for (uint32_t i = 0; i < msg->rcpt_count; i++)
        msg->told |= msg->rcpts[i].result == RES_DEFERRED;
    message_put_back(msg, deferral_note(msg), due_ms);
}
