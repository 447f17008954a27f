/* smtp/server/strangers.h: what strangers have had of us, each by the key of its address and counted over all
 * workers. Any thread, no locks. */
#ifndef SMTP_SERVER_STRANGERS_H
#define SMTP_SERVER_STRANGERS_H

#include "core/cells.h"

struct strangers {
    struct cells *sessions;               /* open now */
    struct cells *connections, *messages; /* pace_priv.h */
    struct cells *unknown;                /* recipients asked for: harvest.h */
};

/* `session_count`: so many may be open, of all clients together. NULL: out of memory. */
struct strangers *strangers_new(uint32_t session_count);
void strangers_free(struct strangers *s);

uint64_t strangers_sessions(const struct strangers *s, uint64_t key);
/* One more session of a client, which has at most `max` (0: any number), however many workers are asked at
 * once. UNCOUNTED: there is no room to count it; it may come in. COUNTED: strangers_leave() at its end. */
enum stranger_entry { STRANGER_COUNTED, STRANGER_UNCOUNTED, STRANGER_TOO_MANY };
enum stranger_entry strangers_enter(struct strangers *s, uint64_t key, uint32_t max);
void strangers_leave(struct strangers *s, uint64_t key);

#endif
