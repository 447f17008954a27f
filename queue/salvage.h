/* queue/salvage.h: what can be had of a ring's bytes when the ring cannot be opened: a ring file, or a file
 * of corrupt/. Pure, on bytes in memory that stay put; never trusts them. Allocates: for tools. */
#ifndef QUEUE_SALVAGE_H
#define QUEUE_SALVAGE_H

#include "queue/queue.h"

struct salvage;

struct salvage_message {
    uint64_t id;
    bool has_envelope;     /* else only pieces of its body are known, in their order */
    bool envelope_damaged; /* it reads well, and its checksum is wrong */
    bool has_left;         /* delivered, reported or removed, as far as these bytes tell */
    uint64_t arrived_ms, body_bytes;
    uint64_t missing_bytes; /* of the body, found nowhere */
    uint64_t damaged_bytes; /* in pieces whose checksum is wrong */
    str_t meta, trace;
    uint32_t rcpt_count;
    /* private */
    size_t first, count;   /* its records */
    size_t commit, states; /* records; SIZE_MAX: none */
    bool is_kept;          /* behind the tail, and still needed */
};

/* `super`: the first 8 KiB of the ring that the bytes are of, or NULL: then the bytes themselves have to tell
 * what makes a record valid. ERR_NOT_FOUND: nothing in them does; ERR_LIMIT: too many records for memory. */
err_t salvage_open(struct salvage **out, const uint8_t *p, size_t n, const uint8_t *super) WARN_UNUSED;
void salvage_close(struct salvage *s); /* NULL is fine */
size_t salvage_count(const struct salvage *s);
const struct salvage_message *salvage_at(const struct salvage *s, size_t index);
str_t salvage_rcpt(const struct salvage *s, const struct salvage_message *m, uint32_t index,
                   enum rcpt_state *state);
/* The body as it was received (dot-stuffed), in order. `p` NULL: n bytes are missing here. */
void salvage_body(const struct salvage *s, const struct salvage_message *m,
                  void (*piece)(void *ctx, const uint8_t *p, size_t n, bool damaged), void *ctx);

#endif
