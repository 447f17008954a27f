/* queue/recovery_table.c: recovery_table.def as data. */
#include "queue/recovery_priv.h"

static const struct super_row super_rows[] = {
#define SUPER(a, b, same, action, why) {SLOT_##a, SLOT_##b, SAME_##same, SUPER_##action},
#include "queue/recovery_table.def"
#undef SUPER
};

static const struct batch_row batch_rows[] = {
#define BATCH(header, records, later, clean, action, why)                                                    \
    {HEADER_##header, RECORDS_##records, LATER_##later, CLEAN_##clean, BATCH_##action},
#include "queue/recovery_table.def"
#undef BATCH
};

unsigned recovery_super_match(enum super_slot a, enum super_slot b, enum super_same same,
                              enum super_action *out)
{
    unsigned count = 0;
    for (size_t i = 0; i < COUNT_OF(super_rows); i++) {
        const struct super_row *r = &super_rows[i];
        bool matches = (r->a == SLOT_ANY || r->a == a) && (r->b == SLOT_ANY || r->b == b) &&
                       (r->same == SAME_ANY || r->same == same);
        if (!matches)
            continue;
        *out = r->action;
        count++;
    }
    return count;
}

unsigned recovery_batch_match(enum batch_header header, enum batch_records records, enum batch_later later,
                              enum batch_clean clean, enum batch_action *out)
{
    unsigned count = 0;
    for (size_t i = 0; i < COUNT_OF(batch_rows); i++) {
        const struct batch_row *r = &batch_rows[i];
        bool matches = (r->header == HEADER_ANY || r->header == header) &&
                       (r->records == RECORDS_ANY || r->records == records) &&
                       (r->later == LATER_ANY || r->later == later) &&
                       (r->clean == CLEAN_ANY || r->clean == clean);
        if (!matches)
            continue;
        *out = r->action;
        count++;
    }
    return count;
}
