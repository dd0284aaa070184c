"""What is in scan.h and crc32.h."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "scan.h":
    ctypedef struct scan_rules:
        uint32_t max_payload
        int level
        uint8_t domains[256]
        uint8_t tlv_types[256]
        uint8_t sources[256]
    ctypedef struct scan_histogram:
        const double *bounds
        size_t bound_count
        uint64_t *counts
        double *sum
    ctypedef struct scan_counters:
        uint64_t *types
        uint64_t *malformed
        scan_histogram age
        uint64_t *sources
        uint64_t *sequences
        uint64_t *missing
        uint64_t *repeated
    size_t scan_skim(const uint8_t *, size_t, const scan_rules *, size_t *) noexcept nogil
    bint scan_may_begin(const uint8_t *, size_t, const scan_rules *, size_t) noexcept nogil
    void scan_count(const uint8_t *, size_t, int64_t, const scan_counters *) noexcept nogil
    void scan_observe(const scan_histogram *, double) noexcept nogil
    ctypedef struct scan_selector:
        int any_type
        uint8_t types[256]
        uint8_t sources[256]
        uint64_t sequence
        uint64_t sequences
    ctypedef struct scan_range:
        size_t start
        size_t stop
        uint64_t skipped
    ctypedef struct scan_progress:
        size_t at
        uint64_t matched
        uint64_t skipped
        uint64_t total
    ctypedef struct scan_last:
        uint64_t sequence
        size_t stop
    size_t scan_select(
        const uint8_t *, size_t, const scan_selector *, scan_progress *, scan_range *, size_t
    ) noexcept nogil
    uint64_t scan_matching(const uint8_t *, size_t, const scan_selector *) noexcept nogil
    size_t scan_walk(const uint8_t *, size_t, size_t, uint64_t *) noexcept nogil
    void scan_last_sequences(const uint8_t *, size_t, scan_last *) noexcept nogil
    const char *crc32_choose()
    bint crc32_use(const char *)
    uint32_t (*crc32_message)(const uint8_t *, size_t) noexcept nogil
