/* What is done with every message of a run, in C: framing, checks, counting and selecting.
 *
 * The contract: scan_skim accepts only what framing.check would, and stops at the first message
 * that it does not accept, whatever the reason. What is wrong with that one, framing.check finds
 * out. So there is one source of errors, and no second opinion about them. And a look at messages
 * that are in the log already: which of them match, and which are the last of their sources.
 */
#ifndef ALPHAPULSE_SCAN_H
#define ALPHAPULSE_SCAN_H

#include "crc32.h"

enum { LEVEL_FRAMING, LEVEL_CHECKSUM, LEVEL_STRICT };

typedef struct {
    uint32_t max_payload; /* bytes after the header */
    int level;
    uint8_t domains[256]; /* bit 0 for the accepted ones, bit 1 if compressed messages are too;
                             bits 2 and 3 likewise, but for messages of some sources only */
    uint8_t tlv_types[256];
    uint8_t sources[256]; /* 1 for these sources */
} scan_rules;

static inline uint16_t scan_u16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }

/* Little-endian machines only, as the build makes sure: then these are single loads. */
static inline uint32_t scan_u32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return value;
}

static inline uint64_t scan_u64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, 8);
    return value;
}

#define SCAN_MAGIC 0xDEADBEEFu
#define TLV_EXTENDED 255

/* One step of a walk over TLVs: return where the one at `at` ends and tell its type, or NULL if it
 * is malformed. `legacy` writers make their headers of two u16. */
static inline const uint8_t *scan_tlv(const uint8_t *at, const uint8_t *stop, int legacy,
                                      unsigned *type) {
    size_t left = (size_t)(stop - at), size;
    if (!legacy && at[0] != TLV_EXTENDED) {
        if (left < 2) return NULL;
        *type = at[0];
        size = 2 + (size_t)at[1];
    } else if (legacy) {
        if (left < 4 || (*type = scan_u16(at)) > 255) return NULL;
        size = 4 + (size_t)scan_u16(at + 2);
    } else {
        if (left < 5 || at[1] || (*type = at[2]) == TLV_EXTENDED) return NULL;
        size = 5 + (size_t)scan_u16(at + 3);
    }
    return size <= left ? at + size : NULL;
}

static inline uint8_t scan_publisher(const uint8_t *message) {
    return message[5] == 1 ? message[6] : message[5];
}

/* 1 if the payload is compressed: version 1, and bit 0 of the flags. */
static inline int scan_is_compressed(const uint8_t *message) {
    return (scan_u32(message + 4) & 0x0100FF00u) == 0x01000100u;
}

/* Whether domain and source are accepted: nobody pays for the sources where all of them are. */
static inline int scan_is_welcome(const uint8_t *message, const scan_rules *rules) {
    unsigned accepted = (unsigned)rules->domains[message[4]] >> scan_is_compressed(message);
    if (__builtin_expect(accepted & 1, 1)) return 1;
    return accepted >> 2 & rules->sources[scan_publisher(message)] & 1;
}

static inline int scan_strictly(const uint8_t *message, size_t size, const scan_rules *rules) {
    const uint8_t *at = message + HEADER_SIZE, *stop = message + size;
    unsigned type;
    while (at < stop)
        if (!(at = scan_tlv(at, stop, 0, &type)) || !rules->tlv_types[type]) return 0;
    return scan_u32(message + CHECKSUM_OFFSET) != 0;
}

/* To be inlined together with the checksum: calling that would take another nanosecond. */
static inline __attribute__((always_inline)) size_t
scan_skim_by(crc32_message_function checksum, const uint8_t *chunk, size_t end,
             const scan_rules *rules, size_t *messages) {
    size_t start = 0, count = 0;
    while (end - start >= HEADER_SIZE) {
        const uint8_t *message = chunk + start;
        uint32_t payload = scan_u32(message + 24);
        if (scan_u32(message) != SCAN_MAGIC || payload > rules->max_payload) break;
        size_t size = HEADER_SIZE + (size_t)payload;
        if (size > end - start) break;
        if (!scan_is_welcome(message, rules)) break;
        if (rules->level >= LEVEL_CHECKSUM) {
            uint32_t crc = scan_u32(message + CHECKSUM_OFFSET);
            if (crc && crc != checksum(message, size)) break;
            if (rules->level == LEVEL_STRICT && !scan_strictly(message, size, rules)) break;
        }
        start += size;
        count++;
    }
    *messages = count;
    return start;
}

