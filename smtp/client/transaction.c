/* One message's way over the wire: MAIL, RCPT…, DATA, content, dot (a small one's: MAIL, RCPT…, BDAT,
 * content, in one go; a probe's: MAIL, RCPT…, RSET); and the next one right behind. */
#include "smtp/client/client_priv.h"

/* --- the recipients that the server took --- */

static bool bits_clear(struct bits *b, uint32_t count)
{
    if (count > b->cap) {
        size_t words = ((size_t)count + 63) / 64;
        uint64_t *more = malloc(words * sizeof *more);
        if (!more)
            return false;
        if (b->words != b->few)
            free(b->words);
        b->words = more;
        b->cap = (uint32_t)MIN(words * 64, (size_t)UINT32_MAX);
    }
    memset(b->words, 0, ((size_t)count + 63) / 64 * sizeof *b->words);
    return true;
}

static void bits_set(struct bits *b, uint32_t i)
{
    b->words[i / 64] |= UINT64_C(1) << (i % 64);
}

static bool bits_get(const struct bits *b, uint32_t i)
{
    return b->words[i / 64] >> (i % 64) & 1;
}

/* --- the list --- */

bool transaction_add(struct smtpc *c, struct smtpc_tx *tx)
{
    struct smtpc_tx **end = &c->first;
    uint8_t slot = 0;
    while (slot < SLOT_COUNT && c->slot_used[slot])
        slot++;
    must(slot < SLOT_COUNT);
    if (!bits_clear(&c->accepted[slot], tx->rcpt_count))
        return false;
    c->slot_used[slot] = true;
    tx->slot = slot;
    while (*end)
        end = &(*end)->next;
    *end = tx;
    c->tx_count++;
    return true;
}

void transaction_remove(struct smtpc *c, struct smtpc_tx *tx)
{
    struct smtpc_tx **at = &c->first;
    while (*at != tx)
        at = &(*at)->next;
    *at = tx->next;
    c->slot_used[tx->slot] = false;
    c->tx_count--;
}

/* The one whose commands or content are on the wire, or that is next. */
static struct smtpc_tx *speaking(const struct smtpc *c)
{
    struct smtpc_tx *tx = c->first;
    while (tx && (tx->state == TX_DOT || tx->state == TX_PROBED))
        tx = tx->next;
    return tx;
}

static bool expects(const struct smtpc_tx *tx, enum expect expect)
{
    switch (expect) {
    case EXPECT_MAIL: return tx->state != TX_WAITING && !tx->mail_answered;
    case EXPECT_RCPT: return tx->rcpts_answered < tx->rcpts_sent;
    case EXPECT_DATA: return tx->data_sent && !tx->chunked && !tx->data_answered;
    case EXPECT_PROBE_END: return tx->state == TX_PROBED;
    default: return false;
    }
}

/* Whose command the next reply answers: replies come in the order of commands. */
static struct smtpc_tx *answered(const struct smtpc *c, enum expect expect)
{
    struct smtpc_tx *tx = c->first;
    while (tx && !expects(tx, expect))
        tx = tx->next;
    must(tx);
    return tx;
}

static void finish(struct smtpc *c, struct smtpc_tx *tx)
{
    must(tx->outcome_count == tx->rcpt_count);
    transaction_remove(c, tx);
    c->ready_due = true;
    c->ops->tx_done(c->host, tx);
}

/* --- outcomes --- */

bool transaction_outcome(struct smtpc *c, struct smtpc_tx *tx, uint32_t index, bool accepted,
                         enum smtpc_stage at, const struct smtp_reply *r)
{
    tx->outcome_count++;
    c->ops->rcpt_done(c->host, tx, index, accepted, at, r);
    return !client_is_dead(c);
}

