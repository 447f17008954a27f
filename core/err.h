/* core/err.h: one error type. 0 is success, -errno is the system's, ERR_* are ours (err.def). */
#ifndef CORE_ERR_H
#define CORE_ERR_H

#include "core/base.h"

typedef int err_t;

enum {
#define ERR(name, value, text) name = value,
#include "core/err.def"
#undef ERR
};

/* Static text for any err_t, never NULL. Any thread. */
const char *err_text(err_t err);

#endif
