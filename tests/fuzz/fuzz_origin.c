/* What others say of their clients: commands on the first byte's word, else header sections. */
#include "smtp/proto/origin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_texts(const struct origin *o)
{
    for (size_t i = 0; i < o->name_n; i++)
        must(o->name[i] > ' ' && o->name[i] <= '~');
    for (size_t i = 0; i < o->helo_n; i++)
        must(o->helo[i] > ' ' && o->helo[i] <= '~');
}

static void check_attrs(str_t arg)
{
    struct client_attrs a;
    struct origin o = {0};
    if (xclient_parse(arg, &a) == 0)
        origin_take(&o, &a);
    check_texts(&o);
    if (xforward_parse(arg, &a) == 0)
        origin_take(&o, &a);
    check_texts(&o);
}

static void check_line(str_t value)
{
    struct received_line l;
    str_t by = received_by(value);
    must(!by.p || (by.n > 0 && by.p >= value.p && by.p + by.n <= value.p + value.n));
    if (received_parse(value, &l))
        return;
    check_texts(&l.client);
    must(l.formats && l.formats < 1u << RECEIVED_FORMAT_COUNT);
    must(l.by.n > 0 && l.by.p >= value.p && l.by.p + l.by.n <= value.p + value.n);
    must(str_eq(l.by, by)); /* both find the same */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    str_t all = str_of((const char *)data, size);
    check_attrs(all);
    check_line(all);
    for (unsigned i = 0; i < 4; i++) {
        str_t value = received_find(all, i);
        if (value.p)
            check_line(value);
    }
    return 0;
}
