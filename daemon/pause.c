/* daemon/pause.c: see pause.h. The file is JSON: {"version": 1, "all": null or {"since": TIME, "by": WHO},
 * "destinations": {KEY: {"since": TIME, "by": WHO}}}. */
#include "daemon/pause.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/metrics.h"
#include "daemon/durable.h"
#include "queue/fsio.h"

#define FILE_VERSION 1
#define KEYS_MAX     10000 /* more than anybody pauses by hand; a program that runs wild stops here */

/* --- the file --- */

static bool is_entry(const json_t *e)
{
    return json_is_string(json_object_get(e, "since")) && json_is_string(json_object_get(e, "by"));
}

static bool is_sound(const json_t *file)
{
    const json_t *all = json_object_get(file, "all"), *keys = json_object_get(file, "destinations");
    const char *key;
    json_t *entry;
    if (json_integer_value(json_object_get(file, "version")) != FILE_VERSION ||
        (!json_is_null(all) && !is_entry(all)) || !json_is_object(keys) || json_object_size(keys) > KEYS_MAX)
        return false;
    json_object_foreach((json_t *)(uintptr_t)keys, key, entry)
    {
        if (!*key || !is_entry(entry))
            return false;
    }
    return true;
}

static void set_damaged_aside(const struct pause_state *s, struct gbuf *notes)
{
    char aside[PATH_MAX];
    snprintf(aside, sizeof aside, "%s.damaged", s->path);
    err_t err = fsio_rename(s->path, aside);
    gbuf_printf(notes,
                "%s is damaged, so nothing is paused; look into %s%s%s and pause again what must not be sent "
                "to\n",
                s->path, err ? s->path : aside, err ? ", which cannot be renamed: " : "",
                err ? err_text(err) : "");
}

static err_t save(const char *path, const json_t *all, const json_t *keys)
{
    return durable_write_json(
        path, json_pack("{s:i, s:O?, s:O}", "version", FILE_VERSION, "all", all, "destinations", keys));
}

/* --- what is in force --- */

static struct pauses *compile(const json_t *all, json_t *keys)
{
    size_t count = 0;
    const char *key;
    json_t *entry;
    str_t *texts = calloc(json_object_size(keys) + 1, sizeof *texts);
    if (!texts)
        return NULL;
    json_object_foreach(keys, key, entry) texts[count++] = str_cstr(key);
    struct pauses *p = pauses_new(all != NULL, texts, count);
    free(texts);
    return p;
}

/* Takes `all` (may be NULL), `keys` and `now`. */
static void put_in_force(struct pause_state *s, json_t *all, json_t *keys, struct pauses *now)
{
    pthread_mutex_lock(&s->lock);
    json_t *old_all = s->all, *old_keys = s->keys;
    s->all = all;
    s->keys = keys;
    pthread_mutex_unlock(&s->lock);
    json_decref(old_all);
    json_decref(old_keys);
    pauses_unref(s->now);
    s->now = now;
}

void pause_init(struct pause_state *s)
{
    *s = (struct pause_state){0};
    pthread_mutex_init(&s->lock, NULL);
}

err_t pause_load(struct pause_state *s, str_t spool_directory, struct gbuf *notes)
{
    json_error_t bad;
    if (asprintf(&s->path, STR_FMT "/paused", STR_ARG(spool_directory)) < 0) {
        s->path = NULL;
        return -ENOMEM;
    }
    json_t *all = NULL, *keys = NULL;
    if (fsio_find(s->path) != -ENOENT) {
        json_t *file = json_load_file(s->path, JSON_REJECT_DUPLICATES, &bad);
        if (is_sound(file)) {
            const json_t *entry = json_object_get(file, "all");
            all = json_is_null(entry) ? NULL : json_deep_copy(entry);
            keys = json_incref(json_object_get(file, "destinations"));
        } else {
            set_damaged_aside(s, notes);
        }
        json_decref(file);
    }
    if (!keys)
        keys = json_object();
    struct pauses *now = keys ? compile(all, keys) : NULL;
    put_in_force(s, all, keys, now);
    if (!now)
        return -ENOMEM;
    if (all)
        gbuf_cstr(notes, "all sending is paused; `postern queue resume` lets it go on\n");
    if (json_object_size(keys))
        gbuf_printf(notes, "sending to %zu destinations is paused; `postern status` names them\n",
                    json_object_size(keys));
    return 0;
}

