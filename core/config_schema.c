/* core/config_schema.c: config.def made into rows, and the walk over a map that they drive. */
#include "core/config_priv.h"

#define ERRORS_MAX 500 /* then a file is noise and its end is not looked at */

const char schema_required[] = "";

#define CHILD(section, name, child, example, help)
#define KEY(section, name, type, field, fallback, min, max, restart, example, help)
#define TYPE(id, wants, reader, amount, scale, title, what, write)
#define CHOICE(id, words)
#define SECTION(id, type, path, help) [SECTION_##id] = {path, help},
const struct schema_section schema_sections[SECTION_COUNT] = {
#include "core/config.def"
};
#undef SECTION

#define SECTION(id, type, path, help) typedef struct type struct_of_##id;
#include "core/config.def"
#undef SECTION

#define SECTION(id, type, path, help)
#undef TYPE
#define TYPE(id, wants_, reader, amount_, scale_, title_, what_, write_)                                     \
    static const struct value_type type_##id = {.title = title_,                                             \
                                                .what = what_,                                               \
                                                .write = write_,                                             \
                                                .wants = NODE_##wants_,                                      \
                                                .amount = amount_,                                           \
                                                .scale = scale_,                                             \
                                                .read = reader};
#undef CHOICE
#define CHOICE(id, words)                                                                                    \
    static const struct value_type type_##id = {.title = "word",                                             \
                                                .what = "one of the words known here",                       \
                                                .wants = NODE_SCALAR,                                        \
                                                .choices = words,                                            \
                                                .read = read_choice};
#include "core/config.def"
#undef TYPE
#undef CHOICE

static const struct value_type type_section = {
    .title = "map", .what = "a map", .write = "write a map", .wants = NODE_MAP, .read = read_section};

#define REQUIRED schema_required
#define TYPE(id, wants, reader, amount, scale, title, what, write)
#define CHOICE(id, words)
#undef CHILD
#define CHILD(section_, name_, child_, example_, help_)                                                      \
    {.section = SECTION_##section_,                                                                          \
     .name = #name_,                                                                                         \
     .type = &type_section,                                                                                  \
     .child = SECTION_##child_,                                                                              \
     .example = example_,                                                                                    \
     .help = help_},
