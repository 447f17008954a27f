/* bench/source/source.c: postern-source: sends many messages over many sessions and says how it went. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/source/source_priv.h"
#include "core/clock.h"
#include "core/log.h"

static pthread_mutex_t done_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done_cond = PTHREAD_COND_INITIALIZER;
static unsigned done_count;
static uint32_t held_count;

void source_thread_done(struct source_thread *t)
{
    (void)t;
    pthread_mutex_lock(&done_lock);
    done_count++;
    pthread_cond_signal(&done_cond);
    pthread_mutex_unlock(&done_lock);
}

void source_session_held(struct source_thread *t)
{
    (void)t;
    pthread_mutex_lock(&done_lock);
    held_count++;
    pthread_cond_signal(&done_cond);
    pthread_mutex_unlock(&done_lock);
}

struct starter {
    struct mail mail;
    struct source_thread *t;
    uint64_t start_ns;
};

static void start_sessions(struct mail *m)
{
    struct starter *s = container_of(m, struct starter, mail);
    pace_start(s->t->pace, s->start_ns);
    must(source_sessions_start(s->t) == 0);
}

static void *thread_main(void *arg)
{
    struct starter *s = arg;
    s->mail.deliver = start_sessions;
    loop_post(s->t->loop, &s->mail);
    loop_run(s->t->loop);
    return NULL;
}

/* Numbers are dealt so that no two threads have one in common: recipients are made of them. */
static int open_thread(struct source_thread *t, const struct source_options *o, unsigned index)
{
    struct loop_options lo = {.cpu = -1, .name = "postern-source"};
    uint64_t per = o->message_count / o->thread_count, over = o->message_count % o->thread_count;
    uint64_t quota = per + (index < over), first = per * index + MIN(index, over);
    uint32_t sessions = o->session_count / o->thread_count;
    *t = (struct source_thread){.opt = o, .index = index, .ids_fd = -1};
    t->session_count = MAX(sessions + (index < o->session_count % o->thread_count), 1u);
    if (!o->hold_s)
        t->session_count = (uint32_t)MIN((uint64_t)t->session_count, MAX(quota, UINT64_C(1)));
    err_t err = loop_create(&t->loop, &lo);
    if (err) {
        fprintf(stderr, "postern-source: %s\n", loop_create_hint(err));
        return EX_OSERR;
    }
    must(pace_create(&t->pace, t, first, quota) == 0);
    if (o->ids_path) {
        t->ids_fd = open(o->ids_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (t->ids_fd < 0) {
            perror(o->ids_path);
            return EX_CANTCREAT;
        }
    }
    return 0;
}

/* All sessions that can be are open; says so, and waits, or until a signal. */
static void hold(const struct source_options *o, const sigset_t *ends)
{
    struct timespec left = {.tv_sec = o->hold_s};
    printf("held=%u\n", held_count);
    fflush(stdout);
    (void)sigtimedwait(ends, NULL, &left);
}

static void wait_for_threads(const struct source_options *o, const sigset_t *ends)
{
    pthread_mutex_lock(&done_lock);
    while (done_count < o->thread_count && (!o->hold_s || held_count < o->session_count))
        pthread_cond_wait(&done_cond, &done_lock);
    pthread_mutex_unlock(&done_lock);
    if (o->hold_s)
        hold(o, ends);
}

static void allow_files(uint32_t sessions)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur > sessions + 64u)
        return;
    r.rlim_cur = MAX(r.rlim_cur, (rlim_t)sessions + 64u);
    r.rlim_max = MAX(r.rlim_max, r.rlim_cur);
    if (setrlimit(RLIMIT_NOFILE, &r))
        fprintf(stderr, "postern-source: %u sessions are more than the open files that we may have\n",
                sessions);
}

int main(int argc, char **argv)
{
    static struct source_results sum;
    struct source_options o;
    sigset_t ends;
    int status = source_options_parse(argc, argv, &o);
    if (!status)
        status = source_bodies_make(&o);
    if (status)
        return status;
    signal(SIGPIPE, SIG_IGN);
    log_set(LOG_LOGFMT, LOG_WARN);
    sigemptyset(&ends);
    if (o.hold_s) {
        sigaddset(&ends, SIGTERM);
        sigaddset(&ends, SIGINT);
        pthread_sigmask(SIG_BLOCK, &ends, NULL);
    }
    allow_files(o.session_count);
    struct source_thread *threads = calloc(o.thread_count, sizeof *threads);
    struct starter *starters = calloc(o.thread_count, sizeof *starters);
    must(threads && starters);
    for (unsigned i = 0; i < o.thread_count; i++) {
        status = open_thread(&threads[i], &o, i);
        if (status)
            return status;
    }
    uint64_t started = clock_mono_ns();
    for (unsigned i = 0; i < o.thread_count; i++) {
        starters[i] = (struct starter){.t = &threads[i], .start_ns = started};
        must(pthread_create(&threads[i].thread, NULL, thread_main, &starters[i]) == 0);
    }
    wait_for_threads(&o, &ends);
    for (unsigned i = 0; i < o.thread_count; i++) {
        loop_stop(threads[i].loop);
        if (!o.hold_s) /* held sessions go with the process */
            pthread_join(threads[i].thread, NULL);
        source_results_add(&sum, &threads[i].results);
    }
    const struct source_results *r = &sum;
    source_results_print(&o, r, r->last_ok_ns > started ? (double)(r->last_ok_ns - started) / 1e9 : 0.0);
    fflush(stdout);
    _exit(!o.hold_s && (r->refused || r->ok + r->turned_away < o.message_count) ? 1 : 0);
}
