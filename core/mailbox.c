/* core/mailbox.c: MPSC mailboxes.
 *
 * Waking. The receiver sleeps only after it set `idle` and then found nothing; a sender enqueues and then
 * looks at `idle`. A full barrier stands between the two steps on either side, so at least one of them sees
 * what the other did: either the receiver finds the mail, or the sender finds it idle and wakes it. Whoever
 * turns `idle` off wakes, so that a thousand senders to a sleeping receiver make one wake-up.
 *
 *       sender                          receiver
 *       enqueue m                       idle = true
 *       barrier                         barrier
 *       idle? -> off, wake              any mail? -> off, go on
 */
#include "core/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include <ck_ring.h>

#include "core/limits.h"
#include "core/sanitize.h"

struct mailbox {
    void (*wake)(void *ctx);
    void *ctx;                /* not owned */
    ck_ring_buffer_t *buffer; /* owned */
    atomic_bool idle;
    ck_ring_t ring;

    pthread_mutex_t lock;       /* for the list below */
    struct mail *first, **last; /* overflow, oldest first */
    atomic_bool has_overflow;   /* written under the lock, read without */

    /* The receiver's own. */
    struct mail *taken; /* overflow that it has taken off the list */
    bool ring_turn;     /* ring and overflow take turns, so that neither starves the other */
};

err_t mailbox_create(struct mailbox **out, uint32_t capacity_log2, void (*wake)(void *ctx), void *ctx)
{
    must(capacity_log2 >= 2 && capacity_log2 <= MAILBOX_LOG2_MAX);
    struct mailbox *mb = calloc(1, sizeof *mb);
    ck_ring_buffer_t *buffer = calloc((size_t)1 << capacity_log2, sizeof *buffer);
    int rc = mb && buffer ? pthread_mutex_init(&mb->lock, NULL) : ENOMEM;
    if (rc) {
        free(mb);
        free(buffer);
        return -rc;
    }
    mb->wake = wake;
    mb->ctx = ctx;
    mb->buffer = buffer;
    mb->last = &mb->first;
    atomic_init(&mb->idle, true);
    atomic_init(&mb->has_overflow, false);
    ck_ring_init(&mb->ring, 1U << capacity_log2);
    *out = mb;
    return 0;
}

void mailbox_destroy(struct mailbox *mb)
{
    if (!mb)
        return;
    pthread_mutex_destroy(&mb->lock);
    free(mb->buffer);
    free(mb);
}

/* The release here and the acquire in take_from_ring() order the mail's content; ck's own barriers do so too,
 * but are invisible to the thread sanitizer. */
static bool put_on_ring(struct mailbox *mb, struct mail *m)
{
    __atomic_store_n(&m->next, NULL, __ATOMIC_RELEASE);
    TSAN_IGNORE_BEGIN();
    bool ok = ck_ring_enqueue_mpsc(&mb->ring, mb->buffer, m);
    TSAN_IGNORE_END();
    return ok;
}

static struct mail *take_from_ring(struct mailbox *mb)
{
    struct mail *m = NULL;
    TSAN_IGNORE_BEGIN();
    bool ok = ck_ring_dequeue_mpsc(&mb->ring, mb->buffer, &m);
    TSAN_IGNORE_END();
    if (!ok)
        return NULL;
    (void)__atomic_load_n(&m->next, __ATOMIC_ACQUIRE);
    return m;
}

static void put_on_overflow(struct mailbox *mb, struct mail *m)
{
    m->next = NULL;
    pthread_mutex_lock(&mb->lock);
    *mb->last = m;
    mb->last = &m->next;
    atomic_store_explicit(&mb->has_overflow, true, memory_order_relaxed);
    pthread_mutex_unlock(&mb->lock);
}

static struct mail *take_from_overflow(struct mailbox *mb)
{
    if (!mb->taken && atomic_load_explicit(&mb->has_overflow, memory_order_relaxed)) {
        pthread_mutex_lock(&mb->lock);
        mb->taken = mb->first;
        mb->first = NULL;
        mb->last = &mb->first;
        atomic_store_explicit(&mb->has_overflow, false, memory_order_relaxed);
        pthread_mutex_unlock(&mb->lock);
    }
    struct mail *m = mb->taken;
    if (m)
        mb->taken = m->next;
    return m;
}

void mailbox_send(struct mailbox *mb, struct mail *m)
{
    if (!put_on_ring(mb, m))
        put_on_overflow(mb, m);
    /* `m` is the receiver's from here on. */
    ck_pr_fence_memory();
    /* Looked at first, so that senders to a busy receiver do not fight for the cache line. */
    if (atomic_load_explicit(&mb->idle, memory_order_relaxed) && atomic_exchange(&mb->idle, false))
        mb->wake(mb->ctx);
}

static struct mail *take(struct mailbox *mb)
{
    mb->ring_turn = !mb->ring_turn;
    struct mail *m = mb->ring_turn ? take_from_ring(mb) : take_from_overflow(mb);
    if (m)
        return m;
    return mb->ring_turn ? take_from_overflow(mb) : take_from_ring(mb);
}

static bool has_mail(struct mailbox *mb)
{
    return mb->taken || ck_ring_size(&mb->ring) > 0 ||
           atomic_load_explicit(&mb->has_overflow, memory_order_relaxed);
}

/* True: nothing is left, and the next sender wakes. */
static bool go_idle(struct mailbox *mb)
{
    if (has_mail(mb))
        return false;
    atomic_store(&mb->idle, true);
    ck_pr_fence_memory();
    if (!has_mail(mb))
        return true;
    atomic_store(&mb->idle, false); /* its sender may wake us all the same; that does no harm */
    return false;
}

uint32_t mailbox_run(struct mailbox *mb, uint32_t max_count, bool *more)
{
    uint32_t count = 0;
    struct mail *m;
    while (count < max_count && (m = take(mb)) != NULL) {
        count++;
        m->deliver(m); /* owns m; may send, to this mailbox too */
    }
    *more = !go_idle(mb);
    return count;
}
