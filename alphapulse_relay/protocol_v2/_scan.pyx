# cython: language_level=3, boundscheck=False, wraparound=False
"""The compiled part of the wire: accepts the sound messages at a chunk's start.

See ``scan.h`` for the contract, and ``native.py`` for where this is chosen.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from alphapulse_relay.protocol_v2.scan cimport (
    crc32_choose,
    crc32_message,
    crc32_use,
    scan_rules,
    scan_skim,
)

CRC32_BY = crc32_choose().decode()
"""How checksums are computed on this CPU: ``vpclmul``, ``pclmul`` or ``table``."""


cdef class CompiledRules:
    """The rules in the form that the compiled functions read."""

    cdef scan_rules rules

    def __cinit__(self, int level, unsigned int max_payload, bytes domains, bytes tlv_types):
        self.rules.level = level
        self.rules.max_payload = max_payload
        memcpy(self.rules.domains, <const uint8_t *>domains, 256)
        memcpy(self.rules.tlv_types, <const uint8_t *>tlv_types, 256)


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
