/* queue/salvage.c: see salvage.h. docs/on-disk-format.md says why it works. */
#include "queue/salvage.h"

#include <errno.h>

#include "queue/crc32c.h"
#include "queue/queue_priv.h"

#define VOTES_MAX         32u
#define VOTES_ENOUGH      8u
#define VOTING_BYTES_MAX  (UINT64_C(64) << 20) /* that checksums are tried on */
#define RECORDS_COUNT_MAX (SIZE_C(1) << 28)
#define NONE              SIZE_MAX
#define SIZE_C(n)         ((size_t)(n))

struct found {
    uint64_t id, position;
    size_t offset;  /* of its header in the bytes */
    uint64_t names; /* KEEP: position of the commit record that it names. One such for each message */
    uint32_t bytes, index;
    uint8_t type;
    bool damaged;
};

struct salvage {
    const uint8_t *p; /* borrowed */
    size_t n;
    uint32_t magic, seed;
    uint64_t tail;       /* position; nothing before it was needed; 0: not known */
    struct found *found; /* owned; by id, position */
    size_t found_count, found_cap;
    struct found *bodies; /* owned; by position, whole before damaged */
    size_t body_count;
    struct salvage_message *messages; /* owned */
    size_t message_count;
};

/* ---- what makes a record valid: magic and the CRC's state after the salt ---- */

static bool header_at(const struct salvage *s, size_t at, struct disk_record *r)
{
    if (s->n < sizeof *r || at > s->n - sizeof *r)
        return false;
    memcpy(r, s->p + at, sizeof *r);
    return r->version == RECORD_VERSION && r->type > 0 && r->type < RECORD_TYPE_END && r->reserved == 0 &&
           r->flags <= RECORD_DAMAGED && r->position % 8 == 0 && r->bytes <= QUNIT_BYTES_MAX &&
           r->bytes <= s->n - at - sizeof *r;
}

static uint32_t crc_of(uint32_t seed, const struct disk_record *r, const uint8_t *payload)
{
    return qrecord_crc_seeded(seed, r->position, r, payload);
}

/* Undoes n bytes of zeros. */
static uint32_t crc_undo(uint32_t crc, size_t n)
{
    uint32_t table[256];
    uint8_t index_of[256]; /* the top bytes of the table are a permutation */
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0x82f63b78u : 0);
        index_of[table[i] >> 24] = (uint8_t)i;
    }
    for (; n > 0; n--) {
        uint8_t i = index_of[crc >> 24];
        crc = (crc ^ table[i]) << 8 | i;
    }
    return crc;
}

/* A CRC is linear: the one with the wrong state and the one with the right state differ by that state, moved
 * on by as many zeros. */
static uint32_t seed_of(const struct disk_record *r, const uint8_t *payload)
{
    return crc_undo(r->crc ^ crc_of(0, r, payload), sizeof r->position + r->bytes + sizeof *r);
}

struct vote {
    uint32_t magic, seed, count;
    bool is_commit; /* one that makes sense as such */
};

static const struct vote *vote(struct vote *votes, uint32_t *count, const struct disk_record *r,
                               const uint8_t *payload)
{
    uint32_t seed = seed_of(r, payload), i = 0;
    struct qcommit_view v;
    while (i < *count && (votes[i].magic != r->magic || votes[i].seed != seed))
        i++;
    if (i == *count) {
        if (*count == VOTES_MAX)
            return NULL;
        votes[(*count)++] = (struct vote){.magic = r->magic, .seed = seed};
    }
    votes[i].count++;
    votes[i].is_commit |= r->type == RECORD_COMMIT && qcommit_parse(payload, r->bytes, &v) == 0;
    return &votes[i];
}

/* Records that agree about what makes them valid. A ring has one at the start of nearly every sector; a file
 * of corrupt/ is nothing but records. */
static err_t find_seed(struct salvage *s)
{
    struct vote votes[VOTES_MAX];
    uint32_t count = 0;
    uint64_t tried = 0;
    size_t step = s->n >= DISK_DATA_AT ? DISK_SECTOR : 8;
    for (size_t at = 0; at < s->n && tried < VOTING_BYTES_MAX; at += step) {
        struct disk_record r;
        if (!header_at(s, at, &r))
            continue;
        tried += r.bytes + sizeof r;
        const struct vote *v = vote(votes, &count, &r, s->p + at + sizeof r);
        if (v && v->count == VOTES_ENOUGH)
            break;
    }
    const struct vote *best = NULL;
    for (uint32_t i = 0; i < count; i++)
        if ((votes[i].count > 1 || votes[i].is_commit) && (!best || votes[i].count > best->count))
            best = &votes[i];
    if (!best)
        return ERR_NOT_FOUND;
    s->magic = best->magic;
    s->seed = best->seed;
    return 0;
}

