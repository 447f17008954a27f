/* admin/cli/client.c: see client.h. */
#include "admin/cli/client.h"

#include <errno.h>

#include <curl/curl.h>

#define CONNECT_S  5L
#define EXCHANGE_S 60L /* a reload resolves names and may wait for a slow resolver */
#define URL_BYTES  256

static size_t take(char *p, size_t size, size_t n, void *ctx)
{
    struct gbuf *body = ctx;
    gbuf_put(body, p, size * n);
    return body->overflow ? 0 : size * n; /* 0 ends the transfer */
}

static bool set_options(CURL *c, const char *socket_path, const char *url, const char *post,
                        struct client_reply *r)
{
    return !curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, socket_path) &&
           !curl_easy_setopt(c, CURLOPT_URL, url) && !curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http") &&
           !curl_easy_setopt(c, CURLOPT_NOPROXY, "*") && /* http_proxy in the environment is not for us */
           !curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) &&
           !curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, CONNECT_S) &&
           !curl_easy_setopt(c, CURLOPT_TIMEOUT, EXCHANGE_S) &&
           !curl_easy_setopt(c, CURLOPT_ERRORBUFFER, r->error) &&
           !curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take) &&
           !curl_easy_setopt(c, CURLOPT_WRITEDATA, &r->body) &&
           (!post || !curl_easy_setopt(c, CURLOPT_COPYPOSTFIELDS, post));
}

static err_t perform(CURL *c, struct client_reply *r)
{
    CURLcode rc = curl_easy_perform(c);
    if (rc == CURLE_OK)
        return curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &r->status) ? ERR_UNSUPPORTED : 0;
    long os_errno = 0;
    (void)curl_easy_getinfo(c, CURLINFO_OS_ERRNO, &os_errno);
    if (rc == CURLE_COULDNT_CONNECT) {
        /* curl speaks of ports here; the system's own words tell what is wrong with a socket file. */
        snprintf(r->error, sizeof r->error, "%s", os_errno ? strerror((int)os_errno) : "cannot connect");
        return ERR_CLOSED;
    }
    if (!r->error[0])
        snprintf(r->error, sizeof r->error, "%s", curl_easy_strerror(rc));
    return rc == CURLE_OPERATION_TIMEDOUT ? ERR_TIMEOUT : ERR_EOF;
}

err_t client_ask(const char *socket_path, const char *path, const char *post, struct client_reply *out)
{
    char url[URL_BYTES];
    _Static_assert(sizeof out->error >= CURL_ERROR_SIZE, "curl writes its text there");
    *out = (struct client_reply){0};
    snprintf(url, sizeof url, "http://localhost%s", path);
    CURL *c = curl_easy_init();
    err_t err = -ENOMEM;
    if (c && set_options(c, socket_path, url, post, out))
        err = perform(c, out);
    else
        snprintf(out->error, sizeof out->error, "out of memory, or a libcurl that cannot do this");
    curl_easy_cleanup(c);
    return err;
}

void client_reply_free(struct client_reply *r)
{
    gbuf_free(&r->body);
}
