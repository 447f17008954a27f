/* relay/pauses.h: what an operator has stopped sending to. Immutable, counted, shared by all threads; made by
 * the daemon, looked at by each worker's relay. */
#ifndef RELAY_PAUSES_H
#define RELAY_PAUSES_H

#include "core/map.h"

struct pauses;

/* Copies the keys, which are destinations', compared without case. One reference; NULL: out of memory. */
struct pauses *pauses_new(bool all, const str_t *keys, size_t count);
struct pauses *pauses_ref(struct pauses *p);
void pauses_unref(struct pauses *p);                    /* NULL is fine */
bool pauses_include(const struct pauses *p, str_t key); /* NULL: nothing is paused */

#endif
