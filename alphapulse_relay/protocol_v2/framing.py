"""Whole messages in a byte stream.

:func:`check` finds the ends of all whole messages in a chunk and checks them in one pass, in
place: no object is made per message. It knows neither where the bytes came from nor where the
accepted ones go. :class:`MessageReader` does the same for those who want the messages one by one.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from typing import Any

from alphapulse_relay.protocol_v2 import tlv
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.header import (
    CHECKSUM_OFFSET,
    HEADER_SIZE,
    MAGIC,
    MAGIC_BYTES,
    SIZE_LIMIT,
    VERSION,
    Domain,
    Flags,
)
from alphapulse_relay.protocol_v2.native import load

MAX_MESSAGE = 1 << 20
"""Default limit of a whole message in bytes; what claims to be larger is a broken stream."""

_CHECKED_FIELDS = struct.Struct("<IBBxB16xII")
"""magic, domain, version, flags, payload_size, checksum: what a check looks at in a header."""
_SYSTEM, _ZSTD = Domain.SYSTEM.value, Flags.ZSTD.value  # plain numbers: this is a hot loop
_PAYLOAD_SIZE = struct.Struct("<24xI")
_DOMAIN_OFFSET, _VERSION_OFFSET, _SOURCE_OFFSET = 4, 5, 6
_ACCEPTED, _ALSO_COMPRESSED, _OF_SOME_SOURCES = 1, 2, 4
"""Bits of a domain's byte in :attr:`Rules.masks`; and how much further up they lie for some."""
_scan = load("alphapulse_relay.protocol_v2._scan")


class Level(StrEnum):
    """How much of a message is checked; each level includes the ones before it."""

    FRAMING = "framing"
    """Magic and size."""
    CHECKSUM = "checksum"
    """And the domain, and a checksum that is not 0."""
    STRICT = "strict"
    """And every TLV well-formed and of an allowed type; the checksum is required."""


@dataclass(frozen=True)
class Rules:
    """What is accepted.

    ``max_message`` is in bytes, header included. ``domains`` count from level checksum on. With
    ``aside``, what a relay does not forward as it is, at any level, ends the run before it:
    control, and compressed messages. ``may_domains`` and ``may_sources`` are those that this
    publisher may use, None for all; they count at any level.
    """

    level: Level = Level.CHECKSUM
    domains: frozenset[int] = frozenset({Domain.SIGNAL})
    tlv_types: frozenset[int] = frozenset(range(20, 40))
    max_message: int = MAX_MESSAGE
    aside: bool = False
    may_domains: frozenset[int] | None = None
    may_sources: frozenset[int] | None = None

    @cached_property
    def masks(self) -> tuple[int, int, bytes, bytes, bytes]:
        """The same as compiled code reads it.

        The level's number, the largest payload in bytes, and for domains, TLV types and sources 256
        bytes: 1 where the index is accepted at that level, 3 for a domain whose compressed messages
        are accepted as they are; 4 and 12 for a domain that is accepted of these sources only.
        """
        accepted = _ACCEPTED if self.aside else _ACCEPTED | _ALSO_COMPRESSED
        if self.may_sources is not None:
            accepted *= _OF_SOME_SOURCES
        taken = self.accepted_domains - {Domain.SYSTEM} if self.aside else self.accepted_domains
        if self.may_domains is not None:
            taken &= self.may_domains
        max_payload = min(self.max_message - HEADER_SIZE, SIZE_LIMIT)
        return (
            list(Level).index(self.level),
            max_payload,
            bytes(accepted if number in taken else 0 for number in range(256)),
            bytes(number in self.tlv_types for number in range(256)),
            bytes(self.may_sources is None or number in self.may_sources for number in range(256)),
        )

    @cached_property
    def accepted_domains(self) -> frozenset[int]:
        """The domains that are accepted at this level, whoever publishes."""
        return frozenset(range(256)) if self.level is Level.FRAMING else self.domains

    @cached_property
    def restricted(self) -> bool:
        """Whether this publisher may not use all domains and sources."""
        return self.may_domains is not None or self.may_sources is not None

    @cached_property
    def compiled(self) -> Any:
        """What the compiled :func:`skim <_skim_nothing>` wants; None without it."""
        return None if _scan is None else _scan.CompiledRules(*self.masks)


@dataclass(slots=True)
class Run:
    """What :func:`check` found in a chunk.

    ``accepted`` bytes at the chunk's start are ``messages`` whole, checked messages. Up to
    ``consumed`` everything has been dealt with; from there to the chunk's end lies the torn
    beginning of one message, if any. ``rejected`` counts the messages that were dropped by
    reason, and ``first`` tells of the first of them. If ``broken`` is set, the stream cannot be
    read on from ``consumed``. If ``aside`` is not 0, a message of so many bytes lies whole at
    ``consumed`` that was set aside, and nothing behind it has been looked at.
    """

    accepted: int
    consumed: int
    messages: int
    rejected: dict[Rejection, int]
    first: WireError | None
    broken: WireError | None
    aside: int = 0


