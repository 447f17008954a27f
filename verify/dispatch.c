/* verify/dispatch.c: a backend's questions to its connections, at the end of a tick: what came in together
 * goes out in one transaction. */
#include <errno.h>

#include "core/log.h"
#include "core/metrics.h"
#include "core/rng.h"
#include "verify/probeconn_priv.h"

#define CROWDED_MS       600000   /* fewer recipients a transaction for this long */
#define REFUSES_EMPTY_MS 86400000 /* then the empty sender is tried again */

/* --- addresses --- */

static void cannot_resolve(struct backend *b, const struct answer *a)
{
    enum breaker_state was = backend_state(b);
    struct found f = {.why = "names do not resolve"};
    struct sbuf text = {f.text, 0, sizeof f.text - 1, false};
    sbuf_str(&text, str_sub(a->text, 0, ANSWER_TEXT_MAX));
    f.text[text.n] = '\0';
    transcript_note(b, "%s", f.text);
    breaker_failed(&b->breaker, loop_now_ms(b->verifier->loop), rng_u64());
    backend_moved(b, was, &f);
}

static void take_resolution(struct backend *b, struct resolution *res)
{
    uint64_t now = loop_now_ms(b->verifier->loop);
    if (res->kind == RESOLVED)
        candidates_replace(&b->candidates, &res->candidates, res->ttl_s, now);
    else if (!candidates_extend(&b->candidates, now))
        cannot_resolve(b, &res->answer);
}

static void resolved(void *ctx, struct resolution *res)
{
    struct backend *b = ctx;
    b->resolving = NULL;
    if (b->verifier->draining) {
        if (res->kind == RESOLVED)
            candidates_free(&res->candidates);
        verifier_check_drained(b->verifier);
        return;
    }
    take_resolution(b, res);
    backend_kick(b);
}

/* True: there are addresses to connect to. */
static bool have_candidates(struct backend *b)
{
    if (b->resolving)
        return false;
    if (candidates_fresh(&b->candidates, loop_now_ms(b->verifier->loop)))
        return true;
    struct resolution now = {0};
    err_t err = resolve_start(&b->verifier->resolver, &b->target, resolved, b, &b->resolving, &now);
    if (err == ERR_PENDING)
        return false;
    if (err) {
        now.kind = RESOLVE_LATER;
        now.answer = (struct answer){.text = str_cstr(err_text(err))};
    }
    take_resolution(b, &now);
    return b->candidates.count > 0;
}

/* --- the sender --- */

static enum sender_kind sender_of(const struct question *q, str_t *fixed)
{
    const struct backend *b = q->backend;
    struct address a;
    *fixed = STR_NONE;
    if (q->sender_n)
        return PROBE_PASSED_ON;
    if (address_parse_mailbox(str_of(q->text, q->text_n), &a))
        return PROBE_EMPTY;
    const struct cfg_verify *s = policy_verify(b->verifier->policy, &a);
    switch (s->sender.kind) {
    case SENDER_NULL: return PROBE_EMPTY;
    case SENDER_TOKEN: return PROBE_TOKEN;
    case SENDER_ADDRESS: *fixed = s->sender.address; return PROBE_FIXED;
    case SENDER_ADAPTIVE: break;
    }
    return b->refuses_empty ? PROBE_TOKEN : PROBE_EMPTY;
}

static void write_sender(struct batch *batch, const struct question *first, str_t fixed)
{
    struct verifier *v = batch->backend->verifier;
    struct sbuf out = SBUF_ON(batch->sender);
    switch (batch->sender_kind) {
    case PROBE_EMPTY: break;
    case PROBE_TOKEN:
        token_write(v->shared->token_key, wall_s(), &out);
        sbuf_char(&out, '@');
        sbuf_cstr(&out, v->hop.hostname);
        break;
    case PROBE_FIXED: sbuf_str(&out, fixed); break;
    case PROBE_PASSED_ON: sbuf_put(&out, first->sender, first->sender_n); break;
    }
    batch->sender_n = (uint16_t)(out.overflow ? 0 : out.n);
}

static bool same_sender(const struct batch *batch, const struct question *q)
{
    str_t fixed;
    enum sender_kind kind = sender_of(q, &fixed);
    str_t mine = str_of(batch->sender, batch->sender_n);
    if (kind != batch->sender_kind)
        return false;
    return kind == PROBE_EMPTY || kind == PROBE_TOKEN ||
           str_eq(mine, kind == PROBE_FIXED ? fixed : str_of(q->sender, q->sender_n));
}

