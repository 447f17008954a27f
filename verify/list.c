/* verify/list.c: files of recipients. */
#include "verify/list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"

#define SETTLE_NS NS_PER_S

struct recipient_list {
    atomic_uint refs;
    struct verdict_key_rules rules;
    struct hash128 *slots; /* owned; open addressing, at most half full; all zeroes: free */
    uint64_t mask, count;
    struct file_mark mark; /* none: it was not settled when it was read, or is no file */
};

/* --- the set --- */

static bool is_free(const struct hash128 *h)
{
    return h->lo == 0 && h->hi == 0;
}

static struct hash128 *slot_of(struct hash128 *slots, uint64_t mask, struct hash128 h)
{
    uint64_t at = h.lo & mask;
    while (!is_free(&slots[at]) && (slots[at].lo != h.lo || slots[at].hi != h.hi))
        at = (at + 1) & mask;
    return &slots[at];
}

static bool has_hash(const struct recipient_list *l, struct hash128 h)
{
    return !is_free(slot_of(l->slots, l->mask, h));
}

static err_t grow(struct recipient_list *l)
{
    uint64_t slot_count = l->slots ? 2 * (l->mask + 1) : 64;
    struct hash128 *slots = calloc(slot_count, sizeof *slots);
    if (!slots)
        return -ENOMEM;
    for (uint64_t i = 0; l->slots && i <= l->mask; i++) {
        if (!is_free(&l->slots[i]))
            *slot_of(slots, slot_count - 1, l->slots[i]) = l->slots[i];
    }
    free(l->slots);
    l->slots = slots;
    l->mask = slot_count - 1;
    return 0;
}

static err_t add(struct recipient_list *l, str_t key)
{
    struct hash128 h = str_hash128(key);
    err_t err = 2 * (l->count + 1) > l->mask ? grow(l) : 0;
    if (err)
        return err;
    struct hash128 *slot = slot_of(l->slots, l->mask, h);
    l->count += is_free(slot);
    *slot = h;
    return 0;
}

/* --- the file --- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* What is said of a line: without its comment, its line end, and blanks at both ends; *column where it
 * begins. */
static str_t content_of(str_t line, int *column)
{
    size_t from = 0, to = line.n;
    for (size_t i = 0; i < to; i++) {
        if (line.p[i] == '#' && (i == 0 || is_blank(line.p[i - 1])))
            to = i;
    }
    while (from < to && is_blank(line.p[from]))
        from++;
    while (to > from && is_blank(line.p[to - 1]))
        to--;
    *column = (int)MIN(from + 1, (size_t)INT32_MAX);
    return str_of(line.p + from, to - from);
}

/* The key of what a line says; absent: it is neither an address nor "@domain". */
static str_t key_of(const struct recipient_list *l, str_t said, struct sbuf *buf)
{
    struct address a;
    if (!str_is_utf8(said))
        return STR_NONE;
    if (said.n > 1 && said.p[0] == '@') {
        str_t domain = str_sub(said, 1, said.n);
        sbuf_char(buf, '@');
        return domain_valid(domain) && domain_to_ascii(domain, buf) && !buf->overflow ? sbuf_view(buf)
                                                                                      : STR_NONE;
    }
    return address_parse_mailbox(said, &a) ? STR_NONE : verdict_key(&a, &l->rules, buf);
}

static err_t take_line(struct recipient_list *l, str_t line, int number, unsigned *bad_count, struct diag *d)
{
    char room[VERIFY_KEY_MAX];
    struct sbuf buf = SBUF_ON(room);
    struct mark mark = {.line = number};
    str_t said = content_of(line, &mark.column);
    if (!said.n)
        return 0;
    str_t key = key_of(l, said, &buf);
    if (key.n)
        return add(l, key);
    if (++*bad_count <= RECIPIENT_LIST_NOTES_MAX)
        diag_warning(d, mark,
                     "\"" STR_FMT "\" is skipped: expected one address, such as user@example.com, or "
                     "@example.com for all of a domain",
                     STR_ARG(str_sub(said, 0, 100)));
    return 0;
}

err_t recipient_list_parse(struct recipient_list **out, str_t text, const struct verdict_key_rules *rules,
                           struct diag *d)
{
    unsigned bad_count = 0;
    *out = NULL;
    struct recipient_list *l = calloc(1, sizeof *l);
    if (!l)
        return -ENOMEM;
    atomic_init(&l->refs, 1);
    l->rules = *rules;
    err_t err = grow(l);                       /* so that lookups need not ask whether there is a table */
    if (str_starts(text, STR("\xEF\xBB\xBF"))) /* some editors sign their UTF-8 */
        text = str_sub(text, 3, text.n);
    for (int number = 1; !err && text.n; number++) {
        str_t line, rest;
        (void)str_cut(text, '\n', &line, &rest);
        err = take_line(l, line, number, &bad_count, d);
        text = rest;
    }
    if (bad_count > RECIPIENT_LIST_NOTES_MAX)
        diag_warning(d, (struct mark){0}, "%u more lines are skipped for the same reason",
                     bad_count - RECIPIENT_LIST_NOTES_MAX);
    if (err) {
        recipient_list_unref(l);
        return err;
    }
    *out = l;
    return 0;
}

