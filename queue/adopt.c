/* queue/adopt.c: the mail of a worker that is gone moves into the ring of one that runs. Boot, blocking.
 *
 * All or nothing: only when every message is durable here does the old file lose its name. After a crash in
 * between the next boot finds both copies and takes those that are here, by their ids. */
#include <errno.h>

#include "core/clock.h"
#include "core/log.h"
#include "queue/queue_priv.h"

struct adoption {
    struct queue *to, *from;
    struct list taken;   /* struct qmsg, by all_link: written, not yet told of */
    uint32_t lost_count; /* could not be read */
};

static err_t reserve(struct queue *q, uint32_t bytes, struct qplace *place)
{
    if (qrecord_bytes(bytes) + DISK_BATCH_HEAD > q->unit_bytes)
        return ERR_LIMIT; /* the old ring has larger units: only with a test's segment size */
    err_t err = qbatch_reserve(q, QSPACE_MAIL, bytes, place);
    if (err != ERR_PENDING)
        return err;
    err = qbatch_write_blocking(q);
    return err ? err : qbatch_reserve(q, QSPACE_MAIL, bytes, place);
}

/* The segment is needed from the first record on: the tail may move while we write. */
static void note_place(struct queue *q, struct qmsg *m, const struct qplace *place, uint32_t bytes)
{
    if (!link_in_list(&m->segment_link))
        qindex_link(q, m, place->at / q->segment_bytes);
    m->ring_bytes += qrecord_bytes(bytes);
    q->live_bytes += qrecord_bytes(bytes);
}

static err_t copy_chunk(struct adoption *a, uint64_t id, uint32_t index, struct disk_extent *e,
                        struct qmsg *m)
{
    uint8_t *buffer;
    size_t buffer_bytes;
    const struct disk_record *r;
    if (e->bytes > a->from->unit_bytes)
        return ERR_CORRUPT;
    err_t err = qread_blocking(a->from, e->position, qrecord_bytes(e->bytes), RECORD_BODY, id, &buffer,
                               &buffer_bytes, &r);
    if (err)
        return err;
    struct qplace place;
    err = reserve(a->to, e->bytes, &place);
    if (!err) {
        memcpy(place.payload, r + 1, e->bytes);
        qbatch_finish(
            a->to, &place,
            &(struct disk_record){.type = RECORD_BODY, .id = id, .index = index, .bytes = e->bytes});
        e->position = place.at;
        note_place(a->to, m, &place, e->bytes);
    }
    qbuffer_put(a->from, buffer, buffer_bytes);
    return err;
}

static err_t copy_records(struct adoption *a, struct qmsg *old, struct qmsg *m, uint8_t *payload,
                          uint32_t bytes)
{
    struct qcommit_view v;
    err_t err = qcommit_parse(payload, bytes, &v);
    if (err || v.head.rcpt_count != old->rcpt_count)
        return ERR_CORRUPT;
    for (uint32_t i = 0; i < v.head.extent_count; i++) {
        struct disk_extent e = qcommit_extent(&v, i);
        err = copy_chunk(a, old->id, i, &e, m);
        if (err)
            return err;
        qcommit_patch_extent(payload, i, e);
    }
    struct qplace place;
    err = reserve(a->to, bytes, &place);
    if (err)
        return err;
    qcommit_patch(payload, old);
    memcpy(place.payload, payload, bytes);
    qbatch_finish(a->to, &place, &(struct disk_record){.type = RECORD_COMMIT, .id = old->id, .bytes = bytes});
    m->commit_at = place.at;
    m->commit_bytes = qrecord_bytes(bytes);
    note_place(a->to, m, &place, bytes);
    qindex_link(a->to, m, m->lowest_segment); /* now that it is whole */
    return 0;
}

static struct qmsg *entry_copy(struct queue *q, struct qmsg *old)
{
    struct qmsg *m = qindex_new(q, old->id, old->rcpt_count);
    if (!m)
        return NULL;
    m->arrived_ms = old->arrived_ms;
    m->body_bytes = old->body_bytes;
    m->due_ms = old->due_ms;
    m->attempts = old->attempts;
    m->held = old->held;
    m->warned = old->warned;
    qindex_take_states(m, qindex_states(old));
    return m;
}

static err_t copy_message(struct adoption *a, struct qmsg *old)
{
    uint8_t *buffer;
    size_t buffer_bytes;
    const struct disk_record *r;
    err_t err = qread_blocking(a->from, old->commit_at, old->commit_bytes, RECORD_COMMIT, old->id, &buffer,
                               &buffer_bytes, &r);
    if (err)
        return err;
    uint32_t bytes = r->bytes;
    uint8_t *payload = malloc(bytes);
    struct qmsg *m = payload ? entry_copy(a->to, old) : NULL;
    if (m) {
        memcpy(payload, r + 1, bytes);
        err = copy_records(a, old, m, payload, bytes);
    } else {
        err = -ENOMEM;
    }
    if (m && err)
        qindex_drop(a->to, m);
    else if (m)
        list_push_back(&a->taken, &m->all_link);
    free(payload);
    qbuffer_put(a->from, buffer, buffer_bytes);
    return err;
}

