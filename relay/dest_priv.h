/* relay/dest_priv.h: a next hop. */
#ifndef RELAY_DEST_PRIV_H
#define RELAY_DEST_PRIV_H

#include "relay/message_priv.h"

struct dest {
    struct relay *relay;
    str_t key; /* owned; the map's key */
    struct link dirty_link, idle_link, pressed_link;
    uint64_t idle_since_ms;

    /* Of the route; follows the policy, see dest_get. */
    struct arena arena; /* owns the hosts */
    struct target target;
    enum route_protocol protocol;
    enum tls_level tls;
    uint64_t policy_generation;
    uint32_t options_generation; /* connections made under another one take no more jobs */

    struct gate gate;
    struct list ready; /* jobs */
    uint32_t ready_count, job_count;
    uint32_t users;      /* jobs whose message is still active, ended ones too: they point here */
    struct job *filling; /* the job that recipients of the message being grouped are put into */
    struct list conns;

    struct resolve *resolving; /* frees itself after dest_resolved */
    struct candidates candidates;
    uint32_t candidates_generation;
    uint64_t fresh_until_ms;    /* of the candidates; monotonic */
    struct kept_answer refused; /* DNS says never */
    uint64_t refused_until_ms;  /* until asked again; monotonic; 0 = not refused */

    struct kept_answer last;  /* why it failed last */
    char last_relay[64];      /* endpoint */
    struct note *note;        /* the last reason given to a deferred message */
    struct dest_stats *stats; /* shared by all workers, never freed */
};

/* destination.c */
struct dest *dest_get(struct relay *r, const struct route *route); /* NULL: out of memory */
void dest_add_job(struct dest *d, struct job *j);                  /* may end it at once */
struct job *dest_take_job(struct dest *d);                         /* NULL: none */
bool dest_drop_job(struct dest *d, struct job *j);                 /* false: it waits here no longer */
void dest_put_back(struct dest *d, struct job *j);                 /* in front: it waited already */
void dest_defer_job(struct dest *d, struct job *j); /* to the end of the back-off; on no list any more */
void dest_job_ended(struct dest *d);
void dest_user_gone(struct dest *d);
void dest_check_idle(struct dest *d);
void dest_mark_dirty(struct dest *d);
void dest_sweep(struct timer *t);
void dest_free(struct dest *d);

/* dispatch.c: jobs to connections */
bool dest_dispatch(struct dest *d); /* false: more is left for the next tick */
void dest_open_more(struct dest *d);
void dest_spoke(struct dest *d, str_t relay);
void dest_moved(struct dest *d, str_t relay);
/* A connection came to nothing; the gate does not count it any more. */
void dest_conn_failed(struct dest *d, bool spoke, const struct answer *why, str_t relay);
/* No connection is worth trying, for a reason of the destination's own: as good as down for a while. */
void dest_shut(struct dest *d, const struct answer *why);
void dest_cancel_jobs(struct dest *d);
void dest_pressed(struct timer *t);

/* stats.c: per destination, summed over the workers */
struct dest_stats *dest_stats_get(str_t key);
void dest_stats_connections(struct dest_stats *s, int change);
void dest_stats_down(struct dest_stats *s, int change);
void dest_stats_delivery(struct dest_stats *s, enum rcpt_result res);

#endif
