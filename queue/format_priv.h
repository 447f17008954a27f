/* queue/format_priv.h: what stands on the disk. docs/on-disk-format.md explains it for people; change both
 * together.
 *
 * A ring position is a byte offset in an endless log: segment = position / segment_bytes, and that segment
 * lies in slot (segment - base_segment) % segment_count; base_segment is 0 until the ring is resized. A
 * position is never used twice, so a record that states its position, and whose CRC is seeded with it, cannot
 * be mistaken for one of an earlier lap or of another place. */
#ifndef QUEUE_FORMAT_PRIV_H
#define QUEUE_FORMAT_PRIV_H

#include "core/base.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the disk is little-endian, and written as memory has it");

#define DISK_SECTOR          4096u
#define DISK_DATA_AT         UINT64_C(0x100000)           /* the data area's offset in the file */
#define DISK_SUPER_MAGIC     UINT64_C(0x31474e524e545350) /* "PSTNRNG1" */
#define DISK_FORMAT_VERSION  1u                           /* of a new ring */
#define DISK_VERSION_RESIZED 2u                           /* its base_segment counts */
#define DISK_VERSION_KEPT    3u                           /* it has keep records; the newest that we know */
#define DISK_RECORD_MAGIC    0x43525350u /* "PSRC"; on the disk xor-ed with the salt's upper half */
#define DISK_KNOWN_MAX       64u

enum disk_super_flags {
    SUPER_CLEAN = 1,
    SUPER_SHRINKING = 2, /* the log may turn back before the ring's end */
};

/* A stretch of the ring whose damage was reported before. */
struct disk_range {
    uint64_t from, to;
};

/* Slots at file offsets 0 and 4096, written in turn: generation odd goes to the second. */
struct disk_super {
    uint64_t magic;
    uint32_t version;
    uint32_t flags;
    uint8_t uuid[16];
    uint64_t salt; /* secret: without it nobody can put bytes into a mail that pass as a record */
    uint64_t generation;
    uint64_t segment_bytes;
    uint32_t segment_count;
    uint32_t ring_index;
    uint64_t tail_segment; /* nothing before it is needed; a segment is overwritten only when this is durable
                              past it */
    uint64_t id_limit;     /* no message id at or above it was ever given out */
    uint64_t clean_head;   /* with SUPER_CLEAN: where the log ends */
    uint64_t next_batch;   /* sequence number of the next batch; with SUPER_CLEAN exactly, else at least */
    uint64_t created_ms;
    uint32_t known_count;
    uint32_t reserved;
    struct disk_range known[DISK_KNOWN_MAX];
    uint64_t base_segment; /* lies in slot 0; nothing before it is needed */
    uint8_t zero[DISK_SECTOR - 120 - DISK_KNOWN_MAX * sizeof(struct disk_range) - 4];
    uint32_t crc; /* CRC-32C of all before it */
};
_Static_assert(sizeof(struct disk_super) == DISK_SECTOR, "a superblock is one sector");

enum record_type {
    RECORD_BATCH = 1,
    RECORD_BODY,
    RECORD_COMMIT,
    RECORD_PROGRESS,
    RECORD_REMOVE,
    RECORD_VOID, /* a record taken back before it was durable */
    RECORD_KEEP, /* messages that live on in a segment behind the tail */
    RECORD_TYPE_END,
};
#define RECORD_VERSION 1u /* of every type so far */

enum record_flags {
    RECORD_DAMAGED = 1, /* a body chunk that was found damaged when it was moved: kept, and never sent */
};

/* 8-byte aligned; padded with zeros to 8. */
struct disk_record {
    uint32_t magic;
    uint32_t crc; /* CRC-32C of salt, position, payload, this header with crc = 0 */
    uint8_t type;
    uint8_t version;
    uint16_t flags;
    uint32_t bytes;    /* of payload, padding not counted */
    uint64_t position; /* its own */
    uint64_t id;       /* of the message; 0 in RECORD_BATCH */
    uint32_t index;    /* RECORD_BODY: number of the chunk in its message */
    uint32_t reserved;
};
_Static_assert(sizeof(struct disk_record) == 40, "no padding");

/* Payload of RECORD_BATCH, the first record of every durable write; the batch starts at a multiple of
 * DISK_SECTOR. */
struct disk_batch {
    uint64_t sequence;    /* counts durable writes; a step of more than one: batches are missing in between */
    uint32_t bytes;       /* of the whole batch, header and padding included */
    uint32_t count;       /* records behind this one */
    uint32_t records_crc; /* CRC-32C of their crc fields in a row */
    uint32_t reserved;
};
_Static_assert(sizeof(struct disk_batch) == 24, "no padding");
#define DISK_BATCH_HEAD ((uint32_t)(sizeof(struct disk_record) + sizeof(struct disk_batch)))

struct disk_extent {
    uint64_t position; /* of the RECORD_BODY */
    uint32_t bytes;    /* its payload */
    uint32_t reserved;
};

enum disk_commit_flags { COMMIT_HELD = 1, COMMIT_WARNED = 2 };

/* Payload of RECORD_COMMIT: this; extents; u32 blob length per recipient; u8 state per recipient; meta;
 * trace; recipient blobs; tags. A tag is {u32 kind, u32 bytes, bytes}: unknown ones are skipped and kept when
 * the record is moved. */
struct disk_commit {
    uint64_t arrived_ms, due_ms;
    uint64_t body_bytes;
    uint32_t attempts;
    uint32_t flags;
    uint32_t extent_count, rcpt_count;
    uint32_t meta_bytes, trace_bytes, blobs_bytes, tags_bytes;
};
_Static_assert(sizeof(struct disk_commit) == 56, "no padding");

/* Payload of RECORD_PROGRESS: this; u8 state per recipient. It replaces what the commit record says. */
struct disk_progress {
    uint64_t due_ms;
    uint32_t attempts;
    uint32_t flags; /* disk_commit_flags */
    uint32_t rcpt_count;
    uint32_t reserved;
};
_Static_assert(sizeof(struct disk_progress) == 24, "no padding");

/* Payload of RECORD_KEEP: this; then for each message an entry (keep_entry.c) and its u8 states. */
struct disk_keep {
    uint64_t at; /* the segment's position */
    uint32_t count;
    uint32_t reserved;
};
_Static_assert(sizeof(struct disk_keep) == 16, "no padding");

#endif
