/* Files of exported messages, whole and damaged. What can be read is written again, and read as the same. */
#include "admin/transfer.h"
#include "queue/crc32c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_same(const struct transfer_message *a, const struct transfer_message *b)
{
    must(a->id == b->id && a->arrived_ms == b->arrived_ms && a->due_ms == b->due_ms && a->held == b->held &&
         a->warned == b->warned && a->attempts == b->attempts && a->rcpt_count == b->rcpt_count);
    must(str_eq(a->meta, b->meta) && str_eq(a->trace, b->trace) && str_eq(a->body, b->body));
    for (uint32_t i = 0; i < a->rcpt_count; i++)
        must(a->rcpts[i].state == b->rcpts[i].state && str_eq(a->rcpts[i].blob, b->rcpts[i].blob));
}

static void check_record(str_t record)
{
    char text[128];
    struct sbuf why = SBUF_ON(text);
    struct arena arena, second;
    struct transfer_message m, again;
    arena_init(&arena, 16 << 20);
    arena_init(&second, 16 << 20);
    if (!transfer_read(record, crc32c, &arena, &m, &why)) {
        struct gbuf data = {0}, out = {0};
        gbuf_str(&data, m.trace);
        gbuf_str(&data, m.body);
        json_t *description = transfer_describe(&m);
        must(description != NULL);
        transfer_write(description, gbuf_view(&data), crc32c, &out);
        must(!out.overflow && !transfer_read(gbuf_view(&out), crc32c, &second, &again, &why));
        check_same(&m, &again);
        json_decref(description);
        gbuf_free(&data);
        gbuf_free(&out);
    } else {
        must(why.n > 0);
    }
    arena_free(&arena);
    arena_free(&second);
}

/* Without the right checksum no input would get far. */
static void check_resealed(str_t record)
{
    str_t line, rest;
    if (!str_cut(record, '\n', &line, &rest) || !rest.n)
        return;
    ptrdiff_t end = str_find(rest, '\n');
    if (end < 0 || !str_ends(rest, STR("\n")) || (size_t)end + 2 > rest.n)
        return;
    str_t json = str_sub(rest, 0, (size_t)end),
          data = str_sub(rest, (size_t)end + 1, rest.n - (size_t)end - 2);
    struct gbuf b = {0};
    gbuf_printf(&b, "%zu %zu %08x\n", json.n, data.n,
                (unsigned)crc32c(crc32c(0, json.p, json.n), data.p, data.n));
    gbuf_str(&b, rest);
    check_record(gbuf_view(&b));
    gbuf_free(&b);
}

static void check_file(const uint8_t *data, size_t n)
{
    FILE *f = fmemopen((void *)(uintptr_t)data, n, "r");
    struct transfer_file t;
    enum transfer_item item;
    struct gbuf record = {0};
    err_t err = f ? transfer_open(&t, f) : ERR_SYNTAX;
    while (!err || err == ERR_CORRUPT) {
        err = transfer_next(&t, &item, &record);
        if (!err && item == TRANSFER_RECORD)
            check_record(gbuf_view(&record));
    }
    gbuf_free(&record);
    if (f)
        fclose(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    check_file(data, n);
    check_record(str_of((const char *)data, n));
    check_resealed(str_of((const char *)data, n));
    return 0;
}
