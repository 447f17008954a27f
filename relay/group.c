/* relay/group.c: a message's pending recipients into jobs, one per destination and RELAY_RCPTS_MAX
 * recipients. */
#include <errno.h>

#include "relay/dest_priv.h"

static struct job *job_for(struct message *msg, struct dest *d, struct job ***tail)
{
    struct job *j = d->filling;
    if (j && j->rcpt_count < RELAY_RCPTS_MAX)
        return j;
    j = arena_zalloc(&msg->arena, sizeof *j);
    if (!j)
        return NULL;
    j->msg = msg;
    j->dest = d;
    **tail = j;
    *tail = &j->next;
    d->filling = j;
    d->users++;
    return j;
}

static err_t place(struct message *msg, struct rcpt *rc, struct job ***tail)
{
    static const struct hop nowhere = {0};
    struct address address;
    if (address_parse_mailbox(rc->to.address, &address)) {
        struct answer a = {
            .code = 553, .status = {5, 1, 3}, .text = STR("the recipient's address is not valid")};
        rcpt_settle(msg, rc, NULL, RES_BOUNCED, &a, &nowhere);
        return 0;
    }
    struct route route;
    if (policy_route(msg->relay->policy, &address, &route)) {
        struct answer a = {
            .code = 550, .status = {5, 1, 2}, .text = STR("there is no way to deliver to this domain")};
        rcpt_settle(msg, rc, NULL, RES_BOUNCED, &a, &nowhere);
        return 0;
    }
    struct dest *d = dest_get(msg->relay, &route);
    struct job *j = d ? job_for(msg, d, tail) : NULL;
    if (!j) {
        if (d)
            dest_check_idle(d);
        return -ENOMEM;
    }
    if (j->last)
        j->last->next = rc;
    else
        j->first = rc;
    j->last = rc;
    j->rcpt_count++;
    return 0;
}

static err_t seal(struct job *j)
{
    j->rcpts = arena_alloc(&j->msg->arena, j->rcpt_count * sizeof *j->rcpts);
    j->to = arena_alloc(&j->msg->arena, j->rcpt_count * sizeof *j->to);
    if (!j->rcpts || !j->to)
        return -ENOMEM;
    uint32_t n = 0;
    for (struct rcpt *rc = j->first; rc; rc = rc->next) {
        j->rcpts[n] = rc;
        j->to[n++] = rc->to;
    }
    must(n == j->rcpt_count);
    return 0;
}

/* Delivered in an earlier attempt, whose report did not get onto the disk: who took it is known from its
 * route only. */
static void recall_success(const struct message *msg, struct rcpt *rc)
{
    struct address address;
    struct route route;
    rc->result = RES_SENT;
    rc->report_due = true;
    rc->is_final = !address_parse_mailbox(rc->to.address, &address) &&
                   !policy_route(msg->relay->policy, &address, &route) && route.kind == ROUTE_HOSTS &&
                   route.hosts->protocol == ROUTE_LMTP;
}

static err_t collect(struct message *msg)
{
    const struct qmsg *m = msg->m;
    msg->rcpts = arena_zalloc(&msg->arena, MAX(m->rcpt_pending, 1) * sizeof *msg->rcpts);
    if (!msg->rcpts)
        return -ENOMEM;
    for (uint32_t i = 0; i < m->rcpt_count; i++) {
        enum rcpt_state state = queue_rcpt_state(m, i);
        if (!rcpt_state_is_open(state))
            continue;
        struct envelope_rcpt decoded;
        err_t err = envelope_rcpt_decode(msg->load.rcpts[i], &decoded);
        if (err)
            return err;
        must(msg->rcpt_count < m->rcpt_pending);
        struct rcpt *rc = &msg->rcpts[msg->rcpt_count++];
        *rc = (struct rcpt){.index = i, .to = decoded};
        if (state == RCPT_REPORT_DUE)
            recall_success(msg, rc);
    }
    return 0;
}

/* All decoding comes first: a message that is damaged further down must not be half sent. */
err_t message_group(struct message *msg)
{
    err_t err = collect(msg);
    struct job **tail = &msg->jobs;
    for (uint32_t i = 0; i < msg->rcpt_count && !err; i++)
        if (msg->rcpts[i].result == RES_NONE)
            err = place(msg, &msg->rcpts[i], &tail);
    for (struct job *j = msg->jobs; j; j = j->next) {
        j->dest->filling = NULL;
        if (!err)
            err = seal(j);
    }
    return err;
}

err_t message_refuse(struct message *msg)
{
    static const struct answer a = {
        .code = 550, .status = {5, 7, 1}, .text = STR("removed by the administrator")};
    err_t err = collect(msg);
    for (uint32_t i = 0; i < msg->rcpt_count && !err; i++)
        if (msg->rcpts[i].result == RES_NONE)
            rcpt_settle(msg, &msg->rcpts[i], NULL, RES_BOUNCED, &a, &(struct hop){0});
    return err;
}

void message_start_jobs(struct message *msg)
{
    msg->jobs_open = 1; /* ours: a destination may end its job at once */
    for (struct job *j = msg->jobs; j; j = j->next)
        msg->jobs_open++;
    for (struct job *j = msg->jobs, *next; j; j = next) {
        next = j->next;
        dest_add_job(j->dest, j);
    }
    message_job_gone(msg);
}

void message_drop_waiting(struct message *msg)
{
    if (!msg->jobs_open) /* its report is being made */
        return;
    msg->jobs_open++;
    for (struct job *j = msg->jobs; j; j = j->next)
        if (dest_drop_job(j->dest, j))
            job_cancel(j);
    message_job_gone(msg);
}
