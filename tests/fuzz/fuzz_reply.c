/* A server's replies: the same whether they come whole or byte by byte, and clean whatever came. */
#include "smtp/proto/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_reply(const struct smtp_reply *r)
{
    must(r->code >= 200 && r->code <= 599 && r->text.n <= REPLY_TEXT_MAX && r->line_count <= REPLY_LINES_MAX);
    must(r->enhanced[0] == 0 || r->enhanced[0] == r->code / 100);
    must(str_is_utf8(r->text));
    for (size_t i = 0; i < r->text.n; i++)
        must((unsigned char)r->text.p[i] >= ' ' || r->text.p[i] == '\n');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct reply_parser whole, bytewise;
    size_t at = 0, at_bytewise = 0;
    whole = bytewise = (struct reply_parser){0};
    while (at < size) {
        bool done, done_bytewise = false;
        err_t err, err_bytewise = 0;
        at += reply_parse(&whole, data + at, size - at, &done, &err);
        while (at_bytewise < size && !done_bytewise && !err_bytewise)
            at_bytewise += reply_parse(&bytewise, data + at_bytewise, 1, &done_bytewise, &err_bytewise);
        must(done == done_bytewise && err == err_bytewise);
        if (err)
            break;
        must(at == at_bytewise);
        if (!done)
            break;
        check_reply(&whole.reply);
        must(str_eq(whole.reply.text, bytewise.reply.text) && whole.reply.code == bytewise.reply.code);
    }
    return 0;
}
