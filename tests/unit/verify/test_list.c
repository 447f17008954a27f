/* tests/unit/verify/test_list.c: tests of verify/list.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "verify/list.h"

static const struct verdict_key_rules rules = {.fold_case = true};

static struct recipient_list *parse(const char *text, const struct verdict_key_rules *r, struct diag *d)
{
    struct recipient_list *l;
    d->file = "list";
    assert_int_equal(recipient_list_parse(&l, str_cstr(text), r, d), 0);
    return l;
}

static bool has(const struct recipient_list *l, const char *key)
{
    return recipient_list_has(l, str_cstr(key));
}

static void assert_text(const struct diag *d, const char *want)
{
    if (!str_eq(gbuf_view(&d->text), str_cstr(want)))
        fail_msg("got \"" STR_FMT "\", want \"%s\"", STR_ARG(gbuf_view(&d->text)), want);
}

static void test_good(void **state)
{
    struct diag d = {0};
    (void)state;
    struct recipient_list *l = parse("\xEF\xBB\xBF# staff\n"
                                     "Alice@Example.COM\n"
                                     "  bob@example.com  # left in 2027\r\n"
                                     "\n"
                                     "\t\r\n"
                                     "#carol@example.com\n"
                                     "d#ve@example.com\n"
                                     "@all.example\r\n"
                                     "@m\xC3\xBCnchen.example\n"
                                     "\"odd one\"@example.com\n"
                                     "alice@example.com\n"
                                     "last@example.com",
                                     &rules, &d);
    assert_int_equal(d.warning_count + d.error_count, 0);
    assert_int_equal(recipient_list_count(l), 7);
    assert_true(has(l, "alice@example.com"));
    assert_true(has(l, "bob@example.com"));
    assert_false(has(l, "carol@example.com"));
    assert_true(has(l, "d#ve@example.com"));
    assert_true(has(l, "anyone@all.example"));
    assert_true(has(l, "\"odd@ one\"@all.example"));
    assert_false(has(l, "anyone@sub.all.example"));
    assert_true(has(l, "x@xn--mnchen-3ya.example"));
    assert_true(has(l, "\"odd one\"@example.com"));
    assert_true(has(l, "last@example.com"));
    assert_false(has(l, "nobody@example.com"));
    assert_false(has(l, "example.com"));
    assert_false(has(l, ""));
    recipient_list_unref(l);
    diag_free(&d);
}

static void test_rules(void **state)
{
    const struct verdict_key_rules exact = {.fold_case = false}, tags = {.fold_case = true, .separator = '+'};
    struct diag d = {0};
    (void)state;
    struct recipient_list *l = parse("Bob@example.com\n", &exact, &d);
    assert_true(has(l, "Bob@example.com"));
    assert_false(has(l, "bob@example.com"));
    recipient_list_unref(l);
    l = parse("bob+x@example.com\n", &tags, &d);
    assert_true(has(l, "bob@example.com"));
    recipient_list_unref(l);
    diag_free(&d);
}

static void test_bad_lines(void **state)
{
#define SKIPPED                                                                                              \
    " is skipped: expected one address, such as user@example.com, or @example.com for all of a domain\n"
    struct diag d = {0};
    (void)state;
    struct recipient_list *l = parse("bob\n"
                                     "good@example.com\n"
                                     "  a@b.example c@d.example\n"
                                     "@\n"
                                     "@-x..\n"
                                     "<eve@example.com>\n"
                                     "\xFF@example.com\n"
                                     "esc\x1b[2J\n",
                                     &rules, &d);
    assert_text(&d,
                "list:1:1: warning: \"bob\"" SKIPPED "list:3:3: warning: \"a@b.example c@d.example\"" SKIPPED
                "list:4:1: warning: \"@\"" SKIPPED "list:5:1: warning: \"@-x..\"" SKIPPED
                "list:6:1: warning: \"<eve@example.com>\"" SKIPPED
                "list:7:1: warning: \"\xFF@example.com\"" SKIPPED "list:8:1: warning: \"esc?[2J\"" SKIPPED);
    assert_int_equal(recipient_list_count(l), 1);
    recipient_list_unref(l);
    diag_free(&d);
}

static void test_many_bad_lines(void **state)
{
    struct gbuf text = {0};
    struct diag d = {.file = "list"};
    struct recipient_list *l;
    (void)state;
    for (int i = 0; i < 1000; i++)
        gbuf_cstr(&text, "bad\n");
    assert_int_equal(recipient_list_parse(&l, gbuf_view(&text), &rules, &d), 0);
    assert_int_equal(d.warning_count, RECIPIENT_LIST_NOTES_MAX + 1);
    assert_true(str_ends(gbuf_view(&d.text), STR("list: warning: 980 more lines are skipped for the same "
                                                 "reason\n")));
    recipient_list_unref(l);
    gbuf_free(&text);
    diag_free(&d);
}

/* --- files --- */

