/* net/conn_tls.c: TLS on a connection: the session transforms bytes, the connection moves them.
 *
 * Out: the owner's bytes wait in `plain` (refs too) and are encrypted a batch at a time when the socket is
 * free, so that a large message is not held twice. In: all ciphertext goes into the session at once;
 * plaintext comes out through the loop's scratch record, and stays in the session while nobody reads. */
#include <errno.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "net/conn_priv.h"

#define ENCRYPT_BYTES_MAX ((size_t)65536) /* per send */
#define RECORD_BYTES_MAX  ((size_t)16384)
#define TURNS_NS_PER_TICK (UINT64_C(1) * NS_PER_MS) /* for handshakes; an RSA signature takes as long */
#define ALERT_MS          2000 /* after a failure: time for the alert to reach the peer */

static void peer_text(const struct conn *c, struct sbuf *out)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    struct endpoint e;
    if (getpeername(c->fd, (struct sockaddr *)&sa, &len) == 0 &&
        endpoint_from_sockaddr((struct sockaddr *)&sa, &e) == 0)
        endpoint_format(&e, out);
}

static void name_peer(struct conn *c)
{
    char text[64];
    struct sbuf peer = SBUF_ON(text);
    peer_text(c, &peer);
    if (peer.n)
        tls_session_peer(c->tls->session, sbuf_view(&peer));
}

void conn_starttls(struct conn *c, struct tls_context *tls, str_t server_name)
{
    must(!c->tls);
    if (c->state != CONN_OPEN || c->send_err)
        return;
    struct conn_tls *t = pool_get(&conn_loop_of(c)->tls);
    if (!t) {
        conn_close(c, -ENOMEM);
        return;
    }
    pieces_drop(conn_loop_of(c), &c->kept);
    c->paused = c->resuming = false;
    t->conn = c;
    t->start_err = tls_session_create(&t->session, tls, server_name);
    t->starting = true;
    c->tls = t; /* clear output stays in `wire`, in front of all ciphertext */
    if (!t->start_err && c->dialed)
        name_peer(c);
    conn_schedule(c);
}

void conn_expect_tls(struct conn *c, struct tls_context *tls)
{
    must(!c->kept.head);
    conn_starttls(c, tls, STR_NONE);
    if (c->tls)
        c->tls->takes_rest = true;
}

void conn_go_first(struct conn *c)
{
    c->goes_first = true;
}

int conn_tls_client_tag(const struct conn *c, const struct tls_context *rules)
{
    return c->tls && c->tls->established ? tls_session_client_tag(c->tls->session, rules) : -1;
}

const struct tls_info *conn_tls(const struct conn *c)
{
    return c->tls && c->tls->established ? tls_session_info(c->tls->session) : NULL;
}

const char *conn_tls_error(const struct conn *c)
{
    const struct conn_tls *t = c->tls;
    if (!t)
        return NULL;
    const char *text = t->session ? tls_error_text(t->session) : NULL;
    return text && text[0] ? text : t->why ? err_text(t->why) : NULL;
}

bool conn_tls_tried_resuming(const struct conn *c)
{
    return c->tried_resuming;
}

static void tell_handshake(const struct conn *c, err_t err)
{
    struct conn_tls *t = c->tls;
    if (c->dialed)
        metric_inc(err ? M_tls_failed_out : M_tls_ok_out);
    else
        metric_inc(err ? M_tls_failed_in : M_tls_ok_in);
    char peer[64];
    struct sbuf b = SBUF_ON(peer);
    peer_text(c, &b);
    const struct tls_info *info = err ? NULL : tls_session_info(t->session);
    if (info && info->resumed)
        metric_inc(c->dialed ? M_tls_resumed_out : M_tls_resumed_in);
    LOG(tls, LF_STR("peer", sbuf_view(&b)), LF_CSTR("side", c->dialed ? "client" : "server"),
        LF_CSTR("result", err ? "failed" : "ok"), LF_CSTR("version", info ? info->version : NULL),
        LF_CSTR("cipher", info ? info->cipher : NULL), LF_CSTR("group", info ? info->group : NULL),
        LF_CSTR("name", info && info->server_name[0] ? info->server_name : NULL),
        LF_CSTR("verify", info ? tls_trust_name(info->trust) : NULL),
        LF_CSTR("resumed", info && info->resumed ? "yes" : NULL),
        LF_CSTR("text", err ? conn_tls_error(c) : NULL));
}

