/* core/log.h: structured events, one line each, written by a thread of its own.
 *
 * A producer formats into its own lock-free ring and never blocks: when the reader is slow, lines are dropped
 * and counted (metric log_dropped; the writer reports the number when it can write again). Values are
 * escaped, so that nothing from outside can forge a line (no raw control bytes, quotes or newlines). Every
 * event stands in log_events.def with its level and its fields; docs are generated from it. */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include "core/err.h"
#include "core/ip.h"
#include "core/str.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_NOTICE, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_LOGFMT, LOG_JSON };

enum log_event {
#define EVENT(name, level, help) EV_##name,
#include "core/log_events.def"
#undef EVENT
    EV_COUNT
};

struct log_field {
    const char *key;
    enum { LF_KIND_STR, LF_KIND_U64, LF_KIND_I64, LF_KIND_IP, LF_KIND_ERR, LF_KIND_QID } kind;
    union {
        str_t str;
        uint64_t u64;
        int64_t i64;
        const struct ip *ip;
        err_t err;
    };
};

/* Fields for LOG(): LOG(delivery, LF_QID("id", id), LF_STR("to", addr), LF_U64("ms", ms)). An absent str is
 * left out. */
#define LF_STR(k, v)  ((struct log_field){.key = (k), .kind = LF_KIND_STR, .str = (v)})
#define LF_CSTR(k, v) ((struct log_field){.key = (k), .kind = LF_KIND_STR, .str = str_cstr(v)})
#define LF_U64(k, v)  ((struct log_field){.key = (k), .kind = LF_KIND_U64, .u64 = (v)})
#define LF_I64(k, v)  ((struct log_field){.key = (k), .kind = LF_KIND_I64, .i64 = (v)})
#define LF_IP(k, v)   ((struct log_field){.key = (k), .kind = LF_KIND_IP, .ip = (v)})
#define LF_ERR(k, v)  ((struct log_field){.key = (k), .kind = LF_KIND_ERR, .err = (v)})
#define LF_QID(k, v)  ((struct log_field){.key = (k), .kind = LF_KIND_QID, .u64 = (v)}) /* as qid_format() */

#define LOG(event, ...)                                                                                      \
    log_emit(EV_##event, (const struct log_field[]){__VA_ARGS__},                                            \
             sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field))

/* Any thread. Below the configured level: costs one compare. */
void log_emit(enum log_event event, const struct log_field *fields, size_t field_count);
/* Queue ids look the same everywhere: 13 characters of Crockford base32. out >= 14 bytes, NUL-terminated. */
size_t qid_format(uint64_t id, char *out);
err_t qid_parse(str_t s, uint64_t *out) WARN_UNUSED;

/* Boot, before there is a thread: lines are written to `fd`, not owned, until log_start. */
void log_direct(int fd, enum log_format format, enum log_level level);
/* Boot. `fd` is written to and not owned. Before log_start lines go to stderr directly (unit tests too). */
err_t log_start(int fd, enum log_format format, enum log_level level) WARN_UNUSED;
void log_set(enum log_format format, enum log_level level); /* reload; any thread */
/* Writes what is left and joins the writer, or leaves both behind when fd's reader takes nothing for two
 * seconds; then the process must end. Call it when other threads have ended: a line that they emit meanwhile
 * may stay for the next log_start(). Later lines go to stderr again. */
void log_stop(void);
uint64_t log_dropped_count(void);

#endif
