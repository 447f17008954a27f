/* daemon/ask.c: see ask.h. */
#include "daemon/ask.h"

#include <time.h>

#include "core/clock.h"
#include "daemon/gateway.h"

/* The last of asker and answerers frees it: an asker that gave up leaves the rest behind safely. */
struct question {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    unsigned pending_count, ref_count;
    atomic_bool abandoned;
    const struct ask_kind *kind;
    void *arg; /* owned */
    unsigned count;
    struct ask asks[];
};

static void release(struct question *q)
{
    pthread_mutex_lock(&q->lock);
    unsigned left = --q->ref_count;
    pthread_mutex_unlock(&q->lock);
    if (left)
        return;
    for (unsigned i = 0; i < q->count; i++) {
        json_decref(q->asks[i].result);
        gbuf_free(&q->asks[i].bytes);
    }
    if (q->kind->free_arg)
        q->kind->free_arg(q->arg);
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->answered);
    free(q);
}

const void *ask_arg(const struct ask *a)
{
    return a->q->arg;
}

bool ask_is_abandoned(const struct ask *a)
{
    return atomic_load_explicit(&a->q->abandoned, memory_order_relaxed);
}

void ask_answer(struct ask *a, json_t *result, struct gbuf *bytes)
{
    struct question *q = a->q;
    pthread_mutex_lock(&q->lock);
    a->result = result;
    if (bytes) {
        a->bytes = *bytes;
        *bytes = (struct gbuf){0};
    }
    q->pending_count--;
    pthread_cond_signal(&q->answered);
    pthread_mutex_unlock(&q->lock);
    release(q);
}

static void begin_on_loop(struct mail *m)
{
    struct ask *a = container_of(m, struct ask, mail);
    if (a->w->state < WORKER_CLOSING_QUEUE && a->w->relay)
        a->q->kind->begin(a);
    else
        ask_answer(a, NULL, NULL);
}

static struct question *question_new(struct gateway *g, const struct ask_kind *kind, void *arg)
{
    struct question *q = calloc(1, sizeof *q + g->worker_count * sizeof q->asks[0]);
    if (!q)
        return NULL;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->answered, NULL);
    q->kind = kind;
    q->arg = arg;
    q->count = q->pending_count = g->worker_count;
    q->ref_count = g->worker_count + 1;
    return q;
}

/* From here on the answers are this thread's alone. */
static json_t *take_answers(struct question *q, struct gbuf *bytes)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < q->count; i++) {
        struct ask *a = &q->asks[i];
        if (a->result)
            json_array_append_new(all, a->result);
        a->result = NULL;
        if (bytes && a->bytes.p) {
            gbuf_free(bytes);
            *bytes = a->bytes;
            a->bytes = (struct gbuf){0};
        }
    }
    return all;
}

json_t *ask_workers(struct gateway *g, const struct ask_kind *kind, void *arg, struct gbuf *bytes)
{
    struct question *q = question_new(g, kind, arg);
    struct timespec until;
    if (!q) {
        if (kind->free_arg)
            kind->free_arg(arg);
        return NULL;
    }
    for (unsigned i = 0; i < g->worker_count; i++) {
        q->asks[i] = (struct ask){.mail.deliver = begin_on_loop, .q = q, .w = &g->workers[i]};
        loop_post(g->workers[i].loop, &q->asks[i].mail);
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)kind->patience_s;
    int err = 0;
    pthread_mutex_lock(&q->lock);
    while (q->pending_count && !err)
        err = pthread_cond_clockwait(&q->answered, &q->lock, CLOCK_MONOTONIC, &until);
    json_t *all = q->pending_count ? NULL : take_answers(q, bytes);
    pthread_mutex_unlock(&q->lock);
    if (!all)
        atomic_store_explicit(&q->abandoned, true, memory_order_relaxed);
    release(q);
    return all;
}

/* --- pieces of answers --- */

json_t *json_of_str(str_t s)
{
    return s.p && str_is_utf8(s) ? json_stringn(s.p, s.n) : json_null();
}

json_t *json_of_time(uint64_t wall_ms)
{
    char text[40];
    if (!wall_ms)
        return json_null();
    return json_stringn(text, clock_rfc3339(wall_ms * NS_PER_MS, text));
}

str_t reason_of(const struct relay_message_info *info)
{
    str_t state = str_cstr(info->state);
    if (str_eq(state, STR("leased")))
        return STR("being exported");
    if (info->last_text.p)
        return info->last_text;
    return str_eq(state, STR("active")) ? STR("being delivered")
           : str_eq(state, STR("held")) ? STR("held")
                                        : STR("not tried since the start");
}

double seconds_since(uint64_t wall_ms)
{
    uint64_t now = clock_wall_ns() / NS_PER_MS;
    return wall_ms && now > wall_ms ? (double)(now - wall_ms) / 1000.0 : 0.0;
}
