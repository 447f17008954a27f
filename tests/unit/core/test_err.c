/* tests/unit/core/test_err.c: every error code has a text. */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/err.h"
#include "unit.h"

static void texts(void **state)
{
    assert_string_equal(err_text(0), "success");
    assert_string_equal(err_text(ERR_SYNTAX), "bad syntax");
    assert_string_equal(err_text(ERR_UNSUPPORTED), "not supported here");
    assert_string_equal(err_text(-ENOENT), "No such file or directory");
    assert_string_equal(err_text(-999), "unknown error");
    assert_string_equal(err_text(-5000), "unknown error");
    assert_string_equal(err_text(7), "unknown error");
    assert_string_equal(err_text(INT32_MIN), "unknown error");
}

static void codes_are_distinct_and_below_errno(void **state)
{
    static const int codes[] = {
#define ERR(name, value, text) name,
#include "core/err.def"
#undef ERR
    };
    for (size_t i = 0; i < COUNT_OF(codes); i++) {
        assert_true(codes[i] < -1000);
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(codes[i], codes[k]);
    }
}

static void broken_invariant_aborts(void **state)
{
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(pipe_fds[1], STDERR_FILENO);
        must(child != 0);
        _exit(0);
    }
    close(pipe_fds[1]);
    char text[256];
    ssize_t n = read(pipe_fds[0], text, sizeof text - 1);
    close(pipe_fds[0]);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "test_err.c"));
    assert_non_null(strstr(text, "child != 0"));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts),
        cmocka_unit_test(codes_are_distinct_and_below_errno),
        cmocka_unit_test(broken_invariant_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
