/* core/log_ring.c: one byte ring per producing thread, and the list of all of them.
 *
 * The list only grows, so the writer walks it without a lock while threads come and go. A thread that ends
 * leaves its ring, unread lines included, to the next one that starts; the hand-over is the release and
 * acquire of `taken`. */
#include <pthread.h>

#include "core/log_priv.h"

static _Atomic(struct log_ring *) all_rings;
static _Thread_local struct log_ring *mine;

static pthread_key_t exit_key; /* its destructor runs at the end of each thread that has a ring */
static pthread_once_t exit_key_once = PTHREAD_ONCE_INIT;
static bool has_exit_key;

static void release_at_exit(void *ring)
{
    struct log_ring *r = ring;
    mine = NULL;
    atomic_store_explicit(&r->taken, false, memory_order_release);
}

static void make_exit_key(void)
{
    has_exit_key = pthread_key_create(&exit_key, release_at_exit) == 0;
}

static struct log_ring *take_over(void)
{
    for (struct log_ring *r = log_ring_first(); r; r = r->next) {
        bool expected = false;
        if (atomic_compare_exchange_strong(&r->taken, &expected, true))
            return r;
    }
    return NULL;
}

static struct log_ring *make(void)
{
    struct log_ring *r = aligned_alloc(64, sizeof *r);
    if (!r)
        return NULL;
    atomic_init(&r->taken, true);
    atomic_init(&r->head, 0);
    atomic_init(&r->tail, 0);
    r->next = log_ring_first();
    while (!atomic_compare_exchange_weak(&all_rings, &r->next, r))
        ;
    return r;
}

struct log_ring *log_ring_mine(void)
{
    if (LIKELY(mine != NULL))
        return mine;
    struct log_ring *r = take_over();
    if (!r)
        r = make();
    if (!r)
        return NULL;
    mine = r;
    /* Without the key the ring is not reused after this thread; its lines are written all the same. */
    pthread_once(&exit_key_once, make_exit_key);
    if (has_exit_key)
        pthread_setspecific(exit_key, r);
    return r;
}

struct log_ring *log_ring_first(void)
{
    return atomic_load_explicit(&all_rings, memory_order_acquire);
}

bool log_ring_put(struct log_ring *r, const char *line, size_t n, size_t *used_bytes)
{
    size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    size_t used = head - atomic_load_explicit(&r->tail, memory_order_acquire);
    if (n > LOG_RING_BYTES - used)
        return false;
    size_t at = head & (LOG_RING_BYTES - 1);
    size_t first = MIN(n, LOG_RING_BYTES - at);
    memcpy(r->bytes + at, line, first);
    memcpy(r->bytes, line + first, n - first);
    /* Sequentially consistent: log_writer_notify() relies on the order of this and its look at the writer. */
    atomic_store(&r->head, head + n);
    *used_bytes = used + n;
    return true;
}

size_t log_ring_peek(struct log_ring *r, struct iovec pieces[2], int *piece_count)
{
    size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    size_t n = atomic_load(&r->head) - tail;
    size_t at = tail & (LOG_RING_BYTES - 1);
    size_t first = MIN(n, LOG_RING_BYTES - at);
    *piece_count = 0;
    if (first)
        pieces[(*piece_count)++] = (struct iovec){r->bytes + at, first};
    if (n > first)
        pieces[(*piece_count)++] = (struct iovec){r->bytes, n - first};
    return n;
}

void log_ring_consume(struct log_ring *r, size_t n)
{
    size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    atomic_store_explicit(&r->tail, tail + n, memory_order_release);
}
