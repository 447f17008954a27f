/* admin/cli/show_verify.c: see show_verify.h. */
#include "admin/cli/show_verify.h"

#include "admin/cli/fields_priv.h"

static str_t age_text(const json_t *o, const char *key, struct sbuf *b)
{
    b->n = 0;
    if (has_number(o, key))
        text_age(b, number_of(o, key));
    return sbuf_view(b);
}

static void put_line(FILE *out, const char *label, str_t value)
{
    fprintf(out, "  %-9s ", label);
    write_safe(out, value.n ? value : STR("-"));
    fputc('\n', out);
}

/* --- an address --- */

/* What a record says, in words: "good, said by its server 3h12m ago". */
static void describe(const json_t *r, struct sbuf *b)
{
    static const char *const by[][2] = {{"probe", "said by its server"},
                                        {"delivery", "learned from a delivery"},
                                        {"sender", "assumed, since it sends mail from inside"}};
    char age_bytes[32];
    struct sbuf age = SBUF_ON(age_bytes);
    str_t verdict = text_of(r, "verdict"), source = text_of(r, "source");
    if (!verdict.n || str_eq(verdict, STR("none"))) {
        sbuf_cstr(b, "nothing is known");
        return;
    }
    sbuf_str(b, verdict);
    for (size_t i = 0; i < COUNT_OF(by); i++)
        if (str_eq(source, str_cstr(by[i][0])))
            sbuf_printf(b, ", %s", by[i][1]);
    sbuf_printf(b, " " STR_FMT " ago", STR_ARG(age_text(r, "age_s", &age)));
    if (is_true(r, "suspect"))
        sbuf_cstr(b, "; refused once since: a second refusal makes it unknown");
}

static void line_until(FILE *out, const char *label, const json_t *shown, const char *key, uint64_t now)
{
    char bytes[64];
    struct sbuf b = SBUF_ON(bytes);
    str_t at = text_of(shown, key);
    if (!at.n)
        return;
    text_until(&b, at, now);
    sbuf_printf(&b, " (" STR_FMT ")", STR_ARG(str_sub(at, 0, 19)));
    put_line(out, label, sbuf_view(&b));
}

static void line_rcpt(FILE *out, const json_t *shown)
{
    char bytes[512];
    struct sbuf b = SBUF_ON(bytes);
    const json_t *rcpt = json_object_get(shown, "rcpt");
    if (is_true(rcpt, "asks")) {
        sbuf_printf(&b, "asks " STR_FMT " first, and says what that says",
                    STR_ARG(text_of(json_object_get(shown, "backend"), "key")));
    } else {
        str_t would = text_of(rcpt, "would"), ref = text_of(rcpt, "ref");
        sbuf_printf(&b, STR_FMT ", by " STR_FMT, STR_ARG(text_of(rcpt, "reply")),
                    STR_ARG(text_of(rcpt, "source")));
        if (would.n)
            sbuf_printf(&b, "; would be " STR_FMT " if verify.enforce were true", STR_ARG(would));
        if (ref.n)
            sbuf_printf(&b, "; look for ref=" STR_FMT " in the log", STR_ARG(ref));
    }
    put_line(out, "rcpt", sbuf_view(&b));
}

static void line_backend(FILE *out, const json_t *shown, uint64_t now)
{
    char bytes[512];
    struct sbuf b = SBUF_ON(bytes);
    const json_t *backend = json_object_get(shown, "backend");
    if (!json_is_object(backend))
        return;
    sbuf_printf(&b, STR_FMT ", " STR_FMT, STR_ARG(text_of(backend, "key")),
                STR_ARG(text_of(backend, "state")));
    if (text_of(backend, "retry_at").n) {
        sbuf_cstr(&b, ", asked again ");
        text_until(&b, text_of(backend, "retry_at"), now);
    }
    sbuf_printf(&b, "; canaries: " STR_FMT, STR_ARG(text_of(backend, "domain")));
    put_line(out, "server", sbuf_view(&b));
}

