/* queue/crc32c.h: CRC-32C (Castagnoli), as in iSCSI and ext4. Pure; any thread. */
#ifndef QUEUE_CRC32C_H
#define QUEUE_CRC32C_H

#include "core/base.h"

/* Continues `crc` (0 to start) over n bytes: crc32c(crc32c(0, a), b) is the CRC of a and b in a row. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);

#endif
