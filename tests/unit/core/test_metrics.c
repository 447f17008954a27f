/* tests/unit/core/test_metrics.c: sums over threads alive and gone, and the text format. */
#include <math.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/metrics.h"
#include "unit.h"

static void adds_without_a_block(void **state)
{
    int64_t before = metric_read(M_loop_ticks);
    metric_inc(M_loop_ticks);
    metric_add(M_loop_ticks, 41);
    assert_int_equal(metric_read(M_loop_ticks), before + 42);
}

static void *count_a_little(void *arg)
{
    if (arg && metrics_thread_start())
        return NULL;
    for (int i = 0; i < 1000; i++) {
        metric_inc(M_messages_out);
        metric_add(M_sessions_open, i % 2 ? -1 : 1);
        metric_observe(H_dns_s, 0.5);
        metric_reply(354);
    }
    metric_add(M_sessions_open, 1);
    return arg;
}

static void sums_survive_threads(void **state)
{
    pthread_t threads[8];
    void *ok;
    int64_t before = metric_read(M_messages_out), gauge = metric_read(M_sessions_open);
    uint64_t count = metric_histogram_count(H_dns_s);
    double sum = metric_histogram_sum(H_dns_s);
    for (uintptr_t i = 0; i < COUNT_OF(threads); i++) /* half of them share a block */
        assert_int_equal(pthread_create(&threads[i], NULL, count_a_little, (void *)(i % 2)), 0);
    int64_t last = before;
    for (int i = 0; i < 200; i++) { /* scrapes while they run and end: a counter never goes back */
        int64_t now = metric_read(M_messages_out);
        assert_true(now >= last);
        last = now;
    }
    for (uintptr_t i = 0; i < COUNT_OF(threads); i++) {
        pthread_join(threads[i], &ok);
        assert_ptr_equal(ok, (void *)(i % 2));
    }
    assert_int_equal(metric_read(M_messages_out), before + 8000);
    assert_int_equal(metric_read(M_sessions_open), gauge + 8);
    assert_int_equal(metric_histogram_count(H_dns_s), count + 8000);
    assert_true(metric_histogram_sum(H_dns_s) == sum + 4000);
    metric_add(M_sessions_open, -8);
}

static void *set_gauge(void *arg)
{
    assert_int_equal(metrics_thread_start(), 0);
    metric_set(M_queue_messages, 5);
    metric_set(M_queue_messages, 7);
    assert_int_equal(metric_read(M_queue_messages), 10 + 7);
    metric_set(M_queue_messages, 0);
    return NULL;
}

static void gauges_are_shares(void **state)
{
    assert_int_equal(metrics_thread_start(), 0);
    assert_int_equal(metrics_thread_start(), 0); /* twice is fine */
    metric_set(M_queue_messages, 10);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, set_gauge, NULL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(metric_read(M_queue_messages), 10);
    metric_set(M_queue_messages, 0);
}

static size_t count_of(str_t s, const char *needle)
{
    size_t count = 0, n = strlen(needle);
    for (const char *at = s.p; (at = memmem(at, s.n - (size_t)(at - s.p), needle, n)) != NULL; at += n)
        count++;
    return count;
}

static void histograms(void **state)
{
    metric_observe(H_queue_commit_batch, 1); /* a bound belongs to its bucket */
    metric_observe(H_queue_commit_batch, 3);
    metric_observe(H_queue_commit_batch, 5000);
    metric_observe(H_queue_commit_batch, -1); /* counts as 0 */
    metric_observe(H_queue_commit_batch, (double)NAN);
    assert_int_equal(metric_histogram_count(H_queue_commit_batch), 5);
    assert_true(metric_histogram_sum(H_queue_commit_batch) == 5004);
    struct gbuf out = {0};
    metrics_write(&out);
    str_t s = gbuf_view(&out);
    assert_int_equal(count_of(s, "\npostern_queue_commit_messages_bucket{le=\"1\"} 3\n"), 1);
    assert_int_equal(count_of(s, "\npostern_queue_commit_messages_bucket{le=\"2\"} 3\n"), 1);
    assert_int_equal(count_of(s, "\npostern_queue_commit_messages_bucket{le=\"4\"} 4\n"), 1);
    assert_int_equal(count_of(s, "\npostern_queue_commit_messages_bucket{le=\"1024\"} 4\n"), 1);
    assert_int_equal(count_of(s, "\npostern_queue_commit_messages_bucket{le=\"+Inf\"} 5\n"), 1);
    assert_int_equal(count_of(s, "\npostern_queue_commit_messages_sum 5004\n"), 1);
    assert_int_equal(count_of(s, "\npostern_queue_commit_messages_count 5\n"), 1);
    assert_int_equal(count_of(s, "\npostern_loop_seconds_bucket{part=\"tick\",le=\"1e-05\"} "), 1);
    gbuf_free(&out);
}

static void collect(void *ctx, struct gbuf *out)
{
    gbuf_cstr(out, "# HELP postern_test_messages a family of run time\n# TYPE postern_test_messages gauge\n"
                   "postern_test_messages{destination=\"");
    metrics_label(out, STR("a\"b\\c\nd\xff\xc3\xbc"));
    gbuf_printf(out, "\"} %d\n", *(int *)ctx + (int)metric_read(M_queue_messages)); /* no dead lock */
}

static void text_format(void **state)
{
    static int value = 9;
    metrics_add_collector(collect, &value);
    metric_reply(250);
    metric_reply(250);
    metric_reply(599);
    struct gbuf out = {0};
    metrics_write(&out);
    str_t s = gbuf_view(&out);
    assert_false(out.overflow);
    assert_true(str_is_utf8(s));
    assert_int_equal(count_of(s, "postern_build_info{version=\"" POSTERN_VERSION "\"} 1\n"), 1);
    assert_int_equal(count_of(s, "# TYPE postern_sessions_total counter\n"), 1);
    assert_int_equal(count_of(s, "# TYPE postern_loop_seconds histogram\n"), 1);
    assert_int_equal(count_of(s, "# HELP postern_loop_seconds "), 1);
    assert_int_equal(count_of(s, "\npostern_sessions_total{class=\"edge\"} 0\n"), 1);
    assert_int_equal(count_of(s, "\npostern_smtp_replies_total{code=\"250\"} 2\n"), 1);
    assert_int_equal(count_of(s, "\npostern_smtp_replies_total{code=\"599\"} 1\n"), 1);
    assert_int_equal(count_of(s, "postern_smtp_replies_total{code=\"200\"}"), 0); /* only what was seen */
    assert_int_equal(
        count_of(s, "\npostern_test_messages{destination=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\xc3\xbc\"} 9\n"), 1);
    gbuf_free(&out);
}

static void promtool_likes_it(void **state)
{
    if (access("/usr/bin/promtool", X_OK) != 0) {
        skip();
        return;
    }
    struct gbuf out = {0};
    metrics_write(&out);
    FILE *promtool = popen("/usr/bin/promtool check metrics 2>&1", "w");
    assert_non_null(promtool);
    assert_int_equal(fwrite(out.p, 1, out.n, promtool), out.n);
    int status = pclose(promtool);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    gbuf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adds_without_a_block), cmocka_unit_test(sums_survive_threads),
        cmocka_unit_test(gauges_are_shares),    cmocka_unit_test(histograms),
        cmocka_unit_test(text_format),          cmocka_unit_test(promtool_likes_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
