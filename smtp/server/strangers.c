/* smtp/server/strangers.c: see strangers.h. */
#include "smtp/server/strangers.h"

#include "core/hash.h"
#include "smtp/server/harvest.h"
#include "smtp/server/pace_priv.h"

#define CLIENTS_MIN 4096 /* a reload may allow more sessions */

struct strangers *strangers_new(uint32_t session_count)
{
    struct strangers *s = calloc(1, sizeof *s);
    size_t clients = CLIENTS_MIN;
    while (clients < 2 * (size_t)session_count)
        clients *= 2;
    if (!s)
        return NULL;
    s->sessions = cells_new(clients);
    s->connections = cells_new(PACE_CLIENTS);
    s->messages = cells_new(PACE_CLIENTS);
    s->unknown = cells_new(HARVEST_CLIENTS);
    if (s->sessions && s->connections && s->messages && s->unknown)
        return s;
    strangers_free(s);
    return NULL;
}

void strangers_free(struct strangers *s)
{
    if (!s)
        return;
    cells_free(s->sessions);
    cells_free(s->connections);
    cells_free(s->messages);
    cells_free(s->unknown);
    free(s);
}

static uint64_t count(uint64_t value, const void *ctx)
{
    return value;
}

static uint64_t one_more(uint64_t value, const void *ctx)
{
    return value + 1;
}

static uint64_t one_less(uint64_t value, const void *ctx)
{
    return value ? value - 1 : CELL_LEAVE;
}

static const struct cell_rules entering = {.worth = count, .next = one_more},
                               leaving = {.worth = count, .next = one_less};

uint64_t strangers_sessions(const struct strangers *s, uint64_t key)
{
    return cells_worth(s->sessions, hash_u64(key), &entering, NULL);
}

/* Counted first, and looked at then: of two that come at once at least one sees both. */
enum stranger_entry strangers_enter(struct strangers *s, uint64_t key, uint32_t max)
{
    if (cells_change(s->sessions, hash_u64(key), &entering, NULL) != CELL_CHANGED)
        return STRANGER_UNCOUNTED;
    if (!max || strangers_sessions(s, key) <= max)
        return STRANGER_COUNTED;
    strangers_leave(s, key);
    return STRANGER_TOO_MANY;
}

void strangers_leave(struct strangers *s, uint64_t key)
{
    cells_change(s->sessions, hash_u64(key), &leaving, NULL);
}
