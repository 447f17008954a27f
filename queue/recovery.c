/* queue/recovery.c: from the disk to the index in one walk along the log, tail to head. What to do with what
 * is found is decided by recovery_table.def; this file finds and does. */
#include <errno.h>

#include "core/log.h"
#include "queue/recovery_priv.h"

/* ---- superblocks ---- */

static enum super_slot slot_state(const struct disk_super *d)
{
    if (d->magic != DISK_SUPER_MAGIC || d->crc != qsuper_crc(d))
        return SLOT_BAD;
    if (d->version > DISK_VERSION_KEPT)
        return SLOT_NEWER;
    return d->version > 0 && qsuper_geometry_is_sane(d) ? SLOT_OK : SLOT_BAD;
}

static bool same_ring(const struct disk_super *a, const struct disk_super *b)
{
    return memcmp(a->uuid, b->uuid, sizeof a->uuid) == 0 && a->salt == b->salt &&
           a->segment_bytes == b->segment_bytes; /* the rest changes when it is resized */
}

static void slot_read(struct queue *q, uint32_t slot, struct disk_super *out)
{
    if (fsio_read(&q->file, q->super.disk, DISK_SECTOR, (uint64_t)slot * DISK_SECTOR))
        memset(q->super.disk, 0, DISK_SECTOR); /* unreadable is damaged */
    *out = *q->super.disk;
}

static err_t refuse(struct queue *q, struct gbuf *notes, err_t err, const char *text)
{
    gbuf_printf(notes, "ring-%02u: %s\n", q->opt.ring_index, text);
    return err;
}

err_t qrecover_super(struct queue *q, struct gbuf *notes)
{
    struct disk_super a, b;
    slot_read(q, 0, &a);
    slot_read(q, 1, &b);
    enum super_slot state_a = slot_state(&a), state_b = slot_state(&b);
    bool both = state_a == SLOT_OK && state_b == SLOT_OK;
    enum super_action action;
    must(recovery_super_match(state_a, state_b, both && same_ring(&a, &b) ? SAME_YES : SAME_NO, &action) ==
         1);
    switch (action) {
    case SUPER_USE_NEWEST: q->super.now = a.generation > b.generation ? a : b; return 0;
    case SUPER_USE_A:
    case SUPER_USE_B:
        gbuf_printf(notes, "ring-%02u: superblock %s is damaged, the other one is used\n", q->opt.ring_index,
                    action == SUPER_USE_A ? "B" : "A");
        q->super.now = action == SUPER_USE_A ? a : b;
        return 0;
    case SUPER_REFUSE_VERSION:
        return refuse(q, notes, ERR_VERSION,
                      "this ring was written by a newer version; use that one, or let it drain the ring");
    case SUPER_REFUSE_DAMAGED: break;
    }
    return refuse(q, notes, ERR_CORRUPT,
                  "both superblocks are damaged; the file was left as it is. Restore it, or move it away to "
                  "start an empty ring "
                  "(docs/on-disk-format.md tells how to salvage mail from it)");
}

/* ---- applying ---- */

static void apply_batch(struct recovery *rc, uint64_t position, const struct disk_batch *d)
{
    uint64_t at = position + DISK_BATCH_HEAD;
    for (uint32_t i = 0; i < d->count && !rc->err; i++) {
        size_t left;
        const struct disk_record *r = (const struct disk_record *)(const void *)recovery_unit(rc, at, &left);
        at += qrecord_bytes(r->bytes);
        recovery_apply(rc, r, false);
    }
}

/* ---- salvage: record by record, where a batch cannot be taken as a whole ---- */

enum report { REPORT, QUIET };

static bool all_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static void report_range(struct recovery *rc, const uint8_t *p, uint64_t from, uint64_t to, const char *text)
{
    bool kept = false;
    if (p)
        recovery_keep(rc, from, p, (size_t)(to - from), &kept);
    qdamage_report(rc->q, from, to - from, 0, kept, text);
    rc->damage_count++;
}

struct salvage {
    struct recovery *rc;
    enum report report;
    uint32_t records; /* whole ones */
    bool reported;
};

static void salvage_bad(struct salvage *s, const uint8_t *p, uint64_t from, uint64_t to)
{
    if (from == to)
        return;
    recovery_add_bad(s->rc, from, to);
    /* Zeros are padding, most often. */
    if (s->report == QUIET || all_zero(p, (size_t)(to - from)))
        return;
    report_range(s->rc, p, from, to, "bytes that are no whole record");
    s->reported = true;
}

