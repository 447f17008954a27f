/* smtp/proto/command.c: see command.h. */
#include "smtp/proto/command.h"

struct verb {
    str_t verb;
    unsigned flags;
};

static const struct verb verbs[] = {
#define COMMAND(id, verb, flags) [CMD_##id] = {STR(verb), flags},
#include "smtp/proto/cmd.def"
#undef COMMAND
};

const char *cmd_verb(enum cmd_id id)
{
    return id >= 0 && id < CMD_unknown ? verbs[id].verb.p : "unknown";
}

static size_t word_length(str_t s)
{
    size_t n = 0;
    while (n < s.n && s.p[n] != ' ' && s.p[n] != '\t')
        n++;
    return n;
}

void command_parse(str_t line, struct command *out)
{
    str_t word = str_sub(line, 0, word_length(line));
    *out = (struct command){.id = CMD_unknown, .arg = str_trim(str_sub(line, word.n, line.n))};
    for (unsigned id = 0; id < COUNT_OF(verbs); id++) {
        if (str_ieq(word, verbs[id].verb)) {
            out->id = (enum cmd_id)id;
            out->flags = verbs[id].flags;
            return;
        }
    }
}

static err_t refused(enum reply_id *refuse, enum reply_id why)
{
    *refuse = why;
    return ERR_SYNTAX;
}

/* RFC 5321 4.1.2 esmtp-keyword and esmtp-value (RFC 6531 allows UTF-8 in values). `has_value` tells "K=" from
 * "K". */
struct param {
    str_t keyword, value;
    bool has_value;
};

static bool keyword_valid(str_t s)
{
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        bool alnum = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');
        if (!alnum && (ch != '-' || i == 0))
            return false;
    }
    return s.n > 0;
}

bool param_value_valid(str_t s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        if (ch <= ' ' || ch == '=' || ch == 0x7F)
            return false;
    }
    return s.n > 0 && str_is_utf8(s);
}

/* Takes the next parameter off *rest. ERR_EOF behind the last. */
static err_t next_param(str_t *rest, struct param *out)
{
    *rest = str_trim(*rest);
    if (!rest->n)
        return ERR_EOF;
    str_t word = str_sub(*rest, 0, word_length(*rest));
    *rest = str_sub(*rest, word.n, rest->n);
    out->has_value = str_cut(word, '=', &out->keyword, &out->value);
    if (!keyword_valid(out->keyword) || (out->has_value && !param_value_valid(out->value)))
        return ERR_SYNTAX;
    return 0;
}

/* RFC 1870: up to 20 digits. What passes 64 bits is more than anybody takes: saturate, and the size limit
 * answers. */
static err_t parse_size(str_t digits, uint64_t *out)
{
    uint64_t v = 0;
    if (!digits.n || digits.n > 20)
        return ERR_SYNTAX;
    for (size_t i = 0; i < digits.n; i++) {
        if (digits.p[i] < '0' || digits.p[i] > '9')
            return ERR_SYNTAX;
        uint64_t d = (uint64_t)(digits.p[i] - '0');
        v = v > (UINT64_MAX - d) / 10 ? UINT64_MAX : v * 10 + d;
    }
    *out = v;
    return 0;
}

static err_t parse_body(str_t value, enum body_type *out)
{
    if (str_ieq(value, STR("7BIT")))
        *out = BODY_7BIT;
    else if (str_ieq(value, STR("8BITMIME")))
        *out = BODY_8BITMIME;
    else
        return ERR_SYNTAX;
    return 0;
}

static err_t parse_ret(str_t value, enum dsn_ret *out)
{
    if (str_ieq(value, STR("FULL")))
        *out = RET_FULL;
    else if (str_ieq(value, STR("HDRS")))
        *out = RET_HDRS;
    else
        return ERR_SYNTAX;
    return 0;
}

static int hex_digit(char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    return ch >= 'A' && ch <= 'F' ? ch - 'A' + 10 : -1; /* upper case only: RFC 3461 4 */
}

