/* admin/cli/client.c: see client.h. */
#include "admin/cli/client.h"

#include <errno.h>

#include <curl/curl.h>

#define CONNECT_S      5L
#define EXCHANGE_S     660L              /* a walk over a long queue takes minutes */
#define BODY_BYTES_MAX ((size_t)2 << 30) /* one message at most, in an export */

struct client {
    CURL *curl;                 /* owned */
    const char *socket_path;    /* not owned */
    struct curl_slist *headers; /* owned */
};

static size_t take(char *p, size_t size, size_t n, void *ctx)
{
    struct gbuf *body = ctx;
    gbuf_put(body, p, size * n);
    return body->overflow ? 0 : size * n; /* 0 ends the transfer */
}

static bool set_options(struct client *k)
{
    CURL *c = k->curl;
    /* No "Expect: 100-continue": the server waits for nothing. */
    k->headers = curl_slist_append(NULL, "Expect:");
    return k->headers && !curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, k->socket_path) &&
           !curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http") &&
           !curl_easy_setopt(c, CURLOPT_HTTPHEADER, k->headers) &&
           !curl_easy_setopt(c, CURLOPT_NOPROXY, "*") && /* http_proxy in the environment is not for us */
           !curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) &&
           !curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, CONNECT_S) &&
           !curl_easy_setopt(c, CURLOPT_TIMEOUT, EXCHANGE_S) &&
           !curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take);
}

struct client *client_open(const char *socket_path)
{
    struct client *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->socket_path = socket_path;
    k->curl = curl_easy_init();
    if (k->curl && set_options(k))
        return k;
    client_close(k);
    return NULL;
}

void client_close(struct client *c)
{
    if (!c)
        return;
    curl_easy_cleanup(c->curl);
    curl_slist_free_all(c->headers);
    free(c);
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

static bool set_request(CURL *c, const char *url, str_t content, struct client_reply *r)
{
    bool ok = !curl_easy_setopt(c, CURLOPT_URL, url) && !curl_easy_setopt(c, CURLOPT_ERRORBUFFER, r->error) &&
              !curl_easy_setopt(c, CURLOPT_WRITEDATA, &r->body);
    if (!content.p)
        return ok && !curl_easy_setopt(c, CURLOPT_HTTPGET, 1L);
    return ok && !curl_easy_setopt(c, CURLOPT_POST, 1L) &&
           !curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)content.n) &&
           !curl_easy_setopt(c, CURLOPT_POSTFIELDS, content.p);
}

err_t client_ask(struct client *c, const char *path, str_t content, struct client_reply *out)
{
    struct gbuf url = {0};
    _Static_assert(sizeof out->error >= CURL_ERROR_SIZE, "curl writes its text there");
    *out = (struct client_reply){.body.max = BODY_BYTES_MAX};
    gbuf_printf(&url, "http://localhost%s%c", path, '\0');
    err_t err = -ENOMEM;
    if (!url.overflow && set_request(c->curl, url.p, content, out))
        err = perform(c->curl, out);
    else
        snprintf(out->error, sizeof out->error, "out of memory");
    curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, NULL); /* the caller's, which may go */
    gbuf_free(&url);
    return err;
}

void client_reply_free(struct client_reply *r)
{
    gbuf_free(&r->body);
}
