/* core/hash.h: seeded hashing of numbers. Any thread. */
#ifndef CORE_HASH_H
#define CORE_HASH_H

#include "core/base.h"

uint64_t hash_u64(uint64_t key); /* a bijection, so different keys never share all 64 bits */

#endif