/* Keys are destinations', which come from names and addresses: without case. */
static const char *find_key(json_t *keys, str_t key)
{
    const char *k;
    json_t *entry;
    json_object_foreach(keys, k, entry)
    {
        if (str_ieq(str_cstr(k), key))
            return k;
    }
    return NULL;
}

static json_t *new_entry(str_t by)
{
    char since[40];
    size_t n = clock_rfc3339(clock_wall_ns(), since);
    return json_pack("{s:s%, s:s%}", "since", since, n, "by", by.p, by.n);
}

static err_t commit(struct pause_state *s, json_t *all, json_t *keys)
{
    struct pauses *now = keys ? compile(all, keys) : NULL;
    err_t err = now ? save(s->path, all, keys) : -ENOMEM;
    if (!err) {
        put_in_force(s, all, keys, now);
        return 0;
    }
    pauses_unref(now);
    json_decref(all);
    json_decref(keys);
    return err;
}

err_t pause_set(struct pause_state *s, bool paused, str_t key, str_t by, bool *changed)
{
    const char *old_key = key.p ? find_key(s->keys, key) : NULL;
    bool was_paused = key.p ? old_key != NULL : s->all != NULL;
    *changed = was_paused != paused;
    if (!*changed)
        return 0;
    json_t *all = json_incref(s->all), *keys = json_copy(s->keys), *entry = paused ? new_entry(by) : NULL;
    int rc = !keys || (paused && !entry) ? -1 : 0;
    if (!rc && key.p && paused)
        rc =
            json_object_size(keys) < KEYS_MAX ? json_object_setn(keys, key.p, key.n, json_incref(entry)) : -1;
    else if (!rc && key.p)
        rc = json_object_del(keys, old_key);
    if (!rc && !key.p) {
        json_decref(all);
        all = json_incref(entry);
    }
    json_decref(entry);
    if (!rc)
        return commit(s, all, keys);
    json_decref(all);
    json_decref(keys);
    return -ENOMEM;
}

/* --- what it shows --- */

json_t *pause_json(const struct pause_state *s)
{
    json_t *list = json_array();
    const char *key;
    json_t *entry;
    json_object_foreach(s->keys, key, entry)
    {
        json_t *o = json_copy(entry);
        if (o && !json_object_set_new(o, "key", json_string(key)))
            json_array_append_new(list, o);
    }
    return json_pack("{s:O?, s:o}", "all", s->all, "destinations", list);
}

void pause_collect(struct pause_state *s, struct gbuf *out)
{
    const char *key;
    json_t *entry;
    pthread_mutex_lock(&s->lock);
    gbuf_printf(out,
                "# HELP postern_paused 1: an administrator paused all sending\n"
                "# TYPE postern_paused gauge\npostern_paused %d\n"
                "# HELP postern_destination_paused an administrator paused sending to it\n"
                "# TYPE postern_destination_paused gauge\n",
                s->all != NULL);
    json_object_foreach(s->keys, key, entry)
    {
        gbuf_cstr(out, "postern_destination_paused{destination=\"");
        metrics_label(out, str_cstr(key));
        gbuf_cstr(out, "\"} 1\n");
    }
    pthread_mutex_unlock(&s->lock);
}

void pause_free(struct pause_state *s)
{
    put_in_force(s, NULL, NULL, NULL);
    free(s->path);
    s->path = NULL;
}
