/* admin/transfer.h: messages on their way from one node's queue to another's: docs/export-format.md. Pure but
 * for the FILE that is read.
 *
 * A record is "JSON_BYTES DATA_BYTES CRC\n", JSON, "\n", DATA, "\n"; a file has a line in front of each that
 * nobody who sends mail can know, so that damage costs one message and no mail can pass as a record. */
#ifndef ADMIN_TRANSFER_H
#define ADMIN_TRANSFER_H

#include <jansson.h>

#include "core/arena.h"

#define TRANSFER_NONCE_CHARS  32u
#define TRANSFER_JSON_MAX     ((size_t)8 << 20)
#define TRANSFER_DATA_MAX     ((size_t)1 << 30)
#define TRANSFER_STATES_COUNT 5u

typedef uint32_t transfer_crc_fn(uint32_t crc, const void *p, size_t n);

struct transfer_rcpt {
    str_t address; /* for people; absent: it cannot be said in JSON */
    str_t blob;    /* what counts */
    uint8_t state; /* as enum rcpt_state has them */
};

struct transfer_message {
    uint64_t id, arrived_ms, due_ms;
    uint32_t attempts;
    bool held, warned;
    str_t sender; /* for people */
    str_t meta, trace, body;
    struct transfer_rcpt *rcpts;
    uint32_t rcpt_count;
};

/* All but the bytes of trace and body, whose lengths count; NULL: no memory. */
json_t *transfer_describe(const struct transfer_message *m);
/* `data`: trace and body. out->overflow: no memory, or too large. */
void transfer_write(const json_t *description, str_t data, transfer_crc_fn *crc, struct gbuf *out);
/* Views into `record` and memory of `arena`. ERR_CORRUPT, ERR_LIMIT, -ENOMEM: `why` says what is wrong. */
err_t transfer_read(str_t record, transfer_crc_fn *crc, struct arena *arena, struct transfer_message *out,
                    struct sbuf *why) WARN_UNUSED;

/* --- files --- */

struct transfer_file {
    FILE *f;                             /* not owned; can seek */
    char mark[TRANSFER_NONCE_CHARS + 3]; /* "@nonce " */
    char line[160];                      /* read ahead; empty: not yet */
    bool at_end;
};

enum transfer_item { TRANSFER_RECORD, TRANSFER_SEALED, TRANSFER_END };

/* The first line; ERR_SYNTAX: it is no export; ERR_VERSION. */
err_t transfer_open(struct transfer_file *t, FILE *f) WARN_UNUSED;
/* 0: *item, and the record in `out`. ERR_CORRUPT: something damaged was skipped, go on. ERR_EOF: the file
 * ends, without an end mark. */
err_t transfer_next(struct transfer_file *t, enum transfer_item *item, struct gbuf *out) WARN_UNUSED;
/* What stands in front. `text` is one line of JSON for people. */
void transfer_put_open(struct gbuf *out, const char *nonce, str_t text);
void transfer_put_mark(struct gbuf *out, const char *nonce, enum transfer_item item, uint64_t count);
/* A record as posternd gives it, with its mark. */
err_t transfer_put_record(struct gbuf *out, const char *nonce, str_t record) WARN_UNUSED;

#endif
