/* queue/damage.c: damage is counted, logged, and its bytes are kept in corrupt/. While the loop runs the file
 * is written by a thread of its own, since a worker never blocks. */
#include <errno.h>
#include <pthread.h>

#include "core/log.h"
#include "core/metrics.h"
#include "queue/queue_priv.h"

#define JOBS_MAX 16u /* more at once is a dying disk; then the log has to do */

struct qdamage_job {
    struct qdamage_job *next; /* owned */
    pthread_t thread;
    size_t bytes;
    char path[QPATH_BYTES];
    uint8_t data[];
};

err_t qdamage_path(const struct queue *q, uint64_t position, char *out, size_t n)
{
    int len = snprintf(out, n, "%s/corrupt/ring-%02u-%016llx.bin", q->directory, q->opt.ring_index,
                       (unsigned long long)position);
    return len > 0 && (size_t)len < n ? 0 : -ENAMETOOLONG;
}

void qdamage_report(struct queue *q, uint64_t position, uint64_t bytes, uint64_t id, bool kept,
                    const char *text)
{
    q->damaged_records++;
    metric_inc(M_queue_damaged);
    const struct log_field fields[] = {LF_U64("ring", q->opt.ring_index),
                                       LF_U64("offset", qfile_at(q, position)),
                                       LF_U64("bytes", bytes),
                                       LF_CSTR("kept", kept ? "yes" : "no"),
                                       LF_CSTR("text", text),
                                       LF_QID("id", id)};
    log_emit(EV_queue_damage, fields, COUNT_OF(fields) - (id == 0));
}

static void *keep(void *arg)
{
    struct qdamage_job *job = arg;
    err_t err = fsio_append_file(job->path, job->data, job->bytes);
    if (err) {
        metric_inc(M_queue_errors);
        LOG(queue_error, LF_I64("errno", -(int64_t)err), LF_ERR("err", err), LF_CSTR("file", job->path),
            LF_CSTR("text", "damaged bytes could not be kept"));
    }
    return NULL;
}

/* Those that are done make room for others. */
static void reap(struct queue *q)
{
    for (struct qdamage_job **at = &q->damage_jobs; *at;) {
        struct qdamage_job *job = *at;
        if (pthread_tryjoin_np(job->thread, NULL)) {
            at = &job->next;
            continue;
        }
        *at = job->next;
        q->damage_job_count--;
        free(job);
    }
}

bool qdamage_is_busy(struct queue *q)
{
    reap(q);
    return q->damage_jobs != NULL;
}

bool qdamage_append(struct queue *q, uint64_t position, const void *p, size_t n)
{
    reap(q);
    struct qdamage_job *job = q->damage_job_count < JOBS_MAX ? malloc(sizeof *job + n) : NULL;
    if (!job)
        return false;
    job->bytes = n;
    memcpy(job->data, p, n);
    if (qdamage_path(q, position, job->path, sizeof job->path) ||
        pthread_create(&job->thread, NULL, keep, job)) {
        free(job);
        return false;
    }
    job->next = q->damage_jobs;
    q->damage_jobs = job;
    q->damage_job_count++;
    return true;
}

void qdamage_keep(struct queue *q, uint64_t position, const void *p, size_t n, uint64_t id, const char *text)
{
    bool kept = qdamage_append(q, position, p, n);
    qdamage_report(q, position, n, id, kept, text);
}

void qdamage_join(struct queue *q)
{
    while (q->damage_jobs) {
        struct qdamage_job *job = q->damage_jobs;
        q->damage_jobs = job->next;
        pthread_join(job->thread, NULL);
        free(job);
    }
}