/* The session's ciphertext into `wire`. */
static void collect(struct conn *c)
{
    str_t out = tls_output(c->tls->session);
    if (out.n == 0 || c->state >= CONN_LINGERING)
        return;
    /* A peer can make us answer (key updates) without reading what we say. */
    err_t err = c->wire.bytes + out.n > COPIED_BYTES_MAX
                    ? ERR_LIMIT
                    : pieces_copy(conn_loop_of(c), &c->wire, out.p, out.n);
    tls_output_taken(c->tls->session, out.n);
    if (err)
        conn_close(c, err);
    else
        conn_schedule(c);
}

static void handshake_failed(struct conn *c)
{
    if (c->tls->session)
        c->tried_resuming = tls_session_forget(c->tls->session);
}

/* The alert still leaves, then the connection ends with `err`. */
static void broken(struct conn *c, err_t err)
{
    struct conn_tls *t = c->tls;
    bool shaking_hands = !t->established;
    t->broken = true;
    t->why = err;
    if (shaking_hands)
        handshake_failed(c);
    if (t->session)
        collect(c);
    pieces_drop(conn_loop_of(c), &t->plain);
    conn_finish_why(c, ALERT_MS, err);
    if (!shaking_hands)
        return;
    tell_handshake(c, err);
    if (c->ops->secured)
        c->ops->secured(c, err);
}

static void shake_hands(struct conn *c)
{
    struct conn_tls *t = c->tls;
    t->fed_paused_bytes = 0;
    err_t err = tls_handshake(t->session);
    if (err == ERR_PENDING) {
        collect(c);
        return;
    }
    if (err) {
        broken(c, err);
        return;
    }
    t->established = true;
    tell_handshake(c, 0);
    collect(c);
    if (c->state == CONN_OPEN && c->ops->secured)
        c->ops->secured(c, 0);
}

void conn_tls_step(struct conn *c)
{
    struct conn_tls *t = c->tls;
    t->starting = false;
    if (c->state != CONN_OPEN)
        return;
    if (t->start_err)
        broken(c, t->start_err);
    else
        conn_tls_pump(c);
}

/* --- turns --- */

bool conn_tls_waits(const struct conn *c)
{
    return link_in_list(&c->tls->turn);
}

static void wait_for_turn(struct conn *c)
{
    struct conn_loop *cl = conn_loop_of(c);
    if (conn_tls_waits(c))
        return;
    list_push_back(&cl->turns[c->dialed || c->goes_first ? 0 : 1], &c->tls->turn);
    loop_at_tick_end(c->loop, &cl->turns_hook);
}

static struct link *next_turn(struct conn_loop *cl)
{
    struct link *k = list_pop_front(&cl->turns[0]);
    return k ? k : list_pop_front(&cl->turns[1]);
}

/* One at least in every tick, and on until the tick's share is spent; the rest waits, and everybody else is
 * served in between. A tick has several rounds of hooks, hence its time stamp. */
