/* bench/sink/rules.c: servers that say no, always, sometimes, or to some. */
#include <fnmatch.h>

#include "bench/sink/sink_priv.h"

static bool matches(const struct sink_rule *r, str_t line)
{
    char text[512];
    snprintf(text, sizeof text, "%.*s", (int)line.n, line.p);
    return fnmatch(r->glob, text, FNM_CASEFOLD) == 0;
}

/* 30 of a hundred are the 4th, 7th, 10th…: spread evenly, and the same in every run. */
static bool has_turn(uint32_t *turns, uint32_t percent)
{
    uint64_t turn = (*turns)++;
    return (turn + 1) * percent / 100 > turn * percent / 100;
}

const char *sink_rule_reply(struct sink_thread *t, enum sink_stage stage, str_t line)
{
    for (unsigned i = 0; i < t->opt->rule_count; i++) {
        const struct sink_rule *r = &t->opt->rules[i];
        if (r->stage == stage && (r->glob[0] ? matches(r, line) : has_turn(&t->rule_turns[i], r->percent)))
            return r->reply;
    }
    return NULL;
}