static bool take_super(struct salvage *s, const uint8_t *super)
{
    const struct disk_super *newest = NULL;
    static _Thread_local struct disk_super slots[2];
    for (int i = 0; i < 2; i++) {
        memcpy(&slots[i], super + (size_t)i * DISK_SECTOR, sizeof slots[i]);
        bool good = slots[i].magic == DISK_SUPER_MAGIC &&
                    slots[i].crc == crc32c(0, &slots[i], offsetof(struct disk_super, crc));
        if (good && (!newest || slots[i].generation > newest->generation))
            newest = &slots[i];
    }
    if (!newest)
        return false;
    s->magic = DISK_RECORD_MAGIC ^ (uint32_t)(newest->salt >> 32);
    s->seed = crc32c(0, &newest->salt, sizeof newest->salt);
    uint64_t tail;
    if (!__builtin_mul_overflow(newest->tail_segment, newest->segment_bytes, &tail))
        s->tail = tail;
    return true;
}

/* ---- finding ---- */

static err_t found_push(struct salvage *s, struct found f)
{
    if (s->found_count == s->found_cap) {
        size_t cap = s->found_cap ? s->found_cap * 2 : 1024;
        struct found *p = cap <= RECORDS_COUNT_MAX ? reallocarray(s->found, cap, sizeof *p) : NULL;
        if (!p)
            return ERR_LIMIT;
        s->found = p;
        s->found_cap = cap;
    }
    s->found[s->found_count++] = f;
    return 0;
}

static err_t found_add(struct salvage *s, const struct disk_record *r, size_t at, bool damaged)
{
    return found_push(s, (struct found){.id = r->id,
                                        .position = r->position,
                                        .offset = at,
                                        .bytes = r->bytes,
                                        .index = r->index,
                                        .type = r->type,
                                        .damaged = damaged || r->flags & RECORD_DAMAGED});
}

/* Its messages live on, in a segment that the tail has passed. */
static err_t keep_add(struct salvage *s, const struct disk_record *r, size_t at)
{
    const uint8_t *p = s->p + at + sizeof *r, *end = p + r->bytes;
    struct disk_keep d;
    struct qkeep_entry e = {0};
    if (r->bytes < sizeof d)
        return 0;
    memcpy(&d, p, sizeof d);
    p += sizeof d;
    for (uint32_t i = 0; i < d.count && qkeep_decode(&p, end, &e); i++) {
        err_t err = found_push(s, (struct found){.id = e.id,
                                                 .position = r->position,
                                                 .offset = (size_t)(p - s->p),
                                                 .names = d.at + e.offset,
                                                 .bytes = (uint32_t)e.rcpt_count,
                                                 .type = RECORD_KEEP});
        if (err)
            return err;
        p += e.rcpt_count;
    }
    return 0;
}

/* A piece whose checksum is wrong is better than none, when its header can be believed. An envelope must make
 * sense as well. */
static bool is_of_use(const struct disk_record *r, const uint8_t *payload)
{
    struct qcommit_view v;
    return r->type == RECORD_BODY || (r->type == RECORD_COMMIT && qcommit_parse(payload, r->bytes, &v) == 0);
}

static err_t scan(struct salvage *s)
{
    for (size_t at = 0; at < s->n;) {
        struct disk_record r;
        if (!header_at(s, at, &r) || r.magic != s->magic) {
            at += 8;
            continue;
        }
        const uint8_t *payload = s->p + at + sizeof r;
        bool good = r.crc == crc_of(s->seed, &r, payload);
        err_t err = 0;
        if (r.type == RECORD_KEEP)
            err = good ? keep_add(s, &r, at) : 0;
        else if (r.type != RECORD_BATCH && r.type != RECORD_VOID && (good || is_of_use(&r, payload)))
            err = found_add(s, &r, at, !good);
        if (err)
            return err;
        at += good ? qrecord_bytes(r.bytes) : 8;
    }
    return 0;
}