void show_verdict(const json_t *shown, uint64_t now_wall_ns, FILE *out)
{
    char bytes[512];
    struct sbuf b = SBUF_ON(bytes);
    const json_t *rules = json_object_get(shown, "rules");
    write_safe(out, text_of(shown, "address"));
    fputc('\n', out);
    line_rcpt(out, shown);
    describe(shown, &b);
    put_line(out, "verdict", sbuf_view(&b));
    if (text_of(shown, "pin").n) {
        b.n = 0;
        sbuf_printf(&b, "always " STR_FMT, STR_ARG(text_of(shown, "pin")));
        put_line(out, "pin", sbuf_view(&b));
    }
    line_until(out, "fresh", shown, "fresh_until", now_wall_ns);
    line_until(out, "kept", shown, "kept_until", now_wall_ns);
    if (json_is_boolean(json_object_get(shown, "listed")))
        put_line(out, "list", is_true(shown, "listed") ? STR("has it") : STR("does not have it"));
    b.n = 0;
    sbuf_printf(&b, STR_FMT "%s", STR_ARG(text_of(shown, "mode")),
                is_true(shown, "enforce") ? "" : ", refuses nothing (enforce: false)");
    put_line(out, "mode", sbuf_view(&b));
    line_backend(out, shown, now_wall_ns);
    b.n = 0;
    sbuf_str(&b, text_of(shown, "key"));
    if (text_of(rules, "separator").n)
        sbuf_printf(&b, ", tags behind " STR_FMT " do not count", STR_ARG(text_of(rules, "separator")));
    if (b.n && !is_true(rules, "fold_case"))
        sbuf_cstr(&b, ", upper and lower case are different");
    put_line(out, "known as", sbuf_view(&b));
}

/* --- a probe --- */

void show_probe(const json_t *probe, FILE *out)
{
    char bytes[512];
    struct sbuf b = SBUF_ON(bytes);
    const json_t *lines = json_object_get(probe, "dialogue"), *line;
    size_t i;
    str_t said = text_of(probe, "said");
    json_array_foreach(lines, i, line)
    {
        write_safe(out, str_of(json_string_value(line), json_string_length(line)));
        fputc('\n', out);
    }
    fputc('\n', out);
    sbuf_str(&b, said.n ? said : STR("neither yes nor no: "));
    if (!said.n)
        sbuf_str(&b, text_of(probe, "result"));
    if (text_of(probe, "why").n)
        sbuf_printf(&b, " (" STR_FMT ")", STR_ARG(text_of(probe, "why")));
    put_line(out, "server", sbuf_view(&b));
    b.n = 0;
    describe(json_object_get(probe, "before"), &b);
    put_line(out, "before", sbuf_view(&b));
    b.n = 0;
    describe(json_object_get(probe, "after"), &b);
    if (said.n && !is_true(probe, "stored"))
        sbuf_cstr(&b, "; not stored");
    put_line(out, "now", sbuf_view(&b));
    put_line(out, "rcpt", text_of(probe, "reply"));
}

/* --- figures --- */

static void line_of_counts(FILE *out, const char *label, const json_t *counts)
{
    char bytes[1024];
    struct sbuf b = SBUF_ON(bytes);
    const char *key;
    json_t *n;
    json_object_foreach((json_t *)(uintptr_t)counts, key, n)
    {
        if (json_integer_value(n))
            sbuf_printf(&b, "%s%s %lld", b.n ? ", " : "", key, (long long)json_integer_value(n));
    }
    put_line(out, label, sbuf_view(&b));
}

static void show_cache(const json_t *stats, FILE *out)
{
    char bytes[256];
    struct sbuf b = SBUF_ON(bytes);
    const json_t *cache = json_object_get(stats, "cache"), *store = json_object_get(stats, "store");
    sbuf_printf(&b, "%.0f of at most %.0f: %.0f good, %.0f unknown; %.0f pinned; ",
                number_of(cache, "entries"), number_of(cache, "capacity"), number_of(cache, "good"),
                number_of(cache, "unknown"), number_of(cache, "pinned"));
    text_size(&b, count_of(cache, "bytes"));
    put_line(out, "cache", sbuf_view(&b));
    b.n = 0;
    if (has_number(cache, "hit_rate"))
        sbuf_printf(&b, "%.1f %% of %.0f lookups", 100 * number_of(cache, "hit_rate"),
                    number_of(cache, "hits") + number_of(cache, "misses"));
    put_line(out, "hits", sbuf_view(&b));
    b.n = 0;
    if (json_is_object(store)) {
        sbuf_printf(&b, "%.0f records, ", number_of(store, "records"));
        text_size(&b, count_of(store, "bytes"));
        double lost = number_of(store, "dropped") + number_of(store, "write_errors");
        if (lost > 0)
            sbuf_printf(&b, "; %.0f could not be written", lost);
    } else {
        sbuf_cstr(&b, "none: a restart forgets everything");
    }
    put_line(out, "store", sbuf_view(&b));
}