struct file {
    char path[64];
};

static int set_up(void **state)
{
    struct file *f = calloc(1, sizeof *f);
    *state = f;
    snprintf(f->path, sizeof f->path, "/tmp/postern-list-XXXXXX");
    int fd = f ? mkstemp(f->path) : -1;
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
    struct file *f = *state;
    remove(f->path);
    free(f);
    return 0;
}

static void write_numbers(const struct file *f, unsigned from, unsigned to)
{
    FILE *out = fopen(f->path, "w");
    assert_non_null(out);
    for (unsigned i = from; i < to; i++)
        fprintf(out, "user%u@example.com\n", i);
    assert_int_equal(fclose(out), 0);
}

static void test_shrink(void **state)
{
    static const struct {
        unsigned from, to; /* of what comes after 0..1000 */
        uint32_t percent;
        bool confirmed;
        err_t want;
    } cases[] = {
        {0, 1000, 0, false, 0},
        {0, 2000, 0, false, 0},
        {0, 999, 0, false, ERR_LIMIT},
        {0, 800, 20, false, 0},
        {0, 799, 20, false, ERR_LIMIT},
        {0, 799, 20, true, 0},
        {0, 0, 20, false, ERR_LIMIT},
        {0, 0, 100, false, 0},
        {200, 5000, 20, false, 0},
        {201, 5000, 20, false, ERR_LIMIT}, /* larger, but others */
        {5000, 9000, 99, false, ERR_LIMIT},
    };
    struct file *f = *state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct diag d = {.file = "outer"};
        struct recipient_list *before, *after;
        write_numbers(f, 0, 1000);
        assert_int_equal(recipient_list_load(&before, f->path, &rules, NULL, 20, false, &d), 0);
        write_numbers(f, cases[i].from, cases[i].to);
        err_t err =
            recipient_list_load(&after, f->path, &rules, before, cases[i].percent, cases[i].confirmed, &d);
        if (err != cases[i].want)
            fail_msg("case %zu: %s", i, err_text(err));
        assert_int_equal(after == NULL, err != 0);
        assert_int_equal(d.error_count, err != 0);
        assert_string_equal(d.file, "outer");
        if (!err)
            assert_int_equal(recipient_list_count(after), cases[i].to - cases[i].from);
        recipient_list_unref(before);
        recipient_list_unref(after);
        diag_free(&d);
    }
}

/* Other keys are no loss. */
static void test_shrink_with_other_rules(void **state)
{
    const struct verdict_key_rules tags = {.fold_case = true, .separator = 'r'};
    struct file *f = *state;
    struct diag d = {0};
    struct recipient_list *before, *after;
    write_numbers(f, 0, 100);
    assert_int_equal(recipient_list_load(&before, f->path, &tags, NULL, 0, false, &d), 0);
    assert_int_equal(recipient_list_count(before), 1); /* "use" */
    assert_int_equal(recipient_list_load(&after, f->path, &rules, before, 0, false, &d), 0);
    recipient_list_unref(before);
    recipient_list_unref(after);
    diag_free(&d);
}

