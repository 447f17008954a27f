/* core/config_value.c: readers of single values: numbers with units, words, paths. */
#include "core/config_priv.h"

#define QUOTED_BYTES_MAX 60

str_t clip(str_t s)
{
    if (s.n <= QUOTED_BYTES_MAX)
        return s;
    size_t n = QUOTED_BYTES_MAX;
    while (n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80) /* not through the middle of a character */
        n--;
    return str_of(s.p, n);
}

static void write_hint(const struct schema_key *k, struct sbuf *out)
{
    const struct value_type *t = k->type;
    if (t->choices) {
        str_t word, rest = str_cstr(t->choices);
        sbuf_cstr(out, "write ");
        do {
            str_t all = rest;
            str_cut(all, ' ', &word, &rest);
            sbuf_str(out, word);
            if (rest.n)
                sbuf_cstr(out, str_find(rest, ' ') < 0 ? " or " : ", ");
        } while (rest.n);
        return;
    }
    sbuf_printf(out, "%s, such as %s", t->write, k->example);
}

void value_error_because(struct loader *l, const struct schema_key *k, const struct node *n, const char *fmt,
                         ...)
{
    char reason_text[400], hint_text[300];
    struct sbuf hint = SBUF_ON(hint_text);
    str_t quoted = clip(n->text);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(reason_text, sizeof reason_text, fmt, ap);
    va_end(ap);
    write_hint(k, &hint);
    diag_error(l->diag, n->mark, "%s: \"" STR_FMT "%s\" %s; " STR_FMT, k->name, STR_ARG(quoted),
               quoted.n < n->text.n ? "..." : "", reason_text, STR_ARG(sbuf_view(&hint)));
}

void value_error(struct loader *l, const struct schema_key *k, const struct node *n)
{
    value_error_because(l, k, n, "is not %s", k->type->what);
}

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first; formatting takes the first that divides. */
static const struct unit size_units[] = {
    {"TiB", 1ull << 40},
    {"GiB", 1ull << 30},
    {"MiB", 1ull << 20},
    {"KiB", 1ull << 10},
    {"TB", 1000000000000ull},
    {"GB", 1000000000},
    {"MB", 1000000},
    {"KB", 1000},
    {"", 1},
};
static const struct unit time_units[] = {
    {"d", 86400000000000ull}, {"h", 3600000000000ull}, {"m", 60000000000ull},
    {"s", 1000000000},        {"ms", 1000000},         {"us", 1000},
    {"", 1000000000},
};
static const struct unit percent_units[] = {{"%", 1}, {"", 1}};
static const struct unit plain_units[] = {{"", 1}};

static const struct unit *units_of(enum amount_kind kind, size_t *count)
{
    switch (kind) {
    case AMOUNT_SIZE: *count = COUNT_OF(size_units); return size_units;
    case AMOUNT_TIME: *count = COUNT_OF(time_units); return time_units;
    case AMOUNT_PERCENT: *count = COUNT_OF(percent_units); return percent_units;
    default: *count = COUNT_OF(plain_units); return plain_units;
    }
}

void schema_format_amount(const struct value_type *t, uint64_t value, struct sbuf *out)
{
    size_t count;
    const struct unit *units = units_of(t->amount, &count);
    uint64_t base;

    if (value == 0 || __builtin_mul_overflow(value, t->scale, &base)) {
        sbuf_u64(out, value);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (base % units[i].factor != 0)
            continue;
        sbuf_u64(out, base / units[i].factor);
        sbuf_cstr(out, units[i].name);
        return;
    }
    sbuf_u64(out, value);
}

static void store(void *field, size_t size, uint64_t value)
{
    if (size == sizeof(uint64_t))
        *(uint64_t *)field = value;
    else if (size == sizeof(uint32_t))
        *(uint32_t *)field = (uint32_t)value;
    else if (size == sizeof(uint16_t))
        *(uint16_t *)field = (uint16_t)value;
    else if (size == sizeof(bool))
        *(bool *)field = value != 0;
    else
        must(!"a field of this size is in no row");
}

/* "256MiB" to a count of the type's base unit (bytes, nanoseconds, ones). */
static bool parse_amount(const struct value_type *t, str_t s, uint64_t *base)
{
    size_t digits = 0, count;
    uint64_t number;

    while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9')
        digits++;
    if (str_to_u64(str_sub(s, 0, digits), &number) != 0)
        return false;
    str_t suffix = str_sub(s, digits, s.n);
    const struct unit *units = units_of(t->amount, &count);
    for (size_t i = 0; i < count; i++)
        if (str_eq(suffix, str_cstr(units[i].name)))
            return !__builtin_mul_overflow(number, units[i].factor, base);
    return false;
}

