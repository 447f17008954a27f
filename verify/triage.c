/* verify/triage.c: runs the table of triage.def over a reply. */
#include "verify/triage.h"

struct rule {
    const char *stages, *code, *enhanced, *text;
    enum triage result;
    const char *why;
};

static const struct rule rules[] = {
#define TRIAGE(stages, code, enhanced, text, result, why)                                                    \
    {stages, code, enhanced, text, TRIAGE_##result, why},
#include "verify/triage.def"
#undef TRIAGE
};

const char *triage_name(enum triage t)
{
    static const char *const names[] = {
        [TRIAGE_GOOD] = "good",     [TRIAGE_UNKNOWN] = "unknown",       [TRIAGE_DISABLED] = "disabled",
        [TRIAGE_FULL] = "full",     [TRIAGE_LATER] = "later",           [TRIAGE_CROWDED] = "crowded",
        [TRIAGE_SENDER] = "sender", [TRIAGE_REFUSES_US] = "refuses-us", [TRIAGE_BACKEND] = "backend",
        [TRIAGE_LOOP] = "loop",
    };
    return t >= 0 && t < COUNT_OF(names) ? names[t] : "unknown";
}

static char stage_letter(enum smtpc_stage at)
{
    switch (at) {
    case STAGE_CONNECT:
    case STAGE_GREETING:
    case STAGE_HELO:
    case STAGE_TLS:
    case STAGE_AUTH: return 'E';
    case STAGE_MAIL: return 'M';
    case STAGE_RCPT: return 'R';
    case STAGE_DATA:
    case STAGE_CONTENT:
    case STAGE_DOT: return 'D';
    case STAGE_QUIT:
    case STAGE_IDLE: return 'E';
    }
    return 'E';
}

/* --- the text --- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t';
}

/* One past the span that starts at `i` and is the asker's own: <...>, "...", a word with an '@'. `i` itself:
 * none. */
static size_t echo_end(str_t s, size_t i)
{
    size_t end = i + 1;
    char closing = s.p[i] == '<' ? '>' : s.p[i] == '"' ? '"' : '\0';
    if (closing) {
        while (end < s.n && s.p[end] != closing)
            end += s.p[end] == '\\' ? 2 : 1;
        end = MIN(end + 1, s.n);
        while (end < s.n && closing == '"' && !is_blank(s.p[end])) /* "local part"@domain */
            end++;
        return end;
    }
    if (i && !is_blank(s.p[i - 1]))
        return i;
    while (end < s.n && !is_blank(s.p[end]) && s.p[end] != '<' && s.p[end] != '"')
        end++;
    return memchr(s.p + i, '@', end - i) ? end : i;
}

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : is_blank(c) ? ' ' : c;
}

/* What the server says in its own words, lower case, one line; with a blank behind, for phrases that end in
 * one. */
static str_t own_words(str_t text, struct sbuf *out)
{
    for (size_t i = 0; i < text.n;) {
        size_t end = echo_end(text, i);
        if (end > i)
            sbuf_char(out, '@');
        else
            sbuf_char(out, fold(text.p[end++]));
        i = end;
    }
    sbuf_char(out, ' ');
    return sbuf_view(out);
}

static bool has(str_t words, str_t phrase)
{
    return phrase.n && words.n && memmem(words.p, words.n, phrase.p, phrase.n);
}

static bool has_one_of(str_t words, str_t phrases)
{
    str_t phrase;
    bool more = true;
    while (more) {
        more = str_cut(phrases, '|', &phrase, &phrases);
        if (has(words, phrase))
            return true;
    }
    return false;
}

/* --- the codes --- */

static bool code_matches(int code, const char *pattern)
{
    int digits[] = {code / 100, code / 10 % 10, code % 10};
    for (int i = 0; i < 3; i++)
        if (pattern[i] != '.' && pattern[i] - '0' != digits[i])
            return false;
    return true;
}

