/* daemon/backend_queue.c: what the admin API asks of the queue: the workers' answers made one. */
#include "daemon/backend.h"

#include <errno.h>

#include "daemon/gateway.h"
#include "daemon/intake.h"
#include "daemon/lookup.h"
#include "daemon/walk.h"
#include "queue/crc32c.h"

static void free_request(void *arg)
{
    queue_request_free(arg);
}

static const struct ask_kind WALK = {
    .begin = walk_begin, .free_arg = free_request, .patience_s = ASK_WALK_PATIENCE_S};

/* --- parts into one --- */

static void add_number(json_t *o, const char *key, const json_t *part)
{
    json_int_t sum = json_integer_value(json_object_get(o, key)) + json_integer_value(part);
    json_object_set_new(o, key, json_integer(sum));
}

static void add_stats(json_t *sum, const json_t *part);

/* Numbers add up but "oldest_ms", of which the least counts; objects are added by their keys. */
static void add_field(json_t *o, const char *key, json_t *part)
{
    json_t *have = json_object_get(o, key);
    if (json_is_object(part)) {
        if (!have)
            json_object_set_new(o, key, have = json_object());
        add_stats(have, part);
    } else if (!strcmp(key, "oldest_ms")) {
        if (!have || json_integer_value(part) < json_integer_value(have))
            json_object_set(o, key, part);
    } else {
        add_number(o, key, part);
    }
}

static void add_stats(json_t *sum, const json_t *part)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)part, key, value) add_field(sum, key, value);
}

static int by_arrival(const void *a, const void *b)
{
    json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "arrived_ms"));
    json_int_t y = json_integer_value(json_object_get(*(json_t *const *)b, "arrived_ms"));
    return x < y ? -1 : x > y;
}

/* The newest `limit` of all, oldest first. True: some were left out. */
static bool merge_messages(const json_t *parts, size_t limit, json_t *out)
{
    size_t count = 0, i, k, n = 0;
    json_t *part, *m;
    json_array_foreach(parts, i, part) count += json_array_size(json_object_get(part, "messages"));
    json_t **all = calloc(count + 1, sizeof *all);
    if (!all)
        return true;
    json_array_foreach(parts, i, part) json_array_foreach(json_object_get(part, "messages"), k, m) all[n++] =
        m;
    qsort(all, n, sizeof(json_t *), by_arrival);
    for (i = n > limit ? n - limit : 0; i < n; i++) {
        json_object_del(all[i], "arrived_ms");
        json_array_append(out, all[i]);
    }
    free(all);
    return n > limit;
}

static json_t *merge_list(const json_t *parts, size_t limit)
{
    json_t *messages = json_array(), *part;
    bool cut = merge_messages(parts, limit, messages);
    size_t i;
    json_array_foreach(parts, i, part) cut |= json_is_true(json_object_get(part, "cut"));
    return json_pack("{s:o, s:b}", "messages", messages, "cut", cut);
}

static json_t *merge_change(const json_t *parts)
{
    static const char *const keys[] = {"matched", "done", "busy", "recipients", "bytes"};
    json_t *out = json_object(), *part;
    size_t i;
    json_array_foreach(parts, i, part)
    {
        for (size_t k = 0; k < COUNT_OF(keys); k++)
            add_number(out, keys[k], json_object_get(part, keys[k]));
        if (json_object_get(part, "ids") && !json_object_get(out, "ids"))
            json_object_set_new(out, "ids", json_array());
        json_array_extend(json_object_get(out, "ids"), json_object_get(part, "ids"));
        if (json_object_get(part, "error"))
            json_object_set(out, "error", json_object_get(part, "error"));
        if (!json_object_get(out, "cut") || json_is_true(json_object_get(part, "cut")))
            json_object_set(out, "cut", json_object_get(part, "cut"));
    }
    return out;
}

static json_t *merge_stats(const json_t *parts)
{
    json_t *out = json_object(), *part;
    size_t i;
    json_array_foreach(parts, i, part) add_stats(out, json_object_get(part, "stats"));
    return out;
}

