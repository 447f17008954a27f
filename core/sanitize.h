/* core/sanitize.h: what the sanitizers must be told; nothing in other builds. */
#ifndef CORE_SANITIZE_H
#define CORE_SANITIZE_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZE_ADDRESS 1
#endif
#if __has_feature(thread_sanitizer)
#define SANITIZE_THREAD 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(SANITIZE_ADDRESS)
#define SANITIZE_ADDRESS 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(SANITIZE_THREAD)
#define SANITIZE_THREAD 1
#endif

/* Memory that is ours but free: a touch is a report. */
#ifdef SANITIZE_ADDRESS
#include <sanitizer/asan_interface.h>
#define MEMORY_POISON(p, n)   __asan_poison_memory_region((p), (n))
#define MEMORY_UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
#define MEMORY_POISONED(p)    __asan_address_is_poisoned(p)
#else
#define MEMORY_POISON(p, n)   ((void)(p), (void)(n))
#define MEMORY_UNPOISON(p, n) ((void)(p), (void)(n))
#define MEMORY_POISONED(p)    ((void)(p), 0)
#endif

/* Concurrency Kit orders its accesses with inline assembly that the thread sanitizer cannot see. Between
 * these two it looks away from the accesses of ck itself; what ck carries must be ordered by C11 atomics
 * beside it. */
#ifdef SANITIZE_THREAD
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
#define TSAN_IGNORE_BEGIN()                                                                                  \
    (AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__))
#define TSAN_IGNORE_END()                                                                                    \
    (AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__))
#else
#define TSAN_IGNORE_BEGIN() ((void)0)
#define TSAN_IGNORE_END()   ((void)0)
#endif

#endif
