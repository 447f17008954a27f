/* admin/cli/fields_priv.h: fields of the API's answers as text, numbers and cells, for show.c and
 * show_verify.c. */
#ifndef ADMIN_CLI_FIELDS_PRIV_H
#define ADMIN_CLI_FIELDS_PRIV_H

#include <jansson.h>

#include "admin/cli/table.h"
#include "admin/cli/text.h"

/* --- fields, whatever they are --- */

static inline str_t text_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_string(v) ? str_of(json_string_value(v), json_string_length(v)) : STR_NONE;
}

static inline double number_of(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key)); /* 0 if it is none */
}

static inline uint64_t count_of(const json_t *o, const char *key)
{
    double v = number_of(o, key);
    return v > 0 && v < 1e18 ? (uint64_t)v : 0;
}

static inline bool has_number(const json_t *o, const char *key)
{
    return json_is_number(json_object_get(o, key));
}

static inline bool is_true(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

/* --- cells --- */

static inline void cell_count(struct table *t, const json_t *o, const char *key)
{
    char text[32];
    struct sbuf b = SBUF_ON(text);
    if (has_number(o, key))
        sbuf_u64(&b, count_of(o, key));
    table_cell(t, sbuf_view(&b));
}

static inline void cell_size(struct table *t, const json_t *o, const char *key)
{
    char text[32];
    struct sbuf b = SBUF_ON(text);
    if (has_number(o, key))
        text_size(&b, count_of(o, key));
    table_cell(t, sbuf_view(&b));
}

static inline void cell_age(struct table *t, const json_t *o, const char *key)
{
    char text[32];
    struct sbuf b = SBUF_ON(text);
    if (has_number(o, key))
        text_age(&b, number_of(o, key));
    table_cell(t, sbuf_view(&b));
}

static inline void cell_until(struct table *t, const json_t *o, const char *key, uint64_t now_wall_ns)
{
    char text[64];
    struct sbuf b = SBUF_ON(text);
    str_t v = text_of(o, key);
    if (v.n)
        text_until(&b, v, now_wall_ns);
    table_cell(t, sbuf_view(&b));
}

static inline void write_safe(FILE *out, str_t s)
{
    char *safe = malloc(MAX(s.n, (size_t)1));
    if (!safe)
        return;
    fwrite(safe, 1, text_safe(safe, s), out);
    free(safe);
}

static inline void write_line(FILE *out, const char *label, str_t value)
{
    fprintf(out, "%-9s", label);
    write_safe(out, value.n ? value : STR("-"));
    fputc('\n', out);
}

#endif
