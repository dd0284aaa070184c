"""Runs that come in several NATS messages: in pieces, in shares by type, or both.

Knows what belongs together, and when all of it is there. A relay has one run under way at a time;
it may begin again at any time, as a bridge that was killed publishes again what was not stored as a
whole.
"""

from dataclasses import dataclass, field

from alphapulse_relay.bridge.envelope import Envelope, EnvelopeError, Place
from alphapulse_relay.bridge.split import OrderError, Part, merge, messages_of
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import RunReader

LARGEST = 256 << 20
"""Bytes of runs that may have come in part: more than a message of 1 MiB with all types is. Another
sender than a bridge could fill the memory."""


class MissingError(EnvelopeError):
    """A part of a run of which what comes before has not come."""


@dataclass
class _Run:
    """What has come of a run that is not whole yet. ``shares`` are the types that come of it."""

    begin: Place
    shares: tuple[int, ...]
    sequence: int
    parts: list[Part] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    count: int = 0  # of the pieces that there will be

    @property
    def size(self) -> int:
        return sum(len(part.payload) for part in self.parts) + sum(map(len, self.pieces))

    def takes(self, envelope: Envelope, shares: tuple[int, ...]) -> bool:
        """Tell whether something is what has to come next, or again from its first piece."""
        if (envelope.begin, shares) != (self.begin, self.shares):
            return False
        if envelope.share is not None and envelope.share.type != shares[len(self.parts)]:
            return False
        next_one = len(self.pieces) + 1, self.count
        return envelope.piece == 1 or (envelope.piece, envelope.pieces) == next_one

    def add(self, envelope: Envelope) -> bytes | None:
        """Take a piece; return the payload that is whole with it, if one is."""
        if envelope.piece == 1:
            self.pieces.clear()
            self.count = envelope.pieces
        self.pieces.append(envelope.payload)
        if envelope.piece < envelope.pieces:
            return None
        payload = b"".join(self.pieces)
        self.pieces.clear()
        return payload


class Assembly:
    """What has come of runs that are not whole yet. ``types`` are those that come; empty: all."""

    def __init__(self, types: frozenset[int]) -> None:
        self._types = types
        self._runs: dict[str, _Run] = {}

    @property
    def begun(self) -> dict[str, int]:
        """Of which relays a run is not whole yet, and with which sequence it began."""
        return {relay: run.sequence for relay, run in self._runs.items()}

    def clear(self) -> None:
        """Forget it: all that is not whole comes again."""
        self._runs.clear()

    def add(self, relay: str, envelope: Envelope, sequence: int) -> bytes:
        """Take what came from a relay; return its run if that is whole now, or nothing.

        Raises :class:`EnvelopeError` for what is none, :class:`MissingError` where something is
        missing before it.
        """
        if not envelope.payload:
            raise EnvelopeError("there is nothing in it")
        shares = self._shares_of(envelope)
        if envelope.share is not None and envelope.share.type not in shares:
            return b""
        run = self._run_for(relay, envelope, shares, sequence)
        try:
            payload = run.add(envelope)
            self._check_size()
            if payload is None:
                return b""
            data = _whole(run, envelope, payload)
        except (EnvelopeError, OrderError) as error:
            del self._runs[relay]
            raise EnvelopeError(str(error)) from None
        if data is None:
            return b""
        del self._runs[relay]
        return data

    def _check_size(self) -> None:
        size = sum(run.size for run in self._runs.values())
        if size > LARGEST:
            raise EnvelopeError(
                f"{size} bytes of runs have come in part with it, of at most {LARGEST}"
            )

    def _shares_of(self, envelope: Envelope) -> tuple[int, ...]:
        """Return the types of its run that come; none where it is not split."""
        if envelope.share is None:
            return ()
        types = envelope.share.types
        return tuple(type_ for type_ in types if not self._types or type_ in self._types)

    def _run_for(
        self, relay: str, envelope: Envelope, shares: tuple[int, ...], sequence: int
    ) -> _Run:
        """Return what it goes on with, or begins."""
        run = self._runs.get(relay)
        if run is None or not run.takes(envelope, shares):
            is_first = envelope.share is None or envelope.share.type == shares[0]
            if envelope.piece > 1 or not is_first:
                self._runs.pop(relay, None)
                raise MissingError("what comes before it in its run has not come")
            run = self._runs[relay] = _Run(envelope.begin, shares, sequence)
        return run


def _whole(run: _Run, envelope: Envelope, payload: bytes) -> bytes | None:
    """Return the run that is whole with a payload; None if more shares are to come."""
    if envelope.share is None:
        check_run(payload)
        return payload
    part = Part(envelope.share.type, payload, envelope.share.order)
    check_run(messages_of(part))
    run.parts.append(part)
    return merge(run.parts) if len(run.parts) == len(run.shares) else None


def check_run(data: bytes) -> None:
    """Raise :class:`EnvelopeError` for what is not whole messages that a relay may be sent."""
    whole = 0
    try:
        for run, messages in RunReader(LARGEST).feed(data):
            if not messages:
                raise EnvelopeError(f"what is at byte {whole} is control")
            whole += len(run)
    except WireError as error:
        raise EnvelopeError(f"what is at byte {whole} is no message: {error}") from None
    if whole != len(data):
        raise EnvelopeError(f"what is at byte {whole} is not a whole message")