/* Adaptive: a server that has come to refuse the one sender gets the other. */
static void turn_sender(struct backend *b, bool refuses_empty, const struct smtp_reply *reply, str_t relay)
{
    if (b->refuses_empty == refuses_empty)
        return; /* the first one of the batch did */
    b->refuses_empty = refuses_empty;
    b->refuses_empty_until_ms = loop_now_ms(b->verifier->loop) + REFUSES_EMPTY_MS;
    LOG(verify_sender, LF_STR("dest", b->key), LF_STR("relay", relay),
        LF_CSTR("sender", refuses_empty ? "token" : "empty"), LF_U64("reply", (uint64_t)reply->code),
        LF_STR("text", reply->text));
}

static bool is_adaptive(const struct question *q)
{
    struct address a;
    return address_parse_mailbox(str_of(q->text, q->text_n), &a) == 0 &&
           policy_verify(q->backend->verifier->policy, &a)->sender.kind == SENDER_ADAPTIVE;
}

bool sender_refused(struct question *q, const struct batch *batch, const struct smtp_reply *reply,
                    str_t relay)
{
    if (q->again_count >= PROBE_AGAIN_MAX || batch->sender_kind == PROBE_FIXED || !is_adaptive(q))
        return false;
    turn_sender(q->backend, batch->sender_kind == PROBE_EMPTY, reply, relay);
    q->again_count++;
    question_enqueue(q, true);
    return true;
}

bool sender_forsaken(struct question *q, const struct batch *batch)
{
    if (batch->sender_kind != PROBE_PASSED_ON)
        return false;
    q->sender_n = 0;
    q->is_ours = true;
    question_enqueue(q, true);
    return true;
}

/* --- batches --- */

static uint32_t batch_limit(struct backend *b)
{
    if (b->batch_limit < b->limits.batch && loop_now_ms(b->verifier->loop) >= b->batch_limit_until_ms)
        b->batch_limit = PROBE_BATCH_MAX; /* perhaps somebody changed it */
    return MIN(b->batch_limit, b->limits.batch);
}

void backend_count(struct backend *b, bool refused)
{
    if (b->lately_asked >= 64) {
        b->lately_asked /= 2;
        b->lately_refused /= 2;
    }
    b->lately_asked++;
    b->lately_refused += refused;
}

/* As many as should bring this connection to its last refusal, and no more: what is asked behind that is
 * answered slowly or not at all. Where nothing is known all are taken for unknown. */
static uint32_t batch_for(struct backend *b, const struct probeconn *c)
{
    uint32_t asked = b->lately_asked + 1, refused = b->lately_refused + 1;
    uint32_t left = patience_left(&b->patience, c->refused_count + c->out_count * refused / asked);
    return MIN(batch_limit(b), left * asked / refused);
}

bool batch_crowded(struct question *q)
{
    struct backend *b = q->backend;
    struct batch *batch = q->batch;
    if (batch->tx.rcpt_count == 1 || q->again_count >= PROBE_AGAIN_MAX)
        return false;
    if (!batch->was_crowded) {
        batch->was_crowded = true;
        b->batch_limit = MIN(MAX(batch->taken_count, 1), batch->tx.rcpt_count - 1);
        b->batch_limit_until_ms = loop_now_ms(b->verifier->loop) + CROWDED_MS;
    }
    q->again_count++;
    question_enqueue(q, true);
    return true;
}

static struct question *first_question(struct backend *b)
{
    for (int i = 0; i < RANK_COUNT; i++)
        if (!list_empty(&b->queue[i]))
            return container_of(list_first(&b->queue[i]), struct question, link);
    return NULL;
}

static void take_off_queue(struct question *q)
{
    list_remove(&q->link);
    q->backend->queued_count--;
    metric_add(M_probe_queue, -1);
}

/* RFC 9422: has the server said in EHLO that one more would be too many? */
static bool fits(const struct probeconn *c, struct batch *batch, const struct question *q)
{
    uint32_t n = batch->tx.rcpt_count;
    batch->rcpts[n] = (struct envelope_rcpt){.address = str_of(q->text, q->text_n)};
    return smtpc_rcpts_fitting(smtpc_features(c->smtpc), batch->rcpts, n + 1) > n;
}

static void add(struct batch *batch, struct question *q)
{
    uint32_t i = batch->tx.rcpt_count++;
    take_off_queue(q);
    q->batch = batch;
    batch->questions[i] = q;
    batch->rcpts[i] = (struct envelope_rcpt){.address = str_of(q->text, q->text_n)};
    batch->tx.smtputf8 |= q->is_utf8;
}

/* What a server without SMTPUTF8 cannot have is answered here, for the engine would refuse the whole batch.
 */
static bool can_ask(const struct probeconn *c, struct question *q)
{
    if (!q->is_utf8 || smtpc_features(c->smtpc)->smtputf8)
        return true;
    take_off_queue(q);
    struct found f = {.finding = FINDING_NO_SMTPUTF8, .probed = true, .why = "the server has no SMTPUTF8"};
    memcpy(f.relay, c->to.relay, sizeof f.relay);
    question_end(q, &f);
    return false;
}