#undef KEY
#define KEY(section_, name_, t_, field_, fallback_, min_, max_, restart_, example_, help_)                   \
    {.section = SECTION_##section_,                                                                          \
     .name = #name_,                                                                                         \
     .type = &type_##t_,                                                                                     \
     .child = SECTION_COUNT,                                                                                 \
     .offset = offsetof(struct_of_##section_, field_),                                                       \
     .size = sizeof(((struct_of_##section_ *)NULL)->field_),                                                 \
     .fallback = fallback_,                                                                                  \
     .min = min_,                                                                                            \
     .max = max_,                                                                                            \
     .restart = restart_,                                                                                    \
     .example = example_,                                                                                    \
     .help = help_},
const struct schema_key schema_keys[] = {
#include "core/config.def"
};
const size_t schema_key_count = COUNT_OF(schema_keys);
#define KEYS_MAX COUNT_OF(schema_keys)

bool too_many_errors(const struct loader *l)
{
    return l->diag->error_count >= ERRORS_MAX || l->arena->overflow;
}

const struct schema_key *schema_find_key(enum section_id section, str_t name)
{
    for (size_t i = 0; i < schema_key_count; i++)
        if (schema_keys[i].section == section && str_eq(str_cstr(schema_keys[i].name), name))
            return &schema_keys[i];
    return NULL;
}

bool schema_check_kind(struct loader *l, const struct schema_key *k, const struct node *n,
                       enum node_kind wants)
{
    if (n->is_null && k->child != SECTION_COUNT)
        return true; /* "limits:" with every line under it commented out */
    if (n->is_null) {
        diag_error(l->diag, n->mark, "%s: has no value; write %s: %s, or leave the key out", k->name, k->name,
                   k->example);
        return false;
    }
    if (n->kind == wants)
        return true;
    diag_error(l->diag, n->mark, "%s: %s stands where %s is needed; write %s: %s", k->name,
               node_kind_name(n->kind), node_kind_name(wants), k->name, k->example);
    return false;
}

/* Returns the key that was meant; NULL: nobody knows. */
static const struct schema_key *unknown_key(struct loader *l, enum section_id section, const struct node *key)
{
    const char *path = section == SECTION_top ? "the top of the file" : schema_sections[section].path;
    str_t near = nearest_key(key->text, section), quoted = clip(key->text);

    if (near.n) {
        diag_error(l->diag, key->mark, "unknown key \"" STR_FMT "\" in %s; did you mean " STR_FMT "?",
                   STR_ARG(quoted), path, STR_ARG(near));
        return schema_find_key(section, near);
    }
    for (size_t i = 0; i < schema_key_count; i++) {
        const struct schema_key *k = &schema_keys[i];
        if (!str_eq(str_cstr(k->name), key->text))
            continue;
        diag_error(l->diag, key->mark, "unknown key \"" STR_FMT "\" in %s; it belongs to %s", STR_ARG(quoted),
                   path,
                   k->section == SECTION_top ? "the top of the file" : schema_sections[k->section].path);
        return NULL;
    }
    struct gbuf known = {.max = 512};
    for (size_t i = 0; i < schema_key_count; i++)
        if (schema_keys[i].section == section)
            gbuf_printf(&known, "%s%s", known.n ? ", " : "", schema_keys[i].name);
    diag_error(l->diag, key->mark, "unknown key \"" STR_FMT "\" in %s; write one of: " STR_FMT,
               STR_ARG(quoted), path, STR_ARG(gbuf_view(&known)));
    gbuf_free(&known);
    return NULL;
}

struct seen {
    struct mark mark;
    bool misspelt; /* not missing, then */
};

static void read_item(struct loader *l, enum section_id section, const struct node *n, void *base,
                      struct seen *seen)
{
    if (n->key->kind != NODE_SCALAR) {
        diag_error(l->diag, n->key->mark, "%s stands where a key is needed; write a word and a colon",
                   node_kind_name(n->key->kind));
        return;
    }
    const struct schema_key *k = schema_find_key(section, n->key->text);
    if (!k) {
        k = unknown_key(l, section, n->key);
        if (k)
            seen[k - schema_keys].misspelt = true;
        return;
    }
    struct mark *first = &seen[k - schema_keys].mark;
    if (first->line) {
        diag_error(l->diag, n->key->mark, "%s: is written twice, first on line %d; remove one of them",
                   k->name, first->line);
        return;
    }
    *first = n->key->mark;
    if (!schema_check_kind(l, k, n, k->type->wants))
        return;
    k->type->read(l, k, n, k->child != SECTION_COUNT ? base : (char *)base + k->offset);
}

void schema_read_map(struct loader *l, enum section_id section, const struct node *map, void *base)
{
    struct seen seen[KEYS_MAX] = {0};

    for (const struct node *n = map->first; n && !too_many_errors(l); n = n->next)
        read_item(l, section, n, base, seen);
    for (size_t i = 0; i < schema_key_count; i++) {
        const struct schema_key *k = &schema_keys[i];
        if (k->section == section && k->fallback == schema_required && !seen[i].mark.line &&
            !seen[i].misspelt)
            diag_error(l->diag, map->mark, "%s: is missing from this entry of %s; write %s: %s", k->name,
                       schema_sections[section].path, k->name, k->example);
    }
}

/* A section is a part of the same struct; `base` is that struct. */
void read_section(struct loader *l, const struct schema_key *k, const struct node *n, void *base)
{
    schema_read_map(l, k->child, n, base);
}

/* Defaults stand in the table as they would in the file, and are read by the same readers. */
void schema_fill_defaults(struct loader *l, enum section_id section, void *base)
{
    for (size_t i = 0; i < schema_key_count; i++) {
        const struct schema_key *k = &schema_keys[i];
        if (k->section != section || !k->fallback || k->fallback == schema_required)
            continue;
        struct node n = {.kind = NODE_SCALAR, .text = str_cstr(k->fallback)};
        k->type->read(l, k, &n, (char *)base + k->offset);
    }
}
