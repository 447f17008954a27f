/* verify/watch.c: see watch.h. */
#include "verify/watch.h"

#define FIRST_MS       5000
#define AGAIN_MS       2000 /* the second sample, when the first was taken */
#define UNSETTLED_MS   60000
#define TOLD_MS        10000 /* at least between two canaries when deliveries are refused */
#define BLIND_AGAIN_MS (UINT64_C(24) * 3600 * 1000)
#define TAKEN_MAX      2

const char *watch_name(enum watch_state s)
{
    static const char *const names[] = {[WATCH_UNTRIED] = "untried",
                                        [WATCH_TELLS] = "tells",
                                        [WATCH_ACCEPTS_ALL] = "accepts-all",
                                        [WATCH_DATA_STAGE] = "data-stage"};
    return s >= 0 && s < COUNT_OF(names) ? names[s] : "unknown";
}

/* 20 % earlier at most: what began together does not stay together. */
static uint64_t spread(uint64_t ms, uint64_t random)
{
    return ms - random % (ms / 5 + 1);
}

void watch_used(struct watch *w, uint32_t canary_s, uint64_t now_ms, uint64_t random)
{
    if (!w->due_ms && canary_s)
        w->due_ms = now_ms + FIRST_MS + random % FIRST_MS;
}

bool watch_due(const struct watch *w, uint32_t canary_s, uint64_t now_ms)
{
    return canary_s && !w->is_out && w->due_ms && now_ms >= w->due_ms;
}

void watch_good(struct watch *w, uint64_t now_ms)
{
    w->good_at_ms = now_ms;
}

static bool enter(struct watch *w, enum watch_state s)
{
    bool is_new = w->state != s;
    w->state = s;
    return is_new;
}

bool watch_taken(struct watch *w, uint32_t canary_s, uint64_t now_ms, uint64_t random)
{
    w->is_out = false;
    w->refused_at_ms = 0;
    w->taken_at_ms = now_ms;
    if (++w->taken_count < TAKEN_MAX && !watch_is_blind(w)) {
        w->due_ms = now_ms + AGAIN_MS;
        return false;
    }
    w->taken_count = TAKEN_MAX;
    w->due_ms = now_ms + spread(BLIND_AGAIN_MS, random);
    return !watch_is_blind(w) && enter(w, WATCH_ACCEPTS_ALL);
}

bool watch_refused(struct watch *w, uint32_t canary_s, uint64_t now_ms, uint64_t random)
{
    w->is_out = false;
    w->taken_count = 0;
    w->refused_at_ms = now_ms;
    w->due_ms = now_ms + spread((uint64_t)MAX(canary_s, 1) * 1000, random);
    return enter(w, WATCH_TELLS);
}

void watch_unsettled(struct watch *w, uint64_t now_ms)
{
    w->is_out = false;
    w->due_ms = now_ms + UNSETTLED_MS;
}

void watch_told(struct watch *w, uint64_t now_ms)
{
    if (watch_is_blind(w))
        w->due_ms = MIN(w->due_ms, MAX(now_ms, w->taken_at_ms + TOLD_MS));
}

bool watch_data_refused(struct watch *w, uint64_t now_ms)
{
    return w->state == WATCH_ACCEPTS_ALL && enter(w, WATCH_DATA_STAGE);
}

bool watch_passed(const struct watch *w, uint32_t canary_s, uint64_t now_ms)
{
    uint64_t recent_ms = (uint64_t)canary_s * 1000;
    return w->state == WATCH_TELLS && w->refused_at_ms && w->good_at_ms &&
           now_ms - w->refused_at_ms <= recent_ms && now_ms - w->good_at_ms <= recent_ms;
}