static int compare(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

/* Whole ones behind damaged ones of the same place: the last counts. */
static int by_id(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    int c = compare(x->id, y->id);
    c = c ? c : compare(x->position, y->position);
    c = c ? c : (int)y->damaged - (int)x->damaged;
    return c ? c : compare(x->offset, y->offset);
}

static int by_position(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    int c = compare(x->position, y->position);
    c = c ? c : (int)x->damaged - (int)y->damaged;
    return c ? c : compare(x->offset, y->offset);
}

static err_t bodies_sort(struct salvage *s)
{
    s->bodies = calloc(s->found_count + 1, sizeof *s->bodies);
    if (!s->bodies)
        return -ENOMEM;
    for (size_t i = 0; i < s->found_count; i++)
        if (s->found[i].type == RECORD_BODY)
            s->bodies[s->body_count++] = s->found[i];
    qsort(s->bodies, s->body_count, sizeof *s->bodies, by_position);
    return 0;
}

static const struct found *body_find(const struct salvage *s, uint64_t id, const struct disk_extent *e)
{
    size_t lo = 0, hi = s->body_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->bodies[mid].position < e->position)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < s->body_count && s->bodies[lo].position == e->position; lo++)
        if (s->bodies[lo].id == id && s->bodies[lo].bytes == e->bytes)
            return &s->bodies[lo];
    return NULL;
}

/* ---- messages ---- */

static const uint8_t *payload_of(const struct salvage *s, size_t index)
{
    return s->p + s->found[index].offset + sizeof(struct disk_record);
}

static void view_of(const struct salvage *s, const struct salvage_message *m, struct qcommit_view *v)
{
    must(qcommit_parse(payload_of(s, m->commit), s->found[m->commit].bytes, v) == 0);
}

static const uint8_t *states_of(const struct salvage *s, const struct salvage_message *m,
                                const struct qcommit_view *v)
{
    if (m->states == NONE)
        return v->states;
    const struct found *f = &s->found[m->states];
    return f->type == RECORD_KEEP ? s->p + f->offset
                                  : payload_of(s, m->states) + sizeof(struct disk_progress);
}

static bool is_for(const struct salvage *s, size_t index, uint32_t rcpt_count)
{
    struct disk_progress d;
    const struct found *f = &s->found[index];
    if (f->bytes != sizeof d + (uint64_t)rcpt_count)
        return false;
    memcpy(&d, payload_of(s, index), sizeof d);
    return d.rcpt_count == rcpt_count;
}

static enum rcpt_state state_at(const uint8_t *states, uint32_t index)
{
    return states[index] <= RCPT_REPORT_DUE ? (enum rcpt_state)states[index] : RCPT_PENDING;
}

static void judge_body(const struct salvage *s, struct salvage_message *m, const struct qcommit_view *v)
{
    for (uint32_t i = 0; i < v->head.extent_count; i++) {
        struct disk_extent e = qcommit_extent(v, i);
        const struct found *f = body_find(s, m->id, &e);
        m->has_left |= e.position < s->tail && !m->is_kept;
        m->missing_bytes += f ? 0 : e.bytes;
        m->damaged_bytes += f && f->damaged ? e.bytes : 0;
    }
}

/* Does a keep record that counts name this place of it? */
static bool is_kept(const struct salvage *s, const struct salvage_message *m)
{
    for (size_t i = m->first; i < m->first + m->count; i++) {
        const struct found *f = &s->found[i];
        if (f->type == RECORD_KEEP && f->position >= s->tail && f->names == s->found[m->commit].position)
            return true;
    }
    return false;
}

