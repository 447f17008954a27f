/* core/base.h: what every file may use: fixed-width types, must(), container_of, banned calls. */
#ifndef CORE_BASE_H
#define CORE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARN_UNUSED                     __attribute__((warn_unused_result))
#define ALWAYS_INLINE                   static inline __attribute__((always_inline))
#define PRINTF_LIKE(f, a)               __attribute__((format(printf, f, a)))
#define NORETURN                        __attribute__((noreturn))
#define LIKELY(x)                       __builtin_expect(!!(x), 1)
#define UNLIKELY(x)                     __builtin_expect(!!(x), 0)
#define COUNT_OF(a)                     (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define MAX(a, b)                       ((a) > (b) ? (a) : (b))
#define ALIGN_UP(n, a)                  (((n) + ((a)-1)) & ~((uint64_t)(a)-1))
#define ALIGN_DOWN(n, a)                ((n) & ~((uint64_t)(a)-1))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* A broken invariant is our bug: print where, abort. On in every build. Never for input from outside. */
#define must(cond) (LIKELY(cond) ? (void)0 : must_failed(#cond, __FILE__, __LINE__))
NORETURN void must_failed(const char *cond, const char *file, int line);

/* Unbounded or surprising calls do not build; use str_t, sbuf and snprintf. */
#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf strtok

#endif
