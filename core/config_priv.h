/* core/config_priv.h: between the parts of the loader: the YAML tree, the schema's rows, the readers of
 * values. */
#ifndef CORE_CONFIG_PRIV_H
#define CORE_CONFIG_PRIV_H

#include "core/config.h"

#define CONFIG_FILE_BYTES_MAX ((size_t)1 << 20)
#define CONFIG_ARENA_BYTES_MAX                                                                               \
    ((size_t)64 << 20) /* a file of 1 MiB has at most half a million nodes of 100 bytes */
#define AUTH_USER_BYTES_MAX 255
#define CONFIG_DEPTH_MAX    16 /* the schema needs 7 */

/* A YAML document as a tree in an arena; every node knows where it started. */
enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
    enum node_kind kind;
    struct mark mark;
    str_t text;         /* scalar */
    bool is_null;       /* scalar: nothing, or null or ~ without quotes */
    bool in_brackets;   /* list, map: written as [ ] or { } */
    struct node *key;   /* the scalar (or whatever stood there) before the colon, for a map's item */
    struct node *first; /* list, map: items */
    struct node *next;  /* the next item of the same parent */
};

/* *root NULL: an empty file. Refuses anchors, aliases, tags, second documents and what is too deep or too
 * large. */
err_t yaml_parse(str_t text, struct arena *arena, struct node **root, struct diag *d) WARN_UNUSED;
const char *node_kind_name(enum node_kind kind);
const struct node *node_find(const struct node *map, const char *key); /* NULL: not there, or no map */

/* The schema: config.def as rows. */
enum section_id {
#define SECTION(id, type, path, help) SECTION_##id,
#define CHILD(section, name, child, example, help)
#define KEY(section, name, type, field, fallback, min, max, restart, example, help)
#define TYPE(id, wants, reader, amount, scale, title, what, write)
#define CHOICE(id, words)
#include "core/config.def"
    SECTION_COUNT
};

enum amount_kind { AMOUNT_NONE, AMOUNT_PLAIN, AMOUNT_PERCENT, AMOUNT_SIZE, AMOUNT_TIME };

struct loader {
    struct config *config;
    struct arena *arena; /* the config's */
    struct diag *diag;
};

struct schema_key;
typedef void value_reader(struct loader *l, const struct schema_key *k, const struct node *n, void *field);

struct value_type {
    const char *title, *what, *write;
    enum node_kind wants;
    enum amount_kind amount;
    uint64_t scale;      /* AMOUNT_TIME: nanoseconds in one stored unit */
    const char *choices; /* "dns edge", NULL when free */
    value_reader *read;
};

struct schema_key {
    enum section_id section;
    const char *name;
    const struct value_type *type;
    enum section_id child; /* SECTION_COUNT: not a section of its own */
    size_t offset, size;   /* of the field in the section's struct */
    const char *fallback;
    uint64_t min, max;
    bool restart;
    const char *example, *help;
};

struct schema_section {
    const char *path, *help;
};

extern const struct schema_section schema_sections[SECTION_COUNT];
extern const struct schema_key schema_keys[];
extern const size_t schema_key_count;
extern const char schema_required[]; /* `fallback` of a key that must be written */

const struct schema_key *schema_find_key(enum section_id section, str_t name); /* NULL: unknown */
void schema_fill_defaults(struct loader *l, enum section_id section, void *base);
/* Reads every key of a map into `base`, which holds the defaults already. */
void schema_read_map(struct loader *l, enum section_id section, const struct node *map, void *base);
bool schema_check_kind(struct loader *l, const struct schema_key *k, const struct node *n,
                       enum node_kind wants);
void schema_format_amount(const struct value_type *t, uint64_t value, struct sbuf *out);
/* Of the words in `words` (separated by blanks) or the keys of a section, the one that was probably meant;
 * none: STR_NONE. */
str_t nearest_word(str_t s, const char *words);
str_t nearest_key(str_t s, enum section_id section);

/* Errors about a value. `name: "text" is not <what>; <write>, such as <example>`, or with a reason of its
 * own. */
void value_error(struct loader *l, const struct schema_key *k, const struct node *n);
void value_error_because(struct loader *l, const struct schema_key *k, const struct node *n, const char *fmt,
                         ...) PRINTF_LIKE(4, 5);
/* Room for one element per item of a list of a length that the key allows; NULL: none (an error, or empty and
 * allowed to be). */
void *new_items(struct loader *l, const struct schema_key *k, const struct node *list, size_t item_bytes);
bool too_many_errors(const struct loader *l);
str_t clip(str_t s); /* what is worth quoting of it */

/* Readers: one for each value of the column `reader`. */
#undef SECTION
#undef TYPE
#undef CHOICE
#define SECTION(id, type, path, help)
#define TYPE(id, wants, reader, amount, scale, title, what, write) value_reader reader;
#define CHOICE(id, words)
#include "core/config.def"
#undef SECTION
#undef CHILD
#undef KEY
#undef TYPE
#undef CHOICE
value_reader read_choice, read_section;
/* Before anything else is read: domains start from it. */
void config_read_verify(struct loader *l, const struct node *top);
/* What a route says of TLS and logging in, taken together. */
void config_finish_route_access(struct loader *l, const struct cfg_route *route);
void config_finish_destination(struct loader *l, const struct node *top);

/* Names (config_names.c). NULL: fine, else what is wrong and what to write instead. */
const char *domain_name_fault(str_t s, bool underscore_ok);
str_t lower_copy(struct arena *a, str_t s);

#endif
