/* core/err.c: texts of error codes. */
#include "core/err.h"

const char *err_text(err_t err)
{
    if (err == 0)
        return "success";
    switch (err) {
#define ERR(name, value, text)                                                                               \
    case name:                                                                                               \
        return text;
#include "core/err.def"
#undef ERR
    }
    if (err > -1000 && err < 0) {
        const char *text = strerrordesc_np(-err); /* static and never translated, unlike strerror() */
        if (text)
            return text;
    }
    return "unknown error";
}
