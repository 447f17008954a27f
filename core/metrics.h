/* core/metrics.h: counters, gauges and histograms. Each thread writes its own block (no sharing, relaxed
 * stores); a scrape sums the blocks. The table is metrics.def; docs are generated from it. */
#ifndef CORE_METRICS_H
#define CORE_METRICS_H

#include "core/err.h"
#include "core/str.h"

enum metric {
#define COUNTER(id, family, labels, help) M_##id,
#define GAUGE(id, family, labels, help)   M_##id,
#include "core/metrics.def"
#undef COUNTER
#undef GAUGE
    M_COUNT
};

enum histogram {
#define HISTOGRAM(id, family, labels, buckets, help) H_##id,
#include "core/histograms.def"
#undef HISTOGRAM
    H_COUNT
};

/* Once per thread before its first use; a thread without a block writes into a shared atomic one. */
err_t metrics_thread_start(void) WARN_UNUSED;
void metric_add(enum metric m, int64_t n); /* counters up; gauges up and down */
void metric_set(enum metric m, int64_t v); /* gauge: this thread's share */
static inline void metric_inc(enum metric m)
{
    metric_add(m, 1);
}
void metric_observe(enum histogram h, double value); /* seconds, or a count, as the table says */
void metric_reply(int code);        /* one SMTP reply sent, 200..599: postern_smtp_replies_total{code=} */
int64_t metric_read(enum metric m); /* the sum over threads */
uint64_t metric_histogram_count(enum histogram h);
double metric_histogram_sum(enum histogram h);

/* Families whose labels are only known at run time (destinations, memory): called at each scrape on the
 * scraping thread; must be thread-safe and print whole families, HELP and TYPE included. At most 32. */
void metrics_add_collector(void (*collect)(void *ctx, struct gbuf *out), void *ctx);
void metrics_write(struct gbuf *out); /* Prometheus text format 0.0.4. Any thread */
/* For collectors: escapes a label value; the quotes around it are the caller's. */
void metrics_label(struct gbuf *out, str_t value);

#endif
