/* core/config_nearest.c: which known word was meant by an unknown one. */
#include "core/config_priv.h"

#define WORD_BYTES_MAX 40 /* longer than any key; a longer word is no slip of the finger */

/* Edit distance with swapped neighbours counted once (optimal string alignment), case folded. */
static unsigned distance(str_t a, str_t b)
{
    unsigned row[3][WORD_BYTES_MAX + 1];
    unsigned *before = row[0], *above = row[1], *here = row[2];

    for (size_t j = 0; j <= b.n; j++)
        above[j] = (unsigned)j;
    for (size_t i = 1; i <= a.n; i++) {
        here[0] = (unsigned)i;
        for (size_t j = 1; j <= b.n; j++) {
            char x = a.p[i - 1] | 0x20, y = b.p[j - 1] | 0x20;
            unsigned cost = MIN(above[j], here[j - 1]) + 1;
            cost = MIN(cost, above[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == (b.p[j - 2] | 0x20) && y == (a.p[i - 2] | 0x20))
                cost = MIN(cost, before[j - 2] + 1);
            here[j] = cost;
        }
        unsigned *spare = before;
        before = above;
        above = here;
        here = spare;
    }
    return above[b.n];
}

struct nearest {
    str_t asked, word;
    unsigned distance;
};

static void consider(struct nearest *best, str_t word)
{
    if (word.n > WORD_BYTES_MAX || !word.n)
        return;
    unsigned d = distance(best->asked, word);
    /* A third of the letters may be wrong; and most of a long word may be missing from its end ("cert" for
     * certificate). */
    bool is_prefix = best->asked.n >= 3 && str_istarts(word, best->asked);
    if (is_prefix)
        d = 1;
    if (d <= MAX(word.n / 3, 1u) && d < best->distance) {
        best->word = word;
        best->distance = d;
    }
}

static struct nearest start(str_t s)
{
    return (struct nearest){.asked = s, .word = STR_NONE, .distance = UINT32_MAX};
}

str_t nearest_word(str_t s, const char *words)
{
    struct nearest best = start(s);
    str_t word, rest = str_cstr(words);

    if (s.n > WORD_BYTES_MAX || !s.n)
        return STR_NONE;
    do {
        str_t all = rest;
        str_cut(all, ' ', &word, &rest);
        consider(&best, word);
    } while (rest.n);
    return best.word;
}

str_t nearest_key(str_t s, enum section_id section)
{
    struct nearest best = start(s);

    if (s.n > WORD_BYTES_MAX || !s.n)
        return STR_NONE;
    for (size_t i = 0; i < schema_key_count; i++)
        if (schema_keys[i].section == section)
            consider(&best, str_cstr(schema_keys[i].name));
    return best.word;
}
