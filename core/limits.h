/* core/limits.h: core's maxima, each derived from a few settings, with unit and reason. What belongs to one
 * folder alone (wire lengths, ring geometry) stands in that folder. */
#ifndef CORE_LIMITS_H
#define CORE_LIMITS_H

#include "core/base.h"

/* Settings. */
#define THREAD_COUNT_MAX      256 /* workers plus DNS, admin, log: more cores than any mail gateway has had */
#define LOG_LINE_BYTES_MAX    2048 /* with the newline; what syslog relays and journald pass on uncut */
#define LOG_RING_BYTES        ((size_t)256 << 10) /* per thread: a second of lines at 1,000 a second */
#define MAILBOX_LOG2_MAX      20 /* 2^20 pointers are 16 MiB; past a full mailbox mail waits in a list */
#define METRIC_COLLECTORS_MAX 32 /* families known at run time only */

/* A recipient of 254 characters and a refusal of 512 (RFC 5321 4.5.3.1.3, 4.5.3.1.5) stay whole; a hostile
 * value leaves room for the fields behind it. */
#define LOG_VALUE_BYTES_MAX 640

/* A field is only begun when its key and a useful piece of its value fit. */
#define LOG_FIELD_BYTES_MIN 48

/* A pipe takes this much in one piece or not at all, so that lines of several processes never mix (PIPE_BUF).
 */
#define LOG_ATOMIC_WRITE_BYTES 4096

/* Log rings over all threads. */
#define LOG_RINGS_BYTES_MAX (THREAD_COUNT_MAX * LOG_RING_BYTES)

_Static_assert(LOG_LINE_BYTES_MAX <= LOG_ATOMIC_WRITE_BYTES, "one line is one piece of a pipe");
_Static_assert(3 * LOG_VALUE_BYTES_MAX < LOG_LINE_BYTES_MAX,
               "from=, to= and text= all fit when each is at its longest");
_Static_assert((LOG_RING_BYTES & (LOG_RING_BYTES - 1)) == 0, "ring positions are masked");
_Static_assert(LOG_RING_BYTES >= 64 * LOG_LINE_BYTES_MAX, "a burst of long lines fits");
_Static_assert(LOG_RINGS_BYTES_MAX <= (size_t)64 << 20, "logging never needs more memory than this");

#endif
