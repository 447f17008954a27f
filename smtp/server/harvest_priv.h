/* smtp/server/harvest_priv.h: who asks for recipients that do not exist, again and again, collects addresses.
 * A score per client: one more for each unknown recipient, one less for each `forget` that passes. In a table
 * of fixed size; where it is full the lowest score goes. Pure; one thread. */
#ifndef SMTP_SERVER_HARVEST_PRIV_H
#define SMTP_SERVER_HARVEST_PRIV_H

#include "core/config.h"

#define HARVEST_WAYS 4
#define HARVEST_SETS 4096 /* 256 KiB a worker */

struct harvest_entry {
    uint64_t key; /* of the client */
    uint32_t score, counted_s;
};
struct harvest {
    struct harvest_entry sets[HARVEST_SETS][HARVEST_WAYS]; /* score 0: free */
};

enum harvest_level {
    HARVEST_NONE,
    HARVEST_TARPIT, /* answer late */
    HARVEST_DEFER,  /* 450 to every recipient, whoever it is: nothing more is to be learnt, or asked for */
    HARVEST_DISCONNECT, /* 421 */
};
enum harvest_level harvest_level(const struct harvest *h, uint64_t key, const struct config *c,
                                 uint32_t now_s);
void harvest_count(struct harvest *h, uint64_t key, const struct config *c, uint32_t now_s);

#endif