#ifdef VPCLMUL
VPCLMUL static size_t scan_skim_vpclmul(const uint8_t *chunk, size_t end, const scan_rules *rules,
                                        size_t *messages) {
    return scan_skim_by(crc32_message_vpclmul, chunk, end, rules, messages);
}
#endif

/* Return how many bytes at the start of the chunk are whole messages that the rules accept. */
static inline size_t scan_skim(const uint8_t *chunk, size_t end, const scan_rules *rules,
                               size_t *messages) {
#ifdef VPCLMUL
    if (crc32_message == crc32_message_vpclmul)
        return scan_skim_vpclmul(chunk, end, rules, messages);
#endif
    return scan_skim_by(crc32_message, chunk, end, rules, messages);
}

/* Tell whether the bytes may be the beginning of a message of less than `limit` bytes. */
static inline int scan_may_begin(const uint8_t *torn, size_t size, const scan_rules *rules,
                                 size_t limit) {
    static const uint8_t magic[4] = {0xEF, 0xBE, 0xAD, 0xDE};
    if (memcmp(torn, magic, size < 4 ? size : 4)) return 0;
    if (size < HEADER_SIZE) return 1;
    uint32_t payload = scan_u32(torn + 24);
    return payload <= rules->max_payload && HEADER_SIZE + (size_t)payload > size &&
           HEADER_SIZE + (size_t)payload < limit;
}

/* How often values fell into each bucket, and their sum: arrays that belong to somebody else. */
typedef struct {
    const double *bounds; /* ascending, inclusive */
    size_t bound_count;
    uint64_t *counts; /* one more than there are bounds */
    double *sum;
} scan_histogram;

typedef struct {
    uint64_t *types;     /* 256: messages that hold a TLV of the type */
    uint64_t *malformed; /* 1 */
    scan_histogram age;  /* nanoseconds */
    /* By publisher, 256 each: messages, the highest number since its numbers began anew, numbers
     * that were jumped over, and messages whose number was not above that. */
    uint64_t *sources, *sequences, *missing, *repeated;
} scan_counters;

/* Count a value, and return its bucket, where the search for the next one had better begin. */
static inline size_t scan_observe_from(size_t bucket, const scan_histogram *histogram,
                                       double value) {
    while (bucket < histogram->bound_count && value > histogram->bounds[bucket]) bucket++;
    while (bucket > 0 && value <= histogram->bounds[bucket - 1]) bucket--;
    histogram->counts[bucket]++;
    *histogram->sum += value;
    return bucket;
}

static inline void scan_observe(const scan_histogram *histogram, double value) {
    scan_observe_from(0, histogram, value);
}

static inline void scan_count_types(const uint8_t *at, const uint8_t *stop, int legacy,
                                    const scan_counters *counters) {
    size_t size = (size_t)(stop - at);
    unsigned type;
    /* Nearly all payloads are one TLV, most of them a standard one: no need of a walk, or a set. */
    if (size >= 2 && !legacy && at[1] == size - 2 && at[0] != TLV_EXTENDED) {
        counters->types[at[0]]++;
        return;
    }
    if (at < stop && scan_tlv(at, stop, legacy, &type) == stop) {
        counters->types[type]++;
        return;
    }
    uint64_t seen[4] = {0, 0, 0, 0};
    while (at < stop) {
        if (!(at = scan_tlv(at, stop, legacy, &type))) {
            ++*counters->malformed;
            return;
        }
        seen[type >> 6] |= 1ull << (type & 63);
    }
    for (int word = 0; word < 4; word++)
        for (; seen[word]; seen[word] &= seen[word] - 1)
            counters->types[word * 64 + __builtin_ctzll(seen[word])]++;
}

/* Count a message under its publisher. Numbers 0 (there is none) and 1 begin anew. */
static inline void scan_count_sequence(const uint8_t *message, const scan_counters *counters) {
    size_t source = scan_publisher(message);
    uint64_t number = scan_u64(message + 8), last = counters->sequences[source];
    counters->sources[source]++;
    counters->sequences[source] = number;
    if (number == last + 1) return; /* nearly always */
    if (number > last) {
        if (last) counters->missing[source] += number - last - 1;
    } else if (number > 1) {
        counters->repeated[source]++;
        counters->sequences[source] = last;
    }
}

