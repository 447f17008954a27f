/* nexthop/answer.c: see answer.h. */
#include "nexthop/answer.h"

static str_t keep(char *to, size_t cap, str_t s)
{
    if (!s.p)
        return STR_NONE;
    size_t n = MIN(s.n, cap);
    memcpy(to, s.p, n);
    return str_of(to, n);
}

void answer_keep(struct kept_answer *out, const struct answer *a)
{
    out->a = *a;
    out->a.text = keep(out->text, sizeof out->text, a->text);
    out->a.mta = keep(out->mta, sizeof out->mta, a->mta);
}

struct answer answer_copy(struct arena *arena, const struct answer *a)
{
    struct answer copy = *a;
    copy.text = a->text.p ? arena_str(arena, str_sub(a->text, 0, ANSWER_TEXT_MAX)) : STR_NONE;
    copy.mta = a->mta.p ? arena_str(arena, a->mta) : STR_NONE;
    return copy;
}

struct answer answer_of_reply(const struct smtp_reply *reply, str_t mta)
{
    struct answer a = {.code = reply->code, .text = reply->text, .mta = mta};
    memcpy(a.status, reply->enhanced, sizeof a.status);
    if (a.status[0] !=
        reply->code / 100) /* RFC 3463 2: a class that contradicts the reply is nonsense; the reply counts */
        memset(a.status, 0, sizeof a.status);
    return a;
}

str_t answer_code(const struct answer *a, struct sbuf *out)
{
    if (!a->code)
        return STR_NONE;
    sbuf_printf(out, "%d", a->code);
    if (a->status[0])
        sbuf_printf(out, " %u.%u.%u", a->status[0], a->status[1], a->status[2]);
    return sbuf_view(out);
}
