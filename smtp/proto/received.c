/* smtp/proto/received.c: the Received: line of a server in front of us. See origin.h.
 *
 * What stands between "from" and "by" differs:
 *      Postfix    HELO (NAME [ADDRESS]) (using TLS...)
 *      Sendmail   HELO (NAME [ADDRESS] (may be forged)), HELO (IDENT@NAME [ADDRESS])
 *      Exim       NAME ([ADDRESS]:PORT helo=HELO), HELO ([ADDRESS]), [ADDRESS] (helo=HELO), [ADDRESS]
 *      Exchange   HELO (ADDRESS)
 *      Postern    HELO ([ADDRESS]), HELO (NAME [ADDRESS])
 *      qmail      NAME (HELO HELO) (IDENT@ADDRESS), NAME (ADDRESS)
 * and OpenSMTPD and Haraka write as Postfix does, with their names behind "by HOST". The client chooses HELO,
 * its ident answer and, in part, NAME. So a comment counts only in exactly one of these shapes, between
 * "from" and "by" there is nothing but the one word and comments, and two addresses where one belongs are
 * none. */
#include "smtp/proto/origin.h"

static bool is_blank(char ch)
{
    return ch == ' ' || ch == '\t' || ch == '\r' || ch == '\n';
}

#define BIT(format) (1u << RECEIVED_##format)
#define BITS_NAMED  (BIT(POSTFIX) | BIT(SENDMAIL) | BIT(OPENSMTPD) | BIT(HARAKA))

static const char *const format_names[] = {
    [RECEIVED_POSTFIX] = "postfix",   [RECEIVED_SENDMAIL] = "sendmail",   [RECEIVED_EXIM] = "exim",
    [RECEIVED_EXCHANGE] = "exchange", [RECEIVED_OPENSMTPD] = "opensmtpd", [RECEIVED_HARAKA] = "haraka",
    [RECEIVED_QMAIL] = "qmail"};

const char *received_format_name(enum received_format f)
{
    return (unsigned)f < COUNT_OF(format_names) ? format_names[f] : "unknown";
}

void received_formats_put(unsigned formats, struct sbuf *out)
{
    const char *before = "";
    for (unsigned i = 0; i < RECEIVED_FORMAT_COUNT; i++) {
        if (!(formats & 1u << i))
            continue;
        sbuf_printf(out, "%s%s", before, format_names[i]);
        before = " or ";
    }
}

/* A word, or a comment with its parentheses (they nest). ERR_EOF behind the last. */
static err_t next_token(str_t *rest, str_t *token)
{
    size_t i = 0, from, depth = 0;
    while (i < rest->n && is_blank(rest->p[i]))
        i++;
    from = i;
    if (i == rest->n || rest->p[i] == ';')
        return ERR_EOF;
    if (rest->p[i] != '(') {
        while (i < rest->n && !is_blank(rest->p[i]) && rest->p[i] != '(' && rest->p[i] != ';') {
            if (rest->p[i] == '"' || rest->p[i] == ')') /* nothing that a host writes here */
                return ERR_SYNTAX;
            i++;
        }
    } else {
        do {
            if (rest->p[i] == '\\')
                return ERR_SYNTAX;
            depth += rest->p[i] == '(';
            depth -= rest->p[i] == ')';
            i++;
        } while (depth && i < rest->n);
        if (depth)
            return ERR_SYNTAX;
    }
    *token = str_sub(*rest, from, i - from);
    *rest = str_sub(*rest, i, rest->n);
    return 0;
}

static bool has_any(str_t s, const char *chars)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] && strchr(chars, s.p[i]))
            return true;
    return false;
}

/* "[192.0.2.1]", "[IPv6:2001:db8::1]", "[2001:db8::1]", each with ":PORT" where `port_too`. */
static err_t parse_bracketed(str_t s, bool port_too, struct ip *out)
{
    uint64_t port;
    ptrdiff_t end = str_find(s, ']');
    if (s.n < 3 || s.p[0] != '[' || end < 0)
        return ERR_SYNTAX;
    str_t behind = str_sub(s, (size_t)end + 1, s.n), inside = str_sub(s, 1, (size_t)end - 1);
    if (behind.n &&
        (!port_too || behind.p[0] != ':' || str_to_u64(str_sub(behind, 1, behind.n), &port) || port > 65535))
        return ERR_SYNTAX;
    if (str_istarts(inside, STR("IPv6:")))
        inside = str_sub(inside, 5, inside.n);
    return has_any(inside, "[") ? ERR_SYNTAX : ip_parse(inside, out);
}

