/* verify/tally.h: how recipients were decided, by domain, source and result. One per worker, who alone
 * counts; anybody may read at any time. Nothing is ever taken back: what a reload takes out of the
 * configuration stays counted. */
#ifndef VERIFY_TALLY_H
#define VERIFY_TALLY_H

#include "verify/answer.h"

#define TALLY_DOMAINS_MAX 1000 /* further ones count as "other"; so does what is in no domain's entry */

enum tally_result {
    TALLY_ACCEPTED,
    TALLY_UNKNOWN,
    TALLY_DISABLED,
    TALLY_FULL,
    TALLY_LATER,   /* any other 4xx */
    TALLY_REFUSED, /* any other 5xx */
    TALLY_SHADOW,  /* accepted, and refused if `enforce` were true */
    TALLY_RESULTS
};
const char *tally_result_name(enum tally_result r);
enum tally_result tally_result_of(enum reply_id reply, bool shadow);

struct tally;

err_t tally_create(struct tally **out) WARN_UNUSED;
void tally_destroy(struct tally *t); /* NULL is fine */
/* Worker. `domain`: as the configuration names it (policy_listed_domain); copied when it is new. */
void tally_count(struct tally *t, str_t domain, enum answer_source s, enum tally_result r);

struct tally_row {
    str_t domain; /* valid as long as the tally */
    uint64_t counts[FROM_COUNT][TALLY_RESULTS];
};
/* The sums over `count` tallies, one row a domain. Any thread; allocates. Owned by the caller: free(). NULL:
 * out of memory. */
struct tally_row *tally_sum(struct tally *const *tallies, size_t count, size_t *row_count);

#endif
