/* Bytes as a file of recipients. The first byte chooses the rules of keys. */
#include "verify/list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    const struct verdict_key_rules rules = {.fold_case = data[0] & 1, .separator = data[0] & 2 ? '+' : '\0'};
    str_t text = str_of((const char *)data + 1, size - 1), line, rest;
    struct diag d = {.file = "fuzz"};
    struct recipient_list *l;
    must(recipient_list_parse(&l, text, &rules, &d) == 0);
    must(d.error_count == 0);

    /* What is an address by itself is in the list. */
    rest = str_starts(text, STR("\xEF\xBB\xBF")) ? str_sub(text, 3, text.n) : text;
    for (; rest.n; rest = line) {
        char room[VERIFY_KEY_MAX];
        struct sbuf buf = SBUF_ON(room);
        struct address a;
        str_t head;
        (void)str_cut(rest, '\n', &head, &line);
        if (head.n && str_find(head, '#') < 0 && str_is_utf8(head) && !address_parse_mailbox(head, &a)) {
            str_t key = verdict_key(&a, &rules, &buf);
            must(!key.n || recipient_list_has(l, key));
        }
    }
    recipient_list_unref(l);
    diag_free(&d);
    return 0;
}
