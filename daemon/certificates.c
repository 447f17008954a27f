/* daemon/certificates.c: see certificates.h. */
#include "daemon/certificates.h"

#include <time.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"

#define CERTIFICATES_MAX 64 /* the configuration takes no more */
#define DAY_NS           (UINT64_C(86400) * NS_PER_S)

void certificates_init(struct certificates *c)
{
    *c = (struct certificates){0};
    pthread_mutex_init(&c->lock, NULL);
}

void certificates_free(struct certificates *c)
{
    tls_context_unref(c->tls);
    pthread_mutex_destroy(&c->lock);
}

void certificates_set(struct certificates *c, const struct snapshot *s)
{
    struct tls_context *old = c->tls;
    pthread_mutex_lock(&c->lock);
    c->tls = s->tls_server ? tls_context_ref(s->tls_server) : NULL;
    pthread_mutex_unlock(&c->lock);
    tls_context_unref(old);
}

static void warn(const struct tls_expiry *e, int64_t left_s)
{
    char date[40] = "";
    struct tm tm;
    time_t at = (time_t)e->not_after_s;
    if (gmtime_r(&at, &tm))
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &tm);
    LOG(certificate_ends, LF_STR("file", e->file), LF_CSTR("not_after", date), LF_I64("days", left_s / 86400),
        LF_CSTR("text", left_s > 0 ? "it ends soon: put a new one there and say postern reload"
                                   : "it has ended: clients that check it do not send"));
}

void certificates_warn(struct certificates *c, const struct snapshot *s)
{
    struct tls_expiry ends[CERTIFICATES_MAX];
    int64_t now_s = (int64_t)(clock_wall_ns() / NS_PER_S),
            within_s = policy_config(s->policy)->tls.warn_before_s;
    size_t n = within_s && s->tls_server ? tls_context_expiries(s->tls_server, ends, CERTIFICATES_MAX) : 0;
    c->warned_ns = clock_mono_ns();
    for (size_t i = 0; i < n; i++)
        if (ends[i].not_after_s - now_s <= within_s)
            warn(&ends[i], ends[i].not_after_s - now_s);
}

void certificates_warn_daily(struct certificates *c, const struct snapshot *s)
{
    if (clock_mono_ns() - c->warned_ns >= DAY_NS)
        certificates_warn(c, s);
}

void certificates_collect(struct certificates *c, struct gbuf *out)
{
    struct tls_expiry ends[CERTIFICATES_MAX];
    pthread_mutex_lock(&c->lock);
    size_t n = c->tls ? tls_context_expiries(c->tls, ends, CERTIFICATES_MAX) : 0;
    if (n)
        gbuf_cstr(
            out,
            "# HELP postern_tls_certificate_not_after_seconds when a certificate of ours ends, or one that "
            "signed it, seconds since 1970\n# TYPE postern_tls_certificate_not_after_seconds gauge\n");
    for (size_t i = 0; i < n; i++) {
        gbuf_cstr(out, "postern_tls_certificate_not_after_seconds{file=\"");
        metrics_label(out, ends[i].file);
        gbuf_printf(out, "\"} %lld\n", (long long)ends[i].not_after_s);
    }
    pthread_mutex_unlock(&c->lock);
}
