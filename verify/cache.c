/* verify/cache.c: a set-associative table under sequence counters.
 *
 *      set   = | sequence | 16 tags |   one cache line: is it here, and where?
 *              | 16 entries         |   32 bytes each: hash, record, last use
 *
 * An entry stands in the way its hash prefers, or in the other one of that cache line, if there is room. So
 * both lines can be fetched at once, before the first one says where the entry is: in a table larger than
 * the processor's caches, a look-up waits for memory once and not twice.
 *
 * Reading: take the sequence (odd: a writer is at work, wait), read, compare the sequence again; different:
 * read again. Writing: whoever turns the sequence odd has the set's turn and turns it even when done. Every
 * word is an atomic. Words are written with release and read with acquire instead of plain accesses between
 * fences: a reader that sees any new word then also sees that the sequence has moved, which is all that is
 * needed, and the thread sanitizer understands it. On x86 both are ordinary moves.
 *
 * The exception is the time of last use: readers store it as they pass, without a turn. At worst an entry
 * that has just taken the place of another looks used. */
#include "verify/cache.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include <ck_pr.h>

#include "core/metrics.h"

#define WAYS         16
#define TAG_BITS     16
#define TAGS_A_WORD  4
#define USED_STEP_S  60 /* hits within this leave the cache line alone */
#define SPINS        64 /* then the writer probably lost its core */
#define NEARBY_COUNT 64 /* sets looked at for something to drop */
#define HUGE_PAGE    ((size_t)2 << 20)

struct entry {
    atomic_uint_fast64_t lo, hi; /* of the key's hash */
    atomic_uint_fast64_t state;  /* what is known, and of which domain: pack() */
    atomic_uint refused_s;
    atomic_uint used_s;
};

struct set {
    _Alignas(64) atomic_uint sequence;             /* odd: being changed */
    atomic_uint_fast64_t tags[WAYS / TAGS_A_WORD]; /* four each, the first in the low bits; 0: free */
    _Alignas(64) struct entry entries[WAYS];
};

_Static_assert(VERDICT_DISABLED < 4 && SOURCE_SENDER < 4 && PIN_UNKNOWN < 4, "two bits each in pack()");
_Static_assert(sizeof(struct entry) == 32, "two to a cache line");
_Static_assert(sizeof(struct set) == 64 + WAYS * 32, "no holes but in the first line");

struct verdict_cache {
    struct set *sets; /* mapped */
    size_t set_count, mapped_bytes;
    uint64_t capacity;
    /* Counted by writers only. */
    _Alignas(64) atomic_uint_fast64_t entry_count;
    atomic_uint_fast64_t good_count, unknown_count, pinned_count, eviction_count, refused_count;
};

/* The key in the table. */
struct place {
    struct hash128 hash;
    struct set *set;
    uint16_t tag;
    uint8_t way;     /* that it prefers */
    uint32_t domain; /* of a key that is to be written */
};

/* --- records as words --- */

/* |32 checked_s|24 domain|8 state, source, suspect, pin|: whose two bits each are enough */
static uint64_t pack(const struct verdict_record *r, uint32_t domain)
{
    return (uint64_t)r->checked_s << 32 | (uint64_t)domain << 8 | (uint64_t)(r->pin << 6 | r->suspect << 4) |
           (uint64_t)(r->source << 2 | r->state);
}

static struct verdict_record unpack(uint64_t state, uint32_t refused_s)
{
    return (struct verdict_record){.state = state & 3,
                                   .source = state >> 2 & 3,
                                   .suspect = state >> 4 & 3,
                                   .pin = state >> 6 & 3,
                                   .checked_s = (uint32_t)(state >> 32),
                                   .refused_s = refused_s};
}

static uint32_t unpack_domain(uint64_t state)
{
    return (uint32_t)(state >> 8) & VERDICT_DOMAIN_MAX;
}

uint32_t verdict_domain(str_t domain)
{
    return (uint32_t)str_hash(domain) & VERDICT_DOMAIN_MAX;
}

static uint32_t domain_of_key(str_t key)
{
    return verdict_domain(str_sub(key, (size_t)(str_rfind(key, '@') + 1), key.n));
}

static struct verdict_record entry_record(const struct entry *e)
{
    uint64_t state = atomic_load_explicit(&e->state, memory_order_acquire);
    return unpack(state, atomic_load_explicit(&e->refused_s, memory_order_acquire));
}

