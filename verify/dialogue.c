/* verify/dialogue.c: what the protocol engine says of a connection's probes. */
#include "core/log.h"
#include "core/metrics.h"
#include "verify/probeconn_priv.h"

static void on_send(void *host, const char *p, size_t n)
{
    struct probeconn *c = host;
    if (smtpc_sends_secret(c->smtpc))
        transcript_note(c->backend, "(credentials)");
    else
        transcript_sent(c->backend, str_of(p, n));
    conn_write(c->conn, p, n);
}

static void on_content(void *host, struct smtpc_tx *tx)
{
    must(!"a probe has no content");
}

static void on_rcpt_done(void *host, struct smtpc_tx *tx, uint32_t index, bool accepted, enum smtpc_stage at,
                         const struct smtp_reply *reply)
{
    struct probeconn *c = host;
    struct batch *batch = tx->owner;
    struct question *q = batch->questions[index];
    batch->questions[index] = NULL;
    probeconn_answered(c, !accepted);
    c->answered_count++;
    c->out_count--;
    backend_count(c->backend, !accepted);
    question_answered(q, at, reply, str_cstr(c->to.relay));
}

static void take_from_engine(struct probeconn *c, struct batch *batch)
{
    list_remove(&batch->link);
    c->batch_count--;
    c->progress_ms = c->busy_since_ms = loop_now_ms(c->backend->verifier->loop);
}

static void on_tx_done(void *host, struct smtpc_tx *tx)
{
    struct probeconn *c = host;
    probeconn_answered(c, false); /* to RSET */
    take_from_engine(c, tx->owner);
    batch_done(tx->owner);
}

static void on_ready(void *host)
{
    struct probeconn *c = host;
    if (c->state == PC_TALKING) {
        c->state = PC_UP;
        c->spoke = true;
        c->backend->dialing_count--;
        c->backend->speaking_count++;
    }
    backend_kick(c->backend);
}

static void on_starttls(void *host)
{
    struct probeconn *c = host;
    conn_starttls(c->conn, c->to.tls, attempt_server_name(&c->to));
}

static void on_tx_lost(void *host, struct smtpc_tx *tx, bool maybe_delivered)
{
    struct probeconn *c = host;
    struct batch *batch = tx->owner;
    take_from_engine(c, batch);
    list_push_back(&c->lost, &batch->link);
}

static void on_failed(void *host, enum smtpc_stage at, const struct smtp_reply *reply)
{
    struct probeconn *c = host;
    found_fill(&c->why, at, reply, str_cstr(c->to.relay), c->timed_out ? "timed out" : "connection lost");
    if (!reply)
        snprintf(c->why.text, sizeof c->why.text, "%s: %s (%s)", c->to.relay, c->why.why,
                 smtpc_stage_name(at));
    if (!reply && at == STAGE_TLS && !c->timed_out && conn_tls_error(c->conn))
        snprintf(c->why.text, sizeof c->why.text, "%s: TLS failed: %s", c->to.relay, conn_tls_error(c->conn));
    if (at != STAGE_IDLE)
        patience_hung_up(&c->backend->patience, c->refused_count, loop_now_ms(c->backend->verifier->loop));
    if (at == STAGE_TLS)
        attempt_tls_failed(&c->to, &c->backend->candidates, conn_tls_tried_resuming(c->conn));
    if (!reply && attempt_pipelining_failed(&c->to, &c->backend->candidates, c->smtpc, c->timed_out,
                                            c->answered_count > 0))
        LOG(lock_step, LF_STR("dest", c->backend->key), LF_CSTR("relay", c->to.relay),
            LF_CSTR("text", c->why.text));
    probeconn_doom(c);
}

static void on_quit_done(void *host)
{
    struct probeconn *c = host;
    conn_close(c->conn, 0);
}

const struct smtpc_host probe_dialogue = {.send = on_send,
                                          .content = on_content,
                                          .rcpt_done = on_rcpt_done,
                                          .tx_done = on_tx_done,
                                          .ready = on_ready,
                                          .starttls = on_starttls,
                                          .failed = on_failed,
                                          .tx_lost = on_tx_lost,
                                          .quit_done = on_quit_done};
