"""What is in index.h."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t


cdef extern from "index.h":
    ctypedef struct index_place:
        uint8_t *memory
        uint64_t epoch
        size_t records
        size_t capacity
    void index_append(
        index_place *, const uint8_t *, size_t, size_t, uint64_t, int64_t, uint64_t, uint64_t
    ) noexcept nogil
