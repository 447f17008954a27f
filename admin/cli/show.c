/* admin/cli/show.c: see show.h. */
#include "admin/cli/show.h"

#include "admin/cli/fields_priv.h"
#include "admin/cli/table.h"
#include "admin/cli/text.h"

/* --- status --- */

/* What the disks wrote for each byte that was accepted, since the start. */
static void show_writes(const json_t *status, FILE *out)
{
    double accepted = 0, written = 0;
    size_t i;
    const json_t *w;
    json_array_foreach(json_object_get(status, "workers"), i, w)
    {
        const json_t *ring = json_object_get(w, "ring");
        accepted += number_of(ring, "accepted_total");
        written += number_of(ring, "written_total");
    }
    if (accepted <= 0)
        return;
    char text[64];
    struct sbuf b = SBUF_ON(text);
    sbuf_printf(&b, "%.2f bytes written for each accepted", written / accepted);
    write_line(out, "disk", sbuf_view(&b));
}

static void show_head(const json_t *status, FILE *out)
{
    const json_t *queue = json_object_get(status, "queue");
    char text[256];
    struct sbuf b = SBUF_ON(text);

    fputs("Postern ", out);
    write_safe(out, text_of(status, "version"));
    fputs(" on ", out);
    write_safe(out, text_of(status, "hostname"));
    text_age(&b, number_of(status, "uptime_s"));
    fprintf(out, ", pid %.0f, up " STR_FMT "%s\n", number_of(status, "pid"), STR_ARG(sbuf_view(&b)),
            is_true(status, "draining") ? ", shutting down" : "");

    b.n = 0;
    sbuf_str(&b, text_of(status, "config_file"));
    sbuf_cstr(&b, ", generation ");
    sbuf_u64(&b, count_of(status, "generation"));
    write_line(out, "config", sbuf_view(&b));
    write_line(out, "tls", text_of(status, "tls"));
    b.n = 0;
    sbuf_printf(&b, "%.0f messages, %.0f recipients", number_of(queue, "messages"),
                number_of(queue, "recipients"));
    if (count_of(queue, "messages")) {
        sbuf_cstr(&b, ", oldest ");
        text_age(&b, number_of(queue, "oldest_age_s"));
    }
    write_line(out, "queue", sbuf_view(&b));
    show_writes(status, out);
}

static void write_pause(FILE *out, str_t what, const json_t *entry)
{
    fputs("paused: ", out);
    write_safe(out, what);
    fputs(", since ", out);
    write_safe(out, text_of(entry, "since"));
    fputs(" by ", out);
    write_safe(out, text_of(entry, "by"));
    fputc('\n', out);
}

void show_paused(const json_t *paused, FILE *out)
{
    const json_t *all = json_object_get(paused, "all"), *d;
    size_t i;
    if (json_is_object(all))
        write_pause(out, STR("all destinations"), all);
    json_array_foreach(json_object_get(paused, "destinations"), i, d) write_pause(out, text_of(d, "key"), d);
}

static void cell_ring(struct table *t, const json_t *ring)
{
    str_t error = text_of(ring, "error");
    double bytes = number_of(ring, "bytes"), used = number_of(ring, "used");
    char text[32];
    struct sbuf b = SBUF_ON(text);
    cell_size(t, ring, "bytes");
    if (bytes > 0)
        sbuf_printf(&b, "%.0f%%", 100 * used / bytes);
    table_cell(t, sbuf_view(&b));
    if (!json_is_object(ring)) {
        for (int i = 0; i < 3; i++)
            table_cell(t, STR_NONE);
        return;
    }
    b.n = 0;
    if (has_number(ring, "write_amplification"))
        sbuf_printf(&b, "%.1f", number_of(ring, "write_amplification"));
    table_cell(t, sbuf_view(&b));
    table_cell(t, is_true(ring, "direct_io") ? STR("direct") : STR("buffered"));
    const json_t *resize = json_object_get(ring, "resize");
    if (json_is_object(resize) && !error.n) {
        char state[96];
        struct sbuf s = SBUF_ON(state);
        sbuf_cstr(&s, "resizing to ");
        text_size(&s, count_of(resize, "target"));
        sbuf_cstr(&s, ": ");
        sbuf_str(&s, text_of(resize, "step"));
        if (str_eq(text_of(resize, "step"), STR("filling")))
            sbuf_printf(&s, " %.0f%%", 100 * number_of(resize, "filled") / number_of(resize, "target"));
        table_cell(t, sbuf_view(&s));
        return;
    }
    table_cell(t, error.n ? error : is_true(ring, "full") ? STR("full, MAIL gets 452") : STR("good"));
}

