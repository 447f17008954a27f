/* smtp/proto/content.c: see content.h. */
#include "smtp/proto/content.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Index of the first CR or LF, n if there is none. */
static size_t find_eol(const uint8_t *p, size_t n)
{
    size_t i = 0;
#ifdef __SSE2__
    const __m128i cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n');
    for (; i + 16 <= n; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        int hits = _mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(v, cr), _mm_cmpeq_epi8(v, lf)));
        if (hits)
            return i + (size_t)__builtin_ctz((unsigned)hits);
    }
#endif
    while (i < n && p[i] != '\r' && p[i] != '\n')
        i++;
    return i;
}

/* SCAN_LINE_START is only reached by CRLF (or at the very start): that is all there is to "only CRLF.CRLF
 * ends DATA". */
enum scan_state {
    SCAN_LINE_START,
    SCAN_TEXT,
    SCAN_CR,
    SCAN_DOT,    /* "." at a line start: may be the terminator's, held back */
    SCAN_DOT_CR, /* ".\r": the same */
};

static size_t held_bytes(enum scan_state s)
{
    return s == SCAN_DOT ? 1 : s == SCAN_DOT_CR ? 2 : 0;
}

/* One step in a state other than SCAN_TEXT. Returns false when the byte is to be looked at again, in the new
 * state. */
static bool scan_step(struct content_scan *s, uint8_t ch)
{
    switch ((enum scan_state)s->state) {
    case SCAN_LINE_START: s->state = ch == '.' ? SCAN_DOT : SCAN_TEXT; return ch == '.';
    case SCAN_CR:
        s->bare_cr |= ch != '\n';
        s->state = ch == '\n' ? SCAN_LINE_START : SCAN_TEXT;
        return ch == '\n';
    case SCAN_DOT:
        s->stuffing_bytes += ch != '\r';
        s->state = ch == '\r' ? SCAN_DOT_CR : SCAN_TEXT;
        return ch == '\r';
    case SCAN_DOT_CR:
        s->done = ch == '\n';
        s->bare_cr |= !s->done;
        s->stuffing_bytes += !s->done;
        s->state = SCAN_TEXT;
        return s->done;
    case SCAN_TEXT: break;
    }
    return false;
}

/* From SCAN_TEXT to behind the next line ending, whole CRLF pairs in one go. Returns the new index. */
static size_t scan_text(struct content_scan *s, const uint8_t *p, size_t i, size_t n)
{
    i += find_eol(p + i, n - i);
    if (i == n)
        return n;
    if (p[i] == '\n') {
        s->bare_lf = true; /* and still inside the line */
        return i + 1;
    }
    if (i + 1 < n && p[i + 1] == '\n') {
        s->state = SCAN_LINE_START;
        return i + 2;
    }
    s->state = SCAN_CR;
    return i + 1;
}

size_t content_scan(struct content_scan *s, const uint8_t *p, size_t n, str_t *held, size_t *content_n)
{
    size_t held_before = held_bytes(s->state), i = 0;
    *held = STR_NONE;
    *content_n = 0;
    if (s->done)
        return 0;
    while (i < n && !s->done) {
        if (s->state == SCAN_TEXT)
            i = scan_text(s, p, i, n);
        else
            i += scan_step(s, p[i]);
    }
    /* What was held before stands in front of p; what is held now (or was the terminator) is cut off at the
     * end. */
    size_t ready = held_before + i - (s->done ? 3 : held_bytes(s->state));
    s->bytes += ready;
    if (ready) {
        must(ready >= held_before);
        if (held_before)
            *held = str_sub(STR(".\r"), 0, held_before);
        *content_n = ready - held_before;
    }
    return i;
}

/* In effect: un-stuff (at CRLF lines only, the strict reading of the wire), turn bare CR and LF into CRLF,
 * stuff again. Hence a dot behind a bare ending is text and gets a second one, and a dot that stands alone
 * between CRLF and a bare ending was stuffing and goes; "\r\n.\n" could else come out as the end of the
 * message. */
enum normalise_state {
    NORM_LINE_START, /* behind CRLF */
    NORM_TEXT,
    NORM_CR,       /* behind CR, for which CRLF was put out already: an LF now belongs to it */
    NORM_BARE_EOL, /* behind a bare ending */
    NORM_DOT,      /* "." behind CRLF, not yet put out */
};

static size_t put_crlf(uint8_t *out)
{
    out[0] = '\r';
    out[1] = '\n';
    return 2;
}

static size_t normalise_step(uint8_t *state, uint8_t ch, uint8_t *out)
{
    uint8_t was = *state;
    size_t o = 0;
    if (ch == '\n' && was == NORM_CR) {
        *state = NORM_LINE_START;
        return 0;
    }
    if (ch == '\r' || ch == '\n') {
        *state = ch == '\r' ? NORM_CR : NORM_BARE_EOL;
        return put_crlf(out);
    }
    if (ch == '.' && was == NORM_LINE_START) {
        *state = NORM_DOT;
        return 0;
    }
    if (was == NORM_DOT || (ch == '.' && (was == NORM_CR || was == NORM_BARE_EOL)))
        out[o++] = '.';
    out[o++] = ch;
    *state = NORM_TEXT;
    return o;
}

size_t content_normalise(uint8_t *state, const uint8_t *p, size_t n, uint8_t *out)
{
    size_t o = 0, i = 0;
    while (i < n) {
        if (*state == NORM_TEXT) {
            size_t piece = find_eol(p + i, n - i);
            memcpy(out + o, p + i, piece);
            o += piece;
            i += piece;
            if (i == n)
                break;
        }
        o += normalise_step(state, p[i++], out + o);
    }
    return o;
}

size_t content_stuff(const uint8_t *p, size_t n, uint8_t *out)
{
    size_t o = 0, i = 0;
    while (i < n) {
        if (p[i] == '.')
            out[o++] = '.';
        const uint8_t *lf = memchr(p + i, '\n', n - i);
        size_t line = lf ? (size_t)(lf - (p + i)) + 1 : n - i;
        memcpy(out + o, p + i, line);
        o += line;
        i += line;
    }
    return o;
}

enum stuff_state { STUFF_LINE_START, STUFF_TEXT, STUFF_CR };

size_t content_stuff_octets(uint8_t *state, const uint8_t *p, size_t n, uint8_t *out)
{
    size_t o = 0, i = 0;
    while (i < n) {
        if (*state == STUFF_LINE_START && p[i] == '.')
            out[o++] = '.';
        const uint8_t *lf = memchr(p + i, '\n', n - i);
        size_t piece = lf ? (size_t)(lf - (p + i)) + 1 : n - i;
        bool cr_before_last = piece > 1 ? p[i + piece - 2] == '\r' : *state == STUFF_CR;
        memcpy(out + o, p + i, piece);
        o += piece;
        i += piece;
        if (lf)
            *state = cr_before_last ? STUFF_LINE_START : STUFF_TEXT;
        else
            *state = p[i - 1] == '\r' ? STUFF_CR : STUFF_TEXT;
    }
    return o;
}