static bool is_nothing(const struct verdict_record *r)
{
    return r->state == VERDICT_NONE && r->pin == PIN_NONE;
}

/* --- places --- */

ALWAYS_INLINE struct place place_of(struct verdict_cache *c, str_t key)
{
    struct place p = {.hash = str_hash128(key)};
    /* The high bits choose the set (a multiplication spreads them over any number of sets), the low ones are
     * the tag, those above it the way. */
    p.set = &c->sets[(size_t)(((unsigned __int128)p.hash.hi * c->set_count) >> 64)];
    p.tag = (uint16_t)p.hash.lo ? (uint16_t)p.hash.lo : 1;
    p.way = p.hash.lo >> TAG_BITS & (WAYS - 1);
    __builtin_prefetch(p.set);
    __builtin_prefetch(&p.set->entries[p.way]);
    return p;
}

static unsigned tag_shift(int way)
{
    return (unsigned)way % TAGS_A_WORD * TAG_BITS;
}

/* 0: the way is free. */
static uint16_t tag_at(const struct set *s, int way)
{
    return (uint16_t)(atomic_load_explicit(&s->tags[way / TAGS_A_WORD], memory_order_acquire) >>
                      tag_shift(way));
}

/* In one's turn only, so nobody else changes the word meanwhile. */
static void tag_set(struct set *s, int way, uint16_t tag)
{
    atomic_uint_fast64_t *word = &s->tags[way / TAGS_A_WORD];
    uint64_t others =
        atomic_load_explicit(word, memory_order_relaxed) & ~((uint64_t)UINT16_MAX << tag_shift(way));
    atomic_store_explicit(word, others | (uint64_t)tag << tag_shift(way), memory_order_release);
}

/* The highest bit of each of the four tags that is `tag`. */
static uint64_t tags_like(uint64_t word, uint16_t tag)
{
    const uint64_t ones = UINT64_C(0x0001000100010001), low15 = ones * INT16_MAX;
    uint64_t differs = word ^ tag * ones;
    return ~(((differs & low15) + low15) | differs | low15);
}

/* -1: not here. Without a branch that depends on where: one that is guessed wrong, after memory has answered,
 * would throw away the beginning of the next look-up. */
ALWAYS_INLINE int find(struct place p)
{
    uint64_t like = 0; /* bit 16 * i + word: tag i of the word */
    for (int word = 0; word < WAYS / TAGS_A_WORD; word++)
        like |= tags_like(atomic_load_explicit(&p.set->tags[word], memory_order_acquire), p.tag) >>
                (TAG_BITS - 1 - word);
    for (; like; like &= like - 1) {
        int bit = __builtin_ctzll(like), i = bit % TAG_BITS * TAGS_A_WORD + bit / TAG_BITS;
        const struct entry *e = &p.set->entries[i];
        if (atomic_load_explicit(&e->lo, memory_order_acquire) == p.hash.lo &&
            atomic_load_explicit(&e->hi, memory_order_acquire) == p.hash.hi)
            return i;
    }
    return -1;
}

/* --- turns --- */

static void wait_a_moment(unsigned *spins)
{
    if (++*spins % SPINS == 0)
        sched_yield();
    else
        ck_pr_stall();
}

static bool turn_try(struct set *s)
{
    unsigned even = atomic_load_explicit(&s->sequence, memory_order_relaxed);
    return even % 2 == 0 && atomic_compare_exchange_strong_explicit(
                                &s->sequence, &even, even + 1, memory_order_acquire, memory_order_relaxed);
}

static void turn_take(struct set *s)
{
    for (unsigned spins = 0; !turn_try(s);)
        wait_a_moment(&spins);
}

static void turn_end(struct set *s)
{
    unsigned odd = atomic_load_explicit(&s->sequence, memory_order_relaxed);
    atomic_store_explicit(&s->sequence, odd + 1, memory_order_release);
}

/* --- looking up --- */

static void mark_used(struct entry *e, uint32_t now_s)
{
    uint32_t used_s = atomic_load_explicit(&e->used_s, memory_order_relaxed);
    if (now_s >= used_s + USED_STEP_S || now_s < used_s)
        atomic_store_explicit(&e->used_s, now_s, memory_order_relaxed);
}

