/* core/metrics_text.c: the sums in the Prometheus text format 0.0.4. */
#include <inttypes.h>
#include <pthread.h>

#include "core/limits.h"
#include "core/metrics_priv.h"
#include "core/utf8_priv.h"

enum type { TYPE_COUNTER, TYPE_GAUGE, TYPE_HISTOGRAM };

struct row {
    const char *family, *labels, *help;
    enum type type;
};

static const struct row value_rows[M_COUNT] = {
#define COUNTER(id, family, labels, help) [M_##id] = {family, labels, help, TYPE_COUNTER},
#define GAUGE(id, family, labels, help)   [M_##id] = {family, labels, help, TYPE_GAUGE},
#include "core/metrics.def"
#undef COUNTER
#undef GAUGE
};

static const struct row histogram_rows[H_COUNT] = {
#define HISTOGRAM(id, family, labels, buckets, help) [H_##id] = {family, labels, help, TYPE_HISTOGRAM},
#include "core/histograms.def"
#undef HISTOGRAM
};

struct collector {
    void (*collect)(void *ctx, struct gbuf *out);
    void *ctx; /* not owned */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for the two below */
static struct collector collectors[METRIC_COLLECTORS_MAX];
static size_t collector_count;

void metrics_add_collector(void (*collect)(void *ctx, struct gbuf *out), void *ctx)
{
    pthread_mutex_lock(&lock);
    must(collector_count < COUNT_OF(collectors));
    collectors[collector_count++] = (struct collector){collect, ctx};
    pthread_mutex_unlock(&lock);
}

/* The table's rows of one family stand together: its head comes before the first of them. */
static void write_head(struct gbuf *out, const struct row *rows, size_t i)
{
    static const char *const names[] = {"counter", "gauge", "histogram"};
    const struct row *r = &rows[i];
    if (i > 0 && str_eq(str_cstr(rows[i - 1].family), str_cstr(r->family)))
        return;
    gbuf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", r->family, r->help, r->family, names[r->type]);
}

static void write_labels(struct gbuf *out, const char *labels)
{
    if (labels[0])
        gbuf_printf(out, "{%s}", labels);
}

static void write_values(struct gbuf *out, const struct metric_sums *sums)
{
    for (size_t i = 0; i < M_COUNT; i++) {
        write_head(out, value_rows, i);
        gbuf_cstr(out, value_rows[i].family);
        write_labels(out, value_rows[i].labels);
        gbuf_printf(out, " %" PRId64 "\n", sums->values[i]);
    }
}

static void write_histogram(struct gbuf *out, const struct row *r, enum histogram h,
                            const struct histogram_sum *sum)
{
    const char *comma = r->labels[0] ? "," : "";
    size_t bound_count;
    const double *bounds = metric_bounds(h, &bound_count);
    uint64_t up_to = 0;
    for (size_t i = 0; i < bound_count; i++) {
        up_to += sum->counts[i];
        gbuf_printf(out, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", r->family, r->labels, comma, bounds[i],
                    up_to);
    }
    gbuf_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", r->family, r->labels, comma, sum->count);
    gbuf_printf(out, "%s_sum", r->family);
    write_labels(out, r->labels);
    gbuf_printf(out, " %.15g\n%s_count", sum->sum, r->family);
    write_labels(out, r->labels);
    gbuf_printf(out, " %" PRIu64 "\n", sum->count);
}

static void write_replies(struct gbuf *out, const struct metric_sums *sums)
{
    bool has_head = false;
    for (size_t i = 0; i < REPLY_CODE_COUNT; i++) {
        if (!sums->replies[i])
            continue;
        if (!has_head)
            gbuf_cstr(out, "# HELP postern_smtp_replies_total SMTP replies sent to clients, by code\n"
                           "# TYPE postern_smtp_replies_total counter\n");
        has_head = true;
        gbuf_printf(out, "postern_smtp_replies_total{code=\"%zu\"} %" PRIu64 "\n", i + REPLY_CODE_MIN,
                    sums->replies[i]);
    }
}

void metrics_write(struct gbuf *out)
{
    struct metric_sums sums;
    metric_sum_all(&sums);
    gbuf_cstr(out, "# HELP postern_build_info the running version; always 1\n"
                   "# TYPE postern_build_info gauge\n"
                   "postern_build_info{version=\"" POSTERN_VERSION "\"} 1\n");
    write_values(out, &sums);
    write_replies(out, &sums);
    for (size_t h = 0; h < H_COUNT; h++) {
        write_head(out, histogram_rows, h);
        write_histogram(out, &histogram_rows[h], (enum histogram)h, &sums.histograms[h]);
    }

    /* Called without the lock: a collector may read metrics, take locks of its own, or take its time. */
    struct collector now[METRIC_COLLECTORS_MAX];
    pthread_mutex_lock(&lock);
    size_t count = collector_count;
    memcpy(now, collectors, sizeof now);
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < count; i++)
        now[i].collect(now[i].ctx, out);
}

void metrics_label(struct gbuf *out, str_t value)
{
    for (size_t at = 0; at < value.n;) {
        uint32_t cp;
        size_t n = utf8_decode(value, at, &cp);
        if (!n)
            gbuf_cstr(out, "\xef\xbf\xbd"); /* U+FFFD: one bad byte makes the whole scrape fail */
        else if (cp == '\n')
            gbuf_cstr(out, "\\n");
        else if (cp == '"' || cp == '\\')
            gbuf_printf(out, "\\%c", (char)cp);
        else
            gbuf_put(out, value.p + at, n);
        at += MAX(n, (size_t)1);
    }
}