static bool enhanced_matches(const struct smtp_reply *r, str_t pattern)
{
    if (!pattern.n)
        return true;
    if (r->enhanced[0] != r->code / 100) /* RFC 3463 2: nonsense; the reply counts */
        return false;
    for (int i = 0; i < 3; i++) {
        str_t part;
        uint64_t number;
        str_cut(pattern, '.', &part, &pattern);
        if (!str_eq(part, STR("*")) && (str_to_u64(part, &number) || number != r->enhanced[i]))
            return false;
    }
    return true;
}

static const struct rule *find(char stage, const struct smtp_reply *r, str_t words)
{
    for (size_t i = 0; i < COUNT_OF(rules); i++) {
        const struct rule *rule = &rules[i];
        str_t text = str_cstr(rule->text);
        if (strchr(rule->stages, stage) && code_matches(r->code, rule->code) &&
            enhanced_matches(r, str_cstr(rule->enhanced)) && (!text.n || has_one_of(words, text)))
            return rule;
    }
    return NULL;
}

/* --- a gateway that asks another one --- */

/* "3.1.2" at the start of `s`; false: none. */
static bool take_status(str_t s, uint8_t status[3])
{
    size_t at = 0;
    for (int i = 0; i < 3; i++) {
        unsigned value = 0, digits = 0;
        while (at < s.n && s.p[at] >= '0' && s.p[at] <= '9' && digits++ < 3)
            value = value * 10 + (unsigned)(s.p[at++] - '0');
        if (!digits || (i < 2 && (at == s.n || s.p[at++] != '.')))
            return false;
        status[i] = (uint8_t)MIN(value, 255);
    }
    return true;
}

/* Postfix as the backend, verifying too, puts what the server behind it said, whatever it was about, into its
 * own 550 5.1.1 "undeliverable address: host H[A] said: 550 5.7.1 ...". True: *inner is that. */
static bool quoted_reply(str_t words, struct smtp_reply *inner)
{
    static const char mark[] = "] said: ";
    if (!has(words, STR("undeliverable address: host ")))
        return false;
    const char *at = memmem(words.p, words.n, mark, sizeof mark - 1);
    if (!at)
        return false;
    str_t said = str_sub(words, (size_t)(at - words.p) + sizeof mark - 1, words.n);
    uint64_t code;
    if (said.n < 4 || str_to_u64(str_sub(said, 0, 3), &code) || code < 400 || code > 599)
        return false;
    *inner = (struct smtp_reply){.code = (int)code, .text = str_sub(said, 4, said.n)};
    if (!take_status(inner->text, inner->enhanced))
        memset(inner->enhanced, 0, sizeof inner->enhanced);
    return true;
}

static const struct rule *find_behind(const struct smtp_reply *r, str_t words)
{
    static const struct rule no_verdict = {.result = TRIAGE_LATER,
                                           .why = "the server behind it refused, but not the user"};
    const struct rule *rule = find('R', r, words);
    struct smtp_reply inner;
    if (!rule || rule->result != TRIAGE_UNKNOWN || !quoted_reply(words, &inner))
        return rule;
    const struct rule *behind = find('R', &inner, inner.text);
    return behind && (behind->result == TRIAGE_UNKNOWN || behind->result == TRIAGE_DISABLED) ? behind
                                                                                             : &no_verdict;
}

static enum triage say(enum triage t, const char *text, const char **why)
{
    if (why)
        *why = text;
    return t;
}

enum triage triage_reply(enum smtpc_stage at, const struct smtp_reply *reply, const char **why)
{
    char bytes[REPLY_TEXT_MAX + 1];
    struct sbuf b = SBUF_ON(bytes);
    if (!reply)
        return say(TRIAGE_BACKEND, "no answer", why);
    char stage = stage_letter(at);
    if (reply->code / 100 == 2 && (stage == 'R' || stage == 'D'))
        return say(TRIAGE_GOOD, "taken", why);
    str_t words = own_words(str_sub(reply->text, 0, REPLY_TEXT_MAX), &b);
    const struct rule *rule = stage == 'R' ? find_behind(reply, words) : find(stage, reply, words);
    if (rule)
        return say(rule->result, rule->why, why);
    /* What DATA says otherwise is about the message; what else there is makes no sense. */
    return stage == 'D' ? say(TRIAGE_LATER, "about the message", why)
                        : say(TRIAGE_BACKEND, "an answer that makes no sense", why);
}