static void set_text(str_t s, char *out, uint8_t *n)
{
    *n = (uint8_t)MIN(s.n, (size_t)ORIGIN_TEXT_MAX);
    for (size_t i = 0; i < *n; i++)
        out[i] = s.p[i] > ' ' && s.p[i] <= '~' ? s.p[i] : '?';
}

/* Exim: "[ADDRESS]:PORT helo=HELO"; without port and HELO others too. */
static err_t take_address_first(str_t inside, struct received_line *out)
{
    str_t address, rest;
    bool more = str_cut(inside, ' ', &address, &rest),
         has_port = str_find(address, ']') + 1 < (ptrdiff_t)address.n;
    if (more && (!str_starts(rest, STR("helo=")) || has_any(rest, " ()")))
        return ERR_SYNTAX;
    if (more)
        set_text(str_sub(rest, 5, rest.n), out->client.helo, &out->client.helo_n);
    out->formats = more || has_port ? BIT(EXIM) : BIT(EXIM) | BIT(SENDMAIL);
    return parse_bracketed(address, true, &out->client.ip);
}

/* Postfix and Sendmail: "NAME [ADDRESS]", "IDENT@NAME [ADDRESS] (may be forged)". */
static err_t take_name_first(str_t inside, struct received_line *out)
{
    str_t name, address;
    bool maybe_forged = str_ends(inside, STR(" (may be forged)"));
    if (maybe_forged)
        inside.n -= sizeof " (may be forged)" - 1;
    if (!str_cut(inside, ' ', &name, &address) || has_any(name, "[]()") || has_any(address, " ()"))
        return ERR_SYNTAX;
    ptrdiff_t at = str_find(name, '@');
    set_text(str_sub(name, (size_t)(at + 1), name.n), out->client.name, &out->client.name_n);
    out->formats = maybe_forged || at >= 0 ? BIT(SENDMAIL) : BITS_NAMED;
    return parse_bracketed(address, false, &out->client.ip);
}

/* Exim: "[ADDRESS]", then "helo=HELO". */
static err_t take_helo_behind(str_t address, str_t inside, struct received_line *out)
{
    if (has_any(inside, " ()"))
        return ERR_SYNTAX;
    set_text(str_sub(inside, 5, inside.n), out->client.helo, &out->client.helo_n);
    out->formats = BIT(EXIM);
    return parse_bracketed(address, true, &out->client.ip);
}

/* qmail: NAME, "HELO HELO", then "ADDRESS" or "IDENT@ADDRESS". It puts no parenthesis and no space of others
 * into its comments. */
static err_t take_two_comments(str_t name, str_t inside, str_t behind, struct received_line *out)
{
    if (has_any(str_sub(inside, 5, inside.n), " ()") || has_any(behind, " ()"))
        return ERR_SYNTAX;
    ptrdiff_t at = str_rfind(behind, '@');
    set_text(str_sub(inside, 5, inside.n), out->client.helo, &out->client.helo_n);
    set_text(name, out->client.name, &out->client.name_n);
    out->formats = BIT(QMAIL);
    return ip_parse(str_sub(behind, (size_t)(at + 1), behind.n), &out->client.ip);
}

static str_t in_parentheses(str_t comment)
{
    return comment.n ? str_sub(comment, 1, comment.n - 2) : STR_NONE;
}

/* The word behind "from" and the comments behind it, if there are any. */
static err_t take_client(str_t word, str_t comment, str_t second, struct received_line *out)
{
    str_t inside = in_parentheses(comment);
    set_text(word, out->client.helo, &out->client.helo_n);
    if (!inside.n) {
        out->formats = BIT(EXIM);
        return comment.n ? ERR_SYNTAX : parse_bracketed(word, true, &out->client.ip);
    }
    if (str_starts(inside, STR("helo=")))
        return take_helo_behind(word, inside, out);
    if (str_starts(inside, STR("HELO ")))
        return take_two_comments(word, inside, in_parentheses(second), out);
    if (inside.p[0] == '[')
        return take_address_first(inside, out);
    if (ip_parse(inside, &out->client.ip))
        return take_name_first(inside, out);
    out->formats = BIT(EXCHANGE) | BIT(QMAIL);
    return 0;
}