/* The same answer for every recipient accepted so far and still without outcome, from tx->dot_index on. */
static bool settle_accepted(struct smtpc *c, struct smtpc_tx *tx, enum smtpc_stage at,
                            const struct smtp_reply *r)
{
    while (tx->dot_index < tx->rcpts_answered) {
        uint32_t i = tx->dot_index++;
        if (bits_get(&c->accepted[tx->slot], i) && !transaction_outcome(c, tx, i, r->code / 100 == 2, at, r))
            return false;
    }
    return true;
}

/* --- replies --- */

static bool is_refusal(const struct smtp_reply *r)
{
    return r->code / 100 == 4 || r->code / 100 == 5;
}

static void on_mail(struct smtpc *c, struct smtpc_tx *tx, enum smtpc_stage at, const struct smtp_reply *r)
{
    tx->mail_answered = true;
    if (r->code / 100 == 2)
        return;
    if (!is_refusal(r)) {
        client_fail(c, at, NULL);
        return;
    }
    tx->mail_refused = true;
    for (uint32_t i = 0; i < tx->rcpt_count; i++) {
        if (!transaction_outcome(c, tx, i, false, at, r))
            return;
    }
}

static void on_rcpt(struct smtpc *c, struct smtpc_tx *tx, enum smtpc_stage at, const struct smtp_reply *r)
{
    uint32_t i = tx->rcpts_answered++;
    c->rcpts_out--;
    if (r->code / 100 == 2) {
        tx->rcpts_ok++;
        if (!tx->mail_refused && tx->probe)
            transaction_outcome(c, tx, i, true, at, r);
        else if (!tx->mail_refused)
            bits_set(&c->accepted[tx->slot], i);
    } else if (!is_refusal(r)) {
        client_fail(c, at, NULL);
    } else if (!tx->mail_refused) {
        transaction_outcome(c, tx, i, false, at, r);
    }
}

/* 354, and nobody to send to. */
static void end_empty_data(struct smtpc *c, struct smtpc_tx *tx, enum smtpc_stage at)
{
    if (tx->rcpts_ok || c->opt.lmtp) {
        /* It refused MAIL and took recipients all the same: a dot might deliver nothing at all to them. And
         * an LMTP server without recipients owes us no reply to the dot, or one: nobody can tell. */
        client_fail(c, at, NULL);
        return;
    }
    tx->state = TX_DOT;
    client_put(c, EXPECT_DOT, ".");
}

static void on_data(struct smtpc *c, struct smtpc_tx *tx, enum smtpc_stage at, const struct smtp_reply *r)
{
    tx->data_answered = true;
    if (is_refusal(r)) {
        c->rset_due = !tx->mail_refused;
        if (tx->mail_refused || settle_accepted(c, tx, at, r))
            finish(c, tx);
    } else if (r->code / 100 != 3) {
        client_fail(c, at, NULL);
    } else if (tx->mail_refused || !tx->rcpts_ok) {
        end_empty_data(c, tx, at);
    } else {
        tx->state = TX_CONTENT;
        client_flush(c);
        c->ops->content(c->host, tx);
    }
}

/* RFC 2033 4.2: one reply for each recipient that was accepted, in their order. */
static bool settle_next_lmtp(struct smtpc *c, struct smtpc_tx *tx, enum smtpc_stage at,
                             const struct smtp_reply *r)
{
    while (!bits_get(&c->accepted[tx->slot], tx->dot_index))
        tx->dot_index++;
    tx->dots_answered++;
    return transaction_outcome(c, tx, tx->dot_index++, r->code / 100 == 2, at, r);
}

/* Of a chunk. 503 with nobody to send to is what the RFC wants; otherwise a server that says one of these has
 * not read the chunk as one, and takes it for commands: the connection must end. */
static bool is_misunderstood(const struct smtpc_tx *tx, const struct smtp_reply *r)
{
    return r->code == 500 || r->code == 502 || (r->code == 503 && tx->rcpts_ok);
}

