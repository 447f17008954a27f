/* relay/dispatch.c: a destination's ready jobs to its connections. Warm connections first: a burst of small
 * messages travels pipelined over few of them; more are opened when jobs pile up or wait long (gate.c
 * decides). */
#include <errno.h>

#include "core/log.h"
#include "core/rng.h"
#include "relay/outconn_priv.h"

#define ASIDE_PER_TICK  256   /* jobs turned away in one turn when a destination goes down */
#define REFUSED_KEPT_MS 60000 /* "the domain does not exist" is believed this long */

/* From the back, each to the front of the list: their order stays, and they are older than what is there. */
static bool turn_away_some(struct dest *d)
{
    struct job *j;
    for (uint32_t i = 0; i < ASIDE_PER_TICK; i++) {
        if (!(j = dest_take_last_job(d)))
            return true;
        crowd_turn_away(d, j, true);
    }
    return d->ready_count == 0;
}

static void went_down(struct dest *d, bool was_down)
{
    uint64_t now = loop_now_ms(d->relay->loop);
    if (!was_down)
        dest_stats_down(d->stats, 1);
    LOG(dest_down, LF_STR("dest", d->key), LF_CSTR("relay", d->last_relay[0] ? d->last_relay : NULL),
        LF_U64("retry_s", (d->gate.retry_at_ms - now) / 1000), LF_STR("text", d->last.a.text));
    dest_mark_dirty(d);
    crowd_look(d);
}

static void came_up(struct dest *d, str_t relay)
{
    dest_stats_down(d->stats, -1);
    LOG(dest_up, LF_STR("dest", d->key), LF_STR("relay", relay));
    dest_mark_dirty(d);
    crowd_look(d);
}

static void remember(struct dest *d, const struct answer *why, str_t relay)
{
    answer_keep(&d->last, why);
    struct sbuf b = SBUF_ON(d->last_relay);
    sbuf_str(&b, str_sub(relay, 0, sizeof d->last_relay - 1));
    sbuf_char(&b, '\0');
}

void dest_shut(struct dest *d, const struct answer *why)
{
    bool was_down = d->gate.down;
    remember(d, why, STR_NONE);
    gate_shut(&d->gate, loop_now_ms(d->relay->loop), d->relay->settings.retry, rng_u64());
    went_down(d, was_down);
}

void dest_conn_failed(struct dest *d, bool spoke, const struct answer *why, str_t relay)
{
    bool was_down = d->gate.down;
    remember(d, why, relay);
    if (gate_failed(&d->gate, spoke, loop_now_ms(d->relay->loop), d->relay->settings.retry, rng_u64()))
        went_down(d, was_down);
    else
        dest_mark_dirty(d);
}

void dest_spoke(struct dest *d, str_t relay)
{
    if (gate_spoke(&d->gate, loop_now_ms(d->relay->loop)))
        came_up(d, relay);
}

void dest_moved(struct dest *d, str_t relay)
{
    if (gate_moved(&d->gate, loop_now_ms(d->relay->loop)))
        came_up(d, relay);
}

/* The domain says never: every job that waits for it bounces. */
static void refuse(struct dest *d, const struct answer *why)
{
    struct job *j;
    answer_keep(&d->refused, why);
    d->refused_until_ms = loop_now_ms(d->relay->loop) + REFUSED_KEPT_MS;
    while ((j = dest_take_job(d)))
        job_fail(j, RES_BOUNCED, &d->refused.a, &(struct hop){0});
}

static void take_resolution(struct dest *d, struct resolution *res)
{
    uint64_t now = loop_now_ms(d->relay->loop);
    switch (res->kind) {
    case RESOLVED: candidates_replace(&d->candidates, &res->candidates, res->ttl_s, now); break;
    case RESOLVE_LATER:
        if (!candidates_extend(&d->candidates, now))
            dest_shut(d, &res->answer);
        break;
    case RESOLVE_NEVER: refuse(d, &res->answer); break;
    }
}

