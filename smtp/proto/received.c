/* smtp/proto/received.c: the Received: line of a server in front of us. See origin.h.
 *
 * What stands between "from" and "by" differs:
 *      Postfix    HELO (NAME [ADDRESS]) (using TLS...)
 *      Sendmail   HELO (NAME [ADDRESS] (may be forged)), HELO (IDENT@NAME [ADDRESS])
 *      Exim       NAME ([ADDRESS]:PORT helo=HELO), HELO ([ADDRESS]), [ADDRESS] (helo=HELO), [ADDRESS]
 *      Exchange   HELO (ADDRESS)
 *      Postern    HELO ([ADDRESS])
 * The client chooses HELO, its ident answer and, in part, NAME. So a comment counts only in exactly one of
 * these shapes, between "from" and "by" there is nothing but the one word and comments, and two addresses
 * where one belongs are none. */
#include "smtp/proto/origin.h"

static bool is_blank(char ch)
{
    return ch == ' ' || ch == '\t' || ch == '\r' || ch == '\n';
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

/* Exim: "[ADDRESS]:PORT helo=HELO", and ours without HELO. */
static err_t take_address_first(str_t inside, struct origin *out)
{
    str_t address, rest;
    bool more = str_cut(inside, ' ', &address, &rest);
    if (more && (!str_starts(rest, STR("helo=")) || has_any(rest, " ()")))
        return ERR_SYNTAX;
    if (more)
        set_text(str_sub(rest, 5, rest.n), out->helo, &out->helo_n);
    return parse_bracketed(address, true, &out->ip);
}

/* Postfix and Sendmail: "NAME [ADDRESS]", "IDENT@NAME [ADDRESS] (may be forged)". */
static err_t take_name_first(str_t inside, struct origin *out)
{
    str_t name, address;
    if (str_ends(inside, STR(" (may be forged)")))
        inside.n -= sizeof " (may be forged)" - 1;
    if (!str_cut(inside, ' ', &name, &address) || has_any(name, "[]()") || has_any(address, " ()"))
        return ERR_SYNTAX;
    ptrdiff_t at = str_find(name, '@');
    set_text(str_sub(name, (size_t)(at + 1), name.n), out->name, &out->name_n);
    return parse_bracketed(address, false, &out->ip);
}

/* Exim: "[ADDRESS]", then "helo=HELO". */
static err_t take_helo_behind(str_t address, str_t inside, struct origin *out)
{
    if (has_any(inside, " ()"))
        return ERR_SYNTAX;
    set_text(str_sub(inside, 5, inside.n), out->helo, &out->helo_n);
    return parse_bracketed(address, true, &out->ip);
}

/* The word behind "from" and the comment behind it, if there is one. */
static err_t take_client(str_t word, str_t comment, struct origin *out)
{
    str_t inside = comment.n ? str_sub(comment, 1, comment.n - 2) : STR_NONE;
    set_text(word, out->helo, &out->helo_n);
    if (!inside.n)
        return comment.n ? ERR_SYNTAX : parse_bracketed(word, true, &out->ip);
    if (str_starts(inside, STR("helo=")))
        return take_helo_behind(word, inside, out);
    if (inside.p[0] == '[')
        return take_address_first(inside, out);
    return ip_parse(inside, &out->ip) == 0 ? 0 : take_name_first(inside, out);
}

err_t received_parse(str_t value, struct origin *out, str_t *by)
{
    str_t rest = value, token = STR_NONE, word = STR_NONE, comment = STR_NONE;
    *out = (struct origin){.step = ORIGIN_RECEIVED};
    if (next_token(&rest, &token) || !str_ieq(token, STR("from")) || next_token(&rest, &word) ||
        word.p[0] == '(')
        return ERR_SYNTAX;
    for (bool first = true;; first = false) {
        if (next_token(&rest, &token))
            return ERR_SYNTAX;
        if (token.p[0] != '(')
            break;
        if (first)
            comment = token;
    }
    if (!str_ieq(token, STR("by")) || next_token(&rest, by) || by->p[0] == '(')
        return ERR_SYNTAX;
    return take_client(word, comment, out);
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
