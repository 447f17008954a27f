/* smtp/proto/address.c: see address.h. */
#include "smtp/proto/address.h"

struct cursor {
    const char *p, *end;
};

static bool at_end(const struct cursor *c)
{
    return c->p == c->end;
}

/* NUL at the end: a NUL inside is refused everywhere, so the two need no telling apart. */
static unsigned char peek(const struct cursor *c)
{
    return c->p < c->end ? (unsigned char)*c->p : 0;
}

static bool take(struct cursor *c, char want)
{
    if (at_end(c) || *c->p != want)
        return false;
    c->p++;
    return true;
}

enum { ATEXT = 1, DOMAIN_CHAR = 2 };

static const uint8_t char_is[256] = {
    ['a' ... 'z'] = ATEXT | DOMAIN_CHAR,
    ['A' ... 'Z'] = ATEXT | DOMAIN_CHAR,
    ['0' ... '9'] = ATEXT | DOMAIN_CHAR,
    ['-'] = ATEXT | DOMAIN_CHAR,
    /* No host name has an underscore, but the mail of machines that are called so is wanted. */
    ['_'] = ATEXT | DOMAIN_CHAR,
    ['.'] = DOMAIN_CHAR,
    ['!'] = ATEXT,
    ['#' ... '\''] = ATEXT, /* # $ % & ' */
    ['*' ... '+'] = ATEXT,
    ['/'] = ATEXT,
    ['='] = ATEXT,
    ['?'] = ATEXT,
    ['^'] = ATEXT,
    ['`'] = ATEXT,
    ['{' ... '~'] = ATEXT, /* { | } ~ */
    [0x80 ... 0xff] = ATEXT | DOMAIN_CHAR,
};

/* RFC 5322 atext, and RFC 6531 3.3: any non-ASCII (its encoding is judged over the whole part). */
static bool is_atext(unsigned char ch)
{
    return char_is[ch] & ATEXT;
}

static bool is_domain_char(unsigned char ch)
{
    return char_is[ch] & DOMAIN_CHAR;
}

/* Valid UTF-8 without C1 controls: they are valid code points, but controls all the same, and terminals obey
 * them. */
static bool text_valid(str_t s)
{
    if (str_is_ascii(s))
        return true;
    for (size_t i = 0; i + 1 < s.n; i++) {
        if ((unsigned char)s.p[i] == 0xC2 && (unsigned char)s.p[i + 1] < 0xA0)
            return false;
    }
    return str_is_utf8(s);
}

/* RFC 5321 4.1.2 Dot-string: atoms with single dots between. */
static bool take_dot_string(struct cursor *c)
{
    do {
        const char *atom = c->p;
        while (!at_end(c) && is_atext(peek(c)))
            c->p++;
        if (c->p == atom)
            return false;
    } while (take(c, '.'));
    return true;
}

static bool is_dot_string(str_t s)
{
    struct cursor c = {s.p, s.p + s.n};
    return take_dot_string(&c) && at_end(&c);
}

/* Dots anywhere: addresses like "a..b@" were given out and are in use. Their canonical form is quoted. */
static bool take_atoms_and_dots(struct cursor *c)
{
    const char *from = c->p;
    while (!at_end(c) && (is_atext(peek(c)) || peek(c) == '.'))
        c->p++;
    return c->p > from;
}

/* RFC 5321 4.1.2 Quoted-string. Stands behind the opening quote. */
static bool take_quoted_string(struct cursor *c)
{
    for (; !at_end(c); c->p++) {
        unsigned char ch = peek(c);
        if (ch == '"') {
            c->p++;
            return true;
        }
        if (ch == '\\') {
            c->p++;
            ch = peek(c);
            if (ch >= 0x80) /* quoted-pairSMTP is ASCII only, with RFC 6531 too */
                return false;
        }
        if (ch < ' ' || ch == 0x7F)
            return false;
    }
    return false;
}

static bool take_local(struct cursor *c, str_t *local)
{
    const char *from = c->p;
    bool quoted = take(c, '"');
    bool ok = quoted ? take_quoted_string(c) : take_atoms_and_dots(c);
    *local = str_of(from, (size_t)(c->p - from));
    size_t quotes = quoted || is_dot_string(*local) ? 0 : 2;
    return ok && local->n + quotes <= ADDRESS_LOCAL_MAX && text_valid(*local);
}

static bool take_domain(struct cursor *c, struct address *out)
{
    const char *from = c->p;
    if (peek(c) == '[') {
        while (!at_end(c) && *c->p != ']')
            c->p++;
        if (!take(c, ']'))
            return false;
        out->domain = str_of(from, (size_t)(c->p - from));
        out->is_literal = true;
        return address_literal_valid(out->domain, &out->ip);
    }
    while (!at_end(c) && is_domain_char(peek(c)))
        c->p++;
    out->domain = str_of(from, (size_t)(c->p - from));
    return domain_valid(out->domain);
}

static bool take_mailbox(struct cursor *c, struct address *out)
{
    if (!take_local(c, &out->local) || !take(c, '@') || !take_domain(c, out))
        return false;
    out->is_utf8 = !str_is_ascii(out->local) || !str_is_ascii(out->domain);
    return true;
}

/* RFC 5321 appendix C: "@a,@b:", to be accepted and ignored. */
static bool skip_source_route(struct cursor *c)
{
    if (peek(c) != '@')
        return true;
    do {
        struct address hop = {0};
        if (!take(c, '@') || !take_domain(c, &hop))
            return false;
    } while (take(c, ','));
    return take(c, ':');
}