static void resolved(void *ctx, struct resolution *res)
{
    struct dest *d = ctx;
    d->resolving = NULL;
    take_resolution(d, res);
    dest_check_idle(d);
    dest_mark_dirty(d);
}

/* True: there are addresses to connect to. */
static bool have_candidates(struct dest *d)
{
    if (d->resolving)
        return false;
    if (candidates_fresh(&d->candidates, loop_now_ms(d->relay->loop)))
        return true;
    struct resolution now = {0};
    err_t err = resolve_start(&d->relay->resolver, &d->target, resolved, d, &d->resolving, &now);
    if (err == ERR_PENDING)
        return false;
    if (err) {
        now.kind = RESOLVE_LATER;
        now.answer = (struct answer){.code = 451, .status = {4, 3, 0}, .text = str_cstr(err_text(err))};
    }
    take_resolution(d, &now);
    return d->candidates.count && d->ready_count; /* also for the trial of one that is down */
}

/* Jobs wait for a slot. Should the server be slow to free one, another connection is opened for them in a
 * moment. */
static void press(struct dest *d)
{
    struct relay *r = d->relay;
    if (link_in_list(&d->pressed_link) || gate_may_connect(&d->gate, loop_now_ms(r->loop)) != GATE_OPEN)
        return;
    list_push_back(&r->pressed, &d->pressed_link);
    if (!timer_armed(&r->pressed_timer))
        timer_arm(r->loop, &r->pressed_timer, GATE_SLOW_MS);
}

void dest_pressed(struct timer *t)
{
    struct relay *r = container_of(t, struct relay, pressed_timer);
    struct link *k;
    while ((k = list_pop_front(&r->pressed)))
        dest_mark_dirty(container_of(k, struct dest, pressed_link));
}

static bool await_rate(struct dest *d, uint64_t wait_ms)
{
    if (wait_ms)
        timer_arm(d->relay->loop, &d->wake_timer, wait_ms);
    return !wait_ms;
}

bool dest_may_begin(struct dest *d)
{
    return !d->rate.count || await_rate(d, rate_take(d->rate_at, &d->rate, clock_mono_ns()));
}

static bool rate_is_open(struct dest *d)
{
    return !d->rate.count || await_rate(d, rate_wait_ms(d->rate_at, &d->rate, clock_mono_ns()));
}

void dest_open_more(struct dest *d)
{
    if (d->relay->draining || !d->ready_count || !rate_is_open(d))
        return;
    uint64_t now = loop_now_ms(d->relay->loop);
    const struct job *oldest = container_of(list_first(&d->ready), struct job, link);
    uint32_t wanted = gate_wanted(&d->gate, now, d->ready_count, now - oldest->ready_ms);
    if (!wanted) {
        press(d);
        return;
    }
    if (!have_candidates(d))
        return;
    while (wanted-- > 0 && outconn_open(d))
        ;
}

/* One job to each connection that has nothing to do, then one behind what the others are busy with. */
static void hand_out(struct dest *d, bool behind)
{
    LIST_EACH(&d->conns, k)
    {
        if (!d->ready_count)
            return;
        struct outconn *c = container_of(k, struct outconn, link);
        if (outconn_is_worn(c))
            outconn_settle(c); /* which ends it when it is idle */
        else if (outconn_is_free(c, behind)) {
            if (!dest_may_begin(d))
                return;
            outconn_take(c);
        }
    }
}

bool dest_dispatch(struct dest *d)
{
    if (d->relay->draining) {
        dest_cancel_jobs(d);
        return true;
    }
    if (d->paused || gate_may_connect(&d->gate, loop_now_ms(d->relay->loop)) == GATE_DOWN)
        return turn_away_some(d);
    hand_out(d, false);
    hand_out(d, true);
    dest_open_more(d);
    return true;
}

void dest_cancel_jobs(struct dest *d)
{
    struct job *j;
    while ((j = dest_take_job(d)))
        job_cancel(j);
}
