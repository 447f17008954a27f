/* core/config_yaml.c: YAML text to a tree of nodes, by libfyaml's events. The event interface is used, not
 * its documents: events are the same in 0.7 and 0.9, carry marks, and let us refuse anchors and depth before
 * anything is built from them. */
#include <errno.h>
#include <libfyaml.h>

#include "core/config_priv.h"

const char *node_kind_name(enum node_kind kind)
{
    static const char *const names[] = {
        [NODE_SCALAR] = "a single value", [NODE_LIST] = "a list", [NODE_MAP] = "a map"};
    return names[kind];
}

const struct node *node_find(const struct node *map, const char *key)
{
    if (!map || map->kind != NODE_MAP)
        return NULL;
    for (const struct node *n = map->first; n; n = n->next)
        if (n->key->kind == NODE_SCALAR && str_eq(n->key->text, str_cstr(key)))
            return n;
    return NULL;
}

struct builder {
    struct arena *arena;
    struct diag *diag;
    struct node *root;
    struct {
        struct node *parent, *last; /* open list or map and its last item */
        struct node *key;           /* map: the key that waits for its value */
    } stack[CONFIG_DEPTH_MAX];
    int depth;
    bool has_document;
};

static struct mark mark_of(const struct fy_mark *m, struct mark otherwise)
{
    return m ? (struct mark){m->line + 1, m->column + 1} : otherwise;
}

static bool refuse(struct builder *b, struct mark m, const char *why)
{
    diag_error(b->diag, m, "%s", why);
    return false;
}

/* Hangs a finished scalar or an opened list or map into the tree. */
static bool add_node(struct builder *b, struct node *n)
{
    if (b->depth == 0) {
        b->root = n;
        return true;
    }
    struct node *parent = b->stack[b->depth - 1].parent;
    if (parent->kind == NODE_MAP) {
        struct node **key = &b->stack[b->depth - 1].key;
        if (!*key) {
            *key = n;
            return true;
        }
        n->key = *key;
        *key = NULL;
    }
    struct node **last = &b->stack[b->depth - 1].last;
    if (*last)
        (*last)->next = n;
    else
        parent->first = n;
    *last = n;
    return true;
}

static struct node *new_node(struct builder *b, enum node_kind kind, struct mark m)
{
    struct node *n = arena_zalloc(b->arena, sizeof *n);
    if (!n) {
        refuse(b, m, "the file has too many entries; make it smaller");
        return NULL;
    }
    n->kind = kind;
    n->mark = m;
    return n;
}

/* A value without bytes is where its key is; some versions of the library give it no mark, some its own. */
static struct mark fallback_mark(const struct builder *b)
{
    if (b->depth == 0)
        return (struct mark){1, 1};
    const struct node *key = b->stack[b->depth - 1].key;
    return key ? key->mark : b->stack[b->depth - 1].parent->mark;
}

static bool on_scalar(struct builder *b, struct fy_token *value, struct mark m)
{
    size_t length = 0;
    const char *text = value ? fy_token_get_text(value, &length) : NULL;
    bool is_plain = !value || fy_token_scalar_style(value) == FYSS_PLAIN;
    struct node *n = new_node(b, NODE_SCALAR, is_plain && length == 0 ? fallback_mark(b) : m);
    if (!n)
        return false;
    n->text = arena_str(b->arena, text ? str_of(text, length) : STR(""));
    if (!n->text.p)
        return refuse(b, m, "the file is too large; make it smaller");
    if (is_plain)
        n->is_null = n->text.n == 0 || str_eq(n->text, STR("null")) || str_eq(n->text, STR("~"));
    return add_node(b, n);
}

static bool on_open(struct builder *b, enum node_kind kind, struct mark m, bool in_brackets)
{
    if (b->depth == CONFIG_DEPTH_MAX)
        return refuse(b, m, "lists and maps are nested too deep; no key needs that");
    struct node *n = new_node(b, kind, m);
    if (!n || !add_node(b, n))
        return false;
    n->in_brackets = in_brackets;
    b->stack[b->depth].parent = n;
    b->stack[b->depth].last = NULL;
    b->stack[b->depth].key = NULL;
    b->depth++;
    return true;
}

static bool on_node(struct builder *b, struct fy_event *e)
{
    struct mark m = mark_of(fy_event_start_mark(e), fallback_mark(b));
    bool has_anchor, has_tag;

    switch (e->type) {
    case FYET_SCALAR:
        has_anchor = e->scalar.anchor != NULL;
        has_tag = e->scalar.tag != NULL;
        break;
    case FYET_SEQUENCE_START:
        has_anchor = e->sequence_start.anchor != NULL;
        has_tag = e->sequence_start.tag != NULL;
        break;
    default:
        has_anchor = e->mapping_start.anchor != NULL;
        has_tag = e->mapping_start.tag != NULL;
        break;
    }
    if (has_anchor)
        return refuse(b, m, "anchors (&name) are not taken; write the value out where it is needed");
    if (has_tag)
        return refuse(b, m, "tags (!name) are not taken; write the plain value");
    if (e->type == FYET_SCALAR)
        return on_scalar(b, e->scalar.value, m);
    return on_open(b, e->type == FYET_SEQUENCE_START ? NODE_LIST : NODE_MAP, m,
                   fy_event_get_node_style(e) == FYNS_FLOW);
}

