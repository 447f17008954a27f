/* bench/source/results.c: what is printed at the end. */
#include <stdio.h>
#include <sys/resource.h>

#include "bench/source/source_priv.h"

static const char *const stage_names[] = {
#define X(name, text) [STAGE_##name] = text,
    SOURCE_STAGE_LIST(X)
#undef X
};

void source_results_add(struct source_results *sum, const struct source_results *r)
{
    sum->ok += r->ok;
    sum->refused += r->refused;
    sum->turned_away += r->turned_away;
    sum->connects += r->connects;
    sum->lost += r->lost;
    sum->bytes += r->bytes;
    sum->handshakes += r->handshakes;
    sum->rcpt_taken += r->rcpt_taken;
    sum->rcpt_deferred += r->rcpt_deferred;
    sum->rcpt_refused += r->rcpt_refused;
    sum->rcpt_wrong += r->rcpt_wrong;
    sum->last_ok_ns = MAX(sum->last_ok_ns, r->last_ok_ns);
    for (unsigned i = 0; i < SOURCE_STAGES; i++)
        latency_merge(&sum->latency[i], &r->latency[i]);
    if (!sum->first_error[0])
        memcpy(sum->first_error, r->first_error, sizeof sum->first_error);
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void print_stages(const struct source_results *r)
{
    const char *sep = "";
    printf(", \"stages\": {");
    for (unsigned i = 0; i < SOURCE_STAGES; i++) {
        const struct latency *l = &r->latency[i];
        if (!l->count)
            continue;
        printf("%s\"%s\": {\"count\": %llu, \"mean_ms\": %.3f, \"p50_ms\": %.3f, \"p90_ms\": %.3f, "
               "\"p99_ms\": %.3f, \"p999_ms\": %.3f, \"max_ms\": %.3f}",
               sep, stage_names[i], (unsigned long long)l->count, (double)l->sum_us / (double)l->count / 1000,
               latency_quantile_ms(l, 0.5), latency_quantile_ms(l, 0.9), latency_quantile_ms(l, 0.99),
               latency_quantile_ms(l, 0.999), (double)l->max_us / 1000);
        sep = ", ";
    }
    printf("}}\n");
}

void source_results_print(const struct source_options *o, const struct source_results *r, double elapsed_s)
{
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {{"messages", r->ok},
                  {"refused", r->refused},
                  {"turned_away", r->turned_away},
                  {"connections", r->connects},
                  {"lost_connections", r->lost},
                  {"tls_handshakes", r->handshakes},
                  {"rcpt_taken", r->rcpt_taken},
                  {"rcpt_deferred", r->rcpt_deferred},
                  {"rcpt_refused", r->rcpt_refused},
                  {"rcpt_wrong", r->rcpt_wrong},
                  {"bytes", r->bytes}};
    const struct latency *message = &r->latency[STAGE_MESSAGE];
    double rate = elapsed_s > 0 ? (double)(r->ok + r->turned_away) / elapsed_s : 0.0;
    double p50 = latency_quantile_ms(message, 0.5), p99 = latency_quantile_ms(message, 0.99);
    if (o->json)
        printf("{");
    for (unsigned i = 0; i < COUNT_OF(counts); i++)
        printf(o->json ? "\"%s\": %llu, " : "%s=%llu ", counts[i].name, (unsigned long long)counts[i].value);
    if (o->json) {
        printf("\"seconds\": %.6f, \"per_second\": %.1f, \"cpu_seconds\": %.3f, \"p50_ms\": %.3f, "
               "\"p99_ms\": %.3f",
               elapsed_s, rate, cpu_seconds(), p50, p99);
        print_stages(r);
    } else {
        printf("seconds=%.3f per_second=%.1f cpu_seconds=%.3f p50_ms=%.3f p99_ms=%.3f\n", elapsed_s, rate,
               cpu_seconds(), p50, p99);
    }
    if (r->first_error[0])
        fprintf(stderr, "postern-source: first problem: %s\n", r->first_error);
}