def check(chunk: memoryview, end: int, rules: Rules) -> Run:
    """Check the messages in ``chunk[:end]``, which begins where a message does.

    What fails a check is closed over: the accepted messages are moved together at the chunk's
    start, in order, so the chunk must be writable. The torn bytes at ``consumed`` stay where they
    are. Never raises for what the bytes say; never reads beyond ``end``.
    """
    start, messages = _skim(chunk, 0, end, rules.compiled)
    accepted = stretch = aside = 0
    rejected: dict[Rejection, int] = {}
    first = broken = None
    max_payload = rules.max_message - HEADER_SIZE
    unpack, framing_only = _CHECKED_FIELDS.unpack_from, rules.level is Level.FRAMING
    apart, restricted = rules.aside, rules.restricted
    while end - start >= HEADER_SIZE:
        magic, domain, version, flags, size, crc = unpack(chunk, start)
        if magic != MAGIC or size > max_payload:
            broken = _broken(chunk, start, size, rules)
            break
        stop = start + HEADER_SIZE + size
        if stop > end:
            break
        if apart and (domain == _SYSTEM or (flags & _ZSTD and version == VERSION)):
            fault = None
            if restricted and domain != _SYSTEM:
                fault = _permission_fault(chunk, start, domain, rules)
            fault = fault or _checksum_fault(chunk, start, stop, crc)
            if fault is None:
                aside = stop - start
                break
        elif framing_only:
            fault = _permission_fault(chunk, start, domain, rules) if restricted else None
        else:
            fault = _fault(chunk, start, stop, domain, crc, rules)
        if fault is not None:
            first = first or fault
            rejected[fault.reason] = rejected.get(fault.reason, 0) + 1
            accepted = _close_over(chunk, accepted, stretch, start)
            stretch = stop
            start, sound = _skim(chunk, stop, end, rules.compiled)
            messages += sound
        else:
            messages += 1
            start = stop
    accepted = _close_over(chunk, accepted, stretch, start)
    if broken is None and end - start < HEADER_SIZE:
        broken = _false_start(chunk, start, end)
    return Run(accepted, start, messages, rejected, first, broken, aside)


def _skim_nothing(_chunk: memoryview, start: int, _end: int, _compiled: None) -> tuple[int, int]:
    return start, 0


_skim = _skim_nothing if _scan is None else _scan.skim
"""Passes over sound messages as fast as it can; what it leaves, :func:`check` looks at."""


def _fault(
    chunk: memoryview, start: int, stop: int, domain: int, crc: int, rules: Rules
) -> WireError | None:
    """Return what is wrong with a message at level checksum or above."""
    fault = None
    if domain not in rules.domains or rules.restricted:
        fault = _permission_fault(chunk, start, domain, rules)
    if fault is None:
        fault = _checksum_fault(chunk, start, stop, crc)
    if fault is None and rules.level is Level.STRICT:
        fault = _strict_fault(chunk, start, stop, crc, rules)
    return fault


def _permission_fault(chunk: memoryview, start: int, domain: int, rules: Rules) -> WireError | None:
    """Tell that a domain is not accepted, or not from this publisher, or the source is not."""
    if domain not in rules.accepted_domains:
        return WireError(Rejection.DOMAIN, start, f"domain {domain}")
    if rules.may_domains is not None and domain not in rules.may_domains:
        if not rules.may_domains:
            return WireError(Rejection.FORBIDDEN, start, "this publisher may not publish")
        return WireError(Rejection.FORBIDDEN, start, f"domain {domain} is not this publisher's")
    if rules.may_sources is not None:
        version = chunk[start + _VERSION_OFFSET]
        source = chunk[start + _SOURCE_OFFSET] if version == VERSION else version
        if source not in rules.may_sources:
            return WireError(Rejection.FORBIDDEN, start, f"source {source} is not this publisher's")
    return None


def _checksum_fault(chunk: memoryview, start: int, stop: int, crc: int) -> WireError | None:
    """Tell that a checksum which is not 0 does not fit the bytes."""
    if crc == 0:
        return None
    header_crc = zlib.crc32(chunk[start : start + CHECKSUM_OFFSET])
    actual = zlib.crc32(chunk[start + HEADER_SIZE : stop], header_crc)
    if actual == crc:
        return None
    detail = f"the header says 0x{crc:08X}, the bytes give 0x{actual:08X}"
    return WireError(Rejection.CHECKSUM, start, detail)


def _strict_fault(
    chunk: memoryview, start: int, stop: int, crc: int, rules: Rules
) -> WireError | None:
    try:
        for span in tlv.spans(chunk, start + HEADER_SIZE, stop):
            if span.type not in rules.tlv_types:
                return WireError(Rejection.TLV, start, f"type {span.type} is not allowed")
    except WireError as error:
        return error
    if not crc:
        return WireError(Rejection.CHECKSUM, start, "none, and strict validation requires one")
    return None