static void on_dot(struct smtpc *c, enum smtpc_stage at, const struct smtp_reply *r)
{
    struct smtpc_tx *tx = c->first;
    must(tx && (tx->state == TX_DOT || tx->chunked));
    /* RFC 3030 2: a server takes all of a chunk before it answers; who does not is out of step. */
    if (r->code / 100 == 3 || tx->state != TX_DOT) {
        client_fail(c, at, NULL);
        return;
    }
    if (tx->chunked && is_misunderstood(tx, r)) {
        c->bdat_unknown = true;
        client_fail(c, at, NULL);
        return;
    }
    if (tx->chunked && r->code / 100 != 2)
        c->rset_due = true; /* RFC 3030 2: the state after a refused chunk is anybody's guess */
    /* 421 answers for all that are left: it is a refusal like another, so nothing can have been delivered
     * twice. */
    bool one_by_one = c->opt.lmtp && r->code != 421;
    if (!(one_by_one ? settle_next_lmtp(c, tx, at, r) : settle_accepted(c, tx, at, r)))
        return;
    if (one_by_one && tx->dots_answered < tx->rcpts_ok)
        return;
    c->expected_at = (c->expected_at + 1) % EXPECT_MAX;
    c->expected_count--;
    finish(c, tx);
    if (r->code == 421)
        client_fail(c, at, r);
}

static void on_probe_end(struct smtpc *c, enum smtpc_stage at, const struct smtp_reply *r)
{
    if (r->code / 100 == 2)
        finish(c, answered(c, EXPECT_PROBE_END));
    else
        client_fail(c, at, r);
}

void transaction_reply(struct smtpc *c, enum expect expect, enum smtpc_stage at, const struct smtp_reply *r)
{
    if (expect == EXPECT_RSET) {
        if (r->code / 100 != 2)
            client_fail(c, at, r);
        return;
    }
    if (expect == EXPECT_DOT) {
        on_dot(c, at, r);
        return;
    }
    if (expect == EXPECT_PROBE_END) {
        on_probe_end(c, at, r);
        return;
    }
    struct smtpc_tx *tx = answered(c, expect);
    if (expect == EXPECT_MAIL)
        on_mail(c, tx, at, r);
    else if (expect == EXPECT_RCPT)
        on_rcpt(c, tx, at, r);
    else
        on_data(c, tx, at, r);
}

/* --- commands --- */

static bool may_say(const struct smtpc *c)
{
    return c->features.pipelining || !c->expected_count;
}

static const char *const ret_words[] = {
    [RET_UNSAID] = "", [RET_FULL] = " RET=FULL", [RET_HDRS] = " RET=HDRS"};

static void say_mail(struct smtpc *c, struct smtpc_tx *tx)
{
    const struct smtpc_features *f = &c->features;
    char size[32] = "";
    if (f->size && tx->size)
        snprintf(size, sizeof size, " SIZE=%llu", (unsigned long long)tx->size);
    str_t envid = f->dsn && param_value_valid(tx->envid) ? tx->envid : STR_NONE;
    client_put(c, EXPECT_MAIL, "MAIL FROM:<" STR_FMT ">%s%s%s%s%s" STR_FMT, STR_ARG(tx->sender), size,
               f->eightbit && tx->body == BODY_8BITMIME ? " BODY=8BITMIME" : "",
               tx->smtputf8 ? " SMTPUTF8" : "", f->dsn ? ret_words[tx->ret] : "", envid.n ? " ENVID=" : "",
               STR_ARG(envid));
    tx->state = TX_COMMANDS;
}

/* Nobody knows yet what a chunk will have left behind; after a dot there is nothing. */
static bool is_behind_chunk(const struct smtpc *c, const struct smtpc_tx *tx)
{
    const struct smtpc_tx *before = c->first;
    while (before != tx && !before->chunked)
        before = before->next;
    return before != tx;
}

/* False: it waits for replies. */
static bool start(struct smtpc *c, struct smtpc_tx *tx)
{
    if (!may_say(c))
        return false;
    if (c->rset_due || is_behind_chunk(c, tx)) {
        c->rset_due = false;
        client_put(c, EXPECT_RSET, "RSET");
        if (!may_say(c))
            return false;
    }
    say_mail(c, tx);
    return true;
}

