/* relay/dialogue.c: what the protocol engine says of a connection's jobs. */
#include "core/log.h"
#include "core/metrics.h"
#include "relay/outconn_priv.h"

static void on_send(void *host, const char *p, size_t n)
{
    struct outconn *c = host;
    conn_write(c->conn, p, n);
}

static void on_content(void *host, struct smtpc_tx *tx)
{
    stream_begin(host, tx->owner); /* the bytes follow in outconn_settle */
}

/* RFC 5321 4.5.3.1.10: 452 for one recipient too many, and 552 from servers of an older book; the rest goes
 * in another transaction. */
static bool is_too_many(enum smtpc_stage at, const struct answer *a)
{
    bool is_code = a->code == 452 || a->code == 552;
    bool is_status = a->status[0] ? a->status[1] == 5 && a->status[2] == 3 : a->code == 452;
    return at == STAGE_RCPT && is_code && is_status;
}

static void on_rcpt_done(void *host, struct smtpc_tx *tx, uint32_t index, bool accepted, enum smtpc_stage at,
                         const struct smtp_reply *reply)
{
    struct outconn *c = host;
    struct job *j = tx->owner;
    must(index < j->rcpt_count);
    struct rcpt *rc = j->rcpts[index];
    struct answer a = answer_of_reply(reply, outconn_mta(c));
    struct hop hop = outconn_hop(c);
    c->progress_ms = loop_now_ms(c->relay->loop);
    if (reply && c->relay->learned)
        c->relay->learned(c->relay->learned_ctx, rc->to.address, at, reply, accepted);
    j->moved |= accepted || !is_too_many(at, &a);
    if (accepted) {
        j->sent_count++;
        rcpt_settle(j->msg, rc, c->dest, RES_SENT, &a, &hop);
    } else if (is_too_many(at, &a)) {
        rc->again = j->again = true;
        rc->answer = answer_copy(&j->msg->arena, &a);
    } else {
        j->msg->attempted = true;
        rcpt_settle(j->msg, rc, c->dest, a.code >= 500 ? RES_BOUNCED : RES_DEFERRED, &a, &hop);
    }
}

/* Those refused as too many, or not even tried as such: at once again if others have their result, else
 * deferred with the server's words. */
static bool goes_again(struct outconn *c, struct job *j)
{
    if (!j->again)
        return false;
    if (j->moved)
        return job_compact(j);
    struct hop hop = outconn_hop(c);
    j->msg->attempted = true;
    for (uint32_t i = 0; i < j->rcpt_count; i++)
        if (j->rcpts[i]->again)
            rcpt_settle(j->msg, j->rcpts[i], c->dest, RES_DEFERRED,
                        &j->rcpts[i < j->tx.rcpt_count ? i : 0]->answer, &hop);
    return false;
}

static void take_from_engine(struct outconn *c, struct job *j)
{
    list_remove(&j->link);
    c->given_count--;
    c->progress_ms = c->busy_since_ms = loop_now_ms(c->relay->loop);
}

static void on_tx_done(void *host, struct smtpc_tx *tx)
{
    struct outconn *c = host;
    struct job *j = tx->owner;
    must(c->streaming != j);
    take_from_engine(c, j);
    c->message_count++;
    c->is_ready = true; /* also when the engine refused it by itself, without a word to the server */
    dest_moved(c->dest, str_cstr(c->to.relay));
    if (j->sent_count) {
        metric_inc(M_messages_out);
        metric_add(M_bytes_out, (int64_t)j->bytes);
    }
    if (goes_again(c, j))
        dest_put_back(c->dest, j);
    else
        job_ended(j);
}

static void on_ready(void *host)
{
    struct outconn *c = host;
    c->is_ready = true;
    if (c->state != OC_TALKING)
        return;
    c->state = OC_UP;
    c->spoke = true;
    c->progress_ms = loop_now_ms(c->relay->loop);
    c->dest->gate.speaking++;
    dest_spoke(c->dest, str_cstr(c->to.relay));
}

static void on_starttls(void *host)
{
    struct outconn *c = host;
    conn_starttls(c->conn, c->to.tls, attempt_server_name(&c->to));
}

static void on_tx_lost(void *host, struct smtpc_tx *tx, bool maybe_delivered)
{
    struct outconn *c = host;
    struct job *j = tx->owner;
    if (c->streaming == j)
        stream_drop(c);
    take_from_engine(c, j);
    j->maybe_delivered = maybe_delivered;
    list_push_back(&c->lost, &j->link);
}

