/* relay/heap.c: messages by due time, first in first out among equals. */
#include "relay/heap_priv.h"

#include <errno.h>

static bool is_before(const struct heap_entry *a, const struct heap_entry *b)
{
    return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->order < b->order;
}

static void place(struct heap *h, size_t at, struct heap_entry e)
{
    h->entries[at] = e;
    e.m->owner_index = (uint32_t)at;
}

static void sift_up(struct heap *h, size_t at, struct heap_entry e)
{
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (!is_before(&e, &h->entries[parent]))
            break;
        place(h, at, h->entries[parent]);
        at = parent;
    }
    place(h, at, e);
}

static void sift_down(struct heap *h, size_t at, struct heap_entry e)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && is_before(&h->entries[child + 1], &h->entries[child]))
            child++;
        if (!is_before(&h->entries[child], &e))
            break;
        place(h, at, h->entries[child]);
        at = child;
    }
    place(h, at, e);
}

/* malloc on the data path, as an exception: the heap doubles, so that a queue of n messages pays log n times,
 * and never shrinks. */
static err_t grow(struct heap *h)
{
    size_t cap = h->cap ? h->cap * 2 : 1024;
    if (cap > UINT32_MAX)
        return -ENOMEM;
    struct heap_entry *entries = realloc(h->entries, cap * sizeof *entries);
    if (!entries)
        return -ENOMEM;
    h->entries = entries;
    h->cap = cap;
    return 0;
}

err_t heap_push(struct heap *h, struct qmsg *m, uint64_t due_ms)
{
    if (h->count == h->cap) {
        err_t err = grow(h);
        if (err)
            return err;
    }
    h->count++;
    sift_up(h, h->count - 1, (struct heap_entry){due_ms, h->next_order++, m});
    return 0;
}

static void remove_at(struct heap *h, size_t at)
{
    h->count--;
    if (at == h->count)
        return;
    struct heap_entry last = h->entries[h->count];
    if (at > 0 && is_before(&last, &h->entries[(at - 1) / 2]))
        sift_up(h, at, last);
    else
        sift_down(h, at, last);
}

struct qmsg *heap_pop(struct heap *h)
{
    if (!h->count)
        return NULL;
    struct qmsg *m = h->entries[0].m;
    remove_at(h, 0);
    return m;
}

void heap_remove(struct heap *h, struct qmsg *m)
{
    must(m->owner_index < h->count && h->entries[m->owner_index].m == m);
    remove_at(h, m->owner_index);
}

void heap_free(struct heap *h)
{
    free(h->entries);
    *h = (struct heap){0};
}
