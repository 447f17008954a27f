/* relay/outconn.c: the life of a connection: address after address until one speaks, work, idleness, the end.
 */
#include <errno.h>

#include "core/log.h"
#include "core/metrics.h"
#include "relay/outconn_priv.h"

static void stage_timeout(struct timer *t);
static const struct conn_ops socket_ops;

size_t outconn_bytes(void)
{
    return ALIGN_UP(sizeof(struct outconn), 64) + conn_size();
}

str_t outconn_mta(const struct outconn *c)
{
    return str_cstr(c->to.host[0] ? c->to.host : c->to.relay);
}

struct hop outconn_hop(const struct outconn *c)
{
    const struct tls_info *tls = conn_tls(c->conn);
    return (struct hop){.relay = str_cstr(c->to.relay),
                        .tls = tls ? str_cstr(tls->version) : STR_NONE,
                        .cipher = tls ? str_cstr(tls->cipher) : STR_NONE,
                        .verify = tls ? str_cstr(tls_trust_name(tls->trust)) : STR_NONE,
                        .takes_dsn = smtpc_features(c->smtpc)->dsn};
}

/* --- where to --- */

static bool dial(struct outconn *c)
{
    struct dest *d = c->dest;
    struct relay *r = c->relay;
    bool is_only = d->gate.connections == (c->in_gate ? 1 : 0);
    if (!attempt_next(&c->to, &d->candidates, d->access, is_only, loop_now_ms(r->loop)))
        return false;
    struct smtpc_options o = attempt_options(&c->to, r->settings.hop.hostname, d->protocol == ROUTE_LMTP);
    o.chunking &= !d->no_chunking;
    err_t err = smtpc_create(&c->smtpc, &outconn_dialogue, c, &o);
    if (err) {
        if (is_only)
            dest_shut(d, &(struct answer){.status = {4, 3, 0}, .text = str_cstr(err_text(err))});
        return false;
    }
    c->state = OC_DIALING;
    c->failed = c->timed_out = c->is_ready = c->useless = false;
    conn_dial(c->conn, r->loop, &c->to.at, NULL, r->settings.hop.times.connect_ms, &socket_ops, c);
    return true;
}

static void leave_books(struct outconn *c)
{
    struct relay *r = c->relay;
    outconn_leave_gate(c);
    list_remove(&c->link);
    list_remove(&c->relay_link);
    list_remove(&c->pump_link);
    r->conn_count--;
    metric_add(M_outbound_open, -1);
    dest_stats_connections(c->dest->stats, -1);
}

bool outconn_open(struct dest *d)
{
    struct relay *r = d->relay;
    struct outconn *c = pool_get(&r->conn_pool);
    if (!c) {
        if (!d->gate.connections)
            dest_shut(d,
                      &(struct answer){.status = {4, 3, 0}, .text = STR("out of memory for a connection")});
        return false;
    }
    c->relay = r;
    c->dest = d;
    c->conn = (struct conn *)(void *)((char *)c + ALIGN_UP(sizeof *c, 64));
    c->timer.fire = stage_timeout;
    c->options_generation = d->options_generation;
    c->opened_ms = c->progress_ms = loop_now_ms(r->loop);
    list_init(&c->given);
    list_init(&c->lost);
    if (!dial(c)) {
        attempt_end(&c->to);
        pool_put(&r->conn_pool, c);
        return false;
    }
    c->in_gate = true;
    d->gate.connections++;
    list_push_back(&d->conns, &c->link);
    list_push_back(&r->conns, &c->relay_link);
    r->conn_count++;
    metric_add(M_outbound_open, 1);
    dest_stats_connections(d->stats, 1);
    return true;
}

void outconn_leave_gate(struct outconn *c)
{
    if (!c->in_gate)
        return;
    c->in_gate = false;
    c->dest->gate.connections--;
    if (c->spoke)
        c->dest->gate.speaking--;
}

/* --- the end --- */

void outconn_doom(struct outconn *c, const struct answer *why)
{
    must(c->state != OC_DOOMED);
    answer_keep(&c->why, why);
    c->failed = true;
    c->state = OC_DOOMED;
    c->is_ready = false;
    stream_drop(c);
    timer_disarm(c->relay->loop, &c->timer);
    if (attempt_failed(&c->to, &c->dest->candidates, c->spoke, loop_now_ms(c->relay->loop)))
        LOG(host_failed, LF_STR("dest", c->dest->key), LF_CSTR("relay", c->to.relay),
            LF_STR("text", why->text));
    if (c->spoke)
        outconn_leave_gate(c);
    else
        c->useless = true;
    outconn_judge_lost(c);
    conn_close(c->conn, 0);
}

