/* smtp/server/harvest.h: who asks for recipients that do not exist, again and again, collects addresses.
 * A score per client: one more for each unknown recipient, one less for each `forget` that passes. One table
 * for all workers; where it is full the lowest score goes. Any thread, no locks. */
#ifndef SMTP_SERVER_HARVEST_H
#define SMTP_SERVER_HARVEST_H

#include "core/cells.h"
#include "core/config.h"

#define HARVEST_CLIENTS 32768

enum harvest_level {
    HARVEST_NONE,
    HARVEST_TARPIT, /* answer late */
    HARVEST_DEFER,  /* 450 to every recipient, whoever it is: nothing more is to be learnt, or asked for */
    HARVEST_DISCONNECT, /* 421 */
};

/* `key` is the client's; `now_s` the wall clock. */
enum harvest_level harvest_level(const struct cells *h, uint64_t key, const struct config *c, uint32_t now_s);
/* How many more unknown recipients are asked for until DEFER or DISCONNECT; UINT64_MAX: any number. */
uint64_t harvest_room(const struct cells *h, uint64_t key, const struct config *c, uint32_t now_s);
void harvest_count(struct cells *h, uint64_t key, const struct config *c, uint32_t now_s);

#endif
