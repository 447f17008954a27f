/* smtp/server/edge_lines.h: how each edge writes its Received: lines, learned from its messages: an edge that
 * wrote so many alike in a row writes them so, and a line of another kind is not its own. Strangers write
 * lines too, but below: what stands on top of an edge's messages is theirs only when the edge writes none,
 * and then they have to agree with each other, message for message. One table of fixed size for all workers,
 * a word for each edge, which changes only while something is learned. Any thread, no locks. */
#ifndef SMTP_SERVER_EDGE_LINES_H
#define SMTP_SERVER_EDGE_LINES_H

#include "core/ip.h"

#define EDGE_LINES_NEEDED 8 /* alike in a row */
#define EDGE_LINES_FULL                                                                                      \
    32 /* how sure one is of what was learned: one more for each line like it, up to this, */
#define EDGE_LINES_COST 8 /* and so much less for each that is not; at nothing it is learned anew */

#define EDGE_LINES_EDGES 1024

struct edge_lines; /* 24 KiB */

/* What was found on top of a message of an edge. */
struct edge_line {
    enum edge_line_kind {
        EDGE_LINE_TELLS,  /* a line by the edge that names a client */
        EDGE_LINE_OWN,    /* by the edge, and names nobody: it speaks for nothing and against nothing */
        EDGE_LINE_OTHERS, /* somebody else's, or none */
    } kind;
    /* Of one that tells. */
    uint8_t formats; /* not 0; as received_parse() has them */
    uint8_t hops;    /* lines of the edge itself above it */
    uint32_t label;
};

enum edge_line_result { EDGE_LINE_LEARNING, EDGE_LINE_AS_LEARNED, EDGE_LINE_ANOTHER };

/* What is known of one edge. */
struct edge_lines_known {
    struct ip ip; /* IPv6: the first of its /64 */
    bool learned;
    uint8_t formats, hops; /* those that all lines so far had; 0: nothing yet */
    uint8_t count;         /* alike in a row, or how sure */
    uint32_t others;       /* lines that were not as learned, since the start */
};

struct edge_lines *edge_lines_new(void); /* NULL: out of memory */
void edge_lines_free(struct edge_lines *t);

/* A message of the edge at this address. change->any: from here on it is learned, and how, or no longer. A
 * table that is full learns nothing about a further edge. */
struct edge_lines_change {
    bool any, learned;
    uint8_t formats, hops;
};
enum edge_line_result edge_lines_see(struct edge_lines *t, const struct ip *edge,
                                     const struct edge_line *line, struct edge_lines_change *change);
/* Edges that were seen; returns how many of them were put into `out`. */
size_t edge_lines_list(const struct edge_lines *t, struct edge_lines_known *out, size_t max);
/* Learns anew. ip NULL: all. False: that edge was never seen. */
bool edge_lines_forget(struct edge_lines *t, const struct ip *ip);

#endif
