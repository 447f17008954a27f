/* admin/filter.h: which messages of the queue are meant. Pure. Built from the parameters of a request, read
 * by the workers. Owns its memory. */
#ifndef ADMIN_FILTER_H
#define ADMIN_FILTER_H

#include "core/str.h"

#define FILTER_IDS_MAX 10000

enum filter_state { FILTER_ACTIVE = 1, FILTER_DEFERRED = 2, FILTER_HELD = 4, FILTER_LEASED = 8 };

/* Zero-init matches everything. All that is given must match. Patterns: '*' stands for any bytes; ASCII case
 * does not matter. */
struct filter {
    str_t sender;                /* owned; "<>" or "" is the null sender; absent: any. So are the others */
    str_t recipient, domain;     /* some recipient that is still to be delivered */
    str_t destination;           /* the key of where it goes, or went last */
    uint64_t older_s, younger_s; /* of its age; 0 = any */
    unsigned states;             /* of enum filter_state; 0 = any */
    uint64_t *ids;               /* owned; ascending, no two alike; NULL: any */
    size_t id_count, id_cap;
};

/* Takes one parameter: sender, recipient, domain, destination, older, younger (45, 45s, 10m, 3h, 2d), state,
 * id. ERR_NOT_FOUND: no such parameter; ERR_SYNTAX, ERR_LIMIT, -ENOMEM: `error` says what is wrong. */
err_t filter_set(struct filter *f, str_t key, str_t value, struct sbuf *error) WARN_UNUSED;
/* Ids, one a line. */
err_t filter_set_ids(struct filter *f, str_t lines, struct sbuf *error) WARN_UNUSED;
void filter_finish(struct filter *f); /* once, when all was given: sorts the ids */
void filter_free(struct filter *f);

bool filter_is_empty(const struct filter *f);
/* Does it have to see the envelope? */
static inline bool filter_wants_envelope(const struct filter *f)
{
    return f->sender.p || f->recipient.p || f->domain.p || f->destination.p;
}
bool filter_takes_age(const struct filter *f, uint64_t age_s);
bool filter_takes_state(const struct filter *f, str_t state);
bool filter_takes_sender(const struct filter *f, str_t sender);
/* Both patterns, of one recipient. */
bool filter_takes_recipient(const struct filter *f, str_t address);
bool filter_takes_destination(const struct filter *f, str_t key); /* absent key: only if any will do */

bool filter_glob(str_t pattern, str_t s);

#endif