err_t show_status(const json_t *status, FILE *out)
{
    struct table t = {0};
    size_t i;
    const json_t *w;
    show_head(status, out);
    show_paused(json_object_get(status, "paused"), out);
    fputc('\n', out);
    table_column(&t, "WORKER", true);
    table_column(&t, "SESSIONS", true);
    table_column(&t, "QUEUED", true);
    table_column(&t, "RING", true);
    table_column(&t, "USED", true);
    table_column(&t, "AMPL.", true);
    table_column(&t, "WRITES", false);
    table_column(&t, "STATE", false);
    json_array_foreach(json_object_get(status, "workers"), i, w)
    {
        cell_count(&t, w, "id");
        cell_count(&t, w, "sessions");
        cell_count(&t, w, "queue_messages");
        cell_ring(&t, json_object_get(w, "ring"));
    }
    err_t err = table_write(&t, out);
    table_free(&t);
    return err;
}

/* --- queue --- */

static void cell_recipients(struct table *t, const json_t *m)
{
    char text[48];
    struct sbuf b = SBUF_ON(text);
    if (has_number(m, "pending") && has_number(m, "recipients"))
        sbuf_printf(&b, "%.0f/%.0f", number_of(m, "pending"), number_of(m, "recipients"));
    table_cell(t, sbuf_view(&b));
}

static void cell_sender(struct table *t, const json_t *m)
{
    str_t sender = text_of(m, "sender");
    table_cell(t, sender.p && sender.n == 0 ? STR("<>") : sender);
}

/* The first recipient that is still to be delivered, and how many more there are. */
static void cell_to(struct table *t, const json_t *m)
{
    const json_t *first = json_array_get(json_object_get(m, "to"), 0);
    uint64_t more = count_of(m, "pending");
    struct gbuf b = {0};
    if (json_is_string(first))
        gbuf_put(&b, json_string_value(first), json_string_length(first));
    if (b.n && more > 1)
        gbuf_printf(&b, " +%llu", (unsigned long long)(more - 1));
    table_cell(t, gbuf_view(&b));
    gbuf_free(&b);
}

err_t show_queue(const json_t *messages, bool cut, bool filtered, uint64_t now_wall_ns, FILE *out)
{
    struct table t = {0};
    size_t i, count = json_array_size(messages);
    const json_t *m;
    if (count == 0) {
        fputs(filtered ? "No message matches.\n" : "The queue is empty.\n", out);
        return 0;
    }
    table_column(&t, "ID", false);
    table_column(&t, "AGE", true);
    table_column(&t, "SIZE", true);
    table_column(&t, "RCPTS", true);
    table_column(&t, "TRIES", true);
    table_column(&t, "STATE", false);
    table_column(&t, "NEXT", false);
    table_column(&t, "SENDER", false);
    table_column(&t, "TO", false);
    table_column(&t, "DESTINATION", false);
    table_column(&t, "REASON", false);
    json_array_foreach(messages, i, m)
    {
        table_cell(&t, text_of(m, "id"));
        cell_age(&t, m, "age_s");
        cell_size(&t, m, "size");
        cell_recipients(&t, m);
        cell_count(&t, m, "attempts");
        table_cell(&t, is_true(m, "damaged") ? STR("damaged") : text_of(m, "state"));
        cell_until(&t, m, "due", now_wall_ns);
        cell_sender(&t, m);
        cell_to(&t, m);
        table_cell(&t, text_of(m, "destination"));
        table_cell(&t, text_of(m, "reason"));
    }
    err_t err = table_write(&t, out);
    table_free(&t);
    if (!err && cut)
        fprintf(out, "These are the newest %zu; --limit N shows more.\n", count);
    return err;
}

/* --- figures of the queue --- */

static void row_figures(struct table *t, str_t name, const json_t *f, uint64_t now_wall_ns)
{
    char text[32];
    struct sbuf b = SBUF_ON(text);
    double oldest_s = (double)now_wall_ns / 1e9 - number_of(f, "oldest_ms") / 1e3;
    table_cell(t, name);
    cell_count(t, f, "messages");
    cell_count(t, f, "recipients");
    cell_size(t, f, "bytes");
    text_age(&b, oldest_s);
    table_cell(t, sbuf_view(&b));
}

