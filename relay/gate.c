/* relay/gate.c: may a destination be connected to now: window and back-off, pure. */
#include "relay/gate_priv.h"

void gate_init(struct gate *g, uint32_t window_max)
{
    *g = (struct gate){.window_max = MAX(window_max, 1)};
    g->window = MIN(GATE_WINDOW_FIRST, g->window_max);
}

void gate_set_window_max(struct gate *g, uint32_t window_max)
{
    g->window_max = MAX(window_max, 1);
    g->window = MIN(g->window, g->window_max);
}

enum gate_answer gate_may_connect(const struct gate *g, uint64_t now_ms)
{
    if (g->down) {
        if (now_ms < g->retry_at_ms)
            return GATE_DOWN;
        return g->connections ? GATE_FULL : GATE_OPEN; /* the one trial */
    }
    return g->connections < g->window ? GATE_OPEN : GATE_FULL;
}

uint32_t gate_wanted(const struct gate *g, uint64_t now_ms, uint32_t waiting, uint64_t waited_ms)
{
    if (!waiting || gate_may_connect(g, now_ms) != GATE_OPEN)
        return 0;
    if (g->down)
        return 1;
    uint32_t wanted = (waiting + GATE_JOBS_PER_CONN - 1) / GATE_JOBS_PER_CONN;
    uint32_t dialing = g->connections - g->speaking;
    /* Slow servers: as many again as are speaking, so that the number doubles until nothing waits long. */
    uint32_t extra = waited_ms >= GATE_SLOW_MS ? MIN(g->speaking, waiting) : 0;
    if (wanted <= g->connections)
        wanted = extra > dialing ? g->connections + extra - dialing : g->connections;
    wanted = MIN(wanted, g->window);
    return wanted - MIN(wanted, g->connections);
}

static bool reopen(struct gate *g)
{
    if (!g->down)
        return false;
    g->down = false;
    g->window = MIN(GATE_WINDOW_FIRST, g->window_max);
    return true;
}

bool gate_spoke(struct gate *g, uint64_t now_ms)
{
    return now_ms >= g->retry_at_ms && reopen(g);
}

bool gate_moved(struct gate *g, uint64_t now_ms)
{
    g->failures = 0;
    g->barren = 0;
    if (g->window < g->window_max && now_ms >= g->grow_after_ms)
        g->window++;
    return reopen(g);
}

void gate_shut(struct gate *g, uint64_t now_ms, struct backoff b, uint64_t random)
{
    g->down = true;
    g->barren = 0;
    if (g->failures < UINT32_MAX)
        g->failures++;
    g->retry_at_ms = now_ms + backoff_ms(g->failures, b, random);
}

bool gate_failed(struct gate *g, bool spoke, uint64_t now_ms, struct backoff b, uint64_t random)
{
    if (g->down && now_ms < g->retry_at_ms)
        return false; /* one of several that were on their way when it went down: counted once */
    if (spoke)
        g->barren++;
    g->grow_after_ms = now_ms + GATE_GROW_PAUSE_MS;
    /* Others work or are still trying; or this one spoke, which proves that something listens. Be patient,
     * but not for ever. */
    if ((g->connections || spoke) && g->barren < GATE_BARREN_MAX) {
        uint32_t proven = MIN(g->speaking, g->window_max);
        g->window = MAX(MAX(g->window / 2, proven), 1);
        return false;
    }
    gate_shut(g, now_ms, b, random);
    return true;
}