/* Within one unit: p has the bytes from..to. */
static void salvage_unit(struct salvage *s, const uint8_t *p, uint64_t from, uint64_t to)
{
    uint64_t bad_from = from, at = from;
    while (at + sizeof(struct disk_record) <= to && !s->rc->err) {
        const uint8_t *here = p + (at - from);
        if (!qrecord_is_valid(s->rc->q, here, (size_t)(to - at), at)) {
            at += 8;
            continue;
        }
        salvage_bad(s, p + (bad_from - from), bad_from, at);
        struct disk_record r;
        memcpy(&r, here, sizeof r);
        if (r.type != RECORD_BATCH) {
            s->records++;
            recovery_apply(s->rc, (const struct disk_record *)(const void *)here, s->report == QUIET);
        }
        at += qrecord_bytes(r.bytes);
        bad_from = at;
    }
    salvage_bad(s, p + (bad_from - from), bad_from, to);
}

/* Takes every whole record in a stretch. Returns how many there were. */
static uint32_t salvage(struct recovery *rc, uint64_t from, uint64_t to, enum report report)
{
    struct salvage s = {.rc = rc, .report = qsuper_is_known(rc->q, from, to) ? QUIET : report};
    for (uint64_t at = from; at < to && !rc->err;) {
        size_t left;
        if (at % rc->q->segment_bytes == 0 && recovery_is_earlier_lap(rc, at / rc->q->segment_bytes)) {
            at += rc->q->segment_bytes; /* kept, or not yet written in this lap */
            continue;
        }
        const uint8_t *p = recovery_unit(rc, at, &left);
        uint64_t end = MIN(at + left, to);
        salvage_unit(&s, p, at, end);
        at = end;
    }
    if (s.report == REPORT && !s.reported)
        report_range(rc, NULL, from, to, "records are missing");
    if (s.report == REPORT || s.records > 0)
        qsuper_add_known(rc->q, from, to);
    return s.records;
}

/* ---- the walk ---- */

struct walk {
    struct recovery *rc;
    uint64_t at;       /* where the next batch is looked for */
    uint64_t log_end;  /* behind the last batch taken */
    uint64_t expected; /* its successor's sequence number; 0: none was taken yet */
    uint64_t last;     /* position of the last valid batch; UINT64_MAX: there is none */
    uint64_t skip; /* left out of the sequence, so that the next recovery looks into the torn stretch again */
};

static enum batch_header header_state(const struct walk *w, bool found, const struct disk_batch *d)
{
    if (!found)
        return HEADER_NONE;
    if (w->expected == 0) /* nothing before it is needed, if it stands at the very tail */
        return w->at == w->log_end ? HEADER_NEXT : HEADER_AHEAD;
    if (d->sequence == w->expected)
        return HEADER_NEXT;
    return d->sequence > w->expected ? HEADER_AHEAD : HEADER_BEHIND;
}

static enum batch_clean clean_state(const struct walk *w)
{
    const struct disk_super *now = &w->rc->q->super.now;
    if (!(now->flags & SUPER_CLEAN))
        return CLEAN_NO;
    /* A ring whose log is empty closes with its head at its tail. */
    bool all = w->expected ? w->expected >= now->next_batch : now->clean_head <= w->log_end;
    return all ? CLEAN_ALL : CLEAN_SHORT;
}

static enum batch_action decide(struct walk *w, struct disk_batch *d)
{
    struct recovery *rc = w->rc;
    bool found = recovery_batch_at(rc, w->at, d);
    enum batch_header header = header_state(w, found, d);
    bool whole = header == HEADER_NEXT && recovery_batch_is_whole(rc, w->at, d);
    bool later = w->last != UINT64_MAX && w->at < w->last;
    enum batch_action action;
    must(recovery_batch_match(header, whole ? RECORDS_GOOD : RECORDS_BAD, later ? LATER_YES : LATER_NO,
                              clean_state(w), &action) == 1);
    return action;
}

static void batch_taken(struct walk *w, const struct disk_batch *d)
{
    w->at += d->bytes;
    w->log_end = w->at;
    w->expected = d->sequence + 1;
}