err_t xtext_decode(str_t x, struct sbuf *out)
{
    for (size_t i = 0; i < x.n; i++) {
        char ch = x.p[i];
        if (ch < '!' || ch > '~' || ch == '=')
            return ERR_SYNTAX;
        if (ch == '+') {
            int high = i + 2 < x.n ? hex_digit(x.p[i + 1]) : -1, low = high < 0 ? -1 : hex_digit(x.p[i + 2]);
            if (low < 0)
                return ERR_SYNTAX;
            ch = (char)(high << 4 | low);
            i += 2;
        }
        sbuf_char(out, ch);
    }
    return 0;
}

/* Printable ASCII in xtext: RFC 3461 4.2 and 4.4 both. */
static err_t check_xtext(str_t value, size_t max)
{
    char bytes[ORCPT_MAX] = "";
    struct sbuf b = SBUF_ON(bytes);
    if (!value.n || value.n > max || xtext_decode(value, &b))
        return ERR_SYNTAX;
    for (size_t i = 0; i < b.n; i++) {
        if (bytes[i] < ' ' || bytes[i] > '~')
            return ERR_SYNTAX;
    }
    return 0;
}

static bool is_atom(str_t s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] <= ' ' || s.p[i] > '~' || memchr("()<>[]:;@\\,.\"", s.p[i], 13))
            return false;
    }
    return s.n > 0;
}

/* RFC 6533 3: what xtext would hide stands in \x{HEX}; UTF-8 may stand as it is where the transaction has
 * SMTPUTF8, which the caller sees to. */
static err_t check_utf8_address(str_t s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '+' || s.p[i] == '=')
            return ERR_SYNTAX;
    }
    return s.n ? 0 : ERR_SYNTAX;
}

static err_t parse_orcpt(str_t value, str_t *out)
{
    str_t type, address;
    if (value.n > ORCPT_MAX || !str_cut(value, ';', &type, &address) || !is_atom(type))
        return ERR_SYNTAX;
    *out = value;
    return str_ieq(type, STR("utf-8")) ? check_utf8_address(address) : check_xtext(address, ORCPT_MAX);
}

static err_t parse_notify(str_t value, uint8_t *out)
{
    static const struct {
        str_t word;
        uint8_t bit;
    } words[] = {{{"NEVER", 5}, NOTIFY_NEVER},
                 {{"SUCCESS", 7}, NOTIFY_SUCCESS},
                 {{"FAILURE", 7}, NOTIFY_FAILURE},
                 {{"DELAY", 5}, NOTIFY_DELAY}};
    str_t rest = value, word;
    bool more;
    do {
        uint8_t bit = 0;
        more = str_cut(rest, ',', &word, &rest);
        for (size_t i = 0; i < COUNT_OF(words); i++)
            bit |= str_ieq(word, words[i].word) ? words[i].bit : 0;
        if (!bit)
            return ERR_SYNTAX;
        *out |= bit;
    } while (more);
    return *out & NOTIFY_NEVER && *out != NOTIFY_NEVER ? ERR_SYNTAX : 0;
}

struct mail_seen {
    bool size, body, smtputf8, ret, envid;
};

static err_t take_mail_param(const struct param *p, struct mail_params *out, struct mail_seen *seen,
                             enum reply_id *refuse)
{
    bool *once;
    err_t err;
    if (str_ieq(p->keyword, STR("SIZE"))) {
        once = &seen->size;
        err = p->has_value ? parse_size(p->value, &out->size) : ERR_SYNTAX;
        out->has_size = true;
    } else if (str_ieq(p->keyword, STR("BODY"))) {
        once = &seen->body;
        err = p->has_value ? parse_body(p->value, &out->body) : ERR_SYNTAX;
        out->has_body = true;
        if (err && p->has_value && str_ieq(p->value, STR("BINARYMIME")))
            return refused(refuse, R_no_binarymime);
    } else if (str_ieq(p->keyword, STR("SMTPUTF8"))) {
        once = &seen->smtputf8;
        err = p->has_value ? ERR_SYNTAX : 0;
        out->smtputf8 = true;
    } else if (str_ieq(p->keyword, STR("RET"))) {
        once = &seen->ret;
        err = p->has_value ? parse_ret(p->value, &out->ret) : ERR_SYNTAX;
        out->has_dsn = true;
    } else if (str_ieq(p->keyword, STR("ENVID"))) {
        once = &seen->envid;
        err = p->has_value ? check_xtext(p->value, ENVID_MAX) : ERR_SYNTAX;
        out->envid = p->value;
        out->has_dsn = true;
    } else {
        return refused(refuse, R_bad_command_parameter);
    }
    if (err || *once)
        return refused(refuse, R_bad_syntax);
    *once = true;
    return 0;
}