static void doom_undialed(struct outconn *c, err_t err)
{
    char text[160];
    struct sbuf b = SBUF_ON(text);
    sbuf_printf(&b, "cannot connect to %s: %s", c->to.relay, err_text(err));
    struct answer a = {.status = {4, 4, 1}, .text = sbuf_view(&b)};
    metric_inc(M_outbound_connect_failures);
    outconn_doom(c, &a);
}

static void on_closed(struct conn *conn, err_t err)
{
    struct outconn *c = conn_ctx(conn);
    struct dest *d = c->dest;
    struct relay *r = c->relay;
    if (!c->failed && c->state == OC_DIALING && !r->draining)
        doom_undialed(c, err ? err : ERR_CLOSED);
    else if (!c->failed && c->state != OC_QUITTING && c->state != OC_DIALING)
        smtpc_closed(c->smtpc, err ? err : ERR_CLOSED);
    must(list_empty(&c->given) && list_empty(&c->lost) && !c->piece_count);
    timer_disarm(r->loop, &c->timer);
    smtpc_destroy(c->smtpc);
    c->smtpc = NULL;
    if (c->failed && !c->spoke && !r->draining && d->ready_count && dial(c))
        return;
    attempt_end(&c->to);
    leave_books(c);
    if (c->failed && c->useless && !r->draining)
        dest_conn_failed(d, c->spoke, &c->why.a, str_cstr(c->to.relay));
    else
        dest_mark_dirty(d);
    pool_put(&r->conn_pool, c);
    dest_check_idle(d);
    relay_kick(r);
}

static void quit(struct outconn *c)
{
    c->state = OC_QUITTING;
    c->is_ready = false;
    outconn_leave_gate(c);
    timer_arm(c->relay->loop, &c->timer, c->relay->settings.hop.times.quit_ms);
    smtpc_quit(c->smtpc);
}

void outconn_retire(struct outconn *c)
{
    if (c->state == OC_UP && smtpc_idle(c->smtpc))
        quit(c);
    else if (c->state == OC_DIALING || (c->state == OC_TALKING && list_empty(&c->given)))
        conn_close(c->conn, 0);
}

void outconn_give_up(struct outconn *c)
{
    if (c->state == OC_TALKING || c->state == OC_UP) {
        c->timed_out = true;
        smtpc_closed(c->smtpc, ERR_TIMEOUT);
    } else {
        conn_close(c->conn, 0);
    }
}

/* --- time --- */

static void stage_timeout(struct timer *t)
{
    struct outconn *c = container_of(t, struct outconn, timer);
    if (c->state == OC_QUITTING || c->state == OC_DOOMED) {
        conn_close(c->conn, 0);
    } else if (c->state == OC_UP && smtpc_idle(c->smtpc)) {
        quit(c);
    } else {
        c->timed_out = true;
        smtpc_closed(c->smtpc, ERR_TIMEOUT);
    }
}

static void arm(struct outconn *c)
{
    struct relay *r = c->relay;
    uint32_t ms = stage_ms(&r->settings.hop.times, smtpc_stage(c->smtpc));
    timer_arm(r->loop, &c->timer, stage_left_ms(loop_now_ms(r->loop), c->progress_ms, ms));
}

/* --- work --- */

bool outconn_is_worn(const struct outconn *c)
{
    uint32_t server_max = smtpc_features(c->smtpc)->messages_max;
    uint32_t max = server_max ? MIN(server_max, c->dest->messages_max) : c->dest->messages_max;
    return c->message_count + c->given_count >= max || c->options_generation != c->dest->options_generation ||
           loop_now_ms(c->relay->loop) >= c->opened_ms + RELAY_CONN_AGE_MS;
}

bool outconn_is_free(const struct outconn *c, bool behind)
{
    if (c->state != OC_UP || (c->given_count > 0) != behind || outconn_is_worn(c) || !smtpc_slots(c->smtpc))
        return false;
    if (!behind)
        return true;
    /* Behind a message that takes long a job would wait for its end: rather on another connection, if one may
     * be had. */
    uint64_t now = loop_now_ms(c->relay->loop);
    bool is_slow = now - c->busy_since_ms >= GATE_SLOW_MS;
    return !is_slow || gate_may_connect(&c->dest->gate, now) != GATE_OPEN;
}