bool config_parse_size(str_t s, uint64_t *bytes)
{
    const struct value_type size = {.amount = AMOUNT_SIZE};
    return parse_amount(&size, s, bytes);
}

void read_amount(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    char min_text[32], max_text[32], unit_text[32];
    struct sbuf min = SBUF_ON(min_text), max = SBUF_ON(max_text), unit = SBUF_ON(unit_text);
    uint64_t base;

    if (!parse_amount(k->type, n->text, &base)) {
        value_error(l, k, n);
        return;
    }
    uint64_t value = base / k->type->scale;
    if (base % k->type->scale != 0) {
        schema_format_amount(k->type, 1, &unit);
        value_error_because(l, k, n, "is finer than " STR_FMT ", the smallest step here",
                            STR_ARG(sbuf_view(&unit)));
        return;
    }
    if (value < k->min || value > k->max) {
        schema_format_amount(k->type, k->min, &min);
        schema_format_amount(k->type, k->max, &max);
        diag_error(l->diag, n->mark, "%s: " STR_FMT " is too %s; write " STR_FMT " to " STR_FMT, k->name,
                   STR_ARG(clip(n->text)), value < k->min ? "small" : "large", STR_ARG(sbuf_view(&min)),
                   STR_ARG(sbuf_view(&max)));
        return;
    }
    store(field, k->size, value);
}

static const struct {
    char letter;
    uint32_t seconds;
} periods[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};

void cfg_rate_format(const struct cfg_rate *r, struct sbuf *out)
{
    if (!r->count) {
        sbuf_cstr(out, "none");
        return;
    }
    for (size_t i = 0; i < COUNT_OF(periods); i++)
        if (periods[i].seconds == r->period_s)
            sbuf_printf(out, "%u/%c", r->count, periods[i].letter);
}

void read_rate(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    struct cfg_rate *r = field, rate = {0};
    str_t count, period;
    uint64_t number;

    if (str_eq(n->text, STR("none"))) {
        *r = rate;
        return;
    }
    str_cut(n->text, '/', &count, &period);
    for (size_t i = 0; period.n == 1 && i < COUNT_OF(periods); i++)
        if (period.p[0] == periods[i].letter)
            rate.period_s = periods[i].seconds;
    if (!rate.period_s || str_to_u64(count, &number)) {
        value_error(l, k, n);
        return;
    }
    if (number < 1 || number > CFG_RATE_COUNT_MAX) {
        value_error_because(l, k, n, "is too %s: 1 to %d messages can be counted",
                            number < 1 ? "small" : "large", CFG_RATE_COUNT_MAX);
        return;
    }
    rate.count = (uint32_t)number;
    *r = rate;
}

void read_workers(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    if (str_eq(n->text, STR("auto")))
        *(uint32_t *)field = 0;
    else
        read_amount(l, k, n, field);
}

void read_choice(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    str_t word, rest = str_cstr(k->type->choices);
    uint64_t value = 0;

    do {
        str_t all = rest;
        str_cut(all, ' ', &word, &rest);
        if (str_eq(word, n->text)) {
            store(field, k->size, value);
            return;
        }
        value++;
    } while (rest.n);
    str_t near = nearest_word(n->text, k->type->choices);
    if (near.n)
        value_error_because(l, k, n, "is not known here (did you mean " STR_FMT "?)", STR_ARG(near));
    else
        value_error_because(l, k, n, "is not known here");
}

void read_path(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    if (!n->text.n || n->text.p[0] != '/') {
        value_error(l, k, n);
        return;
    }
    for (size_t i = 0; i < n->text.n; i++) {
        if ((unsigned char)n->text.p[i] < 0x20 || n->text.p[i] == 0x7f) {
            value_error_because(l, k, n, "has control characters");
            return;
        }
    }
    if (n->text.n >= 4096) {
        value_error_because(l, k, n, "is longer than any path (4095 bytes)");
        return;
    }
    *(str_t *)field = arena_str(l->arena, n->text);
}

/* useradd(8) takes no others; 32 is the longest. */
void read_system_user(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    bool ok = n->text.n && n->text.n <= 32;
    for (size_t i = 0; ok && i < n->text.n; i++) {
        char c = n->text.p[i];
        ok = (c >= 'a' && c <= 'z') || c == '_' || (i && ((c >= '0' && c <= '9') || c == '-'));
    }
    if (ok)
        *(str_t *)field = arena_str(l->arena, n->text);
    else
        value_error(l, k, n);
}
