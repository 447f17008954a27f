/* core/map.c: open addressing with linear probing. A removal shifts the following entries back instead of
 * leaving a tombstone, so that a map with much coming and going stays as fast as a new one. */
#include "core/map.h"

#include <errno.h>

#include "core/hash.h"

#define CAP_MIN 8 /* a power of two, as every cap */

/* At most three quarters full: a probe always ends at an empty slot. */
static bool is_crowded(size_t used_count, size_t cap)
{
    return used_count + 1 > cap - cap / 4;
}

/* May the entry at `from`, whose own place is `home`, move back to the hole at `to`? Only if its home does
 * not lie in (to, from], seen around the ring: else a probe from home would no longer find it. */
static bool may_move(size_t home, size_t from, size_t to, size_t mask)
{
    return ((from - home) & mask) >= ((from - to) & mask);
}

struct map64_slot {
    uint64_t key;
    void *value; /* NULL = empty; not owned */
};

static size_t map64_home(const struct map64 *m, uint64_t key)
{
    return hash_u64(key) & (m->cap - 1);
}

/* The slot of the key, or the empty one where it belongs. Only with cap > 0. */
static size_t map64_find(const struct map64 *m, uint64_t key)
{
    size_t i = map64_home(m, key);
    while (m->slots[i].value && m->slots[i].key != key)
        i = (i + 1) & (m->cap - 1);
    return i;
}

void *map64_get(const struct map64 *m, uint64_t key)
{
    return m->cap ? m->slots[map64_find(m, key)].value : NULL;
}

static err_t map64_grow(struct map64 *m)
{
    struct map64 bigger = {.used_count = m->used_count, .cap = m->cap ? m->cap * 2 : CAP_MIN};
    bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].value)
            bigger.slots[map64_find(&bigger, m->slots[i].key)] = m->slots[i];
    free(m->slots);
    *m = bigger;
    return 0;
}

err_t map64_put(struct map64 *m, uint64_t key, void *value)
{
    must(value != NULL);
    if (m->cap) {
        struct map64_slot *slot = &m->slots[map64_find(m, key)];
        if (slot->value) {
            slot->value = value;
            return 0;
        }
    }
    if (is_crowded(m->used_count, m->cap)) {
        err_t err = map64_grow(m);
        if (err)
            return err;
    }
    m->slots[map64_find(m, key)] = (struct map64_slot){key, value};
    m->used_count++;
    return 0;
}

void *map64_remove(struct map64 *m, uint64_t key)
{
    if (!m->cap)
        return NULL;
    size_t hole = map64_find(m, key), mask = m->cap - 1;
    void *value = m->slots[hole].value;
    if (!value)
        return NULL;
    for (size_t i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
        if (may_move(map64_home(m, m->slots[i].key), i, hole, mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole].value = NULL;
    m->used_count--;
    return value;
}

void map64_free(struct map64 *m)
{
    free(m->slots);
    *m = (struct map64){0};
}

struct smap_slot {
    str_t key; /* the caller's bytes */
    uint64_t hash;
    void *value; /* NULL = empty; not owned */
};

static uint64_t smap_hash(const struct smap *m, str_t key)
{
    return m->fold_case ? str_ihash(key) : str_hash(key);
}

static bool smap_key_eq(const struct smap *m, str_t a, str_t b)
{
    return m->fold_case ? str_ieq(a, b) : str_eq(a, b);
}

static size_t smap_find(const struct smap *m, str_t key, uint64_t hash)
{
    size_t i = hash & (m->cap - 1);
    while (m->slots[i].value && (m->slots[i].hash != hash || !smap_key_eq(m, m->slots[i].key, key)))
        i = (i + 1) & (m->cap - 1);
    return i;
}

void *smap_get(const struct smap *m, str_t key)
{
    return m->used_count ? m->slots[smap_find(m, key, smap_hash(m, key))].value : NULL;
}

static err_t smap_grow(struct smap *m)
{
    struct smap bigger = *m;
    bigger.cap = m->cap ? m->cap * 2 : CAP_MIN;
    bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < m->cap; i++) {
        const struct smap_slot *slot = &m->slots[i];
        if (!slot->value)
            continue;
        size_t at = slot->hash & (bigger.cap - 1); /* keys differ already: no need to compare them */
        while (bigger.slots[at].value)
            at = (at + 1) & (bigger.cap - 1);
        bigger.slots[at] = *slot;
    }
    free(m->slots);
    *m = bigger;
    return 0;
}

err_t smap_put(struct smap *m, str_t key, void *value)
{
    must(value != NULL);
    uint64_t hash = smap_hash(m, key);
    if (m->cap) {
        struct smap_slot *slot = &m->slots[smap_find(m, key, hash)];
        if (slot->value) {
            slot->key = key; /* the old key's bytes may go away with the old value */
            slot->value = value;
            return 0;
        }
    }
    if (is_crowded(m->used_count, m->cap)) {
        err_t err = smap_grow(m);
        if (err)
            return err;
    }
    m->slots[smap_find(m, key, hash)] = (struct smap_slot){key, hash, value};
    m->used_count++;
    return 0;
}

void *smap_remove(struct smap *m, str_t key)
{
    if (!m->cap)
        return NULL;
    size_t hole = smap_find(m, key, smap_hash(m, key)), mask = m->cap - 1;
    void *value = m->slots[hole].value;
    if (!value)
        return NULL;
    for (size_t i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
        if (may_move(m->slots[i].hash & mask, i, hole, mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (struct smap_slot){0};
    m->used_count--;
    return value;
}

void smap_free(struct smap *m)
{
    free(m->slots);
    *m = (struct smap){.fold_case = m->fold_case};
}

bool smap_next(const struct smap *m, size_t *at, str_t *key, void **value)
{
    while (*at < m->cap) {
        const struct smap_slot *slot = &m->slots[(*at)++];
        if (slot->value) {
            *key = slot->key;
            *value = slot->value;
            return true;
        }
    }
    return false;
}
