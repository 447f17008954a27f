/* Paths. What is taken must hold no byte that could break a command line, and must survive its canonical
 * form. */
#include "smtp/proto/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_harmless(str_t s)
{
    must(str_is_utf8(s));
    for (size_t i = 0; i < s.n; i++)
        must((unsigned char)s.p[i] >= ' ' && s.p[i] != 0x7F);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    str_t in = str_of((const char *)data, size), rest;
    for (int kind = PATH_REVERSE; kind <= PATH_FORWARD; kind++) {
        char mem[2 * (ADDRESS_LOCAL_MAX + ADDRESS_DOMAIN_MAX)], mem_again[sizeof mem];
        struct sbuf buf = SBUF_ON(mem), buf_again = SBUF_ON(mem_again);
        struct address a, again;
        if (address_parse_path(in, (enum path_kind)kind, &a, &rest))
            continue;
        must(rest.n < size);
        check_harmless(a.local);
        check_harmless(a.domain);
        str_t canonical = address_canonical(&a, &buf);
        must(!buf.overflow);
        must(canonical.p || a.is_utf8); /* U-labels may be too long as A-labels */
        if (!canonical.p || a.is_null || !a.domain.n)
            continue;
        must(address_parse_mailbox(canonical, &again) == 0);
        must(str_eq(address_canonical(&again, &buf_again), canonical));
        must(again.is_literal == a.is_literal && str_is_ascii(again.domain));
        must(again.is_utf8 == !str_is_ascii(a.local));
    }
    return 0;
}
