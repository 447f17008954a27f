/* daemon/lists.c: see lists.h. */
#include "daemon/lists.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "daemon/durable.h"

#define FILE_VERSION 1
#define WATCHED      (IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_ATTRIB | IN_ONLYDIR)

/* --- what is remembered --- */

static err_t read_remembered(struct lists *l, struct gbuf *notes)
{
    json_error_t e;
    json_t *file = json_load_file(l->path, 0, &e);
    json_t *lists = json_object_get(file, "lists");
    if (json_integer_value(json_object_get(file, "version")) == FILE_VERSION && json_is_array(lists))
        l->remembered = json_incref(lists);
    else
        l->remembered = json_array();
    if (!file && access(l->path, F_OK) == 0)
        gbuf_printf(notes,
                    "%s is damaged; whether lists of recipients shrank since the last start is not known\n",
                    l->path);
    json_decref(file);
    return l->remembered ? 0 : -ENOMEM;
}

err_t lists_open(struct lists *l, str_t spool_directory, struct gbuf *notes)
{
    *l = (struct lists){.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
    if (l->fd < 0)
        gbuf_printf(notes,
                    "files of recipients cannot be watched (%s), they are looked at every few minutes\n",
                    err_text(-errno));
    if (asprintf(&l->path, STR_FMT "/recipient-lists.json", STR_ARG(spool_directory)) < 0) {
        l->path = NULL;
        return -ENOMEM;
    }
    return read_remembered(l, notes);
}

void lists_close(struct lists *l)
{
    if (!l->path)
        return;
    if (l->fd >= 0)
        close(l->fd);
    free(l->watches);
    free(l->path);
    json_decref(l->remembered);
    *l = (struct lists){.fd = -1};
}

static json_t *row_of(const struct verify_list *list)
{
    char tags[2] = {list->rules.separator, '\0'};
    return json_pack("{s:s%, s:b, s:s}", "path", list->path.p, list->path.n, "fold_case",
                     list->rules.fold_case, "tags", tags);
}

/* How many entries it had when it was in force last; -1: never. */
static json_int_t remembered_of(const struct lists *l, const struct verify_list *list)
{
    size_t i;
    json_t *row, *wanted = row_of(list);
    json_int_t count = -1;
    if (l && wanted)
        json_array_foreach(l->remembered, i, row)
        {
            json_t *entries = json_object_get(row, "entries");
            if (json_is_integer(entries) && json_object_set(wanted, "entries", entries) == 0 &&
                json_equal(wanted, row))
                count = json_integer_value(entries);
        }
    json_decref(wanted);
    return count;
}

/* In place of all rows; those of doubtful lists stay as they were. */
static json_t *rows_for(const struct lists *l, const struct verify_list *lists, size_t count)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < count; i++) {
        json_int_t entries = lists[i].is_doubtful ? remembered_of(l, &lists[i])
                                                  : (json_int_t)recipient_list_count(lists[i].list);
        json_t *row = row_of(&lists[i]); /* NULL: a path that is no UTF-8 is not remembered */
        if (row && json_object_set_new(row, "entries", json_integer(entries)) == 0)
            json_array_append(rows, row);
        json_decref(row);
    }
    return rows;
}

static void remember(struct lists *l, const struct verify_list *lists, size_t count)
{
    json_t *rows = rows_for(l, lists, count);
    if (!rows || json_equal(rows, l->remembered)) {
        json_decref(rows);
        return;
    }
    json_decref(l->remembered);
    l->remembered = rows;
    err_t err = durable_write_json(l->path, json_pack("{s:i, s:O}", "version", FILE_VERSION, "lists", rows));
    if (err && !l->is_write_noted)
        LOG(boot_note, LF_CSTR("text", "the sizes of recipient lists cannot be remembered"),
            LF_CSTR("file", l->path), LF_ERR("err", err));
    l->is_write_noted = err != 0;
}

/* --- loading --- */

struct loading {
    const struct lists *lists;
    const struct verify_list *previous; /* of the same file and rules; NULL: none */
    enum lists_rule rule;
    struct diag said;
};

/* Nothing in force to compare with, only a number. */
static void doubt(struct loading *g, struct verify_list *list, uint32_t shrink_max_percent)
{
    json_int_t had = remembered_of(g->lists, list), has = (json_int_t)recipient_list_count(list->list);
    list->is_doubtful =
        g->rule != LISTS_CONFIRMED && had > has && (had - has) * 100 > had * shrink_max_percent;
    if (list->is_doubtful)
        diag_warning(
            &g->said, (struct mark){0},
            "the list has %lld entries and had %lld before the restart, it lost more than the %u %% that "
            "verify.list_shrink allows; who is not in it is answered 450 until it is whole again. If the "
            "new one is meant: postern reload shrunk-lists",
            (long long)has, (long long)had, shrink_max_percent);
}

static err_t load_file(struct loading *g, struct verify_list *list, const struct cfg_verify *v)
{
    const struct verify_list *p = g->previous;
    if (p && !recipient_list_changed(p->list, v->list.p, NULL) &&
        !(p->is_doubtful && g->rule == LISTS_CONFIRMED)) {
        list->list = recipient_list_ref(p->list);
        list->is_doubtful = p->is_doubtful;
        return 0;
    }
    bool is_sure = p && !p->is_doubtful;
    g->said.file = v->list.p;
    err_t err = recipient_list_load(&list->list, v->list.p, &list->rules, is_sure ? p->list : NULL,
                                    v->list_shrink_percent, g->rule == LISTS_CONFIRMED, &g->said);
    if (!err && !is_sure)
        doubt(g, list, v->list_shrink_percent);
    list->is_new = !err;
    return err;
}

