/* daemon/memory.c: see memory.h. */
#include "daemon/memory.h"

#include <stdatomic.h>

#include "core/clock.h"
#include "core/metrics.h"

/* Fetching the numbers takes locks in the allocator: at most so often, however many ask. */
#define FRESH_NS (10 * NS_PER_MS)

#ifdef POSTERN_JEMALLOC
#include <jemalloc/jemalloc.h>

static size_t stat_bytes(const char *name)
{
    size_t v = 0, n = sizeof v;
    return mallctl(name, &v, &n, NULL, 0) == 0 ? v : 0;
}

static void refresh(void)
{
    uint64_t epoch = 1;
    size_t n = sizeof epoch;
    (void)mallctl("epoch", &epoch, &n, &epoch, n);
}

static void collect(void *ctx, struct gbuf *out)
{
    static const struct {
        const char *label, *name;
    } rows[] = {{"allocated", "stats.allocated"}, {"active", "stats.active"}, {"metadata", "stats.metadata"},
                {"resident", "stats.resident"},   {"mapped", "stats.mapped"}, {"retained", "stats.retained"}};

    refresh();
    gbuf_cstr(
        out,
        "# HELP postern_memory_bytes memory as the allocator sees it\n# TYPE postern_memory_bytes gauge\n");
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        gbuf_printf(out, "postern_memory_bytes{state=\"%s\"} %zu\n", rows[i].label, stat_bytes(rows[i].name));
    gbuf_printf(out, "postern_memory_bytes{state=\"used\"} %llu\n", (unsigned long long)memory_used_bytes());
}

void memory_start(void)
{
    metrics_add_collector(collect, NULL);
}

void memory_thread_start(void)
{
    unsigned arena = 0;
    size_t n = sizeof arena;
    /* One writer per arena: no lock is ever contended. A failure leaves the thread on a shared arena, which
     * works too. */
    if (mallctl("arenas.create", &arena, &n, NULL, 0) == 0)
        (void)mallctl("thread.arena", NULL, NULL, &arena, sizeof arena);
}

uint64_t memory_used_bytes(void)
{
    static atomic_uint_fast64_t due_ns, used_bytes;
    uint64_t now_ns = clock_mono_ns(), due = atomic_load(&due_ns);
    if (now_ns < due || !atomic_compare_exchange_strong(&due_ns, &due, now_ns + FRESH_NS))
        return atomic_load(&used_bytes); /* workers ask at the same times: one looks for all */
    refresh();
    uint64_t allocated = stat_bytes("stats.allocated");
    int64_t idle = metric_read(M_pool_idle);
    atomic_store(&used_bytes, allocated - MIN(allocated, (uint64_t)MAX(idle, 0)));
    return atomic_load(&used_bytes);
}

bool memory_is_watched(void)
{
    return true;
}

const char *memory_allocator(void)
{
    return "jemalloc " JEMALLOC_VERSION;
}

#else

void memory_start(void)
{
}

void memory_thread_start(void)
{
}

uint64_t memory_used_bytes(void)
{
    return 0;
}

bool memory_is_watched(void)
{
    return false;
}

const char *memory_allocator(void)
{
    return "the C library's malloc";
}

#endif
