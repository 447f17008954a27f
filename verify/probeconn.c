/* verify/probeconn.c: the life of a connection for probes: address after address until one speaks, work,
 * idleness, the end. */
#include <errno.h>

#include "core/log.h"
#include "core/metrics.h"
#include "core/rng.h"
#include "verify/probeconn_priv.h"

#define OPEN_PAUSE_MS 30000 /* after a refused extra connection */

static const struct conn_ops socket_ops;
static void stage_timeout(struct timer *t);

size_t probeconn_bytes(void)
{
    return ALIGN_UP(sizeof(struct probeconn), 64) + conn_size();
}

/* --- where to --- */

static bool dial(struct probeconn *c)
{
    struct backend *b = c->backend;
    struct verifier *v = b->verifier;
    bool is_only = !b->speaking_count && b->dialing_count <= 1;
    if (!attempt_next(&c->to, &b->candidates, b->access, is_only, loop_now_ms(v->loop)))
        return false;
    struct smtpc_options o = attempt_options(&c->to, v->hop.hostname, b->protocol == ROUTE_LMTP);
    if (smtpc_create(&c->smtpc, &probe_dialogue, c, &o)) {
        found_fill(&c->why, STAGE_CONNECT, NULL, STR_NONE, "out of memory for a connection");
        return false;
    }
    c->state = PC_DIALING;
    c->failed = c->timed_out = false;
    transcript_note(b, "connecting to %s", c->to.relay);
    conn_dial(c->conn, v->loop, &c->to.at, NULL, MIN(v->hop.times.connect_ms, PROBE_CONNECT_MS), &socket_ops,
              c);
    return true;
}

bool probeconn_open(struct backend *b)
{
    struct verifier *v = b->verifier;
    struct probeconn *c = pool_get(&v->conn_pool);
    if (!c)
        return false;
    c->backend = b;
    c->conn = (struct conn *)(void *)((char *)c + ALIGN_UP(sizeof *c, 64));
    c->timer.fire = stage_timeout;
    c->progress_ms = loop_now_ms(v->loop);
    list_init(&c->batches);
    list_init(&c->lost);
    b->dialing_count++;
    if (!dial(c)) {
        b->dialing_count--;
        struct found why = c->why;
        attempt_end(&c->to);
        pool_put(&v->conn_pool, c);
        if (!b->conn_count) { /* nothing that could be tried is left */
            enum breaker_state was = backend_state(b);
            breaker_failed(&b->breaker, loop_now_ms(v->loop), rng_u64());
            backend_moved(b, was, &why);
        }
        return false;
    }
    list_push_back(&b->conns, &c->link);
    b->conn_count++;
    v->conn_count++;
    metric_inc(M_probe_connects);
    metric_add(M_probe_connections, 1);
    return true;
}

/* --- the end --- */

/* One that never spoke, or broke before it was of any use, tells of the backend; but only if no other works.
 */
static void tell_breaker(struct probeconn *c)
{
    struct backend *b = c->backend;
    uint64_t now = loop_now_ms(b->verifier->loop);
    struct smtp_reply reply = {.code = c->why.code, .text = str_cstr(c->why.text)};
    memcpy(reply.enhanced, c->why.status, sizeof reply.enhanced);
    if (b->speaking_count) {
        b->open_after_ms = now + OPEN_PAUSE_MS;
        return;
    }
    enum breaker_state was = backend_state(b);
    enum triage t = triage_reply(c->why.at, c->why.code ? &reply : NULL, &c->why.why);
    if (t == TRIAGE_REFUSES_US)
        breaker_refused(&b->breaker, false, now, rng_u64());
    else
        breaker_failed(&b->breaker, now, rng_u64());
    backend_moved(b, was, &c->why);
}

/* What it was asked and did not say: once more on another connection, if this one had been of use. */
static void judge_lost(struct probeconn *c)
{
    struct link *k;
    bool may_go_again = c->answered_count && !c->timed_out; /* each round at least one has its answer */
    while (!list_empty(&c->lost)) { /* from the back: what goes back in front keeps its order */
        k = c->lost.head.prev;
        list_remove(k);
        struct batch *batch = container_of(k, struct batch, link);
        for (uint32_t i = batch->tx.rcpt_count; i-- > 0;) {
            struct question *q = batch->questions[i];
            batch->questions[i] = NULL;
            if (q)
                question_lost(q, may_go_again, &c->why);
        }
        batch_done(batch);
    }
}