static bool on_event(struct builder *b, struct fy_event *e)
{
    switch (e->type) {
    case FYET_SCALAR:
    case FYET_SEQUENCE_START:
    case FYET_MAPPING_START: return on_node(b, e);
    case FYET_SEQUENCE_END:
    case FYET_MAPPING_END:
        must(b->depth > 0);
        b->depth--;
        return true;
    case FYET_ALIAS:
        return refuse(
            b, mark_of(fy_event_start_mark(e), fallback_mark(b)),
            "aliases (*name) are not taken; a name with a star needs quotes, such as \"*.example.com\"");
    case FYET_DOCUMENT_START:
        if (b->has_document)
            return refuse(b, mark_of(fy_event_start_mark(e), b->root ? b->root->mark : (struct mark){1, 1}),
                          "a second document starts here (---); write one document only");
        b->has_document = true;
        return true;
    default: return true;
    }
}

static void keep_quiet(struct fy_diag *diag, void *user, const char *text, size_t length)
{
    (void)diag, (void)user, (void)text,
        (void)length; /* errors are collected; nothing may reach standard error */
}

/* What people do wrong, and what the parser calls it. The first row that fits counts. */
static const struct slip {
    const char *parser_says; /* a part of its message */
    bool at_bracket;         /* the place to mend is where the list or map was opened */
    const char *text;
} slips[] = {
    {"invalid multiline plain key", false,
     "this line and the next are read as one value; write a space behind each colon, and indent the keys of "
     "one map alike"},
    {"expected '-' indicator", false,
     "this line is indented less than the entry it belongs to; indent the keys of one entry alike"},
    {"invalid indentation in mapping", false,
     "this line is indented deeper than the keys before it; indent the keys of one map alike"},
    {"tab ", false, "a tab cannot indent; write spaces"},
    {"invalid value after mapping", false,
     "the value ended before this; one that starts with [ or { and is no list or map needs quotes, such as "
     "\"[::]:25\""},
    {"plain scalar cannot start", false, "a value that starts with this character needs quotes"},
    {"-quoted scalar", false, "the quote that opens here is not closed, or its text is indented too little"},
    {"flow ", true, "this list or map is not closed, or a comma is missing in it"},
};

/* The outermost [ or { that is open. */
static struct mark bracket_mark(const struct builder *b, struct mark otherwise)
{
    for (int i = 0; i < b->depth; i++)
        if (b->stack[i].parent->in_brackets)
            return b->stack[i].parent->mark;
    return otherwise;
}

static void explain(struct builder *b, struct mark m, const char *parser_says)
{
    for (size_t i = 0; i < COUNT_OF(slips); i++)
        if (strstr(parser_says, slips[i].parser_says)) {
            refuse(b, slips[i].at_bracket ? bracket_mark(b, m) : m, slips[i].text);
            return;
        }
    diag_error(b->diag, m, "not YAML: " STR_FMT, STR_ARG(str_trim(str_cstr(parser_says))));
}

static err_t report_syntax(struct fy_diag *fd, struct builder *b)
{
    void *at = NULL;
    const struct fy_diag_error *e = fy_diag_errors_iterate(fd, &at);

    /* The first one only: what a parser says after it lost its way helps nobody. */
    if (e)
        explain(b, (struct mark){MAX(e->line, 1), MAX(e->column, 1)}, e->msg ? e->msg : "");
    return e ? ERR_CONFIG : 0;
}

static bool is_clean_text(str_t text, struct diag *d)
{
    struct mark m = {1, 1};

    if (text.n > CONFIG_FILE_BYTES_MAX) {
        diag_error(d, (struct mark){0}, "the file is larger than 1 MiB; make it smaller");
        return false;
    }
    for (size_t start = 0, end; start < text.n; start = end + 1, m.line++) {
        const char *newline = memchr(text.p + start, '\n', text.n - start);
        end = newline ? (size_t)(newline - text.p) : text.n;
        str_t line = str_of(text.p + start, end - start);
        if (!str_is_utf8(line) || str_find(line, '\0') >= 0) {
            diag_error(d, m, "this line is not UTF-8 text; save the file as UTF-8");
            return false;
        }
    }
    return true;
}

static err_t run_parser(struct fy_parser *parser, struct fy_diag *fd, struct builder *b)
{
    bool ok = true;

    for (struct fy_event *e; ok && (e = fy_parser_parse(parser));) {
        ok = on_event(b, e);
        fy_parser_event_free(parser, e);
    }
    if (!ok)
        return ERR_CONFIG;
    err_t err = report_syntax(fd, b);
    if (!err && b->depth > 0) { /* the parser gave up without a word */
        refuse(b, b->stack[b->depth - 1].parent->mark, "not YAML: this list or map does not end");
        err = ERR_CONFIG;
    }
    return err;
}

err_t yaml_parse(str_t text, struct arena *arena, struct node **root, struct diag *d)
{
    struct fy_diag_cfg diag_cfg;
    struct builder b = {.arena = arena, .diag = d};
    err_t err = -ENOMEM;

    *root = NULL;
    if (!is_clean_text(text, d))
        return ERR_CONFIG;
    if (!text.n)
        return 0;
    fy_diag_cfg_default(&diag_cfg);
    diag_cfg.fp = NULL;
    diag_cfg.output_fn = keep_quiet;
    diag_cfg.level = FYET_ERROR;
    struct fy_diag *fd = fy_diag_create(&diag_cfg);
    if (!fd)
        return err;
    fy_diag_set_collect_errors(fd, true);
    struct fy_parse_cfg parse_cfg = {.flags = FYPCF_DEFAULT_PARSE, .diag = fd};
    struct fy_parser *parser = fy_parser_create(&parse_cfg);
    if (parser && fy_parser_set_string(parser, text.p, text.n) == 0)
        err = run_parser(parser, fd, &b);
    if (parser)
        fy_parser_destroy(parser);
    fy_diag_destroy(fd);
    if (!err)
        *root = b.root;
    return err;
}
