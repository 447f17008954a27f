/* policy/access.c: see access.h. The routes of a file that say the same share one. */
#include "policy/access.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "policy/policy_priv.h"

#define PINS_MAX           16
#define PASSWORD_BYTES_MAX 512

struct hop_access *hop_access_ref(struct hop_access *a)
{
    __atomic_fetch_add(&a->refs, 1, __ATOMIC_RELAXED);
    return a;
}

void hop_access_unref(struct hop_access *a)
{
    if (!a || __atomic_sub_fetch(&a->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    tls_context_unref(a->tls);
    if (a->password.n)
        explicit_bzero((char *)(uintptr_t)a->password.p, a->password.n);
    free(a);
}

bool hop_access_same(const struct hop_access *a, const struct hop_access *b)
{
    if (!a || !b)
        return a == b;
    return !memcmp(a->digest, b->digest, sizeof a->digest);
}

/* --- the words that make it what it is --- */

static void put(struct gbuf *out, char letter, str_t s)
{
    if (s.n)
        gbuf_printf(out, "%c%zu:" STR_FMT ",", letter, s.n, STR_ARG(s));
}

/* Of what the route wants of the server's certificate, and what it shows. */
static void tls_words(const struct cfg_route *r, struct gbuf *out)
{
    for (size_t i = 0; i < r->tls_peer.pin_count; i++)
        put(out, 'p', r->tls_peer.pins[i].text);
    put(out, 'a', r->tls_peer.ca);
    put(out, 'c', r->tls_peer.certificate);
    put(out, 'k', r->tls_peer.key);
}

static void all_words(const struct cfg_route *r, struct gbuf *out)
{
    tls_words(r, out);
    put(out, 'n', r->tls_peer.name);
    if (r->auth.mark.line)
        gbuf_printf(out, "m%d", (int)r->auth.mechanism);
    put(out, 'u', r->auth.user);
    put(out, 'f', r->auth.password_file);
    if (!r->chunking)
        gbuf_cstr(out, "d");
}

void route_access_tag(const struct cfg_route *r, struct gbuf *out)
{
    uint8_t digest[32];
    struct gbuf words = {0};
    all_words(r, &words);
    if (words.n) {
        tls_sha256(words.p, words.n, digest);
        gbuf_printf(out, "#%02x%02x%02x%02x", digest[0], digest[1], digest[2], digest[3]);
    }
    gbuf_free(&words);
}

/* --- making one --- */

static bool say(struct builder *b, struct mark m, const char *key, str_t error)
{
    diag_error(b->diag, m, "%s: " STR_FMT, key, STR_ARG(error));
    return false;
}

static bool make_context(struct builder *b, const struct cfg_route *r, struct tls_context **out)
{
    char text[512];
    struct sbuf error = SBUF_ON(text);
    struct tls_pin pins[PINS_MAX];
    struct tls_client_options opt = {.verify = r->tls == TLS_VERIFY,
                                     .ca_file = r->tls_peer.ca,
                                     .pins = pins,
                                     .cert_file = r->tls_peer.certificate,
                                     .key_file = r->tls_peer.key,
                                     .resumes = true};
    for (size_t i = 0; r->tls == TLS_PIN && i < MIN(r->tls_peer.pin_count, (size_t)PINS_MAX); i++)
        if (tls_pin_parse(r->tls_peer.pins[i].text, &pins[opt.pin_count++]))
            return say(b, r->tls_peer.pins[i].mark, "pins", STR("this is no pin"));
    err_t err = tls_context_client(out, &opt, &error);
    if (err == -ENOMEM)
        b->err = err;
    return err ? say(b, r->tls_peer.mark, "tls_peer", sbuf_view(&error)) : true;
}

/* Stores are large, and reading them takes a while: one context for all that want the same; and so none of
 * what it keeps of sessions is used at another level. */
static struct tls_context *find_context(struct builder *b, const struct cfg_route *r)
{
    struct gbuf words = {0};
    struct tls_context *t;
    gbuf_printf(&words, "%d", (int)r->tls);
    tls_words(r, &words);
    str_t key = words.overflow ? STR_NONE : arena_str(&b->p->arena, gbuf_view(&words));
    gbuf_free(&words);
    if (!key.p) {
        b->err = -ENOMEM;
        return NULL;
    }
    t = smap_get(&b->contexts, key);
    if (t)
        return tls_context_ref(t);
    if (!make_context(b, r, &t))
        return NULL;
    if (smap_put(&b->contexts, key, t)) {
        b->err = -ENOMEM;
        tls_context_unref(t);
        return NULL;
    }
    return tls_context_ref(t); /* the map has the other one */
}

/* The first line. */
static bool read_password(struct builder *b, const struct cfg_auth *auth, struct sbuf *out)
{
    char text[PASSWORD_BYTES_MAX + 2];
    if (!auth->password_file.n)
        return true;
    int fd = open(auth->password_file.p, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    err_t err = n < 0 ? -errno : 0;
    struct stat st;
    if (!err && fstat(fd, &st) == 0 && st.st_mode & S_IROTH)
        diag_warning(b->diag, auth->mark, "password_file: everybody can read " STR_FMT "; chmod o-r it",
                     STR_ARG(auth->password_file));
    if (fd >= 0)
        close(fd);
    if (err) {
        diag_error(b->diag, auth->mark, "password_file: cannot read " STR_FMT ": %s",
                   STR_ARG(auth->password_file), err_text(err));
        return false;
    }
    str_t line = str_of(text, (size_t)n), rest;
    str_cut(line, '\n', &line, &rest);
    if (str_ends(line, STR("\r")))
        line.n--;
    bool ok = line.n > 0 && line.n <= PASSWORD_BYTES_MAX && str_find(line, '\0') < 0;
    if (ok)
        sbuf_str(out, line);
    else
        diag_error(b->diag, auth->mark,
                   "password_file: the first line of " STR_FMT " is %s; write the password there",
                   STR_ARG(auth->password_file), line.n ? "no password" : "empty");
    explicit_bzero(text, sizeof text);
    return ok;
}

static str_t keep(char **at, str_t s)
{
    str_t kept = str_of(*at, s.n);
    if (!s.n)
        return STR_NONE;
    memcpy(*at, s.p, s.n);
    *at += s.n;
    return kept;
}

static struct hop_access *make_access(struct builder *b, const struct cfg_route *r)
{
    char password_text[PASSWORD_BYTES_MAX + 1];
    struct sbuf password = SBUF_ON(password_text);
    struct gbuf words = {0};
    if (!read_password(b, &r->auth, &password))
        return NULL;
    struct tls_context *tls = r->tls == TLS_OFF ? NULL : find_context(b, r);
    if (!tls && r->tls != TLS_OFF)
        return NULL;
    struct hop_access *a = calloc(1, sizeof *a + r->tls_peer.name.n + r->auth.user.n + password.n);
    if (!a) {
        b->err = -ENOMEM;
        tls_context_unref(tls);
        return NULL;
    }
    char *at = a->texts;
    a->refs = 1;
    a->level = r->tls;
    a->tls = tls;
    a->sends_eight_bit = r->eight_bit == EIGHT_BIT_SEND;
    a->name = keep(&at, r->tls_peer.name);
    a->chunking = r->chunking;
    a->has_auth = r->auth.mark.line > 0;
    a->mechanism = r->auth.mechanism;
    a->user = keep(&at, r->auth.user);
    a->password = keep(&at, sbuf_view(&password));
    gbuf_printf(&words, "%d %d", (int)r->tls, (int)r->eight_bit);
    all_words(r, &words);
    put(&words, 's', a->password);
    tls_sha256(words.p, words.n, a->digest);
    explicit_bzero(words.p, words.n);
    gbuf_free(&words);
    explicit_bzero(password_text, sizeof password_text);
    return a;
}

struct hop_access *find_access(struct builder *b, const struct cfg_route *r)
{
    struct gbuf words = {0};
    gbuf_printf(&words, "%d %d", (int)r->tls, (int)r->eight_bit);
    all_words(r, &words);
    struct hop_access *a = smap_get(&b->p->accesses, gbuf_view(&words));
    str_t key = a || words.overflow ? STR_NONE : arena_str(&b->p->arena, gbuf_view(&words));
    gbuf_free(&words);
    if (a)
        return a;
    a = key.p ? make_access(b, r) : NULL;
    if (a && smap_put(&b->p->accesses, key, a)) {
        hop_access_unref(a);
        a = NULL;
    }
    if (!a && b->diag->error_count == b->errors_before)
        b->err = -ENOMEM;
    return a;
}

void access_maps_free(struct smap *contexts, struct smap *accesses)
{
    size_t at = 0;
    str_t key;
    void *value;
    while (contexts && smap_next(contexts, &at, &key, &value))
        tls_context_unref(value);
    at = 0;
    while (accesses && smap_next(accesses, &at, &key, &value))
        hop_access_unref(value);
    if (contexts)
        smap_free(contexts);
    if (accesses)
        smap_free(accesses);
}