/* The way where it is, or -1. */
ALWAYS_INLINE int look(struct place p, struct verdict_record *out)
{
    for (unsigned spins = 0;; wait_a_moment(&spins)) {
        unsigned before = atomic_load_explicit(&p.set->sequence, memory_order_acquire);
        if (before % 2)
            continue;
        int i = find(p);
        if (i >= 0)
            *out = entry_record(&p.set->entries[i]);
        if (atomic_load_explicit(&p.set->sequence, memory_order_relaxed) == before)
            return i;
    }
}

bool verdict_cache_get(struct verdict_cache *c, str_t key, uint32_t now_s, struct verdict_record *out)
{
    struct place p = place_of(c, key);
    int i = look(p, out);
    if (i >= 0)
        mark_used(&p.set->entries[i], now_s);
    metric_inc(i >= 0 ? M_verdict_cache_hits : M_verdict_cache_misses);
    return i >= 0;
}

bool verdict_cache_peek(struct verdict_cache *c, str_t key, struct verdict_record *out)
{
    return look(place_of(c, key), out) >= 0;
}

/* --- counting --- */

/* The metric is the process's, which has one cache; it adds up over threads by itself. */
static void count(atomic_uint_fast64_t *n, enum metric gauge, bool before, bool after)
{
    if (before == after)
        return;
    atomic_fetch_add_explicit(n, after ? 1 : UINT64_MAX, memory_order_relaxed);
    metric_add(gauge, after ? 1 : -1);
}

static void count_change(struct verdict_cache *c, const struct verdict_record *old,
                         const struct verdict_record *new)
{
    count(&c->good_count, M_verdict_cache_good, old->state == VERDICT_GOOD, new->state == VERDICT_GOOD);
    count(&c->unknown_count, M_verdict_cache_unknown, old->state > VERDICT_GOOD, new->state > VERDICT_GOOD);
    count(&c->pinned_count, M_verdict_cache_pinned, old->pin, new->pin);
}