static bool is_letter(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '-';
}

/* The product in the comment right behind the host: "(Postfix)", "(Haraka/2.8)". Versions and addresses
 * change, and are no name. */
static str_t product_of(str_t comment)
{
    str_t inside = in_parentheses(comment);
    size_t n = 0;
    while (n < inside.n && is_letter(inside.p[n]))
        n++;
    return n == inside.n || strchr(" /,", inside.p[n]) ? str_sub(inside, 0, n) : STR_NONE;
}

/* Some servers always say their names. */
static void take_product(str_t product, struct received_line *out)
{
    static const struct {
        unsigned bit;
        const char *product;
    } always[] = {{BIT(OPENSMTPD), "OpenSMTPD"}, {BIT(HARAKA), "Haraka"}};
    for (size_t i = 0; i < product.n; i++) /* FNV-1a */
        out->label =
            ((i ? out->label : UINT32_C(2166136261)) ^ (unsigned char)product.p[i]) * UINT32_C(16777619);
    if (str_eq(product, STR("Postfix")))
        out->formats &= BIT(POSTFIX);
    for (size_t i = 0; i < COUNT_OF(always); i++)
        out->formats &= str_eq(product, str_cstr(always[i].product)) ? always[i].bit : ~always[i].bit;
}

/* From behind "from" up to "by". */
static err_t read_from(str_t *rest, str_t *word, str_t comments[2])
{
    str_t token = STR_NONE;
    if (next_token(rest, &token) || !str_ieq(token, STR("from")) || next_token(rest, word) ||
        word->p[0] == '(')
        return ERR_SYNTAX;
    for (size_t i = 0;; i++) {
        if (next_token(rest, &token))
            return ERR_SYNTAX;
        if (token.p[0] != '(')
            return str_ieq(token, STR("by")) ? 0 : ERR_SYNTAX;
        if (i < 2)
            comments[i] = token;
    }
}

err_t received_parse(str_t value, struct received_line *out)
{
    str_t rest = value, word = STR_NONE, behind = STR_NONE, comments[2] = {STR_NONE, STR_NONE};
    *out = (struct received_line){.client.step = ORIGIN_RECEIVED};
    if (read_from(&rest, &word, comments) || next_token(&rest, &out->by) || out->by.p[0] == '(' ||
        take_client(word, comments[0], comments[1], out))
        return ERR_SYNTAX;
    bool has_comment = next_token(&rest, &behind) == 0 && behind.p[0] == '(';
    take_product(product_of(has_comment ? behind : STR_NONE), out);
    return out->formats ? 0 : ERR_SYNTAX;
}

str_t received_by(str_t value)
{
    str_t rest = value, token, before = STR_NONE;
    for (; next_token(&rest, &token) == 0; before = token) {
        if (str_ieq(token, STR("by")) && !str_ieq(before, STR("from"))) /* which a client chooses */
            return next_token(&rest, &token) == 0 && token.p[0] != '(' ? token : STR_NONE;
    }
    return STR_NONE;
}

/* Up to the end of the field that starts at `from`, CRLF (or LF) and all; 0: it is cut off. */
static size_t field_end(str_t s, size_t from)
{
    for (size_t i = from; i < s.n; i++) {
        if (s.p[i] != '\n')
            continue;
        if (i + 1 == s.n)
            return 0;
        if (s.p[i + 1] != ' ' && s.p[i + 1] != '\t')
            return i + 1;
    }
    return 0;
}

str_t received_find(str_t headers, unsigned number)
{
    size_t at = 0, end;
    str_t name, value;
    while ((end = field_end(headers, at)) != 0) {
        str_t field = str_sub(headers, at, end - at);
        at = end;
        if (!str_cut(field, ':', &name, &value) || has_any(name, " \t\r\n."))
            return STR_NONE; /* the end of the section, or nothing that our edge writes */
        if (str_ieq(name, STR("Received")) && number-- == 0)
            return str_trim(value);
    }
    return STR_NONE;
}
