/* core/utf8_priv.h: one decoder for everything in core/ that must know where UTF-8 ends. Pure. */
#ifndef CORE_UTF8_PRIV_H
#define CORE_UTF8_PRIV_H

#include "core/str.h"

/* Decodes the character at s.p[at] (at < s.n). Returns its length, 1..4, or 0 when no valid RFC 3629 sequence
 * starts there (overlong forms, surrogates and values above U+10FFFF are not valid). */
size_t utf8_decode(str_t s, size_t at, uint32_t *code_point);

#endif
