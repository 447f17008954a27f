/* core/metrics_priv.h: where the numbers live, and the sums that the text format prints. */
#ifndef CORE_METRICS_PRIV_H
#define CORE_METRICS_PRIV_H

#include <stdatomic.h>

#include "core/metrics.h"

#define BUCKET_COUNT_MAX 20 /* with +Inf; checked against the table below */
#define REPLY_CODE_MIN   200
#define REPLY_CODE_MAX   599
#define REPLY_CODE_COUNT (REPLY_CODE_MAX - REPLY_CODE_MIN + 1)

struct histogram_cell {
    atomic_uint_fast64_t counts[BUCKET_COUNT_MAX]; /* not cumulative; the last one used is +Inf */
    _Atomic double sum;
};

struct metric_block {
    atomic_int_fast64_t values[M_COUNT];
    struct histogram_cell histograms[H_COUNT];
    atomic_uint_fast64_t replies[REPLY_CODE_COUNT];
};

struct histogram_sum {
    uint64_t counts[BUCKET_COUNT_MAX], count;
    double sum;
};

/* Bounds of a histogram in ascending order, without +Inf. */
const double *metric_bounds(enum histogram h, size_t *count);
/* All numbers of one moment, so that no sum goes back while a thread ends. */
struct metric_sums {
    int64_t values[M_COUNT];
    struct histogram_sum histograms[H_COUNT];
    uint64_t replies[REPLY_CODE_COUNT];
};
void metric_sum_all(struct metric_sums *out);

#endif
