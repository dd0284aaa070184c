# cython: language_level=3, boundscheck=False, wraparound=False
"""The compiled part of the wire: accepts the sound messages at a chunk's start, selects from runs.

See ``scan.h`` for the contract, and ``native.py`` for where this is chosen. What looks at a run of
any length lets go of the GIL meanwhile.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from alphapulse_relay.protocol_v2.scan cimport (
    crc32_choose,
    crc32_message,
    crc32_use,
    scan_last,
    scan_last_sequences,
    scan_walk,
    scan_matching,
    scan_progress,
    scan_range,
    scan_rules,
    scan_select,
    scan_selector,
    scan_skim,
)

CRC32_BY = crc32_choose().decode()
"""How checksums are computed on this CPU: ``vpclmul``, ``pclmul`` or ``table``."""


cdef enum:
    RANGES = 256  # found at once, before they become Python's


cdef class CompiledRules:
    """The rules in the form that the compiled functions read."""

    cdef scan_rules rules

    def __cinit__(
        self, int level, unsigned int max_payload, bytes domains, bytes tlv_types, bytes sources
    ):
        self.rules.level = level
        self.rules.max_payload = max_payload
        memcpy(self.rules.domains, <const uint8_t *>domains, 256)
        memcpy(self.rules.tlv_types, <const uint8_t *>tlv_types, 256)
        memcpy(self.rules.sources, <const uint8_t *>sources, 256)


def skim(chunk, size_t start, size_t end, CompiledRules compiled not None):
    """Return where the messages end that begin at ``start`` and are sound, and how many they are.

    Stops before the first message that is not whole or not accepted.
    """
    cdef Py_buffer view
    cdef size_t messages = 0
    PyObject_GetBuffer(chunk, &view, PyBUF_SIMPLE)
    if start < end <= <size_t>view.len:
        start += scan_skim(<const uint8_t *>view.buf + start, end - start, &compiled.rules, &messages)
    PyBuffer_Release(&view)
    return start, messages


def checksum(message):
    """CRC-32 of a whole message without its checksum field, as ``header.checksum``."""
    cdef Py_buffer view
    cdef unsigned int crc = 0
    PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
    whole = view.len >= 32
    if whole:
        crc = crc32_message(<const uint8_t *>view.buf, view.len)
    PyBuffer_Release(&view)
    if not whole:
        raise ValueError("a message has at least 32 bytes")
    return crc


def use(bytes method not None):
    """Compute checksums by that method from now on, for tests; tell whether this CPU can."""
    return crc32_use(method)


def check_run(data):
    """As ``journal.format.run_check``."""
    cdef Py_buffer view
    cdef const uint8_t *run
    cdef uint32_t crc = 0, field = 0
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    cdef Py_ssize_t size = view.len
    if size >= 32:
        run = <const uint8_t *>view.buf
        with nogil:
            crc = crc32_message(run, size)
        memcpy(&field, run + 28, 4)
    PyBuffer_Release(&view)
    if 0 < size < 32:
        raise ValueError("a message has at least 32 bytes")
    return crc ^ (field << 1 | field >> 31)


cdef class CompiledSelector:
    """A selector in the form that the compiled functions read."""

    cdef scan_selector selector

    def __cinit__(self, bytes types, bytes sources not None, uint64_t sequence, uint64_t sequences):
        self.selector.any_type = types is None
        if types is not None:
            memcpy(self.selector.types, <const uint8_t *>types, 256)
        memcpy(self.selector.sources, <const uint8_t *>sources, 256)
        self.selector.sequence, self.selector.sequences = sequence, sequences


def select(chunk, CompiledSelector compiled not None):
    """As ``selection.select``, its four results in a tuple."""
    cdef Py_buffer view
    cdef scan_progress progress
    cdef scan_range found[RANGES]
    cdef size_t number, count = RANGES
    cdef list ranges = [], skipped = []
    memset(&progress, 0, sizeof(progress))
    PyObject_GetBuffer(chunk, &view, PyBUF_SIMPLE)
    cdef const uint8_t *run = <const uint8_t *>view.buf
    try:
        while count == RANGES:
            with nogil:
                count = scan_select(run, view.len, &compiled.selector, &progress, found, RANGES)
            for number in range(count):
                ranges.append((found[number].start, found[number].stop))
                skipped.append(found[number].skipped)
    finally:
        PyBuffer_Release(&view)
    return ranges, skipped, progress.matched, progress.total


def count(chunk, CompiledSelector compiled not None):
    """As ``selection.count``."""
    cdef Py_buffer view
    cdef uint64_t matched
    PyObject_GetBuffer(chunk, &view, PyBUF_SIMPLE)
    with nogil:
        matched = scan_matching(<const uint8_t *>view.buf, view.len, &compiled.selector)
    PyBuffer_Release(&view)
    return matched


def walk(chunk, size_t target):
    """As ``selection.walk``."""
    cdef Py_buffer view
    cdef uint64_t count
    PyObject_GetBuffer(chunk, &view, PyBUF_SIMPLE)
    start = scan_walk(<const uint8_t *>view.buf, view.len, target, &count)
    PyBuffer_Release(&view)
    return start, count


def last_sequences(chunk):
    """As ``selection.last_sequences``."""
    cdef Py_buffer view
    cdef scan_last last[256]
    memset(last, 0, sizeof(last))
    PyObject_GetBuffer(chunk, &view, PyBUF_SIMPLE)
    with nogil:
        scan_last_sequences(<const uint8_t *>view.buf, view.len, last)
    PyBuffer_Release(&view)
    return {
        source: (last[source].sequence, last[source].stop)
        for source in range(256)
        if last[source].stop
    }
