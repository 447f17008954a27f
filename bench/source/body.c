/* bench/source/body.c: what messages are made of: one body for each size, or a file. */
#include <stdio.h>
#include <sysexits.h>

#include "bench/source/source_priv.h"
#include "core/clock.h"
#include "queue/crc32c.h"

#define OUR_LINES_BYTES 120 /* about what send_content() puts in front: id, check, Message-ID */

static struct source_body bodies[SOURCE_SIZES_MAX];
static uint64_t share_sum;

static void keep(struct source_body *body, const struct gbuf *b)
{
    *body = (struct source_body){(const uint8_t *)b->p, b->n, crc32c(0, b->p, b->n)};
}

/* Headers and lines of text up to the wanted size. */
static void make_body(const struct source_options *o, uint32_t size_bytes, struct source_body *body)
{
    static const char text[] =
        "The quick brown fox jumps over the lazy dog, and the mail goes through the gateway.\r\n";
    struct gbuf b = {.max = (size_t)1 << 30};
    char date[48];
    date[clock_rfc5322(clock_wall_ns(), date)] = '\0';
    gbuf_printf(&b,
                "From: <%s>\r\nTo: <postern@example.com>\r\nSubject: from postern-source\r\nDate: %s\r\n\r\n",
                o->sender, date);
    while (b.n + OUR_LINES_BYTES + sizeof text - 1 < size_bytes)
        gbuf_put(&b, text, sizeof text - 1);
    if (b.n + OUR_LINES_BYTES + 2 < size_bytes) {
        while (b.n + OUR_LINES_BYTES + 2 < size_bytes)
            gbuf_put(&b, "x", 1);
        gbuf_put(&b, "\r\n", 2);
    }
    keep(body, &b);
}

/* A file as it is, line ends made CRLF, dots stuffed. */
static int read_body(const char *path, struct source_body *body)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return EX_NOINPUT;
    }
    struct gbuf b = {.max = (size_t)1 << 30};
    int last = '\n';
    for (int c; (c = getc(f)) != EOF;) {
        if (c == '.' && last == '\n')
            gbuf_put(&b, ".", 1);
        if (c == '\n' && last != '\r')
            gbuf_put(&b, "\r", 1);
        char byte = (char)c;
        gbuf_put(&b, &byte, 1);
        last = c;
    }
    if (last != '\n')
        gbuf_put(&b, "\r\n", 2);
    fclose(f);
    keep(body, &b);
    return 0;
}

int source_bodies_make(const struct source_options *o)
{
    if (o->file)
        return read_body(o->file, &bodies[0]);
    for (unsigned i = 0; i < o->size_count; i++) {
        make_body(o, o->sizes[i].bytes, &bodies[i]);
        share_sum += o->sizes[i].share;
    }
    return 0;
}

/* Sizes are dealt by their shares in a fixed shuffle: the same message has the same size in every run. */
const struct source_body *source_body(const struct source_options *o, uint64_t number)
{
    if (o->file || o->size_count == 1)
        return &bodies[0];
    uint64_t at = number * UINT64_C(2654435761) % share_sum;
    unsigned i = 0;
    while (at >= o->sizes[i].share)
        at -= o->sizes[i++].share;
    return &bodies[i];
}