static err_t take_rcpt_param(const struct param *p, struct rcpt_params *out, enum reply_id *refuse)
{
    bool again;
    err_t err;
    if (str_ieq(p->keyword, STR("NOTIFY"))) {
        again = out->notify != 0;
        err = p->has_value ? parse_notify(p->value, &out->notify) : ERR_SYNTAX;
    } else if (str_ieq(p->keyword, STR("ORCPT"))) {
        again = out->orcpt.n > 0;
        err = p->has_value ? parse_orcpt(p->value, &out->orcpt) : ERR_SYNTAX;
    } else {
        return refused(refuse, R_bad_command_parameter);
    }
    out->has_dsn = true;
    return err || again ? refused(refuse, R_bad_syntax) : 0;
}

/* Cuts "FROM:" or "TO:" off and reads the path. Parameters are set off by a blank. */
static err_t parse_path_arg(str_t arg, str_t prefix, enum path_kind kind, struct address *out, str_t *rest,
                            enum reply_id *refuse)
{
    if (!str_istarts(arg, prefix))
        return refused(refuse, R_bad_syntax);
    if (address_parse_path(str_sub(arg, prefix.n, arg.n), kind, out, rest))
        return refused(refuse, kind == PATH_REVERSE ? R_bad_sender : R_bad_rcpt);
    if (rest->n && rest->p[0] != ' ' && rest->p[0] != '\t')
        return refused(refuse, R_bad_syntax);
    return 0;
}

err_t command_parse_mail(str_t arg, struct address *out, struct mail_params *params, enum reply_id *refuse)
{
    struct mail_seen seen = {0};
    struct param p;
    str_t rest;
    *params = (struct mail_params){0};
    err_t err = parse_path_arg(arg, STR("FROM:"), PATH_REVERSE, out, &rest, refuse);
    if (err)
        return err;
    while ((err = next_param(&rest, &p)) == 0) {
        err = take_mail_param(&p, params, &seen, refuse);
        if (err)
            return err;
    }
    if (err != ERR_EOF)
        return refused(refuse, R_bad_syntax);
    if (out->is_utf8 && !params->smtputf8)
        return refused(refuse, R_needs_smtputf8);
    return 0;
}

err_t command_parse_rcpt(str_t arg, struct address *out, struct rcpt_params *params, enum reply_id *refuse)
{
    struct param p;
    str_t rest;
    *params = (struct rcpt_params){0};
    err_t err = parse_path_arg(arg, STR("TO:"), PATH_FORWARD, out, &rest, refuse);
    if (err)
        return err;
    while ((err = next_param(&rest, &p)) == 0) {
        err = take_rcpt_param(&p, params, refuse);
        if (err)
            return err;
    }
    return err == ERR_EOF ? 0 : refused(refuse, R_bad_syntax);
}

err_t command_parse_bdat(str_t arg, uint64_t *octets, bool *is_last)
{
    str_t count = str_sub(arg, 0, word_length(arg)), rest = str_trim(str_sub(arg, count.n, arg.n));
    *is_last = str_ieq(rest, STR("LAST"));
    return rest.n && !*is_last ? ERR_SYNTAX : parse_size(count, octets);
}

bool helo_valid(str_t arg, bool strict)
{
    struct ip ip;
    if (!arg.n || arg.n > ADDRESS_DOMAIN_MAX)
        return false;
    for (size_t i = 0; i < arg.n; i++) {
        unsigned char ch = (unsigned char)arg.p[i];
        if (ch < ' ' || ch == 0x7F)
            return false;
    }
    return !strict || (str_is_ascii(arg) && domain_valid(arg)) || address_literal_valid(arg, &ip);
}
