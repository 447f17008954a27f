/* core/config_verify.c: readers of `verify`: at the top of the file, and in a domain, which starts from it.
 */
#include "core/config_priv.h"

#define SEPARATORS "+-_=#!"

static const struct node *key_node(const struct node *map, const char *key)
{
    const struct node *n = node_find(map, key);
    return n ? n : map;
}

/* What is wrong with times together; each is fine by itself. */
static void check_times(struct loader *l, const struct node *map, const struct cfg_verify *v)
{
    const struct {
        const char *key, *limit_key;
        uint32_t value_s, limit_s;
        bool is_floor;
    } rules[] = {
        {"good_refresh", "good_fresh", v->good_refresh_s, v->good_fresh_s, false},
        {"good_keep", "good_fresh", v->good_keep_s, v->good_fresh_s, true},
        {"unknown_keep", "unknown_fresh", v->unknown_keep_s, v->unknown_fresh_s, true},
    };
    for (size_t i = 0; i < COUNT_OF(rules); i++) {
        if (rules[i].is_floor ? rules[i].value_s >= rules[i].limit_s : rules[i].value_s <= rules[i].limit_s)
            continue;
        diag_error(l->diag, key_node(map, rules[i].key)->mark, "%s: %u s is %s than %s, %u s; write %s: %us",
                   rules[i].key, rules[i].value_s, rules[i].is_floor ? "shorter" : "longer",
                   rules[i].limit_key, rules[i].limit_s, rules[i].key, rules[i].limit_s);
    }
}

static void check_mode(struct loader *l, const struct node *map, const struct cfg_verify *v)
{
    if (v->mode == VERIFY_LISTED && !v->list.n)
        diag_error(l->diag, key_node(map, "mode")->mark,
                   "mode: listed needs the list; write list: /etc/postern/recipients beside it");
}

static void read_into(struct loader *l, const struct node *n, struct cfg_verify *v)
{
    unsigned errors_before = l->diag->error_count;

    v->mark = n->mark;
    if (node_find(n, "route")) {
        v->has_route = true;
        v->route = (struct cfg_route){0};
        schema_fill_defaults(l, SECTION_route, &v->route);
    }
    schema_read_map(l, SECTION_verify, n, v);
    if (l->diag->error_count > errors_before)
        return; /* a value with an error of its own would be blamed twice */
    check_times(l, n, v);
    check_mode(l, n, v);
}

void config_read_verify(struct loader *l, const struct node *top)
{
    const struct node *n = node_find(top, "verify");

    schema_fill_defaults(l, SECTION_verify, &l->config->verify);
    if (n && n->kind == NODE_MAP)
        read_into(l, n, &l->config->verify);
}

void read_verify(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    struct cfg_verify *v = field;

    (void)k;
    if (v == &l->config->verify)
        return; /* read first of all */
    *v = l->config->verify;
    read_into(l, n, v);
}

void read_verify_sender(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    static const struct {
        const char *word;
        enum verify_sender kind;
    } words[] = {{"adaptive", SENDER_ADAPTIVE}, {"empty", SENDER_NULL}, {"token", SENDER_TOKEN}};
    struct cfg_verify *v = container_of((char *)field, struct cfg_verify, sender);

    for (size_t i = 0; i < COUNT_OF(words); i++) {
        if (!str_eq(n->text, str_cstr(words[i].word)))
            continue;
        v->sender.kind = words[i].kind;
        v->sender.address = STR_NONE;
        return;
    }
    if (str_find(n->text, '@') < 0) {
        value_error(l, k, n);
        return;
    }
    v->sender.kind = SENDER_ADDRESS;
    read_mailbox(l, k, n, &v->sender.address);
}

void read_separator(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    if (n->text.n != 1 || !strchr(SEPARATORS, n->text.p[0])) {
        value_error(l, k, n);
        return;
    }
    *(char *)field = n->text.p[0];
}