def _broken(chunk: memoryview, start: int, size: int, rules: Rules) -> WireError:
    """Tell why the stream cannot be read on from the header at ``start``."""
    if chunk[start : start + len(MAGIC_BYTES)] != MAGIC_BYTES:
        return _not_magic(chunk, start, start + len(MAGIC_BYTES))
    total = HEADER_SIZE + size
    detail = f"a message of {total} bytes, the limit is {rules.max_message}"
    return WireError(Rejection.SIZE, start, detail)


def _false_start(chunk: memoryview, start: int, end: int) -> WireError | None:
    """Find fewer bytes than a header that do not even begin with the magic."""
    end = min(end, start + len(MAGIC_BYTES))
    if chunk[start:end] == MAGIC_BYTES[: end - start]:
        return None
    return _not_magic(chunk, start, end)


def _not_magic(chunk: memoryview, start: int, end: int) -> WireError:
    found, expected = bytes(chunk[start:end]).hex(" "), MAGIC_BYTES.hex(" ")
    return WireError(Rejection.MAGIC, start, f"found {found} where a message begins ({expected})")


def _close_over(chunk: memoryview, accepted: int, start: int, stop: int) -> int:
    """Move the good bytes in ``[start:stop]`` up to the ones accepted before; return their end."""
    end = accepted + stop - start
    if accepted != start:
        chunk[accepted:end] = chunk[start:stop]
    return end


class MessageReader:
    """Cuts a byte stream into messages, for consumers that want one at a time.

    >>> reader = MessageReader()
    >>> for message in reader.feed(data):    # whole messages, as bytes
    ...     ...
    """

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules(level=Level.FRAMING)
        self.pending = bytearray()
        """The torn beginning of a message, less than ``max_message`` bytes."""
        self._wanted = HEADER_SIZE
        self._broken: WireError | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes of the stream and yield the messages that they complete.

        Raises :class:`WireError` (``magic`` or ``size``), after the whole messages before it, if
        the stream cannot be read on; and again whenever it is fed after that. The bytes are taken
        as the iterator runs, so each one must be run to its end before the next feed.
        """
        if self._broken is not None:
            raise self._broken
        self.pending += data
        if len(self.pending) < self._wanted and len(self.pending) >= HEADER_SIZE:
            return  # a large message is gathered without a look at each piece
        chunk = self.pending
        with memoryview(chunk) as view:
            run = check(view, len(chunk), self.rules)
        self._broken = run.broken
        self.pending = chunk[run.consumed :] if run.broken is None else bytearray()
        self._wanted = message_size(self.pending)
        yield from split(bytes(chunk[: run.accepted]))
        if self._broken is not None:
            raise self._broken


@cache
def _run_rules(max_message: int) -> Rules:
    return Rules(level=Level.FRAMING, max_message=max_message, aside=True)


class RunReader:
    """Cuts a byte stream into runs: for who passes on many messages, and looks into none.

    A run is whole messages end to end, as many as came together. Control is told apart from them.

    >>> reader = RunReader(MAX_MESSAGE)
    >>> for run, messages in reader.feed(data):    # 0 messages: run is one of control
    ...     ...
    """

    def __init__(self, max_message: int) -> None:
        self._rules = _run_rules(max_message)
        self._pending = bytearray()
        self._wanted = HEADER_SIZE

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """Take the next bytes of the stream and yield what they complete, and how much that is.

        Raises as :meth:`MessageReader.feed`. Each iterator must be run to its end before the next
        feed; after an error the stream is over.
        """
        self._pending += data
        if HEADER_SIZE <= len(self._pending) < self._wanted:
            return  # a large message is gathered without a look at each piece
        chunk, start = self._pending, 0
        self._pending, broken = bytearray(), None
        with memoryview(chunk) as view:
            while broken is None:
                run = check(view[start:], len(chunk) - start, self._rules)
                aside, broken = start + run.consumed, run.first or run.broken
                if run.messages:
                    yield bytes(view[start : start + run.accepted]), run.messages
                start = aside + run.aside
                if not run.aside:
                    break
                yield from self._set_aside(bytes(view[aside:start]))
        if broken is not None:
            try:
                raise broken
            finally:  # its traceback has this frame: together they would outlive who catches it
                del broken, run
        self._pending = chunk[start:]
        self._wanted = message_size(self._pending)

    @staticmethod
    def _set_aside(message: bytes) -> Iterator[tuple[bytes, int]]:
        """Yield control as such; a message that says it is compressed is one like any other."""
        yield message, int(message[_DOMAIN_OFFSET] != _SYSTEM)


def message_size(message: bytes | bytearray | memoryview) -> int:
    """Return how many bytes the message has whose first bytes are given.

    32 as long as not even its header is complete.
    """
    if len(message) < HEADER_SIZE:
        return HEADER_SIZE
    return HEADER_SIZE + int(_PAYLOAD_SIZE.unpack_from(message)[0])


def split(run: bytes) -> Iterator[bytes]:
    """Yield each message of ``run``, which must be whole messages end to end."""
    start = 0
    while start < len(run):
        stop = start + HEADER_SIZE + _PAYLOAD_SIZE.unpack_from(run, start)[0]
        yield run[start:stop]
        start = stop