static bool reserve(struct verdict_cache *c)
{
    uint64_t n = atomic_load_explicit(&c->entry_count, memory_order_relaxed);
    do {
        if (n >= c->capacity)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&c->entry_count, &n, n + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

static void unreserve(struct verdict_cache *c)
{
    atomic_fetch_sub_explicit(&c->entry_count, 1, memory_order_relaxed);
}

/* --- changing; the caller has the set's turn --- */

static void write_entry(struct verdict_cache *c, struct entry *e, uint32_t domain,
                        const struct verdict_record *old, const struct verdict_record *new)
{
    atomic_store_explicit(&e->state, pack(new, domain), memory_order_release);
    atomic_store_explicit(&e->refused_s, new->refused_s, memory_order_release);
    count_change(c, old, new);
}

static void clear(struct verdict_cache *c, struct set *s, int i)
{
    static const struct verdict_record nothing;
    struct verdict_record old = entry_record(&s->entries[i]);
    tag_set(s, i, 0);
    count_change(c, &old, &nothing);
}

/* Who goes first: the higher the earlier; 0 never. `age` orders within a class. */
static uint64_t victim_rank(const struct entry *e, uint32_t now_s)
{
    struct verdict_record r = entry_record(e);
    uint32_t used_s = atomic_load_explicit(&e->used_s, memory_order_relaxed);
    uint32_t checked = now_s > r.checked_s ? now_s - r.checked_s : 0;
    uint32_t idle = now_s > used_s ? now_s - used_s : 0;
    bool good = r.state == VERDICT_GOOD;
    if (r.pin)
        return 0;
    uint64_t class = checked >= (good ? VERDICT_GOOD_DEAD_S : VERDICT_UNKNOWN_DEAD_S) ? 3 : good ? 1 : 2;
    return class << 32 | MIN(idle, checked);
}

/* -1: all are pinned, or none is there; or, with `newer_s`, none is older than that. */
static int find_victim(const struct set *s, uint32_t now_s, const uint32_t *newer_s)
{
    uint64_t highest = 0;
    int victim = -1;
    for (int i = 0; i < WAYS; i++) {
        if (!tag_at(s, i))
            continue;
        uint64_t rank = victim_rank(&s->entries[i], now_s);
        if (rank > highest && (!newer_s || entry_record(&s->entries[i]).checked_s < *newer_s)) {
            highest = rank;
            victim = i;
        }
    }
    return victim;
}

static void evict(struct verdict_cache *c, struct set *s, int i)
{
    clear(c, s, i);
    atomic_fetch_add_explicit(&c->eviction_count, 1, memory_order_relaxed);
    metric_inc(M_verdict_cache_evictions);
}

/* Frees one entry's share of the capacity in another set. Waits for nobody's turn, since it has one. */
static bool evict_nearby(struct verdict_cache *c, struct set *s, uint32_t now_s, const uint32_t *newer_s)
{
    size_t at = (size_t)(s - c->sets);
    for (size_t i = 1; i <= NEARBY_COUNT && i < c->set_count; i++) {
        struct set *other = &c->sets[(at + i) % c->set_count];
        if (!turn_try(other))
            continue;
        int victim = find_victim(other, now_s, newer_s);
        if (victim >= 0)
            evict(c, other, victim);
        turn_end(other);
        if (victim >= 0)
            return true;
    }
    return false;
}

/* The nearest to the preferred one; first the other one of its cache line. */
static int free_way(struct place p)
{
    for (int i = 0; i < WAYS; i++) {
        if (!tag_at(p.set, p.way ^ i))
            return p.way ^ i;
    }
    return -1;
}

/* A way of the set, with its share of the capacity. -1: no room. */
static int take_way(struct verdict_cache *c, struct place p, uint32_t now_s, const uint32_t *newer_s)
{
    struct set *s = p.set;
    int way = free_way(p);
    if (way >= 0 && reserve(c))
        return way;
    int victim = find_victim(s, now_s, newer_s);
    if (victim >= 0) { /* its share goes with its place */
        evict(c, s, victim);
        return victim;
    }
    return way >= 0 && evict_nearby(c, s, now_s, newer_s) ? way : -1;
}

static bool insert(struct verdict_cache *c, struct place p, const struct verdict_record *r, uint32_t used_s,
                   uint32_t now_s, const uint32_t *newer_s)
{
    static const struct verdict_record nothing;
    int i = take_way(c, p, now_s, newer_s);
    if (i < 0) {
        atomic_fetch_add_explicit(&c->refused_count, 1, memory_order_relaxed);
        return false;
    }
    struct entry *e = &p.set->entries[i];
    atomic_store_explicit(&e->lo, p.hash.lo, memory_order_release);
    atomic_store_explicit(&e->hi, p.hash.hi, memory_order_release);
    atomic_store_explicit(&e->used_s, used_s, memory_order_relaxed);
    write_entry(c, e, p.domain, &nothing, r);
    tag_set(p.set, i, p.tag);
    return true;
}

bool verdict_cache_update(struct verdict_cache *c, str_t key, uint32_t now_s,
                          struct verdict_record (*change)(void *ctx, struct verdict_record old), void *ctx,
                          struct verdict_record *out)
{
    struct verdict_record old = {0};
    struct place p = place_of(c, key);
    p.domain = domain_of_key(key);
    turn_take(p.set);
    int i = find(p);
    if (i >= 0)
        old = entry_record(&p.set->entries[i]);
    struct verdict_record new = change(ctx, old);
    bool changed = !verdict_record_eq(&old, &new);
    if (changed && is_nothing(&new)) {
        changed = i >= 0;
        if (changed) {
            clear(c, p.set, i);
            unreserve(c);
        }
    } else if (changed && i >= 0) {
        write_entry(c, &p.set->entries[i], p.domain, &old, &new);
        atomic_store_explicit(&p.set->entries[i].used_s, now_s, memory_order_relaxed);
    } else if (changed) {
        changed = insert(c, p, &new, now_s, now_s, NULL);
    }
    turn_end(p.set);
    if (out)
        *out = new;
    return changed;
}

void verdict_cache_load(struct verdict_cache *c, str_t key, const struct verdict_record *r, uint32_t now_s)
{
    struct place p = place_of(c, key);
    if (is_nothing(r))
        return;
    p.domain = domain_of_key(key);
    turn_take(p.set);
    if (find(p) < 0)
        (void)insert(c, p, r, MIN(r->checked_s, now_s), now_s, r->pin ? NULL : &r->checked_s);
    turn_end(p.set);
}

/* --- all of it --- */

static bool is_there(const struct set *s, int i, struct verdict_entry *out)
{
    if (!tag_at(s, i))
        return false;
    const struct entry *e = &s->entries[i];
    *out = (struct verdict_entry){
        .record = entry_record(e),
        .used_s = atomic_load_explicit(&e->used_s, memory_order_relaxed),
        .domain = unpack_domain(atomic_load_explicit(&e->state, memory_order_acquire)),
    };
    return true;
}

/* A copy of what is in the set at one moment; returns how many. */
static int copy_set(const struct set *s, struct verdict_entry out[WAYS])
{
    for (unsigned spins = 0;; wait_a_moment(&spins)) {
        int count = 0;
        unsigned before = atomic_load_explicit(&s->sequence, memory_order_acquire);
        if (before % 2)
            continue;
        for (int i = 0; i < WAYS; i++)
            count += is_there(s, i, &out[count]);
        if (atomic_load_explicit(&s->sequence, memory_order_relaxed) == before)
            return count;
    }
}

void verdict_cache_each(const struct verdict_cache *c, size_t sample_sets,
                        void (*each)(void *ctx, const struct verdict_entry *e), void *ctx)
{
    size_t step = sample_sets && sample_sets < c->set_count ? c->set_count / sample_sets : 1;
    struct verdict_entry entries[WAYS];
    for (size_t at = 0; at < c->set_count; at += step) {
        int count = copy_set(&c->sets[at], entries);
        for (int i = 0; i < count; i++)
            each(ctx, &entries[i]);
    }
}

static void forget(struct verdict_cache *c, struct set *s, int i, const struct verdict_entry *e)
{
    struct verdict_record bare = {.pin = e->record.pin};
    if (!bare.pin) {
        clear(c, s, i);
        unreserve(c);
    } else {
        write_entry(c, &s->entries[i], e->domain, &e->record, &bare);
    }
}

uint64_t verdict_cache_forget(struct verdict_cache *c, bool (*goes)(void *ctx, const struct verdict_entry *e),
                              void *ctx)
{
    uint64_t count = 0;
    struct verdict_entry copies[WAYS], e;
    for (size_t at = 0; at < c->set_count; at++) {
        struct set *s = &c->sets[at];
        int wanted = 0, there = copy_set(s, copies);
        for (int i = 0; i < there; i++)
            wanted += copies[i].record.state != VERDICT_NONE && goes(ctx, &copies[i]);
        if (!wanted) /* most, mostly: their cache lines stay as they are */
            continue;
        turn_take(s);
        for (int i = 0; i < WAYS; i++)
            if (is_there(s, i, &e) && e.record.state != VERDICT_NONE && goes(ctx, &e)) {
                forget(c, s, i, &e);
                count++;
            }
        turn_end(s);
    }
    return count;
}

/* --- life --- */

err_t verdict_cache_create(struct verdict_cache **out, uint32_t capacity)
{
    *out = NULL;
    must(capacity > 0 && capacity <= VERDICT_CACHE_MAX);
    struct verdict_cache *c = aligned_alloc(64, ALIGN_UP(sizeof *c, 64));
    if (!c)
        return -ENOMEM;
    memset(c, 0, sizeof *c);
    c->capacity = capacity;
    c->set_count = ((size_t)capacity * 2 + WAYS - 1) / WAYS;
    c->mapped_bytes = c->set_count * sizeof(struct set);
    void *p = mmap(NULL, c->mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        free(c);
        return -ENOMEM;
    }
    if (c->mapped_bytes >= HUGE_PAGE)
        (void)madvise(p, c->mapped_bytes, MADV_HUGEPAGE); /* advice: a kernel without it works as well */
    c->sets = p;                                          /* zeroes: even sequences, free tags */
    *out = c;
    return 0;
}

void verdict_cache_destroy(struct verdict_cache *c)
{
    if (!c)
        return;
    munmap(c->sets, c->mapped_bytes);
    free(c);
}

void verdict_cache_stats(const struct verdict_cache *c, struct verdict_cache_stats *out)
{
    *out = (struct verdict_cache_stats){
        .capacity = c->capacity,
        .entries = atomic_load_explicit(&c->entry_count, memory_order_relaxed),
        .good = atomic_load_explicit(&c->good_count, memory_order_relaxed),
        .unknown = atomic_load_explicit(&c->unknown_count, memory_order_relaxed),
        .pinned = atomic_load_explicit(&c->pinned_count, memory_order_relaxed),
        .evictions = atomic_load_explicit(&c->eviction_count, memory_order_relaxed),
        .refused = atomic_load_explicit(&c->refused_count, memory_order_relaxed),
        .bytes = sizeof *c + c->mapped_bytes,
    };
}