static void judge(const struct salvage *s, struct salvage_message *m)
{
    struct qcommit_view v;
    for (size_t i = m->first; i < m->first + m->count; i++)
        if (s->found[i].type == RECORD_COMMIT && qcommit_parse(payload_of(s, i), s->found[i].bytes, &v) == 0)
            m->commit = i;
    if (m->commit == NONE) {
        for (size_t i = m->first; i < m->first + m->count; i++) {
            m->body_bytes += s->found[i].type == RECORD_BODY ? s->found[i].bytes : 0;
            m->has_left |= s->found[i].type == RECORD_REMOVE;
        }
        return;
    }
    view_of(s, m, &v);
    m->has_envelope = true;
    m->envelope_damaged = s->found[m->commit].damaged;
    m->arrived_ms = v.head.arrived_ms;
    m->body_bytes = v.head.body_bytes;
    m->rcpt_count = v.head.rcpt_count;
    m->meta = str_of(v.meta, v.head.meta_bytes);
    m->trace = str_of(v.trace, v.head.trace_bytes);
    m->is_kept = is_kept(s, m);
    m->has_left = s->found[m->commit].position < s->tail && !m->is_kept;
    for (size_t i = m->commit + 1; i < m->first + m->count; i++) {
        if (s->found[i].type == RECORD_KEEP && s->found[i].bytes == m->rcpt_count)
            m->states = i;
        m->has_left |= s->found[i].type == RECORD_REMOVE;
        if (s->found[i].type == RECORD_PROGRESS && is_for(s, i, m->rcpt_count))
            m->states = i;
    }
    bool any_open = false;
    for (uint32_t i = 0; i < m->rcpt_count; i++)
        any_open |= rcpt_state_is_open(state_at(states_of(s, m, &v), i));
    m->has_left |= !any_open;
    judge_body(s, m, &v);
}

static err_t group(struct salvage *s)
{
    s->messages = calloc(s->found_count + 1, sizeof *s->messages);
    if (!s->messages)
        return -ENOMEM;
    for (size_t i = 0; i < s->found_count;) {
        struct salvage_message m = {.id = s->found[i].id,
                                    .first = i,
                                    .commit = NONE,
                                    .states = NONE,
                                    .meta = STR_NONE,
                                    .trace = STR_NONE};
        for (; i < s->found_count && s->found[i].id == m.id; i++)
            m.count++;
        judge(s, &m);
        if (m.has_envelope || m.body_bytes > 0)
            s->messages[s->message_count++] = m;
    }
    return 0;
}

/* ---- the door ---- */

err_t salvage_open(struct salvage **out, const uint8_t *p, size_t n, const uint8_t *super)
{
    struct salvage *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->p = p;
    s->n = n;
    err_t err = super && take_super(s, super) ? 0 : find_seed(s);
    if (!err)
        err = scan(s);
    if (!err && s->found_count > 0)
        qsort(s->found, s->found_count, sizeof *s->found, by_id);
    if (!err)
        err = bodies_sort(s);
    if (!err)
        err = group(s);
    if (err) {
        salvage_close(s);
        return err;
    }
    *out = s;
    return 0;
}

void salvage_close(struct salvage *s)
{
    if (!s)
        return;
    free(s->found);
    free(s->bodies);
    free(s->messages);
    free(s);
}

size_t salvage_count(const struct salvage *s)
{
    return s->message_count;
}

const struct salvage_message *salvage_at(const struct salvage *s, size_t index)
{
    must(index < s->message_count);
    return &s->messages[index];
}

str_t salvage_rcpt(const struct salvage *s, const struct salvage_message *m, uint32_t index,
                   enum rcpt_state *state)
{
    struct qcommit_view v;
    must(index < m->rcpt_count);
    view_of(s, m, &v);
    const char *blob = v.blobs;
    for (uint32_t i = 0; i < index; i++)
        blob += qcommit_rcpt_bytes(&v, i);
    *state = state_at(states_of(s, m, &v), index);
    return str_of(blob, qcommit_rcpt_bytes(&v, index));
}

static void give(const struct salvage *s, const struct found *f,
                 void (*piece)(void *ctx, const uint8_t *p, size_t n, bool damaged), void *ctx)
{
    piece(ctx, s->p + f->offset + sizeof(struct disk_record), f->bytes, f->damaged);
}

void salvage_body(const struct salvage *s, const struct salvage_message *m,
                  void (*piece)(void *ctx, const uint8_t *p, size_t n, bool damaged), void *ctx)
{
    struct qcommit_view v;
    if (m->commit == NONE) {
        for (size_t i = m->first; i < m->first + m->count; i++)
            if (s->found[i].type == RECORD_BODY)
                give(s, &s->found[i], piece, ctx);
        return;
    }
    view_of(s, m, &v);
    for (uint32_t i = 0; i < v.head.extent_count; i++) {
        struct disk_extent e = qcommit_extent(&v, i);
        const struct found *f = body_find(s, m->id, &e);
        if (f)
            give(s, f, piece, ctx);
        else
            piece(ctx, NULL, e.bytes, false);
    }
}
