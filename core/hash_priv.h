/* core/hash_priv.h: seeded hashing for core's maps. Any thread. */
#ifndef CORE_HASH_PRIV_H
#define CORE_HASH_PRIV_H

#include "core/base.h"

uint64_t hash_u64(uint64_t key); /* a bijection, so different keys never share all 64 bits */

#endif
