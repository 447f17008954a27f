/* queue/scrub.c: every record of every live message is read from the disk and checked, now and then, so that
 * rot is found while there is still somebody to ask for the mail again.
 *
 * One message after the other, oldest first, one read in flight, as slowly as spool.scrub allows. A message
 * is pinned only during a read: when it has moved or left in between, its envelope is read again or it is
 * passed over. What is damaged is told and kept in corrupt/ once: the envelope, and then every piece that can
 * be read, as recovery does it. */
#include <errno.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "queue/queue_priv.h"

#define RATE_MIN       (UINT64_C(64) << 10) /* bytes per second: a small ring is done in no time */
#define RATE_MAX       (UINT64_C(32) << 20)
#define READ_COST_MIN  (UINT64_C(16) << 10) /* a read of one sector costs a disk as much as that */
#define LEAD_MS        UINT64_C(50)         /* pauses shorter than this are saved up */
#define KEEP_PAUSE_MS  50u                  /* until the thread that keeps bytes has written them */
#define ERROR_PAUSE_MS 5000u
#define ERROR_TRIES    6u
#define FIRST_PAUSE_MS UINT64_C(60000) /* recovery has just read everything */
#define KEPT_BYTES_MAX                                                                                       \
    (UINT64_C(256) << 20) /* of corrupt/, in a life: a ruined ring must not fill the disk */

/* ---- pace ---- */

static uint64_t rate(const struct queue *q)
{
    const struct qscrub *sc = &q->scrub;
    if (sc->state.hurried || sc->period_ms == 0)
        return RATE_MAX;
    uint64_t per_second = q->live_bytes / MAX(sc->period_ms / 1000, UINT64_C(1));
    return MIN(MAX(per_second, RATE_MIN), RATE_MAX);
}

static void pay(struct queue *q, uint64_t bytes)
{
    struct qscrub *sc = &q->scrub;
    uint64_t now_ns = clock_mono_ns();
    sc->ready_ns = MAX(sc->ready_ns, now_ns) + MAX(bytes, READ_COST_MIN) * NS_PER_S / rate(q);
    sc->state.read_bytes += bytes;
    metric_add(M_queue_scrubbed_bytes, (int64_t)bytes);
}

/* False: the timer goes on. */
static bool may_go_on(struct queue *q)
{
    uint64_t now_ns = clock_mono_ns();
    uint64_t ahead_ms = q->scrub.ready_ns > now_ns ? (q->scrub.ready_ns - now_ns) / NS_PER_MS : 0;
    if (ahead_ms <= LEAD_MS)
        return true;
    timer_arm(q->loop, &q->scrub.timer, ahead_ms);
    return false;
}

/* ---- a lap ---- */

static void commit_forget(struct qscrub *sc)
{
    free(sc->payload);
    sc->payload = NULL;
}

static void message_end(struct qscrub *sc)
{
    commit_forget(sc);
    sc->m = NULL;
    sc->keeping = false;
    sc->error_count = 0;
}

static void lap_start(struct queue *q, bool hurried)
{
    struct qscrub *sc = &q->scrub;
    struct link *first = list_first(&q->messages);
    message_end(sc);
    sc->state = (struct queue_scrub_state){
        .running = true, .hurried = hurried, .started_ms = clock_wall_ns() / NS_PER_MS};
    sc->started_ns = sc->ready_ns = clock_mono_ns();
    sc->next = first ? container_of(first, struct qmsg, all_link) : NULL;
}

static void sleep_until_next(struct queue *q)
{
    struct qscrub *sc = &q->scrub;
    if (sc->period_ms == 0)
        return;
    uint64_t past_ms = (clock_mono_ns() - sc->started_ns) / NS_PER_MS;
    timer_arm(q->loop, &sc->timer, sc->period_ms > past_ms ? sc->period_ms - past_ms : 1);
}

static void lap_end(struct queue *q)
{
    struct qscrub *sc = &q->scrub;
    struct queue_scrub_state *st = &sc->state;
    st->running = st->hurried = false;
    st->ended_ms = clock_wall_ns() / NS_PER_MS;
    metric_inc(M_queue_scrubs);
    LOG(queue_scrub, LF_U64("ring", q->opt.ring_index), LF_U64("messages", st->message_count),
        LF_U64("bytes", st->read_bytes), LF_U64("damaged", st->damaged_count),
        LF_U64("unreadable", st->unreadable_count),
        LF_U64("ms", (clock_mono_ns() - sc->started_ns) / NS_PER_MS));
    sleep_until_next(q);
}

static struct qmsg *after(const struct queue *q, const struct qmsg *m)
{
    struct link *k = m->all_link.next;
    return k == &q->messages.head ? NULL : container_of(k, struct qmsg, all_link);
}