static struct file_mark mark_of(const struct stat *st)
{
    return (struct file_mark){
        .device = st->st_dev,
        .inode = st->st_ino,
        .bytes = (uint64_t)st->st_size,
        .modified_ns = (uint64_t)st->st_mtim.tv_sec * NS_PER_S + (uint64_t)st->st_mtim.tv_nsec,
        .changed_ns = (uint64_t)st->st_ctim.tv_sec * NS_PER_S + (uint64_t)st->st_ctim.tv_nsec};
}

bool file_mark_eq(const struct file_mark *a, const struct file_mark *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes &&
           a->modified_ns == b->modified_ns && a->changed_ns == b->changed_ns;
}

/* A time that is to come is another clock's: nothing to wait for. */
bool file_mark_is_settled(const struct file_mark *m, uint64_t now_wall_ns)
{
    return m->changed_ns > now_wall_ns || now_wall_ns - m->changed_ns >= SETTLE_NS;
}

bool recipient_list_changed(const struct recipient_list *l, const char *path, struct file_mark *now)
{
    struct stat st;
    struct file_mark mark = {0};
    if (stat(path, &st) == 0)
        mark = mark_of(&st);
    if (now)
        *now = mark;
    return !mark.inode || !file_mark_eq(&l->mark, &mark);
}

static err_t read_file(const char *path, struct gbuf *text, struct file_mark *mark)
{
    char block[65536];
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer must not hold us */
    if (fd < 0)
        return -errno;
    err_t err = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : ERR_UNSUPPORTED;
    *mark = err ? (struct file_mark){0} : mark_of(&st);
    if (!file_mark_is_settled(mark, clock_wall_ns()))
        *mark = (struct file_mark){0};
    while (!err) {
        ssize_t n = read(fd, block, sizeof block);
        if (n == 0)
            break;
        if (n < 0)
            err = errno == EINTR ? 0 : -errno;
        else
            gbuf_put(text, block, (size_t)n);
        if (!err && text->overflow)
            err = -EFBIG;
    }
    close(fd);
    return err;
}

/* --- loading again --- */

static uint64_t lost_since(const struct recipient_list *previous, const struct recipient_list *l)
{
    if (previous->rules.fold_case != l->rules.fold_case || previous->rules.separator != l->rules.separator)
        return previous->count > l->count ? previous->count - l->count : 0;
    uint64_t lost = 0;
    for (uint64_t i = 0; i <= previous->mask; i++)
        lost += !is_free(&previous->slots[i]) && !has_hash(l, previous->slots[i]);
    return lost;
}

static err_t check_shrink(const struct recipient_list *previous, const struct recipient_list *l,
                          uint32_t max_percent, struct diag *d)
{
    uint64_t lost = lost_since(previous, l);
    if (lost * 100 <= previous->count * max_percent)
        return 0;
    diag_error(d, (struct mark){0},
               "%llu of the list's %llu entries are missing, more than the %u %% that verify.list_shrink "
               "allows; the list that was loaded before stays in force. If the new one is meant: "
               "postern reload shrunk-lists",
               (unsigned long long)lost, (unsigned long long)previous->count, max_percent);
    return ERR_LIMIT;
}

static err_t load(struct recipient_list **out, const char *path, const struct verdict_key_rules *rules,
                  struct diag *d)
{
    struct gbuf text = {.max = RECIPIENT_LIST_BYTES_MAX};
    struct file_mark mark;
    err_t err = read_file(path, &text, &mark);
    if (!err)
        err = recipient_list_parse(out, gbuf_view(&text), rules, d);
    if (!err)
        (*out)->mark = mark;
    gbuf_free(&text);
    if (err)
        diag_error(d, (struct mark){0}, "the list of recipients cannot be read: %s",
                   err == ERR_UNSUPPORTED ? "it is not a file" : err_text(err));
    return err;
}

err_t recipient_list_load(struct recipient_list **out, const char *path,
                          const struct verdict_key_rules *rules, const struct recipient_list *previous,
                          uint32_t shrink_max_percent, bool confirmed, struct diag *d)
{
    const char *outer = d->file;
    *out = NULL;
    d->file = path;
    err_t err = load(out, path, rules, d);
    if (!err && previous && !confirmed)
        err = check_shrink(previous, *out, shrink_max_percent, d);
    if (err) {
        recipient_list_unref(*out);
        *out = NULL;
    }
    d->file = outer;
    return err;
}

/* --- use --- */

struct recipient_list *recipient_list_ref(struct recipient_list *l)
{
    atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
    return l;
}

void recipient_list_unref(struct recipient_list *l)
{
    if (!l || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) > 1)
        return;
    free(l->slots);
    free(l);
}

bool recipient_list_has(const struct recipient_list *l, str_t key)
{
    ptrdiff_t at = str_rfind(key, '@');
    if (has_hash(l, str_hash128(key)))
        return true;
    return at > 0 && has_hash(l, str_hash128(str_sub(key, (size_t)at, key.n)));
}

uint64_t recipient_list_count(const struct recipient_list *l)
{
    return l->count;
}
