/* smtp/server/shed_priv.h: how much of what is scarce one worker has left, and who is turned away for want of
 * it, in stages: strangers before all others. Private to smtp/server/. One thread. */
#ifndef SMTP_SERVER_SHED_PRIV_H
#define SMTP_SERVER_SHED_PRIV_H

#include "core/base.h"

enum shed_cause { SHED_SESSIONS, SHED_FILES, SHED_MEMORY, SHED_CAUSE_COUNT };

/* Each includes those before it. STRANGERS: no new sessions of theirs. UNKNOWN: their recipients are taken
 * from lists and cache only. ALL: no new sessions at all, no new messages of strangers. */
enum shed_stage { SHED_NONE, SHED_STRANGERS, SHED_UNKNOWN, SHED_ALL, SHED_STAGE_COUNT };

struct shed {
    uint8_t stages[SHED_CAUSE_COUNT]; /* enum shed_stage */
};

/* `used` of `limit` now; limit 0: there is none. A stage that changes is logged and counted; it is left with
 * some room to spare, so that it is not entered again at once. */
void shed_look(struct shed *s, enum shed_cause cause, uint64_t used, uint64_t limit);
static inline enum shed_stage shed_stage(const struct shed *s, enum shed_cause cause)
{
    return (enum shed_stage)s->stages[cause];
}
/* Of whatever is shortest. */
static inline enum shed_stage shed_worst(const struct shed *s)
{
    return MAX(MAX(shed_stage(s, SHED_SESSIONS), shed_stage(s, SHED_FILES)), shed_stage(s, SHED_MEMORY));
}

#endif
