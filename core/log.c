/* core/log.c: events go to the writer's rings, or straight to a descriptor while there is no writer. */
#include "core/log.h"

#include <unistd.h>

#include "core/clock.h"
#include "core/log_priv.h"
#include "core/metrics.h"

static const struct {
    const char *name;
    enum log_level level;
} events[EV_COUNT] = {
#define EVENT(name, level, help) [EV_##name] = {#name, level},
#include "core/log_events.def"
#undef EVENT
};

static atomic_int level_now = LOG_INFO;
static atomic_int format_now = LOG_LOGFMT;
static atomic_bool is_running;
static atomic_int direct_fd = STDERR_FILENO;
static atomic_ullong dropped_count;

const char *log_event_name(enum log_event event)
{
    return events[event].name;
}

enum log_level log_event_level(enum log_event event)
{
    return events[event].level;
}

enum log_format log_current_format(void)
{
    return (enum log_format)atomic_load_explicit(&format_now, memory_order_relaxed);
}

void log_count_dropped(uint64_t lines)
{
    if (!lines)
        return;
    atomic_fetch_add_explicit(&dropped_count, lines, memory_order_relaxed);
    metric_add(M_log_dropped, (int64_t)lines);
}

uint64_t log_dropped_count(void)
{
    return atomic_load_explicit(&dropped_count, memory_order_relaxed);
}

void log_emit(enum log_event event, const struct log_field *fields, size_t field_count)
{
    must(event < EV_COUNT);
    enum log_level level = events[event].level;
    if ((int)level > atomic_load_explicit(&level_now, memory_order_relaxed))
        return;
    char line[LOG_LINE_BYTES_MAX];
    size_t n =
        log_line(log_current_format(), clock_wall_ns(), level, events[event].name, fields, field_count, line);
    if (!atomic_load_explicit(&is_running, memory_order_acquire)) {
        struct iovec piece = {line, n}, *left = &piece;
        int left_count = 1;
        if (log_write_all(atomic_load_explicit(&direct_fd, memory_order_relaxed), &left, &left_count))
            log_count_dropped(1);
        return;
    }
    struct log_ring *ring = log_ring_mine();
    size_t used_bytes;
    if (ring && log_ring_put(ring, line, n, &used_bytes))
        log_writer_notify(used_bytes);
    else
        log_count_dropped(1);
}

void log_direct(int fd, enum log_format format, enum log_level level)
{
    log_set(format, level);
    atomic_store_explicit(&direct_fd, fd, memory_order_relaxed);
}

err_t log_start(int fd, enum log_format format, enum log_level level)
{
    must(!atomic_load(&is_running));
    log_set(format, level);
    err_t err = log_writer_start(fd);
    if (err)
        return err;
    atomic_store_explicit(&is_running, true, memory_order_release);
    atomic_store_explicit(&direct_fd, STDERR_FILENO, memory_order_relaxed);
    return 0;
}

void log_set(enum log_format format, enum log_level level)
{
    atomic_store_explicit(&format_now, (int)format, memory_order_relaxed);
    atomic_store_explicit(&level_now, (int)level, memory_order_relaxed);
}

void log_stop(void)
{
    if (atomic_exchange(&is_running, false))
        log_writer_stop();
}
