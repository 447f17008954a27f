/* verify/store_write.c: one transaction: what waits, and a piece of the walk that removes what is old. */
#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "verify/store_priv.h"

#define SWEEP_EVERY_NS (5 * NS_PER_S)
#define SWEEP_RECORDS  4096
#define ROOM_RECORDS   64 /* looked at for each good record that comes when it is full */

static uint64_t records_in(const struct verdict_store *s, MDB_txn *txn)
{
    MDB_stat stat;
    return mdb_stat(txn, s->dbi, &stat) ? 0 : stat.ms_entries;
}

static bool may_go(struct verdict_store *s, str_t key, str_t value, uint32_t now_s, bool refusals_too)
{
    struct verdict_record r;
    err_t err = store_decode(key, value, &r);
    if (err)
        return err == ERR_CORRUPT; /* what another version wrote is for that version */
    if (r.pin)
        return false;
    bool good = r.state == VERDICT_GOOD;
    uint32_t keep_s = atomic_load_explicit(good ? &s->good_keep_s : &s->unknown_keep_s, memory_order_relaxed);
    return (refusals_too && !good) || (now_s > r.checked_s && now_s - r.checked_s >= keep_s);
}

/* Walks on over `count` records; at the end it begins again next time. */
static int sweep(struct verdict_store *s, MDB_txn *txn, uint32_t count, bool refusals_too, uint64_t *removed)
{
    uint32_t now_s = (uint32_t)(clock_wall_ns() / NS_PER_S);
    MDB_cursor *cursor;
    MDB_val key = store_val(str_of(s->swept, s->swept_bytes)), value;
    int rc = mdb_cursor_open(txn, s->dbi, &cursor);
    if (rc)
        return rc;
    rc = mdb_cursor_get(cursor, &key, &value, s->swept_bytes ? MDB_SET_RANGE : MDB_FIRST);
    for (; !rc && count > 0; count--) {
        if (may_go(s, store_str(&key), store_str(&value), now_s, refusals_too)) {
            rc = mdb_cursor_del(cursor, 0);
            *removed += !rc;
        }
        if (!rc)
            rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    s->swept_bytes = 0;
    if (!rc && key.mv_size <= sizeof s->swept) {
        s->swept_bytes = key.mv_size;
        memcpy(s->swept, key.mv_data, key.mv_size);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

struct batch {
    MDB_txn *txn;
    uint64_t puts, skipped, removed;
};

/* Is there room for a record that is not there yet? */
static int room_for(struct verdict_store *s, struct batch *b, MDB_val *key, const struct verdict_record *r,
                    bool *room)
{
    MDB_val old;
    *room = true;
    if (r->pin || records_in(s, b->txn) < s->capacity)
        return 0;
    int rc = mdb_get(b->txn, s->dbi, key, &old);
    if (rc != MDB_NOTFOUND)
        return rc;
    rc = r->state == VERDICT_GOOD ? sweep(s, b->txn, ROOM_RECORDS, true, &b->removed) : 0;
    *room = records_in(s, b->txn) < s->capacity;
    return rc;
}

static int write_put(struct verdict_store *s, struct batch *b, const struct store_put *p)
{
    uint8_t bytes[STORE_VALUE_BYTES];
    str_t text = str_of(p->key, p->key_bytes);
    MDB_val key = store_val(text), value = {sizeof bytes, bytes};
    bool room;
    b->puts++;
    if (p->record.state == VERDICT_NONE && p->record.pin == PIN_NONE) {
        int rc = mdb_del(b->txn, s->dbi, &key, NULL);
        return rc == MDB_NOTFOUND ? 0 : rc;
    }
    int rc = room_for(s, b, &key, &p->record, &room);
    if (rc)
        return rc;
    if (!room) {
        b->skipped++;
        return 0;
    }
    store_encode(text, &p->record, bytes);
    return mdb_put(b->txn, s->dbi, &key, &value, 0);
}

/* Said once when it begins to fail and once when it is over. */
static void tell(struct verdict_store *s, int rc)
{
    if (rc && !s->failing)
        LOG(verdict_store_failed, LF_ERR("err", store_err(rc)), LF_CSTR("text", mdb_strerror(rc)));
    else if (!rc && s->failing)
        LOG(verdict_store_works, LF_U64("lost", atomic_load(&s->write_errors)));
    s->failing = rc != 0;
}

void store_count_records(struct verdict_store *s)
{
    MDB_stat stat;
    MDB_envinfo info;
    if (mdb_env_stat(s->env, &stat) || mdb_env_info(s->env, &info))
        return;
    atomic_store_explicit(&s->records, stat.ms_entries, memory_order_relaxed);
    atomic_store_explicit(&s->bytes, (info.me_last_pgno + 1) * stat.ms_psize, memory_order_relaxed);
}

static void count_batch(struct verdict_store *s, const struct batch *b, bool ok)
{
    if (!ok) {
        atomic_fetch_add_explicit(&s->write_errors, b->puts, memory_order_relaxed);
        metric_add(M_verdict_store_lost, (int64_t)b->puts);
        return;
    }
    atomic_fetch_add_explicit(&s->skipped, b->skipped, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->removed, b->removed, memory_order_relaxed);
    metric_add(M_verdict_store_written, (int64_t)(b->puts - b->skipped));
    metric_add(M_verdict_store_skipped, (int64_t)b->skipped);
    store_count_records(s);
}

err_t store_write(struct verdict_store *s)
{
    struct batch b = {0};
    uint64_t until = store_ring_tail(&s->ring), now_ns = clock_mono_ns();
    bool sweep_due = now_ns >= s->sweep_due_ns;
    if (store_ring_head(&s->ring) == until && !sweep_due)
        return 0;
    int rc = mdb_txn_begin(s->env, NULL, 0, &b.txn);
    /* what cannot be written is lost, and counted: the ring must not stand still */
    for (; store_ring_head(&s->ring) != until; store_ring_pop(&s->ring)) {
        if (!rc)
            rc = write_put(s, &b, store_ring_peek(&s->ring));
        else
            b.puts += store_ring_peek(&s->ring) != NULL;
    }
    if (!rc && sweep_due) {
        s->sweep_due_ns = now_ns + SWEEP_EVERY_NS;
        rc = sweep(s, b.txn, SWEEP_RECORDS, false, &b.removed);
    }
    if (!rc && b.puts + b.removed > 0)
        rc = mdb_txn_commit(b.txn);
    else if (b.txn)
        mdb_txn_abort(b.txn);
    count_batch(s, &b, rc == 0);
    tell(s, rc);
    return store_err(rc);
}