/* What was in force stays, and this version of the file is not tried again. */
static void keep(const struct loading *g, struct verify_list *list)
{
    list->list = recipient_list_ref(g->previous->list);
    list->is_doubtful = g->previous->is_doubtful;
    list->is_refused = true;
    recipient_list_changed(list->list, list->path.p, &list->refused);
}

static void tell(const struct loading *g, const struct verify_list *list, bool refused)
{
    str_t line, text = gbuf_view(&g->said.text);
    bool again = g->previous && g->previous->is_refused && list->list == g->previous->list && !list->is_new &&
                 file_mark_eq(&g->previous->refused, &list->refused);
    if (!g->lists || again || (!refused && !list->is_doubtful))
        return;
    metric_inc(M_lists_refused);
    while (text.n) {
        str_cut(text, '\n', &line, &text);
        LOG(list_refused, LF_STR("file", list->path), LF_STR("text", line));
    }
}

static err_t load_one(struct verify_list *list, struct loading *g, const struct cfg_verify *v, struct diag *d)
{
    *list = (struct verify_list){.path = v->list,
                                 .rules = {.fold_case = v->fold_case, .separator = v->separator}};
    err_t err = load_file(g, list, v);
    bool refused = err != 0;
    if (err && err != -ENOMEM && g->rule == LISTS_KEEP && g->previous) {
        keep(g, list);
        err = 0;
    }
    if (refused || list->is_new)
        tell(g, list, refused);
    if (err || list->is_new) { /* else it was logged, and is nobody's mistake now */
        gbuf_str(&d->text, gbuf_view(&g->said.text));
        d->error_count += g->said.error_count;
        d->warning_count += g->said.warning_count;
    }
    diag_free(&g->said);
    return err;
}

err_t lists_load(struct verify_list **out, size_t *count, const struct config *c,
                 const struct verify_list *previous, size_t previous_count, const struct lists *l,
                 enum lists_rule rule, struct diag *d)
{
    struct verify_list *lists = calloc(c->domain_count + 1, sizeof *lists);
    size_t n = 0;
    err_t err = lists ? 0 : -ENOMEM;
    for (size_t i = 0; !err && i <= c->domain_count; i++) {
        const struct cfg_verify *v = i ? &c->domains[i - 1].verify : &c->verify;
        if ((i && !c->domains[i - 1].has_verify) || !v->list.n || verify_list_find(lists, n, v))
            continue;
        struct loading g = {
            .lists = l, .previous = verify_list_find(previous, previous_count, v), .rule = rule};
        err = load_one(&lists[n], &g, v, d);
        n += !err;
    }
    if (err) {
        lists_free(lists, n);
        lists = NULL;
        n = 0;
    }
    *out = lists;
    *count = n;
    return err;
}

void lists_free(struct verify_list *lists, size_t count)
{
    for (size_t i = 0; i < count; i++)
        recipient_list_unref(lists[i].list);
    free(lists);
}

/* --- watching --- */

static int watch_folder_of(const struct lists *l, const char *path)
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    return inotify_add_watch(l->fd, dirname(copy), WATCHED); /* the same again for the same folder */
}

static bool contains(const int *watches, size_t count, int w)
{
    for (size_t i = 0; i < count; i++) {
        if (watches[i] == w)
            return true;
    }
    return false;
}

/* The folder of each, and where it is a link, the folder that it leads to. */
static void watch(struct lists *l, const struct verify_list *lists, size_t count)
{
    char real[PATH_MAX];
    size_t n = 0;
    int *watches = calloc(2 * count + 1, sizeof *watches);
    if (l->fd < 0 || !watches) {
        free(watches);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        watches[n++] = watch_folder_of(l, lists[i].path.p);
        if (realpath(lists[i].path.p, real))
            watches[n++] = watch_folder_of(l, real);
    }
    for (size_t i = 0; i < l->watch_count; i++) {
        if (!contains(watches, n, l->watches[i]))
            (void)inotify_rm_watch(l->fd, l->watches[i]);
    }
    free(l->watches);
    l->watches = watches;
    l->watch_count = n;
}

void lists_in_force(struct lists *l, struct verify_list *lists, size_t count)
{
    int64_t entries = 0, held_back = 0;
    for (size_t i = 0; i < count; i++) {
        struct verify_list *list = &lists[i];
        entries += (int64_t)recipient_list_count(list->list);
        held_back += list->is_refused || list->is_doubtful;
        if (list->is_new) {
            metric_inc(M_lists_loaded);
            LOG(list_loaded, LF_STR("file", list->path), LF_U64("entries", recipient_list_count(list->list)),
                LF_I64("was", MAX(remembered_of(l, list), 0)));
        }
    }
    metric_add(M_list_entries, entries - l->told_entries);
    metric_add(M_lists_held_back, held_back - l->told_held_back);
    l->told_entries = entries;
    l->told_held_back = held_back;
    watch(l, lists, count);
    remember(l, lists, count);
}

enum lists_news lists_look(const struct verify_list *lists, size_t count)
{
    enum lists_news news = LISTS_SAME;
    for (size_t i = 0; i < count; i++) {
        struct file_mark now;
        if (!recipient_list_changed(lists[i].list, lists[i].path.p, &now) ||
            (lists[i].is_refused && file_mark_eq(&lists[i].refused, &now)))
            continue;
        if (!file_mark_is_settled(&now, clock_wall_ns()))
            return LISTS_UNSETTLED;
        news = LISTS_CHANGED;
    }
    return news;
}

void lists_drain(struct lists *l)
{
    char events[4096];
    while (read(l->fd, events, sizeof events) > 0)
        ;
}