/* Count a run of accepted messages, received at `now` (nanoseconds since the epoch). */
static inline void scan_count(const uint8_t *run, size_t size, int64_t now,
                              const scan_counters *counters) {
    const uint8_t *at = run, *end = run + size;
    size_t bucket = 0; /* nearly always that of the message before */
    while (at < end) {
        const uint8_t *payload = at + HEADER_SIZE, *stop = payload + scan_u32(at + 24);
        scan_count_types(payload, stop, at[5] != 1, counters);
        scan_count_sequence(at, counters);
        uint64_t timestamp = scan_u64(at + 16);
        if (timestamp) {
            double age = timestamp < (uint64_t)now ? (double)((uint64_t)now - timestamp) : 0;
            bucket = scan_observe_from(bucket, &counters->age, age);
        }
        at = stop;
    }
}

/* Which messages are looked for. */
typedef struct {
    int any_type;         /* whether there is no need to look at TLVs */
    uint8_t types[256];   /* 1 for those of which a message has one */
    uint8_t sources[256]; /* 1 for those of which it may come */
    uint64_t sequence;    /* the lowest */
    uint64_t sequences;   /* how many follow that */
} scan_selector;

typedef struct {
    size_t start, stop; /* offsets in the chunk */
    uint64_t skipped;   /* messages since the range before */
} scan_range;

typedef struct {
    size_t at;         /* where to go on */
    uint64_t matched;
    uint64_t skipped;  /* since the last range */
    uint64_t total;
} scan_progress;

/* Return the size of the whole message at `at`, 0 if there is none. */
static inline size_t scan_whole(const uint8_t *at, size_t left) {
    if (left < HEADER_SIZE || scan_u32(at) != SCAN_MAGIC) return 0;
    size_t size = HEADER_SIZE + (size_t)scan_u32(at + 24);
    return size <= left ? size : 0;
}

static inline int scan_has_type(const uint8_t *at, const uint8_t *stop, int legacy,
                                const uint8_t *types) {
    unsigned type;
    while (at < stop) {
        if (!(at = scan_tlv(at, stop, legacy, &type))) return 0;
        if (types[type]) return 1;
    }
    return 0;
}

static inline int scan_matches(const uint8_t *message, size_t size,
                               const scan_selector *selector) {
    if (!selector->sources[scan_publisher(message)]) return 0;
    if (scan_u64(message + 8) - selector->sequence > selector->sequences) return 0;
    return selector->any_type || scan_has_type(message + HEADER_SIZE, message + size,
                                               message[5] != 1, selector->types);
}

/* Find the next ranges of messages that match, at most `room` of them; return how many. Fewer than
 * that if it is the chunk's end that stopped it. */
static inline size_t scan_select(const uint8_t *chunk, size_t end, const scan_selector *selector,
                                 scan_progress *progress, scan_range *ranges, size_t room) {
    scan_progress now = *progress; /* in registers */
    size_t count = 0, size;
    int within = 0;
    while ((size = scan_whole(chunk + now.at, end - now.at))) {
        if (scan_matches(chunk + now.at, size, selector)) {
            if (!within) {
                if (count == room) break;
                ranges[count].start = now.at;
                ranges[count++].skipped = now.skipped;
                now.skipped = 0;
            }
            within = 1;
            ranges[count - 1].stop = now.at + size;
            now.matched++;
        } else {
            within = 0;
            now.skipped++;
        }
        now.total++;
        now.at += size;
    }
    *progress = now;
    return count;
}

/* Return how many messages match. */
static inline uint64_t scan_matching(const uint8_t *chunk, size_t end,
                                     const scan_selector *selector) {
    uint64_t count = 0;
    size_t at = 0, size;
    for (; (size = scan_whole(chunk + at, end - at)); at += size)
        count += (uint64_t)scan_matches(chunk + at, size, selector);
    return count;
}

/* Return where the message begins that `target` is in, or that begins there; count those before. */
static inline size_t scan_walk(const uint8_t *chunk, size_t end, size_t target, uint64_t *count) {
    size_t at = 0, size;
    *count = 0;
    while (at < target && (size = scan_whole(chunk + at, end - at)) && at + size <= target) {
        at += size;
        ++*count;
    }
    return at;
}

typedef struct {
    uint64_t sequence;
    size_t stop; /* offset behind the message; 0 for none */
} scan_last;

/* Find the last message of each source. */
static inline void scan_last_sequences(const uint8_t *chunk, size_t end, scan_last *last) {
    size_t at = 0, size;
    for (; (size = scan_whole(chunk + at, end - at)); at += size) {
        scan_last *of = &last[scan_publisher(chunk + at)];
        of->sequence = scan_u64(chunk + at + 8);
        of->stop = at + size;
    }
}
#endif