/* It spoke, and broke in a transaction whose sender is another's. */
static bool broke_over_sender(const struct probeconn *c)
{
    const struct link *k = list_empty(&c->lost) ? NULL : c->lost.head.next;
    return k && c->spoke && container_of(k, struct batch, link)->sender_kind == PROBE_PASSED_ON;
}

static void leave_books(struct probeconn *c)
{
    struct backend *b = c->backend;
    list_remove(&c->link);
    if (b->bold == c)
        b->bold = NULL;
    b->conn_count--;
    b->verifier->conn_count--;
    if (c->spoke)
        b->speaking_count--;
    else
        b->dialing_count--;
    metric_add(M_probe_connections, -1);
}

void probeconn_doom(struct probeconn *c)
{
    struct backend *b = c->backend;
    must(c->state != PC_DOOMED);
    c->failed = true;
    c->state = PC_DOOMED;
    timer_disarm(b->verifier->loop, &c->timer);
    if (attempt_failed(&c->to, &b->candidates, c->spoke, loop_now_ms(b->verifier->loop)))
        LOG(host_failed, LF_STR("dest", b->key), LF_CSTR("relay", c->to.relay), LF_CSTR("text", c->why.text));
    transcript_note(b, "%s", c->why.text);
    conn_close(c->conn, 0);
}

static void doom_undialed(struct probeconn *c, err_t err)
{
    found_fill(&c->why, STAGE_CONNECT, NULL, str_cstr(c->to.relay), "cannot connect");
    snprintf(c->why.text, sizeof c->why.text, "cannot connect to %s: %s", c->to.relay, err_text(err));
    probeconn_doom(c);
}

static void on_closed(struct conn *conn, err_t err)
{
    struct probeconn *c = conn_ctx(conn);
    struct backend *b = c->backend;
    struct verifier *v = b->verifier;
    if (!c->failed && c->state == PC_DIALING && !v->draining)
        doom_undialed(c, err ? err : ERR_CLOSED);
    else if (!c->failed && (c->state == PC_TALKING || c->state == PC_UP))
        smtpc_closed(c->smtpc, err ? err : ERR_CLOSED);
    timer_disarm(v->loop, &c->timer);
    smtpc_destroy(c->smtpc);
    c->smtpc = NULL;
    if (c->failed && !c->spoke && !v->draining && b->queued_count && dial(c))
        return;
    attempt_end(&c->to);
    leave_books(c);
    bool is_useless =
        c->failed && (!c->answered_count || c->timed_out) && c->why.at != STAGE_IDLE && !broke_over_sender(c);
    if (is_useless && !v->draining)
        tell_breaker(c);
    judge_lost(c);
    must(!c->batch_count && list_empty(&c->batches));
    pool_put(&v->conn_pool, c);
    if (!b->batch_count && !b->dialing_count)
        breaker_end_trial(&b->breaker);
    backend_kick(b);
    if (v->draining)
        verifier_check_drained(v);
    else if (b->probe_ended && !b->conn_count && !b->resolving)
        probe_now_over(b);
}

static void quit(struct probeconn *c)
{
    struct verifier *v = c->backend->verifier;
    c->state = PC_QUITTING;
    timer_arm(v->loop, &c->timer, MIN(v->hop.times.quit_ms, PROBE_STAGE_MS));
    smtpc_quit(c->smtpc);
}

void probeconn_close(struct probeconn *c)
{
    if (c->state == PC_UP && smtpc_idle(c->smtpc)) {
        quit(c);
    } else if (c->state == PC_TALKING || c->state == PC_UP) {
        smtpc_closed(c->smtpc, ERR_CLOSED);
    } else if (c->state == PC_DIALING) {
        conn_close(c->conn, 0);
    }
}

static bool is_worn(const struct probeconn *c)
{
    const struct backend *b = c->backend;
    uint32_t transactions_max = smtpc_features(c->smtpc)->messages_max; /* RFC 9422: MAILMAX */
    return (transactions_max && c->transaction_count >= transactions_max) ||
           patience_is_over(&b->patience, c->refused_count, loop_now_ms(b->verifier->loop)) ||
           (c->refused_count >= patience_limit(&b->patience) && b->bold && b->bold != c);
}

/* --- time --- */

