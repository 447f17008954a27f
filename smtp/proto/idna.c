/* smtp/proto/idna.c: domains in other scripts to the form that DNS and the configuration know (IDNA 2008 with
 * UTS 46 mapping, by libidn2). */
#include <idn2.h>

#include "smtp/proto/address.h"

static bool put_ascii(str_t domain, struct sbuf *out)
{
    for (size_t i = 0; i < domain.n; i++) {
        char ch = domain.p[i];
        sbuf_char(out, ch >= 'A' && ch <= 'Z' ? (char)(ch - 'A' + 'a') : ch);
    }
    return true;
}

static bool put_converted(str_t domain, struct sbuf *out)
{
    char in[ADDRESS_DOMAIN_MAX + 1], *ascii = NULL;
    if (domain.n > ADDRESS_DOMAIN_MAX || memchr(domain.p, '\0', domain.n))
        return false;
    memcpy(in, domain.p, domain.n);
    in[domain.n] = '\0';
    if (idn2_to_ascii_8z(in, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
        return false;
    sbuf_cstr(out, ascii);
    idn2_free(ascii);
    return true;
}

bool domain_to_ascii(str_t domain, struct sbuf *out)
{
    size_t from = out->n;
    bool ok = str_is_ascii(domain) ? put_ascii(domain, out) : put_converted(domain, out);
    /* Mapping turns full-width '>', '@' and blanks into the real ones: judged again. */
    return ok && !out->overflow && domain_valid(str_of(out->p + from, out->n - from));
}
