/* daemon/walk_verbs.c: what a request asks for, done to one message. */
#include "core/log.h"
#include "daemon/walk_priv.h"

#define LISTED_RCPTS_MAX 5

/* --- does it match --- */

static bool some_recipient(const struct walk *k, const struct look *l,
                           bool (*takes)(const struct walk *k, str_t address))
{
    for (uint32_t i = 0; i < l->m->rcpt_count; i++) {
        struct envelope_rcpt rcpt;
        if (rcpt_state_is_open(queue_rcpt_state(l->m, i)) &&
            !envelope_rcpt_decode(l->load->rcpts[i], &rcpt) && takes(k, rcpt.address))
            return true;
    }
    return false;
}

static bool takes_address(const struct walk *k, str_t address)
{
    return filter_takes_recipient(&k->rq->filter, address);
}

static bool takes_destination(const struct walk *k, str_t address)
{
    struct route route;
    return filter_takes_destination(&k->rq->filter, relay_destination_of(k->w->relay, address, &route));
}

bool walk_matches(const struct walk *k, const struct look *l)
{
    const struct filter *f = &k->rq->filter;
    if (!filter_wants_envelope(f))
        return true;
    if (!l->load)
        return false;
    if (!filter_takes_sender(f, l->env.sender))
        return false;
    if ((f->recipient.p || f->domain.p) && !some_recipient(k, l, takes_address))
        return false;
    return !f->destination.p || filter_takes_destination(f, l->info.destination) ||
           some_recipient(k, l, takes_destination);
}

/* --- list --- */

static json_t *pending_addresses(const struct look *l)
{
    json_t *to = json_array();
    for (uint32_t i = 0; i < l->m->rcpt_count && json_array_size(to) < LISTED_RCPTS_MAX; i++) {
        struct envelope_rcpt rcpt;
        if (rcpt_state_is_open(queue_rcpt_state(l->m, i)) && !envelope_rcpt_decode(l->load->rcpts[i], &rcpt))
            json_array_append_new(to, json_of_str(rcpt.address));
    }
    return to;
}

static void list_message(struct walk *k, const struct look *l)
{
    const struct relay_message_info *i = &l->info;
    char id[16];
    size_t n = qid_format(i->id, id);
    bool waits = str_eq(str_cstr(i->state), STR("deferred"));
    json_t *o = json_pack("{s:s%, s:b, s:o, s:f, s:I, s:I, s:i, s:i, s:i, s:s, s:o, s:o, s:o, s:i}", "id", id,
                          n, "damaged", l->m->damaged, "arrived", json_of_time(i->arrived_ms), "age_s",
                          seconds_since(i->arrived_ms), "arrived_ms", (json_int_t)i->arrived_ms, "size",
                          (json_int_t)i->bytes, "attempts", (int)i->attempts, "recipients",
                          (int)i->rcpt_count, "pending", (int)i->rcpt_pending, "state", i->state, "due",
                          json_of_time(waits ? i->due_ms : 0), "reason", json_of_str(reason_of(i)),
                          "destination", json_of_str(i->destination), "worker", (int)k->w->index);
    if (!o)
        return;
    if (l->load) {
        json_object_set_new(o, "sender", json_of_str(l->env.sender));
        json_object_set_new(o, "to", pending_addresses(l));
    }
    json_array_append_new(k->list, o);
}

static void list_id(struct walk *k, uint64_t id)
{
    char text[16];
    size_t n = qid_format(id, text);
    json_array_append_new(k->list, json_stringn(text, n));
}

/* --- leases --- */

struct lease {
    struct link link; /* worker.leases */
    uint64_t message, number;
};

static struct lease *lease_find(const struct worker *w, uint64_t message)
{
    LIST_EACH(&w->leases, k)
    {
        struct lease *l = container_of(k, struct lease, link);
        if (l->message == message)
            return l;
    }
    return NULL;
}

static bool is_leased_by(const struct walk *k, const struct qmsg *m)
{
    const struct lease *l = lease_find(k->w, m->id);
    return l && l->number == k->rq->lease;
}

static void lease_free(struct lease *l)
{
    list_remove(&l->link);
    free(l);
}

static bool lease_begin(struct walk *k, struct qmsg *m)
{
    struct lease *l = calloc(1, sizeof *l);
    if (!l || !relay_lease(k->w->relay, m)) {
        free(l);
        return false;
    }
    l->message = m->id;
    l->number = k->rq->lease;
    list_push_back(&k->w->leases, &l->link);
    return true;
}

void lease_end(struct worker *w, uint64_t number)
{
    LIST_EACH(&w->leases, k)
    {
        struct lease *l = container_of(k, struct lease, link);
        struct qmsg *m = queue_find(w->queue, l->message);
        if (number && l->number != number)
            continue;
        if (m)
            relay_lease_end(w->relay, m);
        lease_free(l);
    }
}

/* --- remove --- */

static void log_removal(const struct walk *k, const struct look *l)
{
    const struct queue_request *rq = k->rq;
    LOG(removed_by, LF_QID("id", l->m->id), LF_CSTR("who", rq->who),
        LF_STR("why", rq->why[0] ? str_cstr(rq->why) : STR_NONE),
        LF_CSTR("bounce", rq->bounce ? "yes" : "no"), LF_STR("from", l->load ? l->env.sender : STR_NONE),
        LF_U64("rcpts", l->m->rcpt_pending));
}

static bool remove_one(struct walk *k, const struct look *l)
{
    uint64_t id = l->m->id;
    struct lease *lease = relay_is_leased(l->m) ? lease_find(k->w, id) : NULL;
    if ((lease ? lease->number : 0) != k->rq->lease)
        return false;
    log_removal(k, l);
    if (lease)
        lease_free(lease);
    relay_remove(k->w->relay, l->m, k->rq->bounce);
    if (k->list)
        list_id(k, id);
    return k->rq->bounce || !queue_find(k->w->queue, id);
}

/* --- the verbs --- */

static void hold_one(struct walk *k, struct qmsg *m)
{
    const struct queue_request *rq = k->rq;
    char text[sizeof rq->who + sizeof rq->why + 16];
    struct sbuf b = SBUF_ON(text);
    sbuf_printf(&b, "held by %s%s%s", rq->who, rq->why[0] ? ": " : "", rq->why);
    relay_hold(k->w->relay, m, sbuf_view(&b));
}

static bool retry_one(struct walk *k, struct qmsg *m)
{
    if (m->held)
        return false;
    relay_retry(k->w->relay, m);
    return true;
}

void walk_act(struct walk *k, struct look *l)
{
    struct qmsg *m = l->m;
    const struct queue_request *rq = k->rq;
    if (rq->verb == QUEUE_LEASE && relay_is_leased(m) && is_leased_by(k, m))
        return; /* it has it */
    bool is_free = !relay_is_busy(m) && !relay_is_leased(m), done = true;
    switch (rq->verb) {
    case QUEUE_LIST: list_message(k, l); break;
    case QUEUE_STATS: census_add(k->census, m, &l->info); break;
    case QUEUE_HOLD: hold_one(k, m); break;
    case QUEUE_RELEASE:
        done = m->held;
        relay_release(k->w->relay, m);
        break;
    case QUEUE_RETRY: done = is_free && retry_one(k, m); break;
    case QUEUE_REMOVE: done = remove_one(k, l); break;
    case QUEUE_LEASE:
        done = lease_begin(k, m);
        if (done)
            list_id(k, m->id);
        break;
    }
    k->done += done;
    k->busy += !done;
    if (rq->verb == QUEUE_LEASE && rq->limit && k->done >= rq->limit)
        k->cut = k->at_end = true;
}