static void put_notify(uint8_t notify, struct sbuf *out)
{
    static const struct {
        uint8_t bit;
        const char *word;
    } words[] = {{NOTIFY_NEVER, "NEVER"},
                 {NOTIFY_SUCCESS, "SUCCESS"},
                 {NOTIFY_FAILURE, "FAILURE"},
                 {NOTIFY_DELAY, "DELAY"}};
    const char *before = " NOTIFY=";
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        if (!(notify & words[i].bit))
            continue;
        sbuf_printf(out, "%s%s", before, words[i].word);
        before = ",";
    }
}

/* RFC 3461 5.2.1: as they came. */
static void say_rcpt(struct smtpc *c, const struct envelope_rcpt *r)
{
    char params[ORCPT_MAX + 64];
    struct sbuf b = SBUF_ON(params);
    if (c->features.dsn) {
        put_notify(r->notify, &b);
        if (param_value_valid(r->orcpt)) { /* not what a damaged store makes of it */
            sbuf_cstr(&b, " ORCPT=");
            sbuf_str(&b, str_sub(r->orcpt, 0, ORCPT_MAX));
        }
    }
    client_put(c, EXPECT_RCPT, "RCPT TO:<" STR_FMT ">" STR_FMT, STR_ARG(r->address), STR_ARG(sbuf_view(&b)));
}

static void say_rcpts(struct smtpc *c, struct smtpc_tx *tx)
{
    while (may_say(c) && tx->rcpts_sent < tx->rcpt_count && c->rcpts_out < RCPT_WINDOW) {
        c->rcpts_out++;
        say_rcpt(c, &tx->rcpts[tx->rcpts_sent++]);
    }
}

static bool is_chunk(const struct smtpc *c, const struct smtpc_tx *tx)
{
    return c->opt.chunking && c->features.chunking && c->features.pipelining && !c->opt.lmtp &&
           tx->chunk_bytes && tx->chunk_bytes <= CHUNK_BYTES_MAX;
}

/* True: the content is said, too. */
static bool say_data(struct smtpc *c, struct smtpc_tx *tx)
{
    tx->data_sent = true;
    tx->chunked = is_chunk(c, tx);
    if (!tx->chunked) {
        client_put(c, EXPECT_DATA, "DATA");
        return false;
    }
    client_put(c, EXPECT_DOT, "BDAT %llu LAST", (unsigned long long)tx->chunk_bytes);
    tx->state = TX_CONTENT;
    client_flush(c);
    c->ops->content(c->host, tx);
    return !client_is_dead(c) && tx->state == TX_DOT;
}

/* True: tx has nothing more to say, and another one may speak. */
static bool advance(struct smtpc *c, struct smtpc_tx *tx)
{
    if (tx->state == TX_CONTENT || (tx->state == TX_WAITING && !start(c, tx)))
        return false;
    if (!tx->mail_refused)
        say_rcpts(c, tx);
    bool all_answered = tx->rcpts_answered == tx->rcpts_sent;
    if (tx->data_sent || (tx->mail_refused && !all_answered))
        return false;
    if (tx->mail_refused) {
        finish(c, tx);
        return true;
    }
    if (tx->rcpts_sent < tx->rcpt_count || !may_say(c))
        return false;
    if (tx->probe) {
        tx->state = TX_PROBED;
        client_put(c, EXPECT_PROBE_END, "RSET");
        return true; /* said all: the next one may */
    }
    if (all_answered && !tx->rcpts_ok) {
        c->rset_due = true;
        finish(c, tx);
        return true;
    }
    return say_data(c, tx);
}

void transaction_pump(struct smtpc *c)
{
    struct smtpc_tx *tx;
    while (c->phase == PHASE_UP && (tx = speaking(c)) && advance(c, tx)) {
    }
}
