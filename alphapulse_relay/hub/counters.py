"""What the hub counts: plain numbers, read by whoever shows them."""

import struct
from array import array
from bisect import bisect_left
from collections.abc import Sequence

from alphapulse_relay.hub.peer import Ending, Miss, Refusal
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, VERSION
from alphapulse_relay.protocol_v2.tlv import EXTENDED, LEGACY_TYPE_MAX, legacy_spans, spans

FORWARD_BOUNDS = (
    5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1
)  # fmt: skip
"""Seconds: from what a loop in C needs to what no consumer should ever see."""
AGE_BOUNDS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)
"""Seconds: from a signal that was just made to one that nobody should trade on."""

SOURCES = 256
"""How many publishers there may be: the header has a byte for their number."""
_COUNTED_FIELDS = struct.Struct("<5xBBxQQI")
"""version, source, sequence, timestamp, payload_size: the header's fields that are counted by."""
_NS = 1_000_000_000
_COUNT_MAX = (1 << 64) - 1
"""What a count of 64 bits holds. It wraps: made-up sequence numbers may miss more than that."""


class Histogram:
    """How often values fell into each bucket; ``bounds`` are the upper ones, inclusive.

    ``counts`` and ``sum`` are arrays, in which compiled code counts too.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = zeros(len(bounds) + 1)
        self.sum = array("d", [0])

    @property
    def total(self) -> float:
        """The sum of all values."""
        return self.sum[0]

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum[0] += value


class Counters:
    """All that the hub has counted since it started."""

    def __init__(self) -> None:
        self.messages_received = 0
        self.bytes_received = 0
        self.messages_delivered = 0
        """To peers that are gone; those that are here know their own."""
        self.bytes_delivered = 0
        self.replayed = 0
        """Messages delivered, to peers that are gone, before they came to the head."""
        self.missed = dict.fromkeys(Miss, 0)
        """Messages that a peer did not get although it was connected."""
        self.dropped = dict.fromkeys(Rejection, 0)
        self.accepted = 0
        self.refused = dict.fromkeys(Refusal, 0)
        self.ended = dict.fromkeys(Ending, 0)
        self.limited: dict[str, int] = {}
        """By access rule, how often an identity was held since it had sent too much."""
        self.types = zeros(LEGACY_TYPE_MAX + 1)
        """Messages that hold a TLV of the type which is the index."""
        self.malformed = zeros(1)
        """One number: messages whose TLVs could not all be read."""
        self.sources = zeros(SOURCES)
        """Messages, by publisher: the index here and in the next three."""
        self.sequences = zeros(SOURCES)
        """The highest sequence number since it began anew: with 1, or 0, which stands for none."""
        self.sequences_missing = zeros(SOURCES)
        """Sequence numbers that were jumped over."""
        self.sequences_repeated = zeros(SOURCES)
        """Messages whose sequence number was not above the highest."""
        self.forward = Histogram(FORWARD_BOUNDS)
        """Seconds from the receipt of a chunk to the last write of it to a peer that is live."""
        self.age = Histogram([bound * _NS for bound in AGE_BOUNDS])
        """Nanoseconds between a message's timestamp and its receipt."""

    def count(self, run: memoryview, now: int) -> None:
        """Count what is in a run of accepted messages, whose they are, and how old.

        It was received at ``now``, in nanoseconds since the epoch.
        """
        start, age_sum = 0, 0
        types, sources, sequences = self.types, self.sources, self.sequences
        age_bounds, age_counts = self.age.bounds, self.age.counts
        while start < len(run):
            version, source, sequence, timestamp, size = _COUNTED_FIELDS.unpack_from(run, start)
            start += HEADER_SIZE
            stop = start + size
            # Nearly all messages hold one standard TLV: those are not worth a walk.
            if (
                version == VERSION
                and size >= 2
                and run[start + 1] == size - 2
                and run[start] != EXTENDED
            ):
                types[run[start]] += 1
            elif size:
                self._count_types(run, start, stop, legacy=version != VERSION)
            publisher = source if version == VERSION else version
            sources[publisher] += 1
            if sequence == sequences[publisher] + 1:  # nearly always
                sequences[publisher] = sequence
            else:
                self._count_jump(publisher, sequence)
            if timestamp:
                age = now - timestamp if now > timestamp else 0
                age_counts[bisect_left(age_bounds, age)] += 1
                age_sum += age
            start = stop
        self.age.sum[0] += age_sum

    def _count_jump(self, publisher: int, number: int) -> None:
        """Count a sequence number that does not follow on the highest."""
        last = self.sequences[publisher]
        if 1 < number <= last:
            self.sequences_repeated[publisher] += 1
            return
        if 0 < last < number:
            missing = self.sequences_missing[publisher] + number - last - 1
            self.sequences_missing[publisher] = missing & _COUNT_MAX
        self.sequences[publisher] = number

    def _count_types(self, run: memoryview, start: int, stop: int, *, legacy: bool) -> None:
        walk = legacy_spans if legacy else spans
        try:
            seen = {span.type for span in walk(run, start, stop)}
        except WireError:
            self.malformed[0] += 1
            return
        for tlv_type in seen:
            self.types[tlv_type] += 1


def zeros(count: int) -> "array[int]":
    """Return so many counts of 64 bits, all 0."""
    return array("Q", bytes(8 * count))
