/* verify/probe_now.c: one probe with its dialogue, for an operator. */
#include <errno.h>

#include "verify/operator.h"
#include "verify/probeconn_priv.h"

/* --- the transcript --- */

static void line(struct transcript *t, struct loop *l, const char *who, str_t text)
{
    char head[32];
    snprintf(head, sizeof head, "%6llu ms %s ", (unsigned long long)(loop_now_ms(l) - t->began_ms), who);
    gbuf_cstr(&t->lines, head);
    gbuf_str(&t->lines, text);
    gbuf_cstr(&t->lines, "\n");
}

void transcript_note(struct backend *b, const char *fmt, ...)
{
    if (!b->transcript)
        return;
    char bytes[400];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(bytes, sizeof bytes, fmt, ap);
    va_end(ap);
    line(b->transcript, b->verifier->loop, "--", str_of(bytes, MIN((size_t)MAX(n, 0), sizeof bytes - 1)));
}

/* What came without its line end, if a line; controls are the peer's own and do not go to terminals. */
static void lines_of(struct backend *b, const char *who, str_t bytes)
{
    str_t one;
    while (str_cut(bytes, '\n', &one, &bytes)) {
        char clean[1024];
        struct sbuf out = SBUF_ON(clean);
        for (size_t i = 0; i < one.n && out.n < sizeof clean; i++)
            if (one.p[i] != '\r')
                sbuf_char(&out, (unsigned char)one.p[i] < ' ' || one.p[i] == 127 ? '?' : one.p[i]);
        line(b->transcript, b->verifier->loop, who, sbuf_view(&out));
    }
}

void transcript_sent(struct backend *b, str_t bytes)
{
    if (b->transcript)
        lines_of(b, "C:", bytes);
}

void transcript_received(struct backend *b, str_t bytes)
{
    struct transcript *t = b->transcript;
    if (!t)
        return;
    gbuf_str(&t->part, bytes);
    ptrdiff_t end = str_rfind(gbuf_view(&t->part), '\n');
    if (end < 0)
        return;
    size_t whole = (size_t)end + 1;
    lines_of(b, "S:", str_sub(gbuf_view(&t->part), 0, whole));
    memmove(t->part.p, t->part.p + whole, t->part.n - whole);
    t->part.n -= whole;
}

/* --- one probe --- */

static void close_later(struct backend *b)
{
    LIST_EACH(&b->conns, k)
    {
        struct probeconn *c = container_of(k, struct probeconn, link);
        if (c->state == PC_UP && smtpc_idle(c->smtpc))
            probeconn_close(c);
    }
}

/* What it says of the server is true for everybody who asks there. */
static void tell_others(const struct backend *b, const struct probe_now *p, const struct found *f)
{
    struct backend *common = smap_get(&b->verifier->backends, b->key);
    if (p->is_dry || !common || common->breaker.on_trial)
        return;
    enum breaker_state is = b->breaker.state, was = common->breaker.state;
    if (is == was || (is == BREAKER_UP && !p->is_answered))
        return;
    common->breaker = b->breaker;
    common->breaker.on_trial = false;
    backend_moved(common, was, f);
}

void probe_now_ended(struct backend *b, struct probe_now *p, const struct question *q, const struct found *f)
{
    struct verifier *v = b->verifier;
    struct address a;
    enum answer_source source;
    bool is_verdict = f->finding == FINDING_KNOWN;
    const struct cfg_verify *s = address_parse_mailbox(str_of(q->text, q->text_n), &a)
                                     ? &policy_config(v->policy)->verify
                                     : policy_verify(v->policy, &a);
    b->probe_ended = true;
    p->reply = answer_for(s, f->finding, &f->record, wall_s(), &source);
    p->result = is_verdict ? verdict_name((enum verdict)f->record.state) : finding_name(f->finding);
    p->why = f->why;
    p->ms = (uint32_t)(loop_now_ms(v->loop) - b->transcript->began_ms);
    p->transcript = gbuf_view(&b->transcript->lines);
    if (!p->is_answered) {
        (void)verdict_cache_peek(v->shared->known.cache, str_of(q->key, q->key_n), &p->before);
        p->after = p->before;
    }
    tell_others(b, p, f);
    close_later(b);
    p->done(p);
    if (!b->conn_count)
        backend_kick(b); /* which frees it */
}

void probe_now_over(struct backend *b)
{
    list_remove(&b->idle_link);
    if (b->transcript) {
        gbuf_free(&b->transcript->lines);
        gbuf_free(&b->transcript->part);
        free(b->transcript);
    }
    backend_free(b);
}

static struct backend *private_backend(struct verifier *v, const struct route *route,
                                       const struct cfg_verify *s)
{
    struct backend *b = backend_new(v, route, s);
    if (!b)
        return NULL;
    list_push_back(&v->private_backends, &b->idle_link);
    b->transcript = calloc(1, sizeof *b->transcript);
    if (!b->transcript) {
        probe_now_over(b);
        return NULL;
    }
    b->transcript->began_ms = loop_now_ms(v->loop);
    return b;
}

err_t verifier_probe_now(struct verifier *v, str_t address, struct probe_now *p)
{
    struct address a;
    struct route route;
    char bytes[VERIFY_KEY_MAX], text_bytes[PROBE_ADDRESS_MAX];
    struct sbuf b = SBUF_ON(bytes), tb = SBUF_ON(text_bytes);
    if (address_parse_mailbox(address, &a))
        return ERR_SYNTAX;
    if (v->draining)
        return ERR_CLOSED;
    const struct cfg_verify *s = policy_verify(v->policy, &a);
    struct verdict_key_rules rules = verify_key_rules(s);
    str_t key = verdict_key(&a, &rules, &b), text = address_canonical(&a, &tb);
    if (!key.n || !text.n)
        return ERR_SYNTAX;
    if (policy_verify_route(v->policy, &a, &route))
        return ERR_NOT_FOUND;
    struct backend *backend = private_backend(v, &route, s);
    if (!backend)
        return -ENOMEM;
    if (!p->is_dry)
        (void)backend_get(v, &route,
                          s); /* it is one of those that are asked; without memory it is not told */
    struct question *q = question_new(backend, backend_domain(backend, a.domain), key, text, RANK_ASKED);
    if (!q) {
        probe_now_over(backend);
        return -ENOMEM;
    }
    p->backend = backend;
    p->is_answered = false;
    p->before = p->after = (struct verdict_record){0};
    backend->now = p;
    transcript_note(backend, "asking " STR_FMT, STR_ARG(backend->key));
    question_enqueue(q, false);
    return 0;
}
