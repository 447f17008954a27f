/* verify/patience.c: see patience.h. */
#include "verify/patience.h"

#define KNOWN_MS 3600000 /* then it is tried again: somebody may have changed it */

uint32_t patience_limit(const struct patience *p)
{
    return p->limit ? p->limit : PATIENCE_START;
}

bool patience_is_over(const struct patience *p, uint32_t refused_count, uint64_t now_ms)
{
    bool may_grow = now_ms >= p->known_until_ms && patience_limit(p) < PATIENCE_MAX;
    return !may_grow && refused_count >= patience_limit(p);
}

uint32_t patience_left(const struct patience *p, uint32_t refused_count)
{
    uint32_t limit = patience_limit(p);
    return refused_count < limit ? limit - refused_count : 1;
}

void patience_stood(struct patience *p, uint32_t refused_count)
{
    uint32_t limit = patience_limit(p);
    if (refused_count > limit)
        p->limit = MIN(2 * limit, PATIENCE_MAX);
}

static void shrink(struct patience *p, uint32_t to, uint64_t now_ms)
{
    p->limit = MIN(patience_limit(p), MAX(to, PATIENCE_MIN));
    p->known_until_ms = now_ms + KNOWN_MS;
}

void patience_slowed(struct patience *p, uint32_t refused_count, uint64_t now_ms)
{
    if (refused_count >= PATIENCE_MIN) /* before that it has other reasons */
        shrink(p, refused_count, now_ms);
}

/* Half: who hangs up was mostly annoyed before. */
void patience_hung_up(struct patience *p, uint32_t refused_count, uint64_t now_ms)
{
    if (refused_count >= PATIENCE_MIN)
        shrink(p, refused_count / 2, now_ms);
}

bool patience_is_slow(uint64_t waited_ms, uint64_t longest_ms)
{
    return waited_ms >= PATIENCE_SLOW_MS && waited_ms > 2 * longest_ms;
}
