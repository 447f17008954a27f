/* relay/dest_priv.h: a next hop. */
#ifndef RELAY_DEST_PRIV_H
#define RELAY_DEST_PRIV_H

#include "relay/message_priv.h"
#include "relay/rate_priv.h"

struct dest {
    struct relay *relay;
    str_t key; /* owned; the map's key */
    struct link dirty_link, idle_link, pressed_link, hungry_link;
    uint64_t idle_since_ms;

    /* Of the route; follows the policy, see dest_get. */
    struct arena arena; /* owns the hosts */
    struct target target;
    enum route_protocol protocol;
    struct hop_access *access; /* counted */
    uint32_t messages_max;     /* per connection */
    struct cfg_rate rate;
    rate_state *rate_at, own_rate_at; /* rate_at: of `stats`, for all workers; without one our own */
    uint64_t policy_generation;
    uint32_t options_generation; /* connections made under another one take no more jobs */

    struct gate gate;
    bool paused;       /* by an operator */
    bool no_chunking;  /* a server offered it and does not know it */
    struct list ready; /* jobs */
    uint32_t ready_count, job_count;
    uint32_t users; /* jobs whose message is active, ended ones too: they point here; and messages called */
    size_t users_bytes; /* of those messages' arenas */
    struct list aside;  /* qmsg.owner_link: wait until it takes more; the first in line first */
    uint32_t aside_count, resort_count; /* resort: of those in front, to be routed anew */
    struct timer wake_timer; /* the back-off ends and messages are aside, or the rate allows the next one */
    struct job *filling;     /* the job that recipients of the message being grouped are put into */
    struct list conns;

    struct resolve *resolving; /* frees itself after dest_resolved */
    struct candidates candidates;
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
struct job *dest_take_last_job(struct dest *d);                    /* the one that came last; NULL: none */
void dest_put_back(struct dest *d, struct job *j);                 /* in front: it waited already */
void dest_job_ended(struct dest *d);
void dest_user_gone(struct dest *d);
void dest_in_use(struct dest *d);
void dest_check_idle(struct dest *d);
void dest_mark_dirty(struct dest *d);
void dest_sweep(struct timer *t);
void dest_free(struct dest *d);

/* crowd.c: messages that wait for it, set aside */
bool crowd_takes(const struct dest *d, const struct job *j); /* or is it for the list? */
/* The job ends here; its message goes aside when its others did. `in_front`: it was called already. */
void crowd_turn_away(struct dest *d, struct job *j, bool in_front);
void crowd_add(struct dest *d, struct qmsg *m, bool in_front);
void crowd_drop(struct dest *d);       /* forgets all of them: the relay ends */
void crowd_look(struct dest *d);       /* it may take more than before */
void crowd_sort_again(struct dest *d); /* routes changed */
str_t crowd_reason(const struct dest *d);
uint64_t crowd_look_ms(void); /* how long a message may stand aside unseen, whatever its destination does */
void crowd_wake(struct timer *t);

/* dispatch.c: jobs to connections */
bool dest_dispatch(struct dest *d); /* false: more is left for the next tick */
void dest_open_more(struct dest *d);
/* The rate allows another message, which is counted; else the destination is looked at when it does. */
bool dest_may_begin(struct dest *d);
void dest_spoke(struct dest *d, str_t relay);
void dest_moved(struct dest *d, str_t relay);
/* A connection came to nothing; the gate does not count it any more. */
void dest_conn_failed(struct dest *d, bool spoke, const struct answer *why, str_t relay);
/* No connection is worth trying, for a reason of the destination's own: as good as down for a while. */
void dest_shut(struct dest *d, const struct answer *why);
void dest_cancel_jobs(struct dest *d);
void dest_pressed(struct timer *t);

/* stats.c: per destination, summed over the workers */
struct dest_stats *dest_stats_get(str_t key, bool is_configured);
rate_state *dest_stats_rate(struct dest_stats *s); /* NULL: it is shared with other destinations */
void dest_stats_connections(struct dest_stats *s, int change);
void dest_stats_down(struct dest_stats *s, int change);
void dest_stats_delivery(struct dest_stats *s, enum rcpt_result res);

#endif
