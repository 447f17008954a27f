/* core/list.h: intrusive doubly linked list. The link lives in the object; the list owns nothing. */
#ifndef CORE_LIST_H
#define CORE_LIST_H

#include "core/base.h"

struct link {
    struct link *prev, *next; /* both NULL: in no list */
};

struct list {
    struct link head;
};

static inline void list_init(struct list *l)
{
    l->head.prev = l->head.next = &l->head;
}
static inline bool list_empty(const struct list *l)
{
    return l->head.next == &l->head;
}
static inline bool link_in_list(const struct link *k)
{
    return k->next != NULL;
}
static inline void list_insert_before(struct link *at, struct link *k)
{
    k->prev = at->prev;
    k->next = at;
    at->prev->next = k;
    at->prev = k;
}
static inline void list_push_back(struct list *l, struct link *k)
{
    list_insert_before(&l->head, k);
}
static inline void list_push_front(struct list *l, struct link *k)
{
    list_insert_before(l->head.next, k);
}
static inline void list_remove(struct link *k) /* not in a list: no effect */
{
    if (!k->next)
        return;
    k->prev->next = k->next;
    k->next->prev = k->prev;
    k->prev = k->next = NULL;
}
static inline struct link *list_first(const struct list *l)
{
    return list_empty(l) ? NULL : l->head.next;
}
static inline struct link *list_pop_front(struct list *l)
{
    struct link *k = list_first(l);
    if (k)
        list_remove(k);
    return k;
}

/* The current element may be removed inside the loop. */
#define LIST_EACH(l, k)                                                                                      \
    for (struct link *k = (l)->head.next, *k##_next = k->next; k != &(l)->head;                              \
         k = k##_next, k##_next = k->next)

#endif