/* Up to `max` of one sender, in their order. NULL: nothing to ask, or out of memory. */
static struct batch *make_batch(struct probeconn *c, uint32_t max)
{
    struct backend *b = c->backend;
    struct batch *batch = NULL;
    struct question *q;
    while ((q = first_question(b)) && (!batch || batch->tx.rcpt_count < max)) {
        if (!can_ask(c, q))
            continue;
        if (!batch) {
            str_t fixed;
            batch = pool_get(&b->verifier->batch_pool);
            if (!batch)
                return NULL;
            batch->backend = b;
            batch->conn = c;
            batch->sender_kind = sender_of(q, &fixed);
            write_sender(batch, q, fixed);
        } else if (!same_sender(batch, q) || !fits(c, batch, q)) {
            break;
        }
        add(batch, q);
    }
    if (!batch)
        return NULL;
    batch->tx.probe = true;
    batch->tx.sender = str_of(batch->sender, batch->sender_n);
    batch->tx.rcpts = batch->rcpts;
    batch->tx.owner = batch;
    batch->began_ms = loop_now_ms(b->verifier->loop);
    b->batch_count++;
    metric_inc(M_probe_transactions);
    return batch;
}

void batch_done(struct batch *batch)
{
    struct backend *b = batch->backend;
    for (uint32_t i = 0; i < batch->tx.rcpt_count; i++)
        must(!batch->questions[i]);
    must(b->batch_count > 0);
    b->batch_count--;
    pool_put(&b->verifier->batch_pool, batch);
    if (!b->batch_count && !b->dialing_count)
        breaker_end_trial(&b->breaker);
    backend_kick(b);
}

/* --- turns --- */

void backend_rate(struct timer *t)
{
    backend_kick(container_of(t, struct backend, rate_timer));
}

static struct probeconn *free_conn(struct backend *b, bool behind)
{
    LIST_EACH(&b->conns, k)
    {
        struct probeconn *c = container_of(k, struct probeconn, link);
        if (probeconn_is_free(c, behind))
            return c;
    }
    return NULL;
}

/* One batch to `c`. False: not now. */
static bool hand_out(struct backend *b, struct probeconn *c)
{
    struct loop *l = b->verifier->loop;
    uint64_t now = loop_now_ms(l);
    uint32_t count =
        bucket_take(&b->bucket, b->limits.rate_per_s, MIN(batch_for(b, c), b->queued_count), now);
    if (!count) {
        timer_arm(l, &b->rate_timer, bucket_wait_ms(&b->bucket, b->limits.rate_per_s, now));
        return false;
    }
    struct batch *batch = make_batch(c, count);
    bucket_return(&b->bucket, count - (batch ? batch->tx.rcpt_count : 0));
    if (!batch)
        return false;
    if (backend_state(b) != BREAKER_UP)
        breaker_begin_trial(&b->breaker);
    probeconn_give(c, batch);
    return true;
}

/* More connections for what found no place; one for a trial. */
static void open_more(struct backend *b)
{
    bool on_trial = backend_state(b) != BREAKER_UP;
    uint32_t wanted = (b->queued_count + batch_limit(b) - 1) / batch_limit(b);
    uint32_t max = on_trial ? 1 : b->limits.connections;
    uint64_t now = loop_now_ms(b->verifier->loop);
    wanted = MIN(wanted > b->dialing_count ? wanted - b->dialing_count : 0,
                 max > b->conn_count ? max - b->conn_count : 0);
    if (b->conn_count && now < b->open_after_ms)
        wanted = 0;
    if (!wanted || !have_candidates(b))
        return;
    while (wanted-- > 0 && probeconn_open(b))
        if (on_trial)
            breaker_begin_trial(&b->breaker);
}

void backend_dispatch(struct tick_hook *h)
{
    struct backend *b = container_of(h, struct backend, hook);
    struct verifier *v = b->verifier;
    if (b->probe_ended && !b->conn_count && !b->resolving) {
        probe_now_over(b);
        return;
    }
    if (b->refuses_empty && loop_now_ms(v->loop) >= b->refuses_empty_until_ms)
        b->refuses_empty = false;
    while (b->queued_count && !v->draining) {
        enum breaker_leave leave = breaker_leave(&b->breaker, loop_now_ms(v->loop));
        struct probeconn *c;
        if (leave == BREAKER_WAIT) {
            struct found f;
            backend_found(b, &f);
            backend_answer_queue(b, &f);
            return;
        }
        /* On trial a batch goes to the connection that the trial is, and no other. */
        if (leave == BREAKER_ON_TRIAL && b->batch_count)
            return;
        c = free_conn(b, false);
        if (!c && leave == BREAKER_GO)
            c = free_conn(b, true);
        if (!c) {
            if (leave != BREAKER_ON_TRIAL)
                open_more(b);
            return;
        }
        if (!hand_out(b, c))
            return;
    }
}