static err_t table_of_figures(const char *heading, const json_t *rows, uint64_t now_wall_ns, FILE *out)
{
    struct table t = {0};
    const char *key;
    json_t *f;
    table_column(&t, heading, false);
    table_column(&t, "MESSAGES", true);
    table_column(&t, "RECIPIENTS", true);
    table_column(&t, "SIZE", true);
    table_column(&t, "OLDEST", true);
    json_object_foreach((json_t *)(uintptr_t)rows, key, f) row_figures(&t, str_cstr(key), f, now_wall_ns);
    err_t err = table_write(&t, out);
    table_free(&t);
    return err;
}

err_t show_stats(const json_t *stats, uint64_t now_wall_ns, FILE *out)
{
    static const char *const ages[][2] = {{"5m", "up to 5m"}, {"1h", "up to 1h"}, {"6h", "up to 6h"},
                                          {"1d", "up to 1d"}, {"3d", "up to 3d"}, {"more", "older"}};
    const json_t *states = json_object_get(stats, "states");
    if (json_object_size(states) == 0) {
        fputs("The queue is empty.\n", out);
        return 0;
    }
    err_t err = table_of_figures("STATE", states, now_wall_ns, out);
    fputc('\n', out);
    if (!err)
        err = table_of_figures("DESTINATION", json_object_get(stats, "destinations"), now_wall_ns, out);
    fputc('\n', out);
    struct table t = {0};
    table_column(&t, "AGE", false);
    table_column(&t, "MESSAGES", true);
    for (size_t i = 0; i < COUNT_OF(ages); i++) {
        table_cell(&t, str_cstr(ages[i][1]));
        cell_count(&t, json_object_get(stats, "ages"), ages[i][0]);
    }
    if (!err)
        err = table_write(&t, out);
    table_free(&t);
    return err;
}

/* --- one message --- */

static void write_age(FILE *out, const json_t *m)
{
    char text[96];
    struct sbuf b = SBUF_ON(text);
    sbuf_str(&b, str_sub(text_of(m, "arrived"), 0, 40));
    sbuf_cstr(&b, " (");
    text_age(&b, number_of(m, "age_s"));
    sbuf_cstr(&b, " ago)");
    write_line(out, "arrived", sbuf_view(&b));
}

static void write_next(FILE *out, const json_t *m, uint64_t now_wall_ns)
{
    char text[96];
    struct sbuf b = SBUF_ON(text);
    str_t due = text_of(m, "due");
    if (due.n)
        text_until(&b, due, now_wall_ns);
    write_line(out, "next try", sbuf_view(&b));
    b.n = 0;
    sbuf_u64(&b, count_of(m, "attempts"));
    write_line(out, "tries", sbuf_view(&b));
}

static void write_real(FILE *out, const json_t *real)
{
    char text[700];
    struct sbuf b = SBUF_ON(text);
    if (!json_is_object(real))
        return;
    sbuf_str(&b, text_of(real, "address"));
    sbuf_cstr(&b, text_of(real, "address").n ? ", by " : "unknown, by ");
    sbuf_str(&b, text_of(real, "by"));
    if (text_of(real, "name").n) {
        sbuf_cstr(&b, ", name ");
        sbuf_str(&b, text_of(real, "name"));
    }
    if (text_of(real, "helo").n) {
        sbuf_cstr(&b, ", helo ");
        sbuf_str(&b, text_of(real, "helo"));
    }
    write_line(out, "real", sbuf_view(&b));
}

err_t show_message(const json_t *m, uint64_t now_wall_ns, FILE *out)
{
    struct table t = {0};
    char size[32];
    struct sbuf b = SBUF_ON(size);
    str_t sender = text_of(m, "sender");
    size_t i;
    const json_t *r;
    write_line(out, "id", text_of(m, "id"));
    write_age(out, m);
    write_line(out, "state", text_of(m, "state"));
    write_line(out, "reason", text_of(m, "reason"));
    write_next(out, m, now_wall_ns);
    write_line(out, "sender", sender.p && !sender.n ? STR("<>") : sender);
    write_line(out, "client", text_of(m, "client"));
    write_line(out, "helo", text_of(m, "helo"));
    write_real(out, json_object_get(m, "real"));
    text_size(&b, count_of(m, "size"));
    write_line(out, "size", sbuf_view(&b));
    if (text_of(m, "error").n)
        write_line(out, "damage", text_of(m, "error"));
    fputc('\n', out);
    table_column(&t, "RECIPIENT", false);
    table_column(&t, "STATE", false);
    table_column(&t, "DESTINATION", false);
    json_array_foreach(json_object_get(m, "recipients"), i, r)
    {
        table_cell(&t, text_of(r, "address"));
        table_cell(&t, text_of(r, "state"));
        table_cell(&t, text_of(r, "destination"));
    }
    err_t err = table_write(&t, out);
    table_free(&t);
    return err;
}

