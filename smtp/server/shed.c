/* smtp/server/shed.c: see shed_priv.h. */
#include "smtp/server/shed_priv.h"

#include "core/log.h"
#include "core/metrics.h"

#define KNOWN_SHARE 16 /* 1/16 of the sessions is kept for edge and trusted clients */
/* Descriptors that strangers' sessions leave for the rest, half of them for connections to next hops, DNS and
 * admin, which the edge's leave as well. A process that may open few keeps a quarter. */
#define FILES_KEPT_MAX ((uint64_t)512)

static uint64_t percent(uint64_t limit, unsigned n)
{
    return limit / 100 * n + limit % 100 * n / 100;
}

static bool has_stage(enum shed_cause cause, enum shed_stage stage)
{
    return stage != SHED_NONE && (stage != SHED_UNKNOWN || cause == SHED_MEMORY);
}

/* Used from where a stage begins. */
static uint64_t begins(enum shed_cause cause, enum shed_stage stage, uint64_t limit)
{
    static const uint8_t of_memory[SHED_STAGE_COUNT] = {
        [SHED_STRANGERS] = 80, [SHED_UNKNOWN] = 90, [SHED_ALL] = 100};
    uint64_t kept = MIN(FILES_KEPT_MAX, limit / 4);
    if (cause == SHED_MEMORY)
        return percent(limit, of_memory[stage]);
    if (cause == SHED_FILES)
        return limit - (stage == SHED_ALL ? kept / 2 : kept);
    return stage == SHED_ALL ? limit : limit - limit / KNOWN_SHARE;
}

/* How far below its beginning a stage ends. The edge gets places again almost as soon as there are some. */
static uint64_t slack(enum shed_cause cause, enum shed_stage stage, uint64_t limit)
{
    switch (cause) {
    case SHED_FILES: return MIN(FILES_KEPT_MAX, limit / 4) / 4;
    case SHED_MEMORY: return limit / 20;
    default: return (stage == SHED_ALL ? limit / KNOWN_SHARE : begins(cause, stage, limit)) / KNOWN_SHARE;
    }
}

static enum shed_stage stage_now(enum shed_stage was, enum shed_cause cause, uint64_t used, uint64_t limit)
{
    for (enum shed_stage stage = SHED_ALL; limit && stage > SHED_NONE; stage--) {
        if (!has_stage(cause, stage))
            continue;
        uint64_t from = begins(cause, stage, limit), spare = stage <= was ? slack(cause, stage, limit) : 0;
        if (used >= from - MIN(from, spare))
            return stage;
    }
    return SHED_NONE;
}

static void count(enum shed_cause cause, enum shed_stage stage)
{
    static const enum metric metrics[SHED_CAUSE_COUNT][SHED_STAGE_COUNT] = {
        [SHED_SESSIONS] =
            {[SHED_STRANGERS] = M_overload_sessions_strangers, [SHED_ALL] = M_overload_sessions_all},
        [SHED_FILES] = {[SHED_STRANGERS] = M_overload_files_strangers, [SHED_ALL] = M_overload_files_all},
        [SHED_MEMORY] = {[SHED_STRANGERS] = M_overload_memory_strangers,
                         [SHED_UNKNOWN] = M_overload_memory_unknown,
                         [SHED_ALL] = M_overload_memory_all},
    };
    for (enum shed_stage k = SHED_STRANGERS; k <= SHED_ALL; k++)
        if (has_stage(cause, k))
            metric_set(metrics[cause][k], stage >= k);
}

static void change(struct shed *s, enum shed_cause cause, enum shed_stage stage, uint64_t used,
                   uint64_t limit)
{
    static const char *const causes[] = {"sessions", "files", "memory"};
    static const char *const names[] = {"none", "strangers", "unknown", "all"};
    if (stage == shed_stage(s, cause))
        return;
    LOG(overload, LF_CSTR("cause", causes[cause]), LF_CSTR("stage", names[stage]),
        LF_CSTR("was", names[s->stages[cause]]), LF_U64("used", used), LF_U64("limit", limit));
    count(cause, stage);
    s->stages[cause] = (uint8_t)stage;
}

void shed_look(struct shed *s, enum shed_cause cause, uint64_t used, uint64_t limit)
{
    change(s, cause, stage_now(shed_stage(s, cause), cause, used, limit), used, limit);
}