static void stage_timeout(struct timer *t)
{
    struct probeconn *c = container_of(t, struct probeconn, timer);
    if (c->state == PC_QUITTING || c->state == PC_DOOMED) {
        conn_close(c->conn, 0);
    } else if (c->state == PC_UP && smtpc_idle(c->smtpc)) {
        quit(c);
    } else {
        c->timed_out = true;
        smtpc_closed(c->smtpc, ERR_TIMEOUT);
    }
}

void probeconn_settle(struct probeconn *c)
{
    struct verifier *v = c->backend->verifier;
    if (c->state != PC_TALKING && c->state != PC_UP)
        return;
    uint64_t now = loop_now_ms(v->loop);
    uint64_t ms = stage_ms(&v->hop.times, smtpc_stage(c->smtpc));
    bool is_idle = c->state == PC_UP && smtpc_idle(c->smtpc);
    if (is_idle && (v->draining || c->backend->probe_ended || is_worn(c))) {
        quit(c);
        return;
    }
    if (!is_idle)
        ms = MIN(ms, PROBE_STAGE_MS);
    timer_arm(v->loop, &c->timer, is_idle ? ms : stage_left_ms(now, c->progress_ms, ms));
}

/* --- work --- */

/* Of many refusals servers become slow, at whatever comes next. */
void probeconn_answered(struct probeconn *c, bool refused)
{
    struct patience *p = &c->backend->patience;
    uint64_t now = loop_now_ms(c->backend->verifier->loop), waited_ms = now - c->progress_ms;
    if (patience_is_slow(waited_ms, c->longest_ms))
        patience_slowed(p, c->refused_count, now);
    else if (refused)
        patience_stood(p, c->refused_count + 1);
    c->longest_ms = MAX(c->longest_ms, waited_ms);
    c->refused_count += refused;
    c->progress_ms = now;
}

bool probeconn_is_free(const struct probeconn *c, bool behind)
{
    if (c->state != PC_UP || (c->batch_count > 0) != behind || !smtpc_slots(c->smtpc) || is_worn(c))
        return false;
    if (behind && (!c->backend->lately_asked || c->backend->lately_refused * 4 > c->backend->lately_asked))
        return false; /* how many refusals are under way already? */
    return !behind || loop_now_ms(c->backend->verifier->loop) - c->busy_since_ms < PROBE_SLOW_MS;
}

void probeconn_give(struct probeconn *c, struct batch *batch)
{
    if (!c->batch_count)
        c->busy_since_ms = c->progress_ms = loop_now_ms(c->backend->verifier->loop);
    list_push_back(&c->batches, &batch->link);
    c->batch_count++;
    c->transaction_count++;
    c->out_count += batch->tx.rcpt_count;
    if (c->refused_count >= patience_limit(&c->backend->patience))
        c->backend->bold = c;
    smtpc_deliver(c->smtpc, &batch->tx);
    probeconn_settle(c);
}

/* --- the socket's side --- */

static size_t on_data(struct conn *conn, const uint8_t *p, size_t n)
{
    struct probeconn *c = conn_ctx(conn);
    if (c->state != PC_DOOMED) {
        transcript_received(c->backend, str_of((const char *)p, n));
        smtpc_input(c->smtpc, p, n);
        probeconn_settle(c);
    }
    return n;
}

static void on_eof(struct conn *conn)
{
    struct probeconn *c = conn_ctx(conn);
    if (c->state == PC_TALKING || c->state == PC_UP)
        smtpc_closed(c->smtpc, ERR_CLOSED);
    else
        conn_close(conn, 0);
}

static void on_connected(struct conn *conn)
{
    struct probeconn *c = conn_ctx(conn);
    c->state = PC_TALKING;
    c->progress_ms = loop_now_ms(c->backend->verifier->loop);
    transcript_note(c->backend, "connected");
    smtpc_start(c->smtpc);
    probeconn_settle(c);
}

static void on_secured(struct conn *conn, err_t err)
{
    struct probeconn *c = conn_ctx(conn);
    if (c->state != PC_TALKING)
        return;
    const struct tls_info *tls = err ? NULL : conn_tls(conn);
    if (tls)
        transcript_note(c->backend, "TLS: %s, %s, certificate: %s%s", tls->version, tls->cipher,
                        tls_trust_name(tls->trust), tls->resumed ? ", resumed" : "");
    else
        transcript_note(c->backend, "TLS: %s", conn_tls_error(conn));
    smtpc_secured(c->smtpc, err);
    probeconn_settle(c);
}

static const struct conn_ops socket_ops = {
    .data = on_data, .eof = on_eof, .connected = on_connected, .secured = on_secured, .closed = on_closed};
