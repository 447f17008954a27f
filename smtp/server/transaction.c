/* smtp/server/transaction.c: sender and recipients of one message. */
#include "smtp/server/session_priv.h"

/* The record of a message is written as a whole (queue/): so many bytes of recipients leave room in it for
 * envelope and trace. */
#define RCPTS_BYTES_MAX  ((size_t)800 << 10)
#define RCPT_BYTES_EXTRA 24 /* what a recipient takes there besides its address */

#define SET_FROM_COUNT 8 /* fewer recipients are compared one by one */
/* A recipient's worst case: its text, its place in arrays and set that grew by doubling, and alignment. */
#define RCPT_BYTES_MAX                                                                                       \
    (MAILBOX_MAX + 1 + ORCPT_MAX + 1 + 4 * sizeof(struct envelope_rcpt) + 8 * sizeof(uint32_t) + 64)

struct transaction *transaction_create(struct smtpd_memory *m, uint32_t rcpt_count_max, str_t sender)
{
    struct transaction *tx = pool_get(&m->transactions);
    if (!tx)
        return NULL;
    size_t fixed = 4096 + 2 * NORMALISE_BYTES + TOP_BYTES_MAX;
    arena_init(&tx->arena, fixed + (size_t)rcpt_count_max * RCPT_BYTES_MAX);
    tx->sender = arena_str(&tx->arena, sender.p ? sender : STR(""));
    if (!tx->sender.p) {
        transaction_destroy(m, tx);
        return NULL;
    }
    return tx;
}

void transaction_destroy(struct smtpd_memory *m, struct transaction *tx)
{
    arena_free(&tx->arena);
    pool_put(&m->transactions, tx);
}

static uint32_t *set_slot(const struct transaction *tx, str_t address)
{
    uint32_t at = (uint32_t)str_hash(address) & (tx->set_cap - 1);
    while (tx->set[at] && !str_eq(tx->rcpts[tx->set[at] - 1].address, address))
        at = (at + 1) & (tx->set_cap - 1);
    return &tx->set[at];
}

bool transaction_has_rcpt(const struct transaction *tx, str_t address)
{
    if (tx->set)
        return *set_slot(tx, address) != 0;
    for (uint32_t i = 0; i < tx->rcpt_count; i++) {
        if (str_eq(tx->rcpts[i].address, address))
            return true;
    }
    return false;
}

/* At most half full after one more. */
static err_t set_reserve(struct transaction *tx)
{
    if (tx->rcpt_count < SET_FROM_COUNT || (tx->rcpt_count + 1) * 2 <= tx->set_cap)
        return 0;
    uint32_t cap = MAX(tx->set_cap * 2, (uint32_t)SET_FROM_COUNT * 4);
    uint32_t *set = arena_zalloc(&tx->arena, cap * sizeof *set);
    if (!set)
        return ERR_LIMIT;
    tx->set = set;
    tx->set_cap = cap;
    for (uint32_t i = 0; i < tx->rcpt_count; i++)
        *set_slot(tx, tx->rcpts[i].address) = i + 1;
    return 0;
}

static err_t rcpts_reserve(struct transaction *tx)
{
    if (tx->rcpt_count < tx->rcpt_cap)
        return 0;
    uint32_t cap = MAX(tx->rcpt_cap * 2, 4u);
    struct envelope_rcpt *rcpts = arena_alloc(&tx->arena, cap * sizeof *rcpts);
    if (!rcpts)
        return ERR_LIMIT;
    if (tx->rcpt_count)
        memcpy(rcpts, tx->rcpts, tx->rcpt_count * sizeof *rcpts);
    tx->rcpts = rcpts;
    tx->rcpt_cap = cap;
    return 0;
}

err_t transaction_add_rcpt(struct transaction *tx, str_t address, const struct rcpt_params *params)
{
    size_t bytes = address.n + params->orcpt.n + RCPT_BYTES_EXTRA;
    if (bytes > RCPTS_BYTES_MAX - tx->rcpts_bytes)
        return ERR_LIMIT;
    str_t copy = arena_str(&tx->arena, address);
    str_t orcpt = params->orcpt.n ? arena_str(&tx->arena, params->orcpt) : STR_NONE;
    if (!copy.p || (params->orcpt.n && !orcpt.p) || rcpts_reserve(tx) || set_reserve(tx))
        return ERR_LIMIT;
    tx->rcpts_bytes += bytes;
    tx->rcpts[tx->rcpt_count++] =
        (struct envelope_rcpt){.address = copy, .notify = params->notify, .orcpt = orcpt};
    if (tx->set)
        *set_slot(tx, copy) = tx->rcpt_count;
    return 0;
}
