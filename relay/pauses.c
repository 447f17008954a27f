/* relay/pauses.c: see pauses.h. */
#include "relay/pauses.h"

struct pauses {
    unsigned refs; /* atomic */
    bool all;
    struct smap keys; /* views into `bytes`; the values say nothing */
    char bytes[];
};

struct pauses *pauses_new(bool all, const str_t *keys, size_t count)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        n += keys[i].n;
    struct pauses *p = calloc(1, sizeof *p + n);
    if (!p)
        return NULL;
    p->refs = 1;
    p->all = all;
    p->keys.fold_case = true;
    char *to = p->bytes;
    for (size_t i = 0; i < count; i++) {
        if (keys[i].n)
            memcpy(to, keys[i].p, keys[i].n);
        if (smap_put(&p->keys, str_of(to, keys[i].n), p)) {
            pauses_unref(p);
            return NULL;
        }
        to += keys[i].n;
    }
    return p;
}

struct pauses *pauses_ref(struct pauses *p)
{
    __atomic_fetch_add(&p->refs, 1, __ATOMIC_RELAXED);
    return p;
}

void pauses_unref(struct pauses *p)
{
    if (!p || __atomic_sub_fetch(&p->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    smap_free(&p->keys);
    free(p);
}

bool pauses_include(const struct pauses *p, str_t key)
{
    return p && (p->all || smap_get(&p->keys, key));
}
