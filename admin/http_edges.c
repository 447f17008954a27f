/* admin/http_edges.c: what was learned of how edges write their Received lines. */
#include "admin/admin_priv.h"

struct answer get_edges(struct request *rq)
{
    return answer_backend(rq->admin->backend.edges(rq->admin->backend.ctx));
}

struct answer post_edges_forget(struct request *rq)
{
    const char *address = request_param(rq, "address"), *all = request_param(rq, "all");
    char what[128];
    struct ip ip;
    str_t text = str_cstr(address), bits;
    str_cut(text, '/', &text, &bits); /* as it is shown */
    if (!address == !all || (address && ip_parse(text, &ip)))
        return answer_error(MHD_HTTP_BAD_REQUEST, "say which edge: address=192.0.2.10, or all=1");
    err_t err = rq->admin->backend.edges_forget(rq->admin->backend.ctx, address ? &ip : NULL);
    snprintf(what, sizeof what, "edges forget %.64s", address ? address : "all");
    log_change(rq, what, err ? err_text(err) : "ok", NULL);
    if (err == ERR_NOT_FOUND)
        return answer_error(MHD_HTTP_NOT_FOUND, "no message came from an edge at this address");
    if (err)
        return answer_error(MHD_HTTP_INTERNAL_SERVER_ERROR, err_text(err));
    return answer_json(MHD_HTTP_OK, json_pack("{s:s}", "result", "ok"));
}
