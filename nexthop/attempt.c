/* nexthop/attempt.c: see attempt.h. */
#include "nexthop/attempt.h"

bool attempt_next(struct attempt *t, const struct candidates *c, struct hop_access *access, bool failed_too,
                  uint64_t now_ms)
{
    if (t->generation != c->generation) { /* the bits are of another list */
        t->generation = c->generation;
        t->tried = 0;
    }
    int i = t->count < ATTEMPT_TRIES_MAX ? candidates_pick(c, t->tried, failed_too, now_ms) : -1;
    if (i < 0)
        return false;
    const struct candidate *to = &c->list[i];
    attempt_end(t);
    t->access = hop_access_ref(access);
    candidate_tls(to, access, &t->tls, &t->level);
    t->index = (uint32_t)i;
    t->tried |= UINT32_C(1) << i;
    t->count++;
    t->at = to->at;
    t->tls_broke = false;
    t->lock_step = to->lock_step;
    memcpy(t->host, to->host, sizeof t->host);
    struct sbuf text = {t->relay, 0, sizeof t->relay - 1, false};
    endpoint_format(&t->at, &text);
    t->relay[text.n] = '\0';
    return true;
}

struct smtpc_options attempt_options(const struct attempt *t, const char *hostname, bool lmtp)
{
    const struct hop_access *a = t->access;
    return (struct smtpc_options){
        .helo_name = str_cstr(hostname),
        .lmtp = lmtp,
        .lock_step = t->lock_step,
        .sends_eight_bit = a->sends_eight_bit,
        .tls = t->level,
        .chunking = a->chunking,
        .has_auth = a->has_auth,
        .auth = {.mechanism = a->mechanism, .user = a->user, .password = a->password},
    };
}

str_t attempt_server_name(const struct attempt *t)
{
    return candidate_server_name(str_cstr(t->host), t->access);
}

void attempt_end(struct attempt *t)
{
    hop_access_unref(t->access);
    t->access = NULL;
    t->tls = NULL;
}

struct candidate *attempt_candidate(const struct attempt *t, const struct candidates *c)
{
    return t->generation == c->generation ? &c->list[t->index] : NULL;
}

void attempt_tls_failed(struct attempt *t, const struct candidates *c, bool tried_resuming)
{
    struct candidate *to = attempt_candidate(t, c);
    if (tried_resuming && to)
        t->tls_broke = true;
    else if (t->access->level == TLS_MAY && to && !to->tls_broken) /* better in the clear than not at all */
        to->tls_broken = t->tls_broke = true;
}

bool attempt_pipelining_failed(struct attempt *t, const struct candidates *c, const struct smtpc *engine,
                               bool timed_out, bool done)
{
    struct candidate *to = attempt_candidate(t, c);
    bool is_news = to && !to->lock_step && smtpc_has_pipelined(engine) && (timed_out || !done);
    if (is_news)
        to->lock_step = true;
    return is_news;
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