static void test_message_of_refusal(void **state)
{
    struct file *f = *state;
    struct diag d = {0};
    struct recipient_list *before, *after;
    char want[512];
    write_numbers(f, 0, 10);
    assert_int_equal(recipient_list_load(&before, f->path, &rules, NULL, 20, false, &d), 0);
    write_numbers(f, 0, 5);
    assert_int_equal(recipient_list_load(&after, f->path, &rules, before, 20, false, &d), ERR_LIMIT);
    snprintf(
        want, sizeof want,
        "%s: error: 5 of the list's 10 entries are missing, more than the 20 %% that verify.list_shrink "
        "allows; the list that was loaded before stays in force. If the new one is meant: postern reload "
        "shrunk-lists\n",
        f->path);
    assert_text(&d, want);
    recipient_list_unref(before);
    diag_free(&d);
}

static void test_unreadable(void **state)
{
    static const char *const paths[] = {"/nowhere/at/all", "/tmp", "/dev/null"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        struct diag d = {0};
        struct recipient_list *l;
        assert_int_not_equal(recipient_list_load(&l, paths[i], &rules, NULL, 20, false, &d), 0);
        assert_null(l);
        assert_int_equal(d.error_count, 1);
        diag_free(&d);
    }
    struct diag d = {0};
    struct recipient_list *l;
    struct file *f = *state;
    remove(f->path);
    assert_int_equal(mkfifo(f->path, 0600), 0); /* nobody writes: it must not wait */
    assert_int_equal(recipient_list_load(&l, f->path, &rules, NULL, 20, false, &d), ERR_UNSUPPORTED);
    diag_free(&d);
}

static void test_huge(void **state)
{
    struct file *f = *state;
    struct diag d = {0};
    struct recipient_list *l;
    char key[64];
    write_numbers(f, 0, 200000);
    assert_int_equal(recipient_list_load(&l, f->path, &rules, NULL, 20, false, &d), 0);
    assert_int_equal(recipient_list_count(l), 200000);
    for (unsigned i = 0; i < 200000; i += 997) {
        snprintf(key, sizeof key, "user%u@example.com", i);
        assert_true(has(l, key));
    }
    recipient_list_unref(l);
    diag_free(&d);
}

static void test_versions(void **state)
{
    struct file *f = *state;
    struct diag d = {0};
    struct recipient_list *l;
    struct file_mark one, two;
    write_numbers(f, 0, 10);
    assert_int_equal(recipient_list_load(&l, f->path, &rules, NULL, 20, false, &d), 0);
    assert_true(recipient_list_changed(l, f->path, &one)); /* it may have changed in the same moment */
    assert_false(file_mark_is_settled(&one, one.changed_ns + 999999999));
    assert_true(file_mark_is_settled(&one, one.changed_ns + 1000000000));
    assert_true(file_mark_is_settled(&one, one.changed_ns - 1)); /* another clock's */
    write_numbers(f, 0, 11);
    assert_true(recipient_list_changed(l, f->path, &two));
    assert_false(file_mark_eq(&one, &two));
    remove(f->path);
    assert_true(recipient_list_changed(l, f->path, NULL));
    recipient_list_unref(l);
    assert_int_equal(recipient_list_load(&l, "/etc/hostname", &rules, NULL, 20, false, &d),
                     0); /* of long ago */
    assert_false(recipient_list_changed(l, "/etc/hostname", &one));
    assert_true(recipient_list_changed(l, "/etc/passwd", &two));
    recipient_list_unref(l);
    diag_free(&d);
}

static void *use_and_drop(void *arg)
{
    struct recipient_list *l = arg;
    for (int i = 0; i < 1000; i++) {
        struct recipient_list *mine = recipient_list_ref(l);
        assert_true(has(mine, "bob@example.com"));
        recipient_list_unref(mine);
    }
    recipient_list_unref(l);
    return NULL;
}

static void test_shared(void **state)
{
    struct diag d = {0};
    pthread_t threads[4];
    (void)state;
    struct recipient_list *l = parse("bob@example.com", &rules, &d);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_and_drop, recipient_list_ref(l)), 0);
    recipient_list_unref(l);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    recipient_list_unref(NULL);
    diag_free(&d);
}

int main(void)
{
#define WITH_FILE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_many_bad_lines),
        WITH_FILE(test_shrink),
        WITH_FILE(test_shrink_with_other_rules),
        WITH_FILE(test_message_of_refusal),
        WITH_FILE(test_unreadable),
        WITH_FILE(test_versions),
        WITH_FILE(test_huge),
        cmocka_unit_test(test_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
