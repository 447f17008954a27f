/* relay/note.c: reasons for waiting, shared between messages. */
#include "relay/relay_priv.h"

str_t note_key(const struct note *n)
{
    return str_of(n->bytes, n->key_n);
}

str_t note_text(const struct note *n)
{
    return str_of(n->bytes + n->key_n, n->text_n);
}

/* malloc, not a pool: deferring is the slow path, and texts differ a lot in length. */
struct note *note_get(struct relay *r, struct note *like, str_t key, str_t text)
{
    key = str_sub(key, 0, 255);
    text = str_sub(text, 0, ANSWER_TEXT_MAX);
    if (like && str_eq(note_key(like), key) && str_eq(note_text(like), text)) {
        like->refs++;
        return like;
    }
    struct note *n = malloc(sizeof *n + key.n + text.n);
    if (!n)
        return NULL;
    *n = (struct note){.refs = 1, .key_n = (uint16_t)key.n, .text_n = (uint16_t)text.n};
    if (key.n)
        memcpy(n->bytes, key.p, key.n);
    if (text.n)
        memcpy(n->bytes + key.n, text.p, text.n);
    list_push_back(&r->notes, &n->link);
    return n;
}

void note_put(struct note *n)
{
    if (!n || --n->refs)
        return;
    list_remove(&n->link);
    free(n);
}
