/* relay/outcome.c: what became of recipients and jobs. */
#include "core/log.h"
#include "core/metrics.h"
#include "relay/dest_priv.h"

static const char *const result_names[] = {
    [RES_NONE] = "none", [RES_SENT] = "sent", [RES_DEFERRED] = "deferred", [RES_BOUNCED] = "bounced"};

static void count(enum rcpt_result res, struct dest *d, uint64_t delay_ms)
{
    switch (res) {
    case RES_SENT:
        metric_inc(M_deliveries_sent);
        metric_observe(H_delivery_delay_s, (double)delay_ms / 1000);
        break;
    case RES_DEFERRED: metric_inc(M_deliveries_deferred); break;
    case RES_BOUNCED: metric_inc(M_deliveries_bounced); break;
    case RES_NONE: break;
    }
    if (d)
        dest_stats_delivery(d->stats, res);
}

/* RFC 3461 5.2.2, 5.2.3: a success is for us to report when the one who took the mail will not. */
static void take_success(struct message *msg, struct rcpt *rc, const struct hop *hop)
{
    rc->report_due = rc->to.notify & NOTIFY_SUCCESS && msg->env.sender.n && !(hop && hop->takes_dsn);
    rc->is_final = rc->dest && rc->dest->protocol == ROUTE_LMTP;
    queue_set_rcpt(msg->relay->queue, msg->m, rc->index, rc->report_due ? RCPT_REPORT_DUE : RCPT_DELIVERED);
}

void rcpt_settle(struct message *msg, struct rcpt *rc, struct dest *d, enum rcpt_result res,
                 const struct answer *a, const struct hop *hop)
{
    must(rc->result == RES_NONE ||
         (rc->result == RES_DEFERRED && res == RES_BOUNCED)); /* the latter: out of time */
    const struct qmsg *m = msg->m;
    uint64_t now = wall_ms(), delay_ms = now > m->arrived_ms ? now - m->arrived_ms : 0;
    rc->result = res;
    rc->again = false;
    rc->dest = d;
    if (res == RES_SENT)
        take_success(msg, rc, hop);
    if (res != RES_SENT || rc->report_due)
        rc->answer = answer_copy(&msg->arena, a);
    if (!hop && msg->told)
        return; /* it was told before why it waits, and nothing was tried for it since */
    count(res, d, delay_ms);
    char code[32];
    struct sbuf code_buf = SBUF_ON(code);
    LOG(delivery, LF_QID("id", m->id), LF_STR("to", rc->to.address), LF_STR("dest", d ? d->key : STR_NONE),
        LF_STR("relay", hop ? hop->relay : STR_NONE), LF_CSTR("result", result_names[res]),
        LF_STR("reply", answer_code(a, &code_buf)), LF_U64("attempt", (uint64_t)m->attempts + 1),
        LF_U64("delay_ms", delay_ms), LF_STR("tls", hop ? hop->tls : STR_NONE),
        LF_STR("cipher", hop ? hop->cipher : STR_NONE), LF_STR("verify", hop ? hop->verify : STR_NONE),
        LF_STR("text", str_sub(a->text, 0, ANSWER_TEXT_MAX)));
}

void job_ended(struct job *j)
{
    struct message *msg = j->msg;
    must(!link_in_list(&j->link) && !j->body_open);
    j->conn = NULL;
    dest_job_ended(j->dest);
    message_job_gone(msg);
}

void job_fail(struct job *j, enum rcpt_result res, const struct answer *a, const struct hop *hop)
{
    for (uint32_t i = 0; i < j->rcpt_count; i++)
        if (j->rcpts[i]->result == RES_NONE)
            rcpt_settle(j->msg, j->rcpts[i], j->dest, res, a, hop);
    job_ended(j);
}

void job_cancel(struct job *j)
{
    j->msg->cancelled = true;
    job_ended(j);
}

bool job_compact(struct job *j)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < j->rcpt_count; i++) {
        struct rcpt *rc = j->rcpts[i];
        if (rc->result != RES_NONE)
            continue;
        rc->again = false;
        j->rcpts[n] = rc;
        j->to[n++] = rc->to;
    }
    if (n)
        j->rcpt_count = n;
    j->sent_count = 0;
    j->again = j->moved = false;
    return n > 0;
}