static void message_next(struct queue *q)
{
    struct qscrub *sc = &q->scrub;
    sc->m = sc->next;
    sc->next = after(q, sc->m);
    sc->extent_index = 0;
    sc->state.message_count++;
    if (sc->m->damaged) /* told and kept before */
        sc->state.damaged_count++;
    if (sc->m->damaged || sc->m->flags & QMSG_LOST)
        message_end(sc);
}

/* Leaves the index: the cursor goes on to its neighbour. */
void qscrub_forget(struct queue *q, struct qmsg *m)
{
    struct qscrub *sc = &q->scrub;
    if (sc->next == m)
        sc->next = after(q, m);
    if (sc->m == m && !sc->reading)
        message_end(sc);
}

/* ---- damage ---- */

static bool was_told(const struct queue *q, const struct qmsg *m)
{
    const struct disk_super *d = &q->super.now;
    for (uint32_t i = 0; i < d->known_count; i++)
        if (d->known[i].from == m->commit_at && d->known[i].to == m->commit_at + m->commit_bytes)
            return true;
    return false;
}

/* One after the other: the thread before has ended. */
static void keep(struct queue *q, const struct qread *r)
{
    struct qscrub *sc = &q->scrub;
    if (sc->kept_bytes + r->bytes > KEPT_BYTES_MAX)
        return;
    if (qdamage_append(q, sc->keep_at, qread_record(r), r->bytes))
        sc->kept_bytes += r->bytes;
}

static void found_damaged(struct queue *q, uint64_t position, uint32_t bytes)
{
    struct qscrub *sc = &q->scrub;
    sc->m->damaged = true;
    sc->state.damaged_count++;
    if (was_told(q, sc->m)) {
        message_end(sc);
        return;
    }
    bool is_envelope = position == sc->commit_at;
    qdamage_report(q, position, bytes, sc->m->id, sc->kept_bytes < KEPT_BYTES_MAX,
                   is_envelope ? "scrub: the commit record of a message is damaged"
                               : "scrub: a piece of a body is damaged");
    qsuper_add_known(q, sc->commit_at, sc->commit_at + sc->m->commit_bytes);
    qsuper_request(q);
    commit_forget(sc); /* from its start again, this time to be kept */
    sc->extent_index = 0;
    sc->keep_at = sc->commit_at;
    sc->keeping = true;
}

/* ---- reading ---- */

static void go_on(struct queue *q);

static void unreadable(struct queue *q, const struct qread *r, err_t err)
{
    struct qscrub *sc = &q->scrub;
    if (sc->state.unreadable_count++ == 0) /* a dead disk is told once in a lap, not for each message */
        LOG(queue_error, LF_U64("ring", q->opt.ring_index), LF_I64("errno", -(int64_t)err),
            LF_ERR("err", err), LF_QID("id", r->id), LF_U64("offset", qfile_at(q, r->position)),
            LF_CSTR("text", "scrub: a record cannot be read; there may be more"));
    message_end(sc);
}

static void commit_take(struct queue *q, const struct qread *r, err_t err)
{
    struct qscrub *sc = &q->scrub;
    const struct disk_record *rec = qread_record(r);
    struct qcommit_view v;
    if (!err &&
        (qcommit_parse((const uint8_t *)(rec + 1), rec->bytes, &v) || v.head.rcpt_count != sc->m->rcpt_count))
        err = ERR_CORRUPT;
    bool was_keeping = sc->keeping;
    if (was_keeping)
        keep(q, r);
    if (err) {
        if (was_keeping)
            message_end(sc); /* without it nobody knows the pieces */
        else
            found_damaged(q, r->position, r->bytes);
        return;
    }
    sc->payload = malloc(rec->bytes);
    if (!sc->payload) {
        message_end(sc);
        return;
    }
    memcpy(sc->payload, rec + 1, rec->bytes);
    sc->payload_bytes = rec->bytes;
}

static void piece_take(struct queue *q, const struct qread *r, err_t err)
{
    struct qscrub *sc = &q->scrub;
    if (sc->keeping)
        keep(q, r);
    if (err && !sc->keeping)
        found_damaged(q, r->position, r->bytes);
    else
        sc->extent_index++;
}

/* A disk that cannot be read now may be read later; then the piece is left out. */
static void read_failed(struct queue *q, const struct qread *r, err_t err)
{
    struct qscrub *sc = &q->scrub;
    if (++sc->error_count < ERROR_TRIES) {
        sc->ready_ns = clock_mono_ns() + ERROR_PAUSE_MS * NS_PER_MS;
    } else if (sc->keeping && r->type == RECORD_BODY) {
        sc->error_count = 0;
        sc->extent_index++;
    } else {
        unreadable(q, r, err);
    }
}

