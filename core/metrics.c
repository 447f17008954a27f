/* core/metrics.c: counting.
 *
 * A block has one writer, its thread, which loads, adds and stores without a locked instruction; a scrape
 * reads it at any moment. Threads that never called metrics_thread_start() share one block and pay for atomic
 * additions. A thread that ends adds its block to the retired one under the lock that scrapes take too, so no
 * sum ever goes back. */
#include "core/metrics.h"

#include <errno.h>
#include <pthread.h>

#include "core/list.h"
#include "core/metrics_priv.h"

struct thread_block {
    struct link link; /* in `blocks` */
    struct metric_block block;
};

static const struct {
    double bounds[BUCKET_COUNT_MAX - 1];
    size_t count;
} bounds[H_COUNT] = {
#define HISTOGRAM(id, family, labels, buckets, help)                                                         \
    [H_##id] = {buckets, sizeof((double[])buckets) / sizeof(double)},
#include "core/histograms.def"
#undef HISTOGRAM
};

#define HISTOGRAM(id, family, labels, buckets, help)                                                         \
    _Static_assert(sizeof((double[])buckets) / sizeof(double) < BUCKET_COUNT_MAX,                            \
                   #id " has too many buckets");
#include "core/histograms.def"
#undef HISTOGRAM

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for `blocks` and `retired` */
static struct list blocks = {{&blocks.head, &blocks.head}};
static struct metric_block retired;
static struct metric_block shared;

static _Thread_local struct thread_block *mine;
static pthread_key_t exit_key;
static pthread_once_t exit_key_once = PTHREAD_ONCE_INIT;
static int exit_key_error;

const double *metric_bounds(enum histogram h, size_t *count)
{
    *count = bounds[h].count;
    return bounds[h].bounds;
}

/* ---- adding ---- */

static void add_i64(atomic_int_fast64_t *cell, int64_t n)
{
    int64_t old = atomic_load_explicit(cell, memory_order_relaxed);
    atomic_store_explicit(cell, old + n, memory_order_relaxed);
}

static void add_u64(atomic_uint_fast64_t *cell, uint64_t n)
{
    uint64_t old = atomic_load_explicit(cell, memory_order_relaxed);
    atomic_store_explicit(cell, old + n, memory_order_relaxed);
}

static void add_double(_Atomic double *cell, double v)
{
    double old = atomic_load_explicit(cell, memory_order_relaxed);
    atomic_store_explicit(cell, old + v, memory_order_relaxed);
}

static void add_double_shared(_Atomic double *cell, double v)
{
    double old = atomic_load_explicit(cell, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(cell, &old, old + v, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

void metric_add(enum metric m, int64_t n)
{
    if (mine)
        add_i64(&mine->block.values[m], n);
    else
        atomic_fetch_add_explicit(&shared.values[m], n, memory_order_relaxed);
}

void metric_set(enum metric m, int64_t v)
{
    atomic_store_explicit(mine ? &mine->block.values[m] : &shared.values[m], v, memory_order_relaxed);
}

void metric_observe(enum histogram h, double value)
{
    if (!(value >= 0)) /* a duration over a clock that was set back, or NaN: would spoil the sum for ever */
        value = 0;
    size_t i = 0;
    while (i < bounds[h].count && value > bounds[h].bounds[i])
        i++;
    if (mine) {
        add_u64(&mine->block.histograms[h].counts[i], 1);
        add_double(&mine->block.histograms[h].sum, value);
    } else {
        atomic_fetch_add_explicit(&shared.histograms[h].counts[i], 1, memory_order_relaxed);
        add_double_shared(&shared.histograms[h].sum, value);
    }
}

void metric_reply(int code)
{
    must(code >= REPLY_CODE_MIN && code <= REPLY_CODE_MAX);
    if (mine)
        add_u64(&mine->block.replies[code - REPLY_CODE_MIN], 1);
    else
        atomic_fetch_add_explicit(&shared.replies[code - REPLY_CODE_MIN], 1, memory_order_relaxed);
}

/* ---- threads ---- */

/* Under the lock, as every writer of `retired`. */
static void retire(const struct metric_block *b)
{
    for (size_t i = 0; i < M_COUNT; i++)
        add_i64(&retired.values[i], atomic_load_explicit(&b->values[i], memory_order_relaxed));
    for (size_t h = 0; h < H_COUNT; h++) {
        const struct histogram_cell *from = &b->histograms[h];
        for (size_t i = 0; i < BUCKET_COUNT_MAX; i++)
            add_u64(&retired.histograms[h].counts[i],
                    atomic_load_explicit(&from->counts[i], memory_order_relaxed));
        add_double(&retired.histograms[h].sum, atomic_load_explicit(&from->sum, memory_order_relaxed));
    }
    for (size_t i = 0; i < REPLY_CODE_COUNT; i++)
        add_u64(&retired.replies[i], atomic_load_explicit(&b->replies[i], memory_order_relaxed));
}

static void thread_ends(void *block)
{
    struct thread_block *t = block;
    mine = NULL;
    pthread_mutex_lock(&lock);
    retire(&t->block);
    list_remove(&t->link);
    pthread_mutex_unlock(&lock);
    free(t);
}

static void make_exit_key(void)
{
    exit_key_error = pthread_key_create(&exit_key, thread_ends);
}

err_t metrics_thread_start(void)
{
    if (mine)
        return 0;
    pthread_once(&exit_key_once, make_exit_key);
    if (exit_key_error)
        return -exit_key_error;
    /* A multiple of the cache line: no two threads' blocks share one. */
    size_t bytes = (size_t)ALIGN_UP(sizeof(struct thread_block), 64);
    struct thread_block *t = aligned_alloc(64, bytes);
    if (!t)
        return -ENOMEM;
    memset(t, 0, bytes);
    int rc = pthread_setspecific(exit_key, t);
    if (rc) {
        free(t);
        return -rc;
    }
    pthread_mutex_lock(&lock);
    list_push_back(&blocks, &t->link);
    pthread_mutex_unlock(&lock);
    mine = t;
    return 0;
}

/* ---- sums ---- */

static void sum_block(const struct metric_block *b, struct metric_sums *out)
{
    for (size_t i = 0; i < M_COUNT; i++)
        out->values[i] += atomic_load_explicit(&b->values[i], memory_order_relaxed);
    for (size_t h = 0; h < H_COUNT; h++) {
        struct histogram_sum *to = &out->histograms[h];
        for (size_t i = 0; i <= bounds[h].count; i++) {
            uint64_t n = atomic_load_explicit(&b->histograms[h].counts[i], memory_order_relaxed);
            to->counts[i] += n;
            to->count += n;
        }
        to->sum += atomic_load_explicit(&b->histograms[h].sum, memory_order_relaxed);
    }
    for (size_t i = 0; i < REPLY_CODE_COUNT; i++)
        out->replies[i] += atomic_load_explicit(&b->replies[i], memory_order_relaxed);
}

void metric_sum_all(struct metric_sums *out)
{
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&lock);
    sum_block(&retired, out);
    sum_block(&shared, out);
    LIST_EACH(&blocks, k)
    sum_block(&container_of(k, struct thread_block, link)->block, out);
    pthread_mutex_unlock(&lock);
}

int64_t metric_read(enum metric m)
{
    pthread_mutex_lock(&lock);
    int64_t sum = atomic_load_explicit(&retired.values[m], memory_order_relaxed) +
                  atomic_load_explicit(&shared.values[m], memory_order_relaxed);
    LIST_EACH(&blocks, k)
    sum += atomic_load_explicit(&container_of(k, struct thread_block, link)->block.values[m],
                                memory_order_relaxed);
    pthread_mutex_unlock(&lock);
    return sum;
}

uint64_t metric_histogram_count(enum histogram h)
{
    struct metric_sums sums;
    metric_sum_all(&sums);
    return sums.histograms[h].count;
}

double metric_histogram_sum(enum histogram h)
{
    struct metric_sums sums;
    metric_sum_all(&sums);
    return sums.histograms[h].sum;
}
