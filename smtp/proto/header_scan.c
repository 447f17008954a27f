/* smtp/proto/header_scan.c: see content.h. */
#include "smtp/proto/content.h"

enum header_state {
    HDR_FIRST,      /* the very first byte */
    HDR_LINE_START, /* of a later line: a blank continues the field */
    HDR_STUFFED,    /* behind a stuffing dot */
    HDR_NAME,
    HDR_NAME_BLANK, /* RFC 5322 4.5.8: blanks in front of the colon */
    HDR_VALUE,
    HDR_EMPTY_CR, /* CR at a line start */
};

static void end_name(struct header_scan *h)
{
    str_t name = str_of(h->name, MIN(h->name_n, sizeof h->name));
    if (h->name_n > sizeof h->name)
        return;
    if (str_ieq(name, STR("Received")))
        h->received_count += h->received_count < UINT32_MAX;
    else if (str_ieq(name, STR("Date")))
        h->has_date = true;
    else if (str_ieq(name, STR("Message-ID")))
        h->has_message_id = true;
}

static void cut_short(struct header_scan *h)
{
    h->done = h->cut_short = true;
}

static void name_byte(struct header_scan *h, uint8_t ch)
{
    bool blank = ch == ' ' || ch == '\t';
    if (h->name_n == 0 && (ch == ':' || blank)) {
        cut_short(h);
    } else if (ch == ':') {
        h->state = HDR_VALUE;
        end_name(h);
    } else if (blank) {
        h->state = HDR_NAME_BLANK;
    } else if (ch < ' ' || ch >= 0x7F || h->state == HDR_NAME_BLANK) {
        cut_short(h);
    } else {
        h->state = HDR_NAME;
        if (h->name_n < sizeof h->name)
            h->name[h->name_n] = (char)ch;
        h->name_n += h->name_n <= sizeof h->name; /* one past the end: too long to be one of ours */
    }
}

static void header_byte(struct header_scan *h, uint8_t ch)
{
    switch ((enum header_state)h->state) {
    case HDR_FIRST:
    case HDR_LINE_START:
        h->name_n = 0;
        if (ch == '.')
            h->state = HDR_STUFFED;
        else if (ch == '\r')
            h->state = HDR_EMPTY_CR;
        else if ((ch == ' ' || ch == '\t') && h->state == HDR_LINE_START)
            h->state = HDR_VALUE;
        else
            name_byte(h, ch);
        break;
    case HDR_STUFFED:
    case HDR_NAME:
    case HDR_NAME_BLANK: name_byte(h, ch); break;
    case HDR_VALUE: break; /* value_bytes() */
    case HDR_EMPTY_CR:
        h->done = true;
        h->cut_short = ch != '\n';
        break;
    }
}

/* Up to the end of the line. Returns the new index. */
static size_t value_bytes(struct header_scan *h, const uint8_t *p, size_t i, size_t n)
{
    const uint8_t *lf = memchr(p + i, '\n', n - i);
    size_t end = lf ? (size_t)(lf - p) + 1 : n;
    h->non_ascii = h->non_ascii || !str_is_ascii(str_of((const char *)p + i, end - i));
    if (lf)
        h->state = HDR_LINE_START;
    return end;
}

void header_scan(struct header_scan *h, const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (i < n && !h->done) {
        if (h->state == HDR_VALUE)
            i = value_bytes(h, p, i, n);
        else
            header_byte(h, p[i++]);
    }
    h->bytes += (uint32_t)MIN(i, (size_t)(UINT32_MAX - h->bytes));
}
