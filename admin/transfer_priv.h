/* admin/transfer_priv.h: what records and files share. */
#ifndef ADMIN_TRANSFER_PRIV_H
#define ADMIN_TRANSFER_PRIV_H

#include "admin/transfer.h"

struct transfer_head {
    size_t json_bytes, data_bytes;
    uint32_t crc;
};

bool transfer_head(str_t line, struct transfer_head *out);

#endif
