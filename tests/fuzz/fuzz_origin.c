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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    str_t all = str_of((const char *)data, size), by;
    struct origin o;
    check_attrs(all);
    if (received_parse(all, &o, &by) == 0) {
        check_texts(&o);
        must(by.n > 0 && by.p >= all.p && by.p + by.n <= all.p + all.n);
    }
    for (unsigned i = 0; i < 4; i++) {
        str_t value = received_find(all, i);
        if (value.p && received_parse(value, &o, &by) == 0)
            check_texts(&o);
    }
    return 0;
}
