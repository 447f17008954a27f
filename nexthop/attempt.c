/* nexthop/attempt.c: see attempt.h. */
#include "nexthop/attempt.h"

enum attempt_step attempt_next(struct attempt *t, const struct candidates *c, const struct attempt_rules *r,
                               uint64_t now_ms)
{
    if (t->generation != c->generation) { /* the bits are of another list */
        t->generation = c->generation;
        t->tried = 0;
    }
    int i = t->count < ATTEMPT_TRIES_MAX ? candidates_pick(c, t->tried, r->failed_too, now_ms) : -1;
    if (i < 0)
        return ATTEMPT_NO_ADDRESS;
    const struct candidate *to = &c->list[i];
    if (!candidate_tls(to, r->want, r->any, r->verify, &t->tls, &t->level))
        return ATTEMPT_NO_TLS;
    t->index = (uint32_t)i;
    t->tried |= UINT32_C(1) << i;
    t->count++;
    t->at = to->at;
    t->tls_broke = false;
    memcpy(t->host, to->host, sizeof t->host);
    struct sbuf text = {t->relay, 0, sizeof t->relay - 1, false};
    endpoint_format(&t->at, &text);
    t->relay[text.n] = '\0';
    return ATTEMPT_GO;
}

struct candidate *attempt_candidate(const struct attempt *t, const struct candidates *c)
{
    return t->generation == c->generation ? &c->list[t->index] : NULL;
}

void attempt_tls_failed(struct attempt *t, const struct candidates *c, enum tls_level want)
{
    struct candidate *to = attempt_candidate(t, c);
    if (want == TLS_MAY && to && !to->tls_broken) /* better in the clear than not at all */
        to->tls_broken = t->tls_broke = true;
}

bool attempt_failed(struct attempt *t, const struct candidates *c, bool spoke, uint64_t now_ms)
{
    struct candidate *to = attempt_candidate(t, c);
    if (t->tls_broke) {
        t->tried &= ~(UINT32_C(1) << t->index);
        return false;
    }
    return !spoke && to && candidates_failed(c, to, now_ms);
}