static bool take_bare_postmaster(struct cursor *c, struct address *out)
{
    str_t left = str_of(c->p, (size_t)(c->end - c->p));
    if (!str_istarts(left, STR("postmaster>")))
        return false;
    out->local = str_sub(left, 0, sizeof "postmaster" - 1);
    c->p += out->local.n + 1;
    return true;
}

err_t address_parse_path(str_t s, enum path_kind kind, struct address *out, str_t *rest)
{
    struct cursor c = {s.p, s.p + s.n};
    *out = (struct address){0};
    *rest = STR_NONE;
    while (peek(&c) == ' ' || peek(&c) == '\t')
        c.p++;
    if (!take(&c, '<'))
        return ERR_SYNTAX;
    if (kind == PATH_REVERSE && take(&c, '>')) {
        out->is_null = true;
    } else if (kind == PATH_FORWARD && take_bare_postmaster(&c, out)) {
        /* RFC 5321 4.5.1 */
    } else if (!skip_source_route(&c) || !take_mailbox(&c, out) || !take(&c, '>')) {
        return ERR_SYNTAX;
    }
    *rest = str_of(c.p, (size_t)(c.end - c.p));
    return 0;
}

err_t address_parse_mailbox(str_t s, struct address *out)
{
    struct cursor c = {s.p, s.p + s.n};
    *out = (struct address){0};
    return take_mailbox(&c, out) && at_end(&c) ? 0 : ERR_SYNTAX;
}

/* A U-label's bound is on its A-label form; one code point costs at least one letter there, so code points
 * are counted. */
static bool label_valid(str_t label)
{
    size_t count = 0;
    for (size_t i = 0; i < label.n; i++) {
        unsigned char ch = (unsigned char)label.p[i];
        if (!is_domain_char(ch) || ch == '.')
            return false;
        count += (ch & 0xC0) != 0x80;
    }
    return count > 0 && count <= 63 && label.p[0] != '-' && label.p[label.n - 1] != '-';
}

bool domain_valid(str_t s)
{
    if (s.n == 0 || s.n > ADDRESS_DOMAIN_MAX || !text_valid(s))
        return false;
    size_t from = 0;
    for (size_t i = 0; i <= s.n; i++) {
        if (i < s.n && s.p[i] != '.')
            continue;
        if (!label_valid(str_of(s.p + from, i - from)))
            return false;
        from = i + 1;
    }
    return true;
}

static bool only_chars(str_t s, const char *set)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!s.p[i] || !strchr(set, s.p[i]))
            return false;
    }
    return s.n > 0;
}

/* The alphabets are checked here since ip_parse takes brackets, and either family, too. */
bool address_literal_valid(str_t s, struct ip *out)
{
    if (s.n < 2 || s.p[0] != '[' || s.p[s.n - 1] != ']')
        return false;
    str_t inner = str_of(s.p + 1, s.n - 2);
    if (str_istarts(inner, STR("IPv6:"))) {
        inner = str_sub(inner, 5, inner.n);
        return only_chars(inner, "0123456789abcdefABCDEF:.") && str_find(inner, ':') >= 0 &&
               ip_parse(inner, out) == 0;
    }
    return only_chars(inner, "0123456789.") && ip_parse(inner, out) == 0;
}

/* What the local part stands for. `plain` holds ADDRESS_LOCAL_MAX bytes. */
static size_t unquote(str_t local, char *plain)
{
    size_t n = 0;
    if (local.n < 2 || local.p[0] != '"') {
        n = MIN(local.n, (size_t)ADDRESS_LOCAL_MAX);
        memcpy(plain, local.p, n);
        return n;
    }
    for (size_t i = 1; i + 1 < local.n && n < ADDRESS_LOCAL_MAX; i++) {
        if (local.p[i] == '\\')
            i++;
        plain[n++] = local.p[i];
    }
    return n;
}

/* Quotes only where they are needed, and in them only the two backslashes that are. */
static void put_canonical_local(str_t local, struct sbuf *buf)
{
    char plain[ADDRESS_LOCAL_MAX];
    size_t n = unquote(local, plain);
    if (is_dot_string(str_of(plain, n))) {
        sbuf_put(buf, plain, n);
        return;
    }
    sbuf_char(buf, '"');
    for (size_t i = 0; i < n; i++) {
        if (plain[i] == '"' || plain[i] == '\\')
            sbuf_char(buf, '\\');
        sbuf_char(buf, plain[i]);
    }
    sbuf_char(buf, '"');
}

static void put_lower(str_t s, struct sbuf *buf)
{
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        sbuf_char(buf, ch >= 'A' && ch <= 'Z' ? (char)(ch - 'A' + 'a') : ch);
    }
}

str_t address_canonical(const struct address *a, struct sbuf *buf)
{
    size_t from = buf->n;
    bool ok = true;
    if (a->is_null)
        return str_of(buf->p + from, 0);
    if (!a->domain.n) {
        put_lower(a->local, buf); /* bare postmaster */
    } else {
        put_canonical_local(a->local, buf);
        sbuf_char(buf, '@');
        if (a->is_literal)
            ip_format_literal(&a->ip, buf);
        else
            ok = domain_to_ascii(a->domain, buf);
    }
    /* half an address is another address */
    return buf->overflow || !ok ? STR_NONE : str_of(buf->p + from, buf->n - from);
}