static void on_failed(void *host, enum smtpc_stage at, const struct smtp_reply *reply)
{
    struct outconn *c = host;
    char text[ANSWER_TEXT_MAX];
    struct sbuf b = SBUF_ON(text);
    struct answer a = {.status = {4, 4, 2}};
    if (reply) {
        a = answer_of_reply(reply, outconn_mta(c));
    } else if (at == STAGE_TLS && !c->timed_out && conn_tls_error(c->conn)) {
        a.status[1] = 7; /* RFC 3463: 4.7.5, a cryptographic failure */
        a.status[2] = 5;
        sbuf_printf(&b, "%s: TLS failed: %s", c->to.relay, conn_tls_error(c->conn));
        a.text = sbuf_view(&b);
    } else if (smtpc_bdat_unknown(c->smtpc)) {
        sbuf_printf(&b, "%s: offers CHUNKING and does not know BDAT", c->to.relay);
        a.text = sbuf_view(&b);
    } else {
        sbuf_printf(&b, "%s: %s (%s)", c->to.relay, c->timed_out ? "timed out" : "connection lost",
                    smtpc_stage_name(at));
        a.text = sbuf_view(&b);
    }
    if (smtpc_bdat_unknown(c->smtpc) && !c->dest->no_chunking) {
        c->dest->no_chunking = true;
        LOG(no_chunking, LF_STR("dest", c->dest->key), LF_CSTR("relay", c->to.relay));
    }
    /* An idle connection may end at any time; and one that moved messages was good for something, or will be
     * without BDAT. */
    c->useless = at != STAGE_IDLE && at != STAGE_QUIT && !c->message_count && !smtpc_bdat_unknown(c->smtpc);
    if (at == STAGE_TLS)
        attempt_tls_failed(&c->to, &c->dest->candidates, conn_tls_tried_resuming(c->conn));
    /* A message that breaks off is our own doing, and a dot's late reply a filter's. */
    bool other_reason =
        at == STAGE_CONTENT || (at == STAGE_DOT && c->message_count) || smtpc_bdat_unknown(c->smtpc);
    if (!reply && !other_reason &&
        attempt_pipelining_failed(&c->to, &c->dest->candidates, c->smtpc, c->timed_out, c->message_count > 0))
        LOG(lock_step, LF_STR("dest", c->dest->key), LF_CSTR("relay", c->to.relay), LF_STR("text", a.text));
    outconn_doom(c, &a);
}

static void on_quit_done(void *host)
{
    struct outconn *c = host;
    conn_close(c->conn, 0);
}

const struct smtpc_host outconn_dialogue = {.send = on_send,
                                            .content = on_content,
                                            .rcpt_done = on_rcpt_done,
                                            .tx_done = on_tx_done,
                                            .ready = on_ready,
                                            .starttls = on_starttls,
                                            .failed = on_failed,
                                            .tx_lost = on_tx_lost,
                                            .quit_done = on_quit_done};

/* --- jobs of a connection that broke --- */

static void log_duplicate_window(const struct outconn *c, const struct job *j)
{
    for (uint32_t i = 0; i < j->rcpt_count; i++)
        LOG(duplicate_window, LF_QID("id", j->msg->m->id), LF_STR("to", j->to[i].address),
            LF_STR("text", c->why.a.text));
}

static void judge(struct outconn *c, struct job *j)
{
    struct hop hop = {.relay = str_cstr(c->to.relay)};
    if (j->damaged) {
        j->msg->damaged = true;
        job_ended(j);
    } else if (!job_compact(j)) {
        job_ended(j);
    } else if (j->maybe_delivered) {
        log_duplicate_window(c, j);
        j->msg->attempted = true;
        job_fail(j, RES_DEFERRED, &c->why.a, &hop);
    } else if (c->relay->draining || message_is_stopped(j->msg)) {
        job_cancel(j);
    } else if (!c->timed_out && j->lost_count < RELAY_LOST_MAX) {
        /* Mostly a warm connection that the server closed just now, or after so many messages: no attempt at
         * the message yet. */
        j->lost_count++;
        dest_put_back(c->dest, j);
    } else {
        j->msg->attempted = true;
        job_fail(j, RES_DEFERRED, &c->why.a, &hop);
    }
}

void outconn_judge_lost(struct outconn *c)
{
    must(list_empty(&c->given));
    while (!list_empty(&c->lost)) { /* from the back: what is put back in front keeps its order */
        struct job *j = container_of(c->lost.head.prev, struct job, link);
        list_remove(&j->link);
        judge(c, j);
    }
}