void conn_tls_turns(struct tick_hook *h)
{
    struct conn_loop *cl = container_of(h, struct conn_loop, turns_hook);
    uint64_t tick_ns = loop_now_ns(cl->loop), from_ns = clock_mono_ns(), now_ns = from_ns;
    if (cl->turns_tick_ns != tick_ns) {
        cl->turns_tick_ns = tick_ns;
        cl->turns_spent_ns = 0;
    }
    bool any = cl->turns_spent_ns > 0;
    while (!any || cl->turns_spent_ns + (now_ns - from_ns) < TURNS_NS_PER_TICK) {
        struct link *k = next_turn(cl);
        if (!k)
            break;
        struct conn *c = container_of(k, struct conn_tls, turn)->conn;
        if (c->state == CONN_OPEN && !c->tls->broken) {
            shake_hands(c);
            conn_schedule(c); /* it may be read again */
            if (c->tls->established)
                conn_tls_pump(c);
            any = true; /* if it is not, the peer's next bytes give it another turn, and nothing else */
        }
        if (c->got_eof)
            conn_tls_truncated(c);
        now_ns = clock_mono_ns();
    }
    cl->turns_spent_ns += now_ns - from_ns;
    if (list_empty(&cl->turns[0]) && list_empty(&cl->turns[1]))
        return;
    metric_inc(M_tls_turns_spent);
    loop_at_tick_end(cl->loop, h);
}

void conn_tls_pump(struct conn *c)
{
    struct conn_tls *t = c->tls;
    if (c->state != CONN_OPEN || t->broken || t->starting)
        return;
    if (!t->established) {
        wait_for_turn(c);
        return;
    }
    uint8_t *scratch = conn_loop_of(c)->scratch;
    while (t->established && c->state == CONN_OPEN && !c->paused && !t->ended) {
        ptrdiff_t n = tls_read(t->session, scratch, SCRATCH_BYTES);
        if (n > 0) {
            conn_offer(c, scratch, (size_t)n);
        } else if (n == ERR_EOF) {
            t->ended = true;
            conn_note_eof(c);
        } else if (n < 0) {
            broken(c, (err_t)n);
        } else {
            t->fed_paused_bytes = 0;
            break;
        }
    }
    if (c->state <= CONN_FINISHING)
        collect(c);
}

void conn_tls_input(struct conn *c, const uint8_t *p, size_t n)
{
    struct conn_tls *t = c->tls;
    if (t->broken || t->ended || t->start_err)
        return;
    err_t err = tls_feed(t->session, p, n);
    if (err) {
        broken(c, err);
        return;
    }
    if (c->paused || !t->established)
        t->fed_paused_bytes += n;
    if (!c->paused || !t->established)
        conn_tls_pump(c);
}

void conn_tls_truncated(struct conn *c)
{
    struct conn_tls *t = c->tls;
    c->got_eof = true;
    if (conn_tls_waits(c))
        return; /* what came before the end is to be heard first: told after its turn */
    if (c->state == CONN_OPEN && !t->established && !t->broken && !c->send_err)
        broken(c, ERR_EOF);
    else
        conn_note_eof(c); /* without close_notify; SMTP ends its messages itself */
}

void conn_tls_encrypt(struct conn *c)
{
    struct conn_tls *t = c->tls;
    if (t->broken || !t->established || c->wire.bytes >= ENCRYPT_BYTES_MAX)
        return;
    struct conn_loop *cl = conn_loop_of(c);
    pieces_consume(cl, &t->plain, 0);
    for (size_t budget = ENCRYPT_BYTES_MAX; budget > 0 && t->plain.head;) {
        const struct piece *head = t->plain.head;
        size_t n = MIN(MIN(head->n, budget), RECORD_BYTES_MAX);
        err_t err = tls_write(t->session, head->p, n);
        if (err) {
            broken(c, err);
            return;
        }
        pieces_consume(cl, &t->plain, n);
        budget -= n;
    }
    if (c->state == CONN_FINISHING && !t->plain.head && !t->closed_out) {
        t->closed_out = true;
        tls_shutdown(t->session);
    }
    if (c->state <= CONN_FINISHING)
        collect(c);
}

void conn_tls_free(struct conn *c)
{
    struct conn_tls *t = c->tls;
    list_remove(&t->turn);
    pieces_drop(conn_loop_of(c), &t->plain); /* while c->tls is set: a release that writes adds to `plain` */
    if (!t->established && !t->broken)
        handshake_failed(c); /* a reset, or we had waited long enough */
    c->tls = NULL;
    if (t->session)
        tls_session_destroy(t->session);
    pool_put(&conn_loop_of(c)->tls, t);
}
