/* core/clock.h: the only source of time. A link-time seam: the simulator links its own clock. Any thread. */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include "core/base.h"

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

uint64_t clock_mono_ns(void); /* never goes back; for time-outs and durations */
uint64_t clock_wall_ns(void); /* Unix time; for the disk, headers and logs */

/* RFC 5322 date-time in UTC ("Tue, 24 Nov 2026 04:14:26 +0000"); returns its length, out >= 40 bytes. */
size_t clock_rfc5322(uint64_t wall_ns, char *out);
/* RFC 3339 in UTC with milliseconds; returns its length, out >= 32 bytes. */
size_t clock_rfc3339(uint64_t wall_ns, char *out);

#endif
