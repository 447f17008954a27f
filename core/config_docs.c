/* core/config_docs.c: what else comes out of the schema: the reference, and which changes need a restart. */
#include "core/config_priv.h"

static void write_escaped(struct gbuf *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '|' || *s == '*' || *s == '_' || *s == '[')
            gbuf_cstr(out, "\\");
        gbuf_put(out, s, 1);
    }
}

static void write_title(struct gbuf *out, const struct value_type *t)
{
    str_t word, rest = str_cstr(t->choices);

    if (!t->choices) {
        gbuf_cstr(out, t->title);
        return;
    }
    do {
        str_t all = rest;
        str_cut(all, ' ', &word, &rest);
        gbuf_printf(out, "`" STR_FMT "`%s", STR_ARG(word), rest.n ? ", " : "");
    } while (rest.n);
}

static void write_row(struct gbuf *out, const struct schema_key *k)
{
    char min_text[32], max_text[32];
    struct sbuf min = SBUF_ON(min_text), max = SBUF_ON(max_text);

    gbuf_printf(out, "| `%s` | ", k->name);
    write_title(out, k->type);
    if (k->fallback == schema_required)
        gbuf_cstr(out, " | required | ");
    else if (k->fallback)
        gbuf_printf(out, " | `%s` | ", k->fallback);
    else
        gbuf_cstr(out, " |  | ");
    if (k->type->amount != AMOUNT_NONE) {
        schema_format_amount(k->type, k->min, &min);
        schema_format_amount(k->type, k->max, &max);
        gbuf_printf(out, STR_FMT " to " STR_FMT, STR_ARG(sbuf_view(&min)), STR_ARG(sbuf_view(&max)));
    }
    gbuf_printf(out, " | %s | ", k->restart ? "restart" : k->child == SECTION_COUNT ? "reload" : "");
    write_escaped(out, k->help);
    gbuf_printf(out, " Example: `%s: %s` |\n", k->name, k->example);
}

static void write_section(struct gbuf *out, enum section_id id)
{
    const struct schema_section *s = &schema_sections[id];

    gbuf_printf(out, "\n## %s%s%s\n\n", id == SECTION_top ? "Top of the file" : "`", s->path,
                id == SECTION_top ? "" : "`");
    write_escaped(out, s->help);
    gbuf_cstr(out,
              "\n\n| key | value | default | bounds | takes effect | meaning |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < schema_key_count; i++)
        if (schema_keys[i].section == id)
            write_row(out, &schema_keys[i]);
}

void config_write_docs(struct gbuf *out)
{
    gbuf_cstr(out, "# Configuration\n\n"
                   "One YAML file. Every key, made from `core/config.def`; do not edit this page.\n\n"
                   "A reload (SIGHUP, or `postern reload`) takes a new file as a whole or not at all; keys "
                   "marked *restart* are read "
                   "at start only. Sizes are bytes or have a unit: KiB, MiB, GiB, TiB (powers of 1024), KB, "
                   "MB, GB, TB (powers of "
                   "1000). Durations are seconds or have a unit: us, ms, s, m, h, d. Anchors, aliases, tags "
                   "and a second "
                   "document are refused.\n");
    for (enum section_id id = 0; id < SECTION_COUNT; id++)
        write_section(out, id);
}

static bool same_proxies(const struct cfg_listener *a, const struct cfg_listener *b)
{
    return a->proxies.count == b->proxies.count &&
           (a->proxies.count == 0 ||
            memcmp(a->proxies.items, b->proxies.items, a->proxies.count * sizeof *a->proxies.items) == 0);
}

static bool same_listeners(const struct config *a, const struct config *b)
{
    if (a->listener_count != b->listener_count)
        return false;
    for (size_t i = 0; i < a->listener_count; i++)
        if (!same_proxies(&a->listeners[i], &b->listeners[i]) ||
            !ip_eq(&a->listeners[i].at.ip, &b->listeners[i].at.ip) ||
            a->listeners[i].at.port != b->listeners[i].at.port || a->listeners[i].tls != b->listeners[i].tls)
            return false;
    return true;
}

static bool same_value(const struct schema_key *k, const struct config *a, const struct config *b)
{
    const void *x = (const char *)a + k->offset, *y = (const char *)b + k->offset;

    if (k->type->read == read_listeners)
        return same_listeners(a, b);
    if (k->type->read == read_path)
        return str_eq(*(const str_t *)x, *(const str_t *)y);
    return memcmp(x, y, k->size) == 0; /* numbers and endpoints: no padding */
}

size_t config_restart_keys(const struct config *running, const struct config *wanted, struct gbuf *keys)
{
    size_t count = 0;

    for (size_t i = 0; i < schema_key_count; i++) {
        const struct schema_key *k = &schema_keys[i];
        if (!k->restart || k->section == SECTION_listener || same_value(k, running, wanted))
            continue;
        gbuf_printf(keys, "%s%s%s%s", count ? ", " : "", schema_sections[k->section].path,
                    k->section == SECTION_top ? "" : ".", k->name);
        count++;
    }
    return count;
}
_Static_assert(sizeof(struct endpoint) == 18, "config_restart_keys compares endpoints as bytes");