static void domain_row(struct table *t, const json_t *d)
{
    const json_t *results = json_object_get(d, "results");
    table_cell(t, text_of(d, "domain"));
    table_cell(t, text_of(d, "mode"));
    cell_count(t, d, "good");
    cell_count(t, d, "unknown");
    cell_count(t, d, "pinned");
    cell_count(t, results, "accepted");
    char text[32];
    struct sbuf b = SBUF_ON(text);
    sbuf_u64(&b, count_of(results, "unknown") + count_of(results, "disabled") + count_of(results, "refused"));
    table_cell(t, sbuf_view(&b));
    b.n = 0;
    sbuf_u64(&b, count_of(results, "later") + count_of(results, "full"));
    table_cell(t, sbuf_view(&b));
    cell_count(t, results, "shadow");
}

err_t show_verify_stats(const json_t *stats, FILE *out)
{
    char bytes[128];
    struct sbuf b = SBUF_ON(bytes);
    struct table t = {0};
    static const char *const columns[] = {"GOOD",    "UNKNOWN", "PINNED", "ACCEPTED",
                                          "REFUSED", "LATER",   "SHADOW"};
    size_t i;
    const json_t *d;
    show_cache(stats, out);
    line_of_counts(out, "age", json_object_get(stats, "ages"));
    line_of_counts(out, "decided", json_object_get(stats, "results"));
    line_of_counts(out, "by", json_object_get(stats, "sources"));
    sbuf_printf(&b, "%.0f clients, for %.0f questions in queues", number_of(stats, "waiting"),
                number_of(stats, "queued"));
    put_line(out, "waiting", sbuf_view(&b));
    if (json_array_size(json_object_get(stats, "domains")) == 0)
        return 0;
    fputc('\n', out);
    table_column(&t, "DOMAIN", false);
    table_column(&t, "MODE", false);
    for (i = 0; i < COUNT_OF(columns); i++)
        table_column(&t, columns[i], true);
    json_array_foreach(json_object_get(stats, "domains"), i, d) domain_row(&t, d);
    err_t err = table_write(&t, out);
    table_free(&t);
    return err;
}

/* --- servers --- */

static void show_watches(const json_t *backends, FILE *out)
{
    size_t i, k;
    const json_t *b, *d;
    json_array_foreach(backends, i, b) json_array_foreach(json_object_get(b, "domains"), k, d)
    {
        str_t state = text_of(d, "state");
        bool blind = str_eq(state, STR("accepts-all")), at_data = str_eq(state, STR("data-stage"));
        if (!blind && !at_data)
            continue;
        write_safe(out, text_of(d, "domain"));
        fputs(
            blind
                ? ": its server takes every recipient, so nobody is verified there\n"
                : ": its server refuses unknown recipients only after the content, so it cannot be verified; "
                  "use a list\n",
            out);
    }
}

static void backend_row(struct table *t, const json_t *b, uint64_t now)
{
    char text[512];
    struct sbuf s = SBUF_ON(text);
    table_cell(t, text_of(b, "key"));
    cell_count(t, b, "worker");
    sbuf_printf(&s, STR_FMT "%s", STR_ARG(text_of(b, "state")), is_true(b, "trial") ? ", on trial" : "");
    table_cell(t, sbuf_view(&s));
    cell_age(t, b, "state_for_s");
    cell_until(t, b, "retry_at", now);
    s.n = 0;
    sbuf_printf(&s, "%.0f/%.0f", number_of(b, "connections"), number_of(b, "connections_max"));
    table_cell(t, sbuf_view(&s));
    cell_count(t, b, "in_flight");
    cell_count(t, b, "queued");
    s.n = 0;
    if (number_of(b, "rate") > 0)
        sbuf_printf(&s, "%.0f/s", number_of(b, "rate"));
    table_cell(t, s.n ? sbuf_view(&s) : STR("any"));
    s.n = 0;
    str_t reply = text_of(b, "last_reply");
    sbuf_str(&s, reply.n ? reply : text_of(b, "why"));
    table_cell(t, sbuf_view(&s));
}

err_t show_backends(const json_t *backends, uint64_t now_wall_ns, FILE *out)
{
    static const struct {
        const char *heading;
        bool right;
    } columns[] = {{"SERVER", false}, {"WORKER", true},       {"STATE", false}, {"SINCE", true},
                   {"RETRY", false},  {"OPEN", true},         {"OUT", true},    {"QUEUED", true},
                   {"RATE", true},    {"LAST FAILURE", false}};
    struct table t = {0};
    size_t i;
    const json_t *b;
    if (json_array_size(backends) == 0) {
        fputs("No server has been asked yet.\n", out);
        return 0;
    }
    for (i = 0; i < COUNT_OF(columns); i++)
        table_column(&t, columns[i].heading, columns[i].right);
    json_array_foreach(backends, i, b) backend_row(&t, b, now_wall_ns);
    err_t err = table_write(&t, out);
    table_free(&t);
    show_watches(backends, out);
    return err;
}