void show_text(str_t text, FILE *out)
{
    str_t line;
    while (text.n) {
        str_cut(text, '\n', &line, &text);
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        str_t head;
        for (bool first = true; first || line.n; first = false) { /* tabs are fine, text_safe has none */
            bool tab = str_cut(line, '\t', &head, &line);
            write_safe(out, head);
            if (tab)
                fputc('\t', out);
            if (!tab)
                break;
        }
        fputc('\n', out);
    }
}

/* --- destinations --- */

err_t show_destinations(const json_t *destinations, uint64_t now_wall_ns, FILE *out)
{
    struct table t = {0};
    size_t i;
    const json_t *d;
    if (json_array_size(destinations) == 0) {
        fputs("No destination is in use.\n", out);
        return 0;
    }
    table_column(&t, "DESTINATION", false);
    table_column(&t, "WORKER", true);
    table_column(&t, "CONNECTIONS", true);
    table_column(&t, "WINDOW", true);
    table_column(&t, "JOBS", true);
    table_column(&t, "ASIDE", true);
    table_column(&t, "STATE", false);
    table_column(&t, "RETRY", false);
    table_column(&t, "LAST FAILURE", false);
    json_array_foreach(destinations, i, d)
    {
        table_cell(&t, text_of(d, "key"));
        cell_count(&t, d, "worker");
        cell_count(&t, d, "connections");
        cell_count(&t, d, "window");
        cell_count(&t, d, "jobs");
        cell_count(&t, d, "aside");
        table_cell(&t, is_true(d, "paused") ? STR("paused") : is_true(d, "down") ? STR("down") : STR("up"));
        cell_until(&t, d, "retry_at", now_wall_ns);
        table_cell(&t, text_of(d, "last_text"));
    }
    err_t err = table_write(&t, out);
    table_free(&t);
    return err;
}

/* --- edges --- */

static void cell_names(struct table *t, const json_t *names)
{
    char text[128];
    struct sbuf b = SBUF_ON(text);
    size_t i;
    const json_t *name;
    json_array_foreach(names, i, name)
    {
        if (json_is_string(name))
            sbuf_printf(&b, "%s%s", b.n ? " or " : "", json_string_value(name));
    }
    table_cell(t, sbuf_view(&b));
}

static void cell_known(struct table *t, const json_t *edge, uint64_t needed)
{
    char text[64];
    struct sbuf b = SBUF_ON(text);
    if (is_true(edge, "learned"))
        sbuf_cstr(&b, "learned");
    else
        sbuf_printf(&b, "%llu of %llu alike", (unsigned long long)count_of(edge, "alike"),
                    (unsigned long long)needed);
    table_cell(t, sbuf_view(&b));
}

err_t show_edges(const json_t *answer, FILE *out)
{
    const json_t *edges = json_object_get(answer, "edges"), *edge;
    str_t format = text_of(answer, "format");
    struct table t = {0};
    size_t i;
    if (format.n && !str_eq(format, STR("learned"))) {
        fputs("The configuration says how edges write (edge_format): ", out);
        write_safe(out, format);
        fputs(". What was learned does not count.\n", out);
    }
    if (json_array_size(edges) == 0) {
        fputs("Nothing was learned of how an edge writes its Received lines.\n", out);
        return 0;
    }
    table_column(&t, "EDGE", false);
    table_column(&t, "KNOWN", false);
    table_column(&t, "WRITES AS", false);
    table_column(&t, "HOPS", true);
    table_column(&t, "DOUBTED", true);
    json_array_foreach(edges, i, edge)
    {
        table_cell(&t, text_of(edge, "address"));
        cell_known(&t, edge, count_of(answer, "needed"));
        cell_names(&t, json_object_get(edge, "formats"));
        cell_count(&t, edge, "hops");
        cell_count(&t, edge, "doubted");
    }
    err_t err = table_write(&t, out);
    table_free(&t);
    return err;
}

/* --- errors --- */

void show_lines(const json_t *lines, FILE *out)
{
    size_t i;
    const json_t *line;
    json_array_foreach(lines, i, line)
    {
        if (!json_is_string(line))
            continue;
        write_safe(out, str_of(json_string_value(line), json_string_length(line)));
        fputc('\n', out);
    }
}

void show_error(const json_t *error, long http_status, FILE *out)
{
    str_t text = text_of(error, "error");
    fputs("postern: ", out);
    if (text.n)
        write_safe(out, text);
    else
        fprintf(out, "posternd answered with HTTP status %ld", http_status);
    fputc('\n', out);
    show_lines(json_object_get(error, "problems"), out);
}
