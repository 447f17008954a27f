/* admin/filter.c: see filter.h. */
#include "admin/filter.h"

#include <errno.h>

#include "core/log.h"

#define PATTERN_BYTES_MAX 1024

static const struct {
    const char *name;
    enum filter_state state;
} STATES[] = {{"active", FILTER_ACTIVE},
              {"deferred", FILTER_DEFERRED},
              {"held", FILTER_HELD},
              {"leased", FILTER_LEASED}};

/* --- patterns --- */

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Goes back to the last '*' only: that is enough, and keeps it from being exponential. */
bool filter_glob(str_t pattern, str_t s)
{
    size_t p = 0, i = 0, star = SIZE_MAX, star_i = 0;
    while (i < s.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            star_i = i;
        } else if (p < pattern.n && fold(pattern.p[p]) == fold(s.p[i])) {
            p++;
            i++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            i = ++star_i;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*')
        p++;
    return p == pattern.n;
}

/* --- parameters --- */

static err_t set_text(str_t *out, str_t value, struct sbuf *error)
{
    if (value.n > PATTERN_BYTES_MAX) {
        sbuf_cstr(error, "a pattern is longer than 1024 bytes");
        return ERR_LIMIT;
    }
    char *copy = malloc(value.n + 1);
    if (!copy) {
        sbuf_cstr(error, "out of memory");
        return -ENOMEM;
    }
    if (value.n)
        memcpy(copy, value.p, value.n);
    free((char *)(uintptr_t)out->p);
    *out = str_of(copy, value.n);
    return 0;
}

static err_t set_age(uint64_t *out, str_t key, str_t value, struct sbuf *error)
{
    uint64_t unit = 1, n;
    str_t digits = value;
    if (value.n > 1) {
        switch (value.p[value.n - 1]) {
        case 's': unit = 1; break;
        case 'm': unit = 60; break;
        case 'h': unit = 3600; break;
        case 'd': unit = 86400; break;
        default: unit = 0; break;
        }
        if (unit)
            digits.n--;
        else
            unit = 1;
    }
    if (str_to_u64(digits, &n) || n == 0 || n > UINT32_MAX) {
        sbuf_printf(error, STR_FMT ": it must be a time like 45s, 10m, 3h or 2d", STR_ARG(key));
        return ERR_SYNTAX;
    }
    *out = n * unit;
    return 0;
}

/* One, or several with commas between. */
static err_t set_states(unsigned *out, str_t value, struct sbuf *error)
{
    str_t head, rest = value;
    do {
        unsigned found = 0;
        str_cut(rest, ',', &head, &rest);
        for (size_t i = 0; i < COUNT_OF(STATES); i++)
            if (str_ieq(head, str_cstr(STATES[i].name)))
                found = STATES[i].state;
        if (!found) {
            sbuf_cstr(error, "state: it must be active, deferred, held or leased");
            return ERR_SYNTAX;
        }
        *out |= found;
    } while (rest.n);
    return 0;
}

static err_t add_id(struct filter *f, str_t value, struct sbuf *error)
{
    uint64_t id;
    if (qid_parse(value, &id)) {
        sbuf_printf(error, "\"" STR_FMT "\" is no queue id: they have 13 letters and digits",
                    STR_ARG(str_sub(value, 0, 40)));
        return ERR_SYNTAX;
    }
    if (f->id_count == FILTER_IDS_MAX) {
        sbuf_cstr(error, "more than 10000 ids");
        return ERR_LIMIT;
    }
    if (f->id_count == f->id_cap) {
        size_t cap = f->id_cap ? f->id_cap * 2 : 16;
        uint64_t *ids = reallocarray(f->ids, cap, sizeof *ids);
        if (!ids) {
            sbuf_cstr(error, "out of memory");
            return -ENOMEM;
        }
        f->ids = ids;
        f->id_cap = cap;
    }
    f->ids[f->id_count++] = id;
    return 0;
}

err_t filter_set(struct filter *f, str_t key, str_t value, struct sbuf *error)
{
    const struct {
        str_t key;
        str_t *text;
    } texts[] = {{STR("sender"), &f->sender},
                 {STR("recipient"), &f->recipient},
                 {STR("domain"), &f->domain},
                 {STR("destination"), &f->destination}};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        if (str_eq(key, texts[i].key))
            return set_text(texts[i].text, value, error);
    if (str_eq(key, STR("older")))
        return set_age(&f->older_s, key, value, error);
    if (str_eq(key, STR("younger")))
        return set_age(&f->younger_s, key, value, error);
    if (str_eq(key, STR("state")))
        return set_states(&f->states, value, error);
    if (str_eq(key, STR("id")))
        return add_id(f, value, error);
    return ERR_NOT_FOUND;
}

err_t filter_set_ids(struct filter *f, str_t lines, struct sbuf *error)
{
    str_t line;
    while (lines.n) {
        str_cut(lines, '\n', &line, &lines);
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (line.n == 0)
            continue;
        err_t err = add_id(f, line, error);
        if (err)
            return err;
    }
    return 0;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

void filter_finish(struct filter *f)
{
    if (f->id_count == 0)
        return;
    qsort(f->ids, f->id_count, sizeof *f->ids, ascending);
    size_t kept = 1;
    for (size_t i = 1; i < f->id_count; i++)
        if (f->ids[i] != f->ids[kept - 1])
            f->ids[kept++] = f->ids[i];
    f->id_count = kept;
}

void filter_free(struct filter *f)
{
    str_t *texts[] = {&f->sender, &f->recipient, &f->domain, &f->destination};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        free((char *)(uintptr_t)texts[i]->p);
    free(f->ids);
    *f = (struct filter){0};
}

/* --- matching --- */

bool filter_is_empty(const struct filter *f)
{
    return !filter_wants_envelope(f) && !f->older_s && !f->younger_s && !f->states && !f->ids;
}

bool filter_takes_age(const struct filter *f, uint64_t age_s)
{
    return (!f->older_s || age_s >= f->older_s) && (!f->younger_s || age_s < f->younger_s);
}

bool filter_takes_state(const struct filter *f, str_t state)
{
    for (size_t i = 0; f->states && i < COUNT_OF(STATES); i++)
        if (f->states & STATES[i].state && str_eq(state, str_cstr(STATES[i].name)))
            return true;
    return !f->states;
}

bool filter_takes_sender(const struct filter *f, str_t sender)
{
    if (!f->sender.p)
        return true;
    if (f->sender.n == 0 || str_eq(f->sender, STR("<>")))
        return sender.n == 0;
    return filter_glob(f->sender, sender);
}

bool filter_takes_recipient(const struct filter *f, str_t address)
{
    if (f->recipient.p && !filter_glob(f->recipient, address))
        return false;
    ptrdiff_t at = str_rfind(address, '@');
    str_t domain = at < 0 ? STR("") : str_sub(address, (size_t)at + 1, address.n);
    return !f->domain.p || filter_glob(f->domain, domain);
}

bool filter_takes_destination(const struct filter *f, str_t key)
{
    return !f->destination.p || (key.p && filter_glob(f->destination, key));
}
