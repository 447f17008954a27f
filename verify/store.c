/* verify/store.c: the thread that writes verdicts, and those who read them back. */
#include "verify/store.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/metrics.h"
#include "verify/store_priv.h"

#define BATCH_MS   1000
#define INBOX_LOG2 8
#define INBOX_TURN 256

/* --- writing --- */

static void wake(void *ctx)
{
    const struct verdict_store *s = ctx;
    uint64_t one = 1;
    (void)!write(s->wake_fd, &one, sizeof one); /* fails only when it is awake anyway */
}

bool verdict_store_put(struct verdict_store *s, str_t key, const struct verdict_record *r)
{
    uint64_t at = store_ring_push(&s->ring, key, r);
    if (at == UINT64_MAX) {
        atomic_fetch_add_explicit(&s->dropped, 1, memory_order_relaxed);
        metric_inc(M_verdict_store_dropped);
        return false;
    }
    if (at % (STORE_RING_SLOTS / 4) == 0) /* a second is too long for so many */
        wake(s);
    return true;
}

static void sync_arrived(struct mail *m)
{
    struct verdict_store_sync *y = container_of(m, struct verdict_store_sync, mail);
    y->next = y->store->waiting;
    y->store->waiting = y;
}

void verdict_store_flush(struct verdict_store *s, struct verdict_store_sync *y)
{
    must(s->started && y->done);
    y->store = s;
    y->mail.deliver = sync_arrived;
    mailbox_send(s->inbox, &y->mail);
}

static void sync_done(struct mail *m)
{
    struct verdict_store_sync *y = container_of(m, struct verdict_store_sync, mail);
    y->done(y, y->err);
}

/* A failure is told to whoever asks next: what was put before may have been lost in an earlier transaction
 * than the last. */
static void answer(struct verdict_store *s, err_t err)
{
    struct verdict_store_sync *y, *next;
    if (err)
        s->untold = err;
    if (!s->waiting)
        return;
    err = s->untold;
    s->untold = 0;
    for (y = s->waiting, s->waiting = NULL; y; y = next) {
        next = y->next; /* y is its asker's after the call */
        y->err = err;
        y->mail.deliver = sync_done;
        if (y->loop)
            loop_post(y->loop, &y->mail);
        else
            y->done(y, err);
    }
}

static void *store_thread(void *arg)
{
    struct verdict_store *s = arg;
    pthread_setname_np(pthread_self(), "verdicts");
    (void)!metrics_thread_start(); /* without a block of its own it counts in the shared one */
    for (bool more = false, stopping = false; more || !stopping;) {
        struct pollfd fd = {.fd = s->wake_fd, .events = POLLIN};
        uint64_t wakes;
        if (poll(&fd, 1, more ? 0 : BATCH_MS) > 0)
            (void)!read(s->wake_fd, &wakes, sizeof wakes);
        stopping = atomic_load(&s->stopping); /* before the inbox: what was asked before is in it */
        mailbox_run(s->inbox, INBOX_TURN, &more);
        err_t err = store_write(s);
        metric_set(M_verdict_store_records, (int64_t)atomic_load(&s->records));
        answer(s, err);
    }
    return NULL;
}

/* --- reading --- */

static size_t literal_bytes(str_t glob)
{
    size_t n = 0;
    while (n < glob.n && glob.p[n] != '*' && glob.p[n] != '?')
        n++;
    return n;
}

struct reading {
    str_t glob, prefix; /* the part of the glob before the first '*' or '?' */
    uint32_t max;
    bool (*each)(void *ctx, str_t key, const struct verdict_record *r);
    void *ctx;
};

static int read_on(MDB_cursor *cursor, MDB_val *key, MDB_val *value, const struct reading *g)
{
    int rc = 0;
    for (uint32_t count = 0; !rc && count < g->max; rc = mdb_cursor_get(cursor, key, value, MDB_NEXT)) {
        struct verdict_record r;
        str_t k = store_str(key);
        if (g->glob.p && !str_starts(k, g->prefix)) /* in key order: nothing comes any more */
            return 0;
        if ((g->glob.p && !store_glob(g->glob, k)) || store_decode(k, store_str(value), &r))
            continue;
        count++;
        if (!g->each(g->ctx, k, &r))
            return 0;
    }
    return rc;
}

