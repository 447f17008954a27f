/* The PROXY header: the same whether it comes whole or byte by byte, never more than its bounds, and an
 * address only where one was said. */
#include "smtp/proto/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_reader whole = {0}, bytewise = {0};
    bool done, done_bytewise = false;
    err_t err, err_bytewise = 0;
    size_t at = 0, used = proxy_read(&whole, data, size, &done, &err);
    while (at < size && !done_bytewise && !err_bytewise)
        at += proxy_read(&bytewise, data + at, 1, &done_bytewise, &err_bytewise);
    must(done == done_bytewise && err == err_bytewise && used == at);
    must(used <= 16 + PROXY_V2_BYTES_MAX);
    must(done || err || used == size);
    if (done && !err) {
        must(whole.kind == bytewise.kind);
        must(whole.kind != PROXY_TCP ||
             (ip_eq(&whole.client.ip, &bytewise.client.ip) && whole.client.port == bytewise.client.port));
    }
    return 0;
}