json_t *backend_queue(void *ctx, struct queue_request *rq)
{
    enum queue_verb verb = rq->verb;
    size_t limit = rq->limit;
    json_t *parts = ask_workers(ctx, &WALK, rq, NULL), *out;
    if (!parts)
        return NULL;
    switch (verb) {
    case QUEUE_LIST: out = merge_list(parts, limit); break;
    case QUEUE_STATS: out = merge_stats(parts); break;
    default: out = merge_change(parts); break;
    }
    json_decref(parts);
    return out;
}

/* --- one message --- */

static const struct ask_kind LOOKUP = {.begin = lookup_begin, .free_arg = free, .patience_s = 60};

json_t *backend_message(void *ctx, uint64_t id, enum message_part part, struct gbuf *bytes)
{
    struct lookup_request *rq = calloc(1, sizeof *rq);
    if (!rq)
        return NULL;
    rq->id = id;
    rq->part = part;
    json_t *parts = ask_workers(ctx, &LOOKUP, rq, bytes);
    if (!parts)
        return NULL;
    json_t *found = json_array_size(parts) ? json_incref(json_array_get(parts, 0)) : json_object();
    json_decref(parts);
    const json_t *description = json_object_get(found, "transfer");
    if (part == MESSAGE_WHOLE && description) {
        struct gbuf record = {0};
        transfer_write(description, gbuf_view(bytes), crc32c, &record);
        if (record.overflow)
            json_object_set_new(found, "error", json_string("out of memory"));
        gbuf_free(bytes);
        *bytes = record;
    }
    return found;
}

/* --- one from elsewhere --- */

static void free_intake(void *arg)
{
    struct intake_request *rq = arg;
    arena_free(&rq->arena);
    gbuf_free(&rq->record);
    free(rq);
}

static const struct ask_kind INTAKE_LOOK = {.begin = intake_look, .free_arg = free, .patience_s = 60};
static const struct ask_kind INTAKE = {.begin = intake_begin, .free_arg = free_intake, .patience_s = 120};

static json_t *first_of(json_t *parts)
{
    json_t *first = json_incref(json_array_get(parts, 0));
    json_decref(parts);
    return first;
}

/* Is it here already, or can it not have its id? NULL: nobody answers; empty: neither. */
static json_t *look_for(struct gateway *g, uint64_t id)
{
    uint64_t *arg = malloc(sizeof *arg);
    if (!arg)
        return NULL;
    *arg = id;
    return ask_workers(g, &INTAKE_LOOK, arg, NULL);
}

json_t *backend_import(void *ctx, struct gbuf *record, bool parked)
{
    struct gateway *g = ctx;
    char text[160];
    struct sbuf why = {text, 0, sizeof text - 1, false};
    struct intake_request *rq = calloc(1, sizeof *rq);
    if (!rq)
        return NULL;
    memset(text, 0, sizeof text);
    rq->record = *record;
    *record = (struct gbuf){0};
    rq->parked = parked;
    arena_init(&rq->arena, TRANSFER_JSON_MAX * 2);
    err_t err = transfer_read(gbuf_view(&rq->record), crc32c, &rq->arena, &rq->message, &why);
    if (err) {
        free_intake(rq);
        return json_pack("{s:s, s:s}", "result", err == -ENOMEM ? "failed" : "damaged", "error", text);
    }
    rq->worker = (unsigned)(rq->message.id % g->worker_count);
    json_t *there = look_for(g, rq->message.id);
    if (!there || json_array_size(there)) {
        free_intake(rq);
        return there ? first_of(there) : NULL;
    }
    json_decref(there);
    json_t *parts = ask_workers(g, &INTAKE, rq, NULL);
    return parts ? first_of(parts) : NULL;
}

/* --- leases --- */

static void worker_lease_end(struct ask *a)
{
    const uint64_t *lease = ask_arg(a);
    lease_end(a->w, *lease);
    ask_answer(a, NULL, NULL);
}

static const struct ask_kind LEASE_END = {
    .begin = worker_lease_end, .free_arg = free, .patience_s = ASK_PATIENCE_S};

void backend_lease_end(void *ctx, uint64_t lease)
{
    uint64_t *arg = malloc(sizeof *arg);
    if (!arg)
        return; /* they go on at the next start */
    *arg = lease;
    json_decref(ask_workers(ctx, &LEASE_END, arg, NULL));
}
