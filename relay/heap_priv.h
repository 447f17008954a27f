/* relay/heap_priv.h: the messages that wait, by due time. A binary heap whose entries carry their key, so
 * that sifting touches no message but to note its new slot (qmsg.owner_index). */
#ifndef RELAY_HEAP_PRIV_H
#define RELAY_HEAP_PRIV_H

#include "queue/queue.h"

struct heap_entry {
    uint64_t due_ms; /* wall clock */
    uint64_t order;  /* what is due at the same time leaves as it came */
    struct qmsg *m;
};

struct heap {
    struct heap_entry *entries; /* owned */
    size_t count, cap;
    uint64_t next_order;
};

/* Zero-init is an empty heap. */
err_t heap_push(struct heap *h, struct qmsg *m, uint64_t due_ms) WARN_UNUSED; /* -ENOMEM */
struct qmsg *heap_pop(struct heap *h);                                        /* NULL when empty */
void heap_remove(struct heap *h, struct qmsg *m);
void heap_free(struct heap *h);

static inline const struct heap_entry *heap_top(const struct heap *h)
{
    return h->count ? &h->entries[0] : NULL;
}

#endif