static void arrived(void *ctx, struct qread *r, err_t err)
{
    struct queue *q = ctx;
    struct qscrub *sc = &q->scrub;
    struct qmsg *m = sc->m;
    sc->reading = NULL;
    pay(q, r->bytes);
    if (sc->again) {
        sc->again = false;
        lap_start(q, true);
    } else if (m->flags & (QMSG_REMOVED | QMSG_LOST)) {
        message_end(sc);
    } else if (err && err != ERR_CORRUPT) {
        read_failed(q, r, err);
    } else {
        sc->error_count = 0;
        if (r->type == RECORD_COMMIT)
            commit_take(q, r, err);
        else
            piece_take(q, r, err);
    }
    qread_forget(r);
    qindex_unpin(q, m);
    go_on(q);
}

/* False: it comes later. */
static bool read_next(struct queue *q, uint64_t position, uint32_t bytes, enum record_type type)
{
    struct qscrub *sc = &q->scrub;
    sc->reading = qread_start(q, position, bytes, type, sc->m->id, arrived, q);
    if (sc->reading)
        sc->m->pins++;
    else
        timer_arm(q->loop, &sc->timer, ERROR_PAUSE_MS); /* no memory now */
    return false;
}

static bool is_possible(const struct queue *q, const struct disk_extent *e)
{
    return e->position % 8 == 0 && e->bytes <= q->unit_bytes &&
           qrecord_bytes(e->bytes) <= q->unit_bytes - e->position % q->unit_bytes;
}

/* False: a read or a pause goes on with it. */
static bool message_step(struct queue *q)
{
    struct qscrub *sc = &q->scrub;
    struct qmsg *m = sc->m;
    struct qcommit_view v;
    if (sc->payload && sc->commit_at != m->commit_at)
        commit_forget(sc); /* it has moved: the same pieces in other places */
    if (!sc->payload) {
        sc->commit_at = m->commit_at;
        return read_next(q, m->commit_at, m->commit_bytes, RECORD_COMMIT);
    }
    must(qcommit_parse(sc->payload, sc->payload_bytes, &v) == 0);
    if (sc->extent_index >= v.head.extent_count) {
        message_end(sc);
        return true;
    }
    struct disk_extent e = qcommit_extent(&v, sc->extent_index);
    if (is_possible(q, &e))
        return read_next(q, e.position, qrecord_bytes(e.bytes), RECORD_BODY);
    if (sc->keeping)
        sc->extent_index++;
    else
        found_damaged(q, e.position, qrecord_bytes(e.bytes));
    return true;
}

/* What came after the lap began is the next one's, or a busy ring's lap would never end. */
static bool is_in_lap(const struct qscrub *sc)
{
    return sc->next && sc->next->arrived_ms <= sc->state.started_ms;
}

static bool step(struct queue *q)
{
    struct qscrub *sc = &q->scrub;
    if (sc->keeping && qdamage_is_busy(q)) {
        timer_arm(q->loop, &sc->timer, KEEP_PAUSE_MS);
        return false;
    }
    while (!sc->m && is_in_lap(sc))
        message_next(q);
    if (sc->m)
        return message_step(q);
    lap_end(q);
    return false;
}

static void go_on(struct queue *q)
{
    while (!q->closing && !q->scrub.reading && may_go_on(q) && step(q))
        ;
}

static void timer_fired(struct timer *t)
{
    struct queue *q = container_of(t, struct queue, scrub.timer);
    if (!q->scrub.state.running)
        lap_start(q, false);
    go_on(q);
}

/* ---- life ---- */

void qscrub_start_loop(struct queue *q)
{
    q->scrub.timer.fire = timer_fired;
    queue_set_scrub(q, q->opt.scrub_period_s);
}

void qscrub_stop(struct queue *q)
{
    struct qscrub *sc = &q->scrub;
    struct qmsg *m = sc->m;
    timer_disarm(q->loop, &sc->timer);
    bool was_reading = sc->reading != NULL;
    qread_forget(sc->reading);
    sc->reading = NULL;
    message_end(sc);
    sc->next = NULL;
    sc->state.running = false;
    if (was_reading)
        qindex_unpin(q, m);
}

void queue_set_scrub(struct queue *q, uint32_t period_s)
{
    struct qscrub *sc = &q->scrub;
    sc->period_ms = (uint64_t)period_s * 1000;
    if (sc->state.running || q->closing)
        return;
    timer_disarm(q->loop, &sc->timer);
    if (sc->started_ns)
        sleep_until_next(q);
    else if (sc->period_ms > 0)
        timer_arm(q->loop, &sc->timer, MIN(sc->period_ms, FIRST_PAUSE_MS));
}

void queue_scrub(struct queue *q)
{
    struct qscrub *sc = &q->scrub;
    if (q->closing)
        return;
    if (sc->reading)
        sc->again = true;
    else
        lap_start(q, true);
    sc->state.running = sc->state.hurried = true;
    timer_arm(q->loop, &sc->timer, 0);
}

void queue_scrub_state(const struct queue *q, struct queue_scrub_state *out)
{
    *out = q->scrub.state;
}
