/* Index records, as journal/format.py has them: 48 bytes for each append. */
#ifndef ALPHAPULSE_INDEX_H
#define ALPHAPULSE_INDEX_H

#include "crc32.h"

#define INDEX_PAGE 4096 /* bytes of an index before its records */

typedef struct {
    uint64_t position, time, origin, ordinal;
    uint32_t length, messages, crc, check;
} index_record;

typedef struct {
    uint8_t *memory;
    uint64_t epoch;
    size_t records, capacity;
} index_place;

/* What a record keeps of its bytes, as run_check of journal/format.py. */
static inline uint32_t index_check(const uint8_t *run, size_t size) {
    uint32_t field;
    memcpy(&field, run + CHECKSUM_OFFSET, 4);
    return crc32_message(run, size) ^ (field << 1 | field >> 31);
}

/* Write the next record, its check last: who reads it whole reads it right. Called after the bytes of
 * the run are where they belong; on the machines that this is built for stores are seen in order by
 * who comes after a kill, since that is the kernel. */
static inline void index_append(index_place *place, const uint8_t *run, size_t size,
                                size_t messages, uint64_t position, int64_t time, uint64_t origin,
                                uint64_t ordinal) {
    index_record *record =
        (index_record *)(place->memory + INDEX_PAGE) + place->records;
    index_record written = {position, (uint64_t)time, origin, ordinal, (uint32_t)size,
                            (uint32_t)messages, index_check(run, size), 0};
    written.check = ~crc32_portable_update(~(uint32_t)place->epoch, (const uint8_t *)&written,
                                           sizeof written - 4);
    memcpy(record, &written, sizeof written - 4);
    __atomic_store_n(&record->check, written.check, __ATOMIC_RELEASE);
    place->records++;
}
#endif
