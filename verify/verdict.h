/* verify/verdict.h: what is known of an address. Pure data, shared by the cache, its store and the prober.
 *
 * Times are wall-clock seconds since 1970; 0 = never. How long something counts is not stored: it follows
 * from the configuration in force when it is looked at. */
#ifndef VERIFY_VERDICT_H
#define VERIFY_VERDICT_H

#include "core/str.h"
#include "smtp/proto/address.h"

#define VERIFY_KEY_MAX                                                                                       \
    (ADDRESS_LOCAL_MAX + 1 + ADDRESS_DOMAIN_MAX) /* LMDB takes keys of 511 bytes: just so */

enum verdict {
    VERDICT_NONE,     /* nothing known */
    VERDICT_GOOD,     /* its server takes it */
    VERDICT_UNKNOWN,  /* its server says: no such user */
    VERDICT_DISABLED, /* ... or: not any more (550 5.2.1) */
};

/* How it came to be known. */
enum verdict_source {
    SOURCE_PROBE,
    SOURCE_DELIVERY, /* a message was taken, or refused with "no such user" */
    SOURCE_SENDER,   /* a trusted client sends in its name: a hint, weaker than the others */
};

enum verdict_pin { PIN_NONE, PIN_GOOD, PIN_UNKNOWN }; /* said by an administrator; stronger than all */

struct verdict_record {
    uint8_t state;      /* enum verdict */
    uint8_t source;     /* enum verdict_source */
    uint8_t pin;        /* enum verdict_pin */
    uint8_t suspect;    /* GOOD, but refused once: it falls when it is refused again, see verdict_apply */
    uint32_t checked_s; /* of the last answer that says `state` */
    uint32_t refused_s; /* suspect: when it was refused first */
};

const char *verdict_name(enum verdict v);
const char *verdict_source_name(enum verdict_source s);
const char *verdict_pin_name(enum verdict_pin p);

/* --- rules: pure functions of record, time and settings --- */

struct verdict_times {                            /* seconds; semantics 4.10 gives the defaults */
    uint32_t good_fresh, good_refresh, good_keep; /* 24 h, 18 h, 31 d */
    uint32_t unknown_fresh, unknown_keep;         /* 10 min, 24 h */
    uint32_t confirm;                             /* 60 s: two refusals this far apart */
};

enum verdict_age {
    AGE_NONE,    /* no record, or past its keeping */
    AGE_FRESH,   /* answers at once */
    AGE_REFRESH, /* answers at once, and should be asked for again */
    AGE_STALE,   /* must be asked for again; serves when the backend is down and the fail mode allows */
};
/* A pin is always fresh. A clock that went back makes records look new, never old. A hint (SOURCE_SENDER) is
 * never fresh but REFRESH: no server has been asked yet. Nor is a suspect, once t->confirm is over; until
 * then it is FRESH, however old: it was asked for a moment ago, and to ask again would tell nothing. */
enum verdict_age verdict_age(const struct verdict_record *r, const struct verdict_times *t, uint32_t now_s);

/* What a record becomes when an answer comes in. A GOOD one that is still kept falls only when it is refused
 * a second time at least t->confirm after the first, or at once when `canary_passed`: the backend was just
 * seen to tell good from unknown. A hint (SOURCE_SENDER) makes GOOD only out of NONE, and falls at the first
 * refusal. What is past its keeping counts as nothing. A pin stays; what is under it is kept up to date. */
struct verdict_record verdict_apply(struct verdict_record old, enum verdict answer,
                                    enum verdict_source source, bool canary_passed,
                                    const struct verdict_times *t, uint32_t now_s);

bool verdict_record_eq(const struct verdict_record *a, const struct verdict_record *b);
/* How long ago it was found out; 0 for a time that is to come. */
static inline uint32_t verdict_record_age_s(const struct verdict_record *r, uint32_t now_s)
{
    return now_s > r->checked_s ? now_s - r->checked_s : 0;
}

/* The reference of a refusal: follows from the address and the moment of the verdict, so that whoever gives
 * it out of the cache, on any worker and after any restart, names the log line of the one who found it out.
 * 13 characters and a NUL. */
void verdict_reference(str_t key, const struct verdict_record *r, char out[14]);

/* --- keys --- */

struct verdict_key_rules { /* per domain */
    bool fold_case;        /* Bob@ is bob@ (default) */
    char separator; /* what follows it in the local part is a tag and does not count; '\0' = none (default) */
};
/* The key of an address: its canonical form (address_canonical: domain as lower-case A-labels, quotes only
 * where they must be), the local part by the rules, in NFC when it is UTF-8. The tag of a quoted local part
 * counts: what stands in quotes is nobody's habit but the server's. A copy in `buf` (VERIFY_KEY_MAX is
 * enough); absent: it has no such form (the null path, a bare postmaster, longer than that). Any thread. */
str_t verdict_key(const struct address *a, const struct verdict_key_rules *r, struct sbuf *buf);

#endif
