/* smtp/server/pace_priv.h: how fast the clients of one worker may go on: so many connections and messages in
 * a time, of one address. In a table of fixed size: where it is full, who has most of his share left is
 * forgotten. Pure; one thread. */
#ifndef SMTP_SERVER_PACE_PRIV_H
#define SMTP_SERVER_PACE_PRIV_H

#include "core/config.h"

#define PACE_WAYS 4
#define PACE_SETS 4096 /* 384 KiB a worker */

enum pace_kind { PACE_CONNECTIONS, PACE_MESSAGES, PACE_COUNT };

struct pace_entry {
    uint64_t key;                /* of the client */
    uint64_t due_ns[PACE_COUNT]; /* when its share will be whole again; in the past: it is */
};
struct pace {
    struct pace_entry sets[PACE_SETS][PACE_WAYS];
};

/* One more, now: false when that is too many. As many as the rate says may come at once. Clock: monotonic. */
bool pace_take(struct pace *p, uint64_t key, enum pace_kind kind, const struct cfg_rate *rate,
               uint64_t now_ns);

#endif
