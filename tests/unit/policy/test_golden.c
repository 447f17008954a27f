/* Every tests/golden/config/NAME.yaml is loaded and compiled; NAME.expect holds what is said about it and the
 * outcome. With POSTERN_GOLDEN_UPDATE=1 in the environment the expectations are written instead: read the
 * difference before you commit it. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>

#include "fake_resolver.h"

#include <cmocka.h>

#define GOLDEN_DIR TESTS_DIR "/golden/config"

static void read_whole(const char *path, struct gbuf *out)
{
    char chunk[4096];
    size_t n;
    FILE *f = fopen(path, "rb");
    if (!f)
        return;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        gbuf_put(out, chunk, n);
    fclose(f);
}

static void say_outcome(const char *file, str_t yaml, struct gbuf *out)
{
    struct diag d = {.file = file};
    struct config *c;
    struct policy *p = NULL;

    err_t err = config_load_text(yaml, file, &c, &d);
    const char *step = err ? "load" : "build";
    if (!err)
        err = policy_build(&p, c, &fake_resolver, &d);
    gbuf_str(out, gbuf_view(&d.text));
    gbuf_printf(out, "%s: %s (%u errors, %u warnings)\n", step, err_text(err), d.error_count,
                d.warning_count);
    assert_int_equal(err == 0, d.error_count == 0);
    policy_free(p);
    diag_free(&d);
}

static bool check_file(const char *name, bool update)
{
    struct gbuf yaml = {0}, expected = {0}, said = {0};
    char path[512];

    snprintf(path, sizeof path, GOLDEN_DIR "/%s", name);
    read_whole(path, &yaml);
    say_outcome(name, gbuf_view(&yaml), &said);
    snprintf(path, sizeof path, GOLDEN_DIR "/%.*s.expect", (int)(strlen(name) - strlen(".yaml")), name);
    if (update) {
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(said.p, 1, said.n, f), said.n);
        assert_int_equal(fclose(f), 0);
    } else {
        read_whole(path, &expected);
    }
    bool same = update || str_eq(gbuf_view(&said), gbuf_view(&expected));
    if (!same)
        print_error("%s: expected\n" STR_FMT "but got\n" STR_FMT, name, STR_ARG(gbuf_view(&expected)),
                    STR_ARG(gbuf_view(&said)));
    gbuf_free(&yaml);
    gbuf_free(&expected);
    gbuf_free(&said);
    return same;
}

static void test_golden_files(void **state)
{
    bool update = getenv("POSTERN_GOLDEN_UPDATE") != NULL;
    unsigned files = 0, wrong = 0;
    DIR *dir = opendir(GOLDEN_DIR);

    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        if (!str_ends(str_cstr(e->d_name), STR(".yaml")))
            continue;
        files++;
        wrong += !check_file(e->d_name, update);
    }
    closedir(dir);
    assert_int_equal(wrong, 0);
    assert_true(files >= 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