static uint64_t unit_end(const struct queue *q, uint64_t position)
{
    return ALIGN_UP(position, q->unit_bytes);
}

static void torn_end(struct walk *w)
{
    uint64_t end = unit_end(w->rc->q, w->at);
    if (w->at == end || salvage(w->rc, w->at, end, QUIET) == 0)
        return;
    w->rc->torn = true;
    w->log_end = end;
    w->skip = 1;
}

static void lost_end(struct walk *w)
{
    uint64_t end = w->rc->q->super.now.clean_head;
    uint64_t limit = (w->rc->q->tail_segment + w->rc->q->segment_count) * w->rc->q->segment_bytes;
    end = unit_end(w->rc->q, MIN(MAX(end, w->at), limit));
    salvage(w->rc, w->at, end, REPORT);
    w->log_end = end;
    w->skip = 1;
}

/* Of the stretch before a batch whose number is higher than the one that is due: slots that the head passed
 * over are not part of it. */
static uint64_t gap_end(const struct walk *w)
{
    uint64_t end = w->at, segment_bytes = w->rc->q->segment_bytes;
    while (end % segment_bytes == 0 && end - w->log_end >= segment_bytes &&
           recovery_is_earlier_lap(w->rc, end / segment_bytes - 1))
        end -= segment_bytes;
    return end;
}

/* One step; false at the end of the log. */
static bool walk_step(struct walk *w)
{
    struct recovery *rc = w->rc;
    struct disk_batch d;
    switch (decide(w, &d)) {
    case BATCH_APPLY:
        apply_batch(rc, w->at, &d);
        batch_taken(w, &d);
        return true;
    case BATCH_SALVAGE:
        salvage(rc, w->at, w->at + d.bytes, REPORT);
        batch_taken(w, &d);
        return true;
    case BATCH_TORN:
        rc->torn = true;
        salvage(rc, w->at, w->at + d.bytes, QUIET);
        qsuper_add_known(rc->q, w->at, w->at + d.bytes);
        batch_taken(w, &d);
        return true;
    case BATCH_GAP:
        salvage(rc, w->log_end, gap_end(w), REPORT);
        w->log_end = w->at;
        w->expected = d.sequence;
        return true;
    case BATCH_SEARCH: w->at = recovery_next(rc, w->at); return true;
    case BATCH_TORN_END: torn_end(w); return false;
    case BATCH_LOST_END: lost_end(w); return false;
    case BATCH_END: break;
    }
    return false;
}

static void note_result(struct recovery *rc)
{
    uint32_t ring = rc->q->opt.ring_index;
    if (rc->torn)
        gbuf_printf(
            rc->notes,
            "ring-%02u: the last write before the crash was not complete; what was whole in it is kept\n",
            ring);
    if (rc->damage_count + rc->lost_message_count > 0)
        gbuf_printf(rc->notes,
                    "ring-%02u: %llu damaged places, %llu messages lost; bytes are kept in %s/corrupt\n",
                    ring, (unsigned long long)rc->damage_count, (unsigned long long)rc->lost_message_count,
                    rc->q->directory);
}

static void walk(struct recovery *rc)
{
    struct queue *q = rc->q;
    recovery_raise_tail(rc);
    struct walk w = {.rc = rc, .at = q->tail_segment * q->segment_bytes};
    w.log_end = w.at;
    w.last = recovery_last_batch(rc);
    rc->unit_at = UINT64_MAX;
    uint64_t end = (q->tail_segment + q->segment_count) * q->segment_bytes;
    while (w.at < end && !rc->err && walk_step(&w))
        ;
    q->head = w.log_end;
    q->next_batch = (w.expected ? w.expected : q->super.now.next_batch) + w.skip;
    q->durable_batch = q->next_batch;
    recovery_finish_messages(rc);
    note_result(rc);
}

err_t qrecover(struct queue *q, struct gbuf *notes)
{
    struct recovery rc = {.q = q, .notes = notes, .unit_at = UINT64_MAX};
    rc.unit = aligned_alloc(FSIO_ALIGN, q->unit_bytes);
    if (!rc.unit)
        return -ENOMEM;
    rc.err = recovery_look(&rc);
    if (!rc.err)
        walk(&rc);
    free(rc.unit);
    free(rc.first);
    free(rc.bad);
    free(rc.lost);
    return rc.err;
}
