/* core/qid.c: queue ids as people see them: 64 bits in 13 characters of Crockford's base32, which has no I,
 * L, O and U to be misread. The first character holds four bits. */
#include "core/log.h"

#define QID_CHARS 13

size_t qid_format(uint64_t id, char *out)
{
    static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    for (int i = QID_CHARS; i-- > 0; id >>= 5)
        out[i] = digits[id & 31];
    out[QID_CHARS] = '\0';
    return QID_CHARS;
}

/* As Crockford has it: either case, I and L read as 1, O as 0. -1: no digit. */
static int digit_of(char c)
{
    static const int8_t values[26] = {10, 11, 12, 13, 14, 15, 16, 17, 1,  18, 19, 1,  20,
                                      21, 0,  22, 23, 24, 25, 26, -1, 27, 28, 29, 30, 31};
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'z')
        return values[c - 'a'];
    if (c >= 'A' && c <= 'Z')
        return values[c - 'A'];
    return -1;
}

err_t qid_parse(str_t s, uint64_t *out)
{
    uint64_t id = 0;
    if (s.n != QID_CHARS)
        return ERR_SYNTAX;
    for (size_t i = 0; i < s.n; i++) {
        int digit = digit_of(s.p[i]);
        if (digit < 0 || id >> 59)
            return ERR_SYNTAX;
        id = id << 5 | (uint64_t)digit;
    }
    *out = id;
    return 0;
}