/* How many recipients the server wants to hear of at once (RFC 9422); the rest goes again after them. */
static uint32_t fitting(const struct outconn *c, struct job *j)
{
    uint32_t n = smtpc_rcpts_fitting(smtpc_features(c->smtpc), j->to, j->rcpt_count);
    for (uint32_t i = n; i < j->rcpt_count; i++)
        j->rcpts[i]->again = j->again = true;
    return n;
}

/* A server may hang up on an idle connection at any time. With DATA it is then certain that the message was
 * not taken, and it goes again at once. */
static bool is_fresh(const struct outconn *c)
{
    return c->given_count || !c->message_count ||
           loop_now_ms(c->relay->loop) - c->progress_ms < RELAY_CHUNK_IDLE_MS;
}

void outconn_take(struct outconn *c)
{
    struct job *j = dest_take_job(c->dest);
    struct message *msg = j->msg;
    uint64_t bytes = msg->m->body_bytes + msg->load.trace.n;
    bool may_be_chunk = msg->env.dot_free && is_fresh(c);
    if (!c->given_count)
        c->busy_since_ms = c->progress_ms = loop_now_ms(c->relay->loop);
    j->conn = c;
    j->tx = (struct smtpc_tx){.sender = msg->env.sender,
                              .rcpts = j->to,
                              .rcpt_count = fitting(c, j),
                              .size = bytes,
                              .chunk_bytes = may_be_chunk ? bytes : 0,
                              .body = msg->env.body,
                              .smtputf8 = msg->env.smtputf8,
                              .ret = msg->env.ret,
                              .envid = msg->env.envid,
                              .owner = j};
    list_push_back(&c->given, &j->link);
    c->given_count++;
    smtpc_deliver(c->smtpc, &j->tx);
    outconn_settle(c);
}

static bool fill(struct outconn *c)
{
    c->is_ready = false;
    struct dest *d = c->dest;
    if (c->relay->draining || d->paused ||
        gate_may_connect(&d->gate, loop_now_ms(c->relay->loop)) == GATE_DOWN)
        return false;
    bool took =
        d->ready_count && (outconn_is_free(c, false) || outconn_is_free(c, true)) && dest_may_begin(d);
    if (took) {
        c->is_ready = true; /* perhaps for another one */
        outconn_take(c);
    }
    dest_open_more(d);
    return took;
}

void outconn_settle(struct outconn *c)
{
    if (c->is_settling)
        return; /* further up the stack it goes on */
    c->is_settling = true;
    bool moved = true;
    while (moved && (c->state == OC_TALKING || c->state == OC_UP)) {
        moved = c->streaming && stream_pump(c);
        if (c->state == OC_UP && c->is_ready)
            moved |= fill(c);
    }
    c->is_settling = false;
    if (c->state != OC_TALKING && c->state != OC_UP)
        return;
    bool is_idle = c->state == OC_UP && smtpc_idle(c->smtpc);
    if (is_idle && (c->relay->draining || outconn_is_worn(c)))
        quit(c);
    else
        arm(c);
}

/* --- the socket's side --- */

static size_t on_data(struct conn *conn, const uint8_t *p, size_t n)
{
    struct outconn *c = conn_ctx(conn);
    if (c->state != OC_DOOMED) {
        smtpc_input(c->smtpc, p, n);
        outconn_settle(c);
    }
    return n;
}

static void on_eof(struct conn *conn)
{
    struct outconn *c = conn_ctx(conn);
    if (c->state == OC_TALKING || c->state == OC_UP)
        smtpc_closed(c->smtpc, ERR_CLOSED);
    else
        conn_close(conn, 0);
}

static void on_drained(struct conn *conn)
{
    struct outconn *c = conn_ctx(conn);
    c->progress_ms = loop_now_ms(c->relay->loop);
}

static void on_connected(struct conn *conn)
{
    struct outconn *c = conn_ctx(conn);
    metric_inc(M_outbound_connects);
    c->state = OC_TALKING;
    c->progress_ms = loop_now_ms(c->relay->loop);
    smtpc_start(c->smtpc);
    outconn_settle(c);
}

static void on_secured(struct conn *conn, err_t err)
{
    struct outconn *c = conn_ctx(conn);
    if (c->state != OC_TALKING)
        return;
    smtpc_secured(c->smtpc, err);
    outconn_settle(c);
}

static const struct conn_ops socket_ops = {.data = on_data,
                                           .eof = on_eof,
                                           .drained = on_drained,
                                           .connected = on_connected,
                                           .secured = on_secured,
                                           .closed = on_closed};
