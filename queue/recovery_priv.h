/* queue/recovery_priv.h: the decision tables of recovery, apart from the code that looks and acts, and the
 * parts of that code. */
#ifndef QUEUE_RECOVERY_PRIV_H
#define QUEUE_RECOVERY_PRIV_H

#include "queue/queue_priv.h"

enum super_slot { SLOT_OK, SLOT_NEWER, SLOT_BAD, SLOT_END, SLOT_ANY = SLOT_END };
enum super_same { SAME_NO, SAME_YES, SAME_END, SAME_ANY = SAME_END };
enum super_action { SUPER_USE_NEWEST, SUPER_USE_A, SUPER_USE_B, SUPER_REFUSE_VERSION, SUPER_REFUSE_DAMAGED };

enum batch_header {
    HEADER_NEXT,
    HEADER_AHEAD,
    HEADER_BEHIND,
    HEADER_NONE,
    HEADER_END,
    HEADER_ANY = HEADER_END
};
enum batch_records { RECORDS_GOOD, RECORDS_BAD, RECORDS_END, RECORDS_ANY = RECORDS_END };
enum batch_later { LATER_NO, LATER_YES, LATER_END, LATER_ANY = LATER_END };
enum batch_clean { CLEAN_NO, CLEAN_ALL, CLEAN_SHORT, CLEAN_END, CLEAN_ANY = CLEAN_END };
enum batch_action {
    BATCH_APPLY,
    BATCH_SALVAGE,
    BATCH_TORN,
    BATCH_GAP,
    BATCH_SEARCH,
    BATCH_TORN_END,
    BATCH_LOST_END,
    BATCH_END,
};

struct super_row {
    enum super_slot a, b;
    enum super_same same;
    enum super_action action;
};
struct batch_row {
    enum batch_header header;
    enum batch_records records;
    enum batch_later later;
    enum batch_clean clean;
    enum batch_action action;
};

/* How many rows match; *out is the action of the last of them. */
unsigned recovery_super_match(enum super_slot a, enum super_slot b, enum super_same same,
                              enum super_action *out);
unsigned recovery_batch_match(enum batch_header header, enum batch_records records, enum batch_later later,
                              enum batch_clean clean, enum batch_action *out);

/* ---- what is carried through a recovery ---- */

struct recovery_lost { /* a commit record whose body is not whole */
    uint64_t id, position;
    uint32_t bytes;
    bool quiet; /* it was in a torn write */
};

struct recovery {
    struct queue *q;
    struct gbuf *notes;
    uint8_t *unit;    /* owned: one unit, aligned */
    uint64_t unit_at; /* its position; UINT64_MAX: none */

    uint64_t
        *first; /* owned; by slot: the segment whose first batch stands at the slot's start, or UINT64_MAX */

    struct disk_range *bad; /* owned; ascending: nothing in them may be part of a message */
    size_t bad_count, bad_cap;
    struct recovery_lost *lost; /* owned */
    size_t lost_count, lost_cap;

    uint64_t damage_count, kept_bytes, lost_message_count;
    bool torn;
    err_t err; /* out of memory: the one thing that stops a recovery */
};

/* recovery_scan.c: the disk, unit by unit. */
const uint8_t *recovery_unit(struct recovery *rc, uint64_t position,
                             size_t *left); /* the bytes there, up to the unit's end */
bool recovery_batch_at(struct recovery *rc, uint64_t position, struct disk_batch *out);
bool recovery_batch_is_whole(struct recovery *rc, uint64_t position, const struct disk_batch *d);
err_t recovery_look(struct recovery *rc) WARN_UNUSED; /* before the ones below; sets rc->first */
bool recovery_is_earlier_lap(const struct recovery *rc, uint64_t segment); /* by its first sector */
uint64_t recovery_next(const struct recovery *rc, uint64_t position); /* where a batch may begin after it */
void recovery_raise_tail(struct recovery *rc);
uint64_t recovery_last_batch(struct recovery *rc); /* position of the last valid batch; UINT64_MAX: none */

/* recovery_apply.c: records become messages. */
void recovery_apply(struct recovery *rc, const struct disk_record *r, bool quiet);
void recovery_add_bad(struct recovery *rc, uint64_t from, uint64_t to);
void recovery_finish_messages(struct recovery *rc);
void recovery_keep(struct recovery *rc, uint64_t name, const void *p, size_t n, bool *kept);

#endif
