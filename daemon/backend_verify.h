/* daemon/backend_verify.h: inside of backend_verify.c and backend_verdicts.c: recipient verification for
 * operators. Admin threads. */
#ifndef DAEMON_BACKEND_VERIFY_H
#define DAEMON_BACKEND_VERIFY_H

#include "admin/verify.h"
#include "daemon/gateway.h"

/* backend_verdicts.c, for backend_init: all verbs; see admin_backend.verify. */
err_t backend_verify(void *ctx, const struct verify_request *rq, json_t **out, struct gbuf *lines,
                     struct sbuf *why) WARN_UNUSED;

/* backend_verify.c: those that workers answer. Errors as backend_verify. */
err_t verify_show(struct gateway *g, const struct verify_request *rq, json_t **out,
                  struct sbuf *why) WARN_UNUSED;
err_t verify_probe(struct gateway *g, const struct verify_request *rq, json_t **out,
                   struct sbuf *why) WARN_UNUSED;
err_t verify_backends(struct gateway *g, json_t **out) WARN_UNUSED;
err_t verify_retry(struct gateway *g, const struct verify_request *rq, json_t **out,
                   struct sbuf *why) WARN_UNUSED;
json_t *
record_json(const struct verdict_record *r); /* verdict, source, pin, suspect, checked, refused, age_s */
json_t *json_of_seconds(uint32_t wall_s);    /* 0: null */
const char *mode_name(enum verify_mode m);

#endif