static err_t copy_all(struct adoption *a)
{
    LIST_EACH(&a->from->messages, k)
    {
        struct qmsg *old = container_of(k, struct qmsg, all_link);
        if (map64_get(&a->to->index, old->id)) /* copied by an adoption that did not get to its end */
            continue;
        err_t err = copy_message(a, old);
        if (err == ERR_CORRUPT || err == -EIO) {
            qdamage_report(a->from, old->commit_at, old->commit_bytes, old->id, false,
                           "a message of an adopted ring cannot be read; its file is kept");
            a->lost_count++;
        } else if (err) {
            return err;
        }
    }
    return qbatch_write_blocking(a->to);
}

/* What was copied must not come to life beside the original. Best effort: the ids tell at the next boot. */
static void take_back(struct adoption *a)
{
    for (struct link *k; (k = list_pop_front(&a->taken));) {
        struct qmsg *m = container_of(k, struct qmsg, all_link);
        struct qplace place;
        if (reserve(a->to, 0, &place) == 0)
            qbatch_finish(a->to, &place, &(struct disk_record){.type = RECORD_REMOVE, .id = m->id});
        qindex_drop(a->to, m);
    }
    if (qbatch_write_blocking(a->to))
        LOG(queue_error, LF_U64("ring", a->to->opt.ring_index),
            LF_CSTR("text", "an adoption could not be taken back"));
}

/* From the rename on the mail is ours: what fails after it is only told. */
static err_t retire_file(struct adoption *a, struct gbuf *notes)
{
    char date[40], to[QPATH_BYTES + 64];
    size_t n = clock_rfc3339(clock_wall_ns(), date);
    snprintf(to, sizeof to, "%s.adopted-%.*s", a->from->path, (int)n, date);
    err_t err = fsio_rename(a->from->path, to);
    if (err && fsio_find(a->from->path) == 0)
        return err;
    if (!err && a->lost_count == 0)
        err = fsio_remove(to);
    if (a->lost_count > 0)
        gbuf_printf(notes, "ring-%02u: %u messages could not be read; the file is kept as %s\n",
                    a->from->opt.ring_index, a->lost_count, to);
    if (err)
        gbuf_printf(notes, "ring-%02u: %s: %s\n", a->from->opt.ring_index, to, err_text(err));
    return 0;
}

static bool has_room(const struct adoption *a)
{
    uint64_t need = a->from->live_bytes + a->from->live_bytes / 8 + a->to->segment_bytes;
    return need <= qspace_room(a->to, QSPACE_MAIL) &&
           a->to->live_bytes + qkeep_waste(a->to) + a->from->live_bytes <= qspace_live_max(a->to);
}

static err_t adopt(struct adoption *a, void (*live)(void *ctx, struct qmsg *m), void *ctx, struct gbuf *notes)
{
    uint32_t index = a->from->opt.ring_index;
    if (!has_room(a)) {
        gbuf_printf(
            notes,
            "ring-%02u: not adopted: %llu bytes of mail do not fit into ring-%02u; they wait in the file\n",
            index, (unsigned long long)a->from->live_bytes, a->to->opt.ring_index);
        return ERR_FULL;
    }
    err_t err = copy_all(a);
    if (!err)
        err = retire_file(a, notes);
    if (err) {
        take_back(a);
        gbuf_printf(notes, "ring-%02u: not adopted: %s\n", index, err_text(err));
        return err;
    }
    uint32_t count = 0;
    for (struct link *k; (k = list_pop_front(&a->taken)); count++) {
        struct qmsg *m = container_of(k, struct qmsg, all_link);
        qindex_set_live(a->to, m);
        live(ctx, m);
    }
    qindex_sort(a->to);
    gbuf_printf(notes, "ring-%02u: %u messages moved into ring-%02u\n", index, count, a->to->opt.ring_index);
    return 0;
}

err_t queue_adopt(struct queue *q, uint32_t ring_index, void (*live)(void *ctx, struct qmsg *m), void *ctx,
                  struct gbuf *notes)
{
    must(!q->loop && ring_index != q->opt.ring_index);
    struct adoption a = {.to = q};
    list_init(&a.taken);
    struct queue_options opt = q->opt;
    opt.ring_index = ring_index;
    opt.hot_bytes = 1; /* the least */
    err_t err = qopen(&a.from, &opt, false, notes);
    if (err)
        return err;
    err = adopt(&a, live, ctx, notes);
    queue_discard(a.from);
    return err;
}
