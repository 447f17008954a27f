/* stub */
#include "verify/verifier.h"
err_t verifier_ask(struct verifier *v, const struct verify_query *q, struct verify_ask *a, struct verify_answer *now){ (void)v;(void)q;(void)a;*now=(struct verify_answer){.reply=R_rcpt_ok,.source="off"}; return 0;}
void verifier_cancel(struct verify_ask *a){(void)a;}
void verifier_hint(struct verifier *v, const struct verify_query *q){(void)v;(void)q;}
bool verifier_is_token(const struct verify_shared *s, const struct config *c, const struct address *a){(void)s;(void)c;(void)a;return false;}
err_t verifier_create(struct verifier **out, const struct verifier_options *opt){(void)opt;*out=NULL;return 0;}
void verifier_destroy(struct verifier *v){(void)v;}
void verifier_set_policy(struct verifier *v, const struct policy *p){(void)v;(void)p;}
void verifier_drain(struct verifier *v, void (*drained)(void *ctx), void *ctx){(void)v;drained(ctx);}
void verifier_learn_delivery(struct verifier *v, const struct address *rcpt, enum smtpc_stage at, const struct smtp_reply *reply, bool accepted){(void)v;(void)rcpt;(void)at;(void)reply;(void)accepted;}
void verifier_learn_sender(struct verifier *v, const struct address *sender){(void)v;(void)sender;}