static int read_from(MDB_cursor *cursor, str_t after, const struct reading *g)
{
    str_t from = after.n && str_cmp(after, g->prefix) >= 0 ? after : g->prefix;
    MDB_val key = store_val(from), value;
    if (from.n > VERIFY_KEY_MAX) /* longer than any key */
        return 0;
    int rc = mdb_cursor_get(cursor, &key, &value, from.n ? MDB_SET_RANGE : MDB_FIRST);
    if (!rc && after.n && str_eq(store_str(&key), after))
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    return rc ? rc : read_on(cursor, &key, &value, g);
}

err_t verdict_store_each(struct verdict_store *s, str_t glob, str_t after, uint32_t max,
                         bool (*each)(void *ctx, str_t key, const struct verdict_record *r), void *ctx)
{
    const struct reading g = {glob, str_sub(glob, 0, literal_bytes(glob)), max, each, ctx};
    MDB_txn *txn;
    MDB_cursor *cursor;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (rc)
        return store_err(rc);
    rc = mdb_cursor_open(txn, s->dbi, &cursor);
    if (!rc) {
        rc = read_from(cursor, after, &g);
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return rc == MDB_NOTFOUND ? 0 : store_err(rc);
}

/* --- life --- */

static void store_free(struct verdict_store *s)
{
    if (s->env)
        mdb_env_close(s->env);
    mailbox_destroy(s->inbox);
    store_ring_free(&s->ring);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    free(s);
}

err_t verdict_store_open(struct verdict_store **out, str_t directory, uint32_t capacity,
                         struct verdict_cache *cache, struct gbuf *notes)
{
    *out = NULL;
    struct verdict_store *s = aligned_alloc(64, ALIGN_UP(sizeof *s, 64));
    if (!s)
        return -ENOMEM;
    memset(s, 0, sizeof *s);
    s->capacity = capacity;
    verdict_store_set_keep(s, VERDICT_GOOD_DEAD_S, VERDICT_UNKNOWN_DEAD_S);
    s->sweep_due_ns = clock_mono_ns();
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    err_t err = s->wake_fd < 0 ? -errno : store_ring_init(&s->ring);
    if (!err)
        err = mailbox_create(&s->inbox, INBOX_LOG2, wake, s);
    if (!err)
        err = store_open_files(s, directory, cache, notes);
    if (err) {
        store_free(s);
        return err;
    }
    store_count_records(s);
    *out = s;
    return 0;
}

err_t verdict_store_start(struct verdict_store *s)
{
    sigset_t all, before;
    sigfillset(&all); /* signals belong to the main thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&s->thread, NULL, store_thread, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    s->started = rc == 0;
    return -rc;
}

void verdict_store_close(struct verdict_store *s)
{
    if (!s)
        return;
    if (s->started) {
        atomic_store(&s->stopping, true);
        wake(s);
        pthread_join(s->thread, NULL);
    } else {
        (void)store_write(s);
    }
    store_free(s);
}

void verdict_store_set_keep(struct verdict_store *s, uint32_t good_keep_s, uint32_t unknown_keep_s)
{
    atomic_store_explicit(&s->good_keep_s, good_keep_s, memory_order_relaxed);
    atomic_store_explicit(&s->unknown_keep_s, unknown_keep_s, memory_order_relaxed);
}

void verdict_store_stats(const struct verdict_store *s, struct verdict_store_stats *out)
{
    *out = (struct verdict_store_stats){
        .records = atomic_load_explicit(&s->records, memory_order_relaxed),
        .bytes = atomic_load_explicit(&s->bytes, memory_order_relaxed),
        .pending = store_ring_tail(&s->ring) - store_ring_head(&s->ring),
        .dropped = atomic_load_explicit(&s->dropped, memory_order_relaxed),
        .skipped = atomic_load_explicit(&s->skipped, memory_order_relaxed),
        .removed = atomic_load_explicit(&s->removed, memory_order_relaxed),
        .damaged = atomic_load_explicit(&s->damaged, memory_order_relaxed),
        .write_errors = atomic_load_explicit(&s->write_errors, memory_order_relaxed),
    };
}
