"""Runs that come in several NATS messages: in pieces, in shares by type, or both.

Knows what belongs together, and when all of it is there. It may begin again at any time, as a
bridge that was killed publishes again what was not stored as a whole.
"""

from dataclasses import dataclass, field

from alphapulse_relay.bridge.envelope import Envelope, EnvelopeError, Place
from alphapulse_relay.bridge.split import OrderError, Part, merge, messages_of
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import MAX_MESSAGE, RunReader


@dataclass
class _Shares:
    """Those of a run that have come."""

    begin: Place
    parts: list[Part] = field(default_factory=list)


class Assembly:
    """What has come of runs that are not whole yet. ``types`` are those that come; empty: all."""

    def __init__(self, types: frozenset[int]) -> None:
        self._types = types
        self._pieces: dict[tuple[str, int | None], list[bytes]] = {}
        self._shares: dict[str, _Shares] = {}

    def __bool__(self) -> bool:
        return bool(self._pieces or self._shares)

    def clear(self) -> None:
        """Forget it: all that is not whole comes again."""
        self._pieces.clear()
        self._shares.clear()

    def add(self, relay: str, envelope: Envelope) -> bytes:
        """Take what came from a relay; return its run if that is whole now, or nothing.

        Raises :class:`EnvelopeError` for what is none, or of which something is missing.
        """
        share = envelope.share
        if share is not None and self._types and share.type not in self._types:
            return b""
        payload = self._joined(relay, envelope)
        if payload is None:
            return b""
        if share is None:
            check_run(payload)
            return payload
        part = Part(share.type, payload, share.order)
        try:
            check_run(messages_of(part))
            return self._merged(relay, envelope, part)
        except OrderError as error:
            raise EnvelopeError(str(error)) from None

    def _joined(self, relay: str, envelope: Envelope) -> bytes | None:
        """Return the payload of which this is a piece, if it is the last one."""
        key = relay, envelope.share and envelope.share.type
        if envelope.piece == 1:
            self._pieces[key] = []
        pieces = self._pieces.get(key, [])
        pieces.append(envelope.payload)
        if envelope.piece < envelope.pieces:
            return None
        self._pieces.pop(key, None)
        if len(pieces) != envelope.pieces:
            raise EnvelopeError(f"of {envelope.pieces} pieces only {len(pieces)} have come")
        return b"".join(pieces)

    def _merged(self, relay: str, envelope: Envelope, part: Part) -> bytes:
        """Return the run of which this is a share, if it is the last one that comes."""
        share = envelope.share
        assert share is not None
        shares = self._shares.get(relay)
        if shares is None or shares.begin != envelope.begin:
            shares = self._shares[relay] = _Shares(envelope.begin)
        shares.parts.append(part)
        wanted = [type_ for type_ in share.types if not self._types or type_ in self._types]
        if share.type != wanted[-1]:
            return b""
        del self._shares[relay]
        return merge(shares.parts)


def check_run(data: bytes) -> None:
    """Raise :class:`EnvelopeError` for what is not whole messages that a relay may be sent."""
    whole = 0
    try:
        for run, messages in RunReader(max(len(data), MAX_MESSAGE)).feed(data):
            if not messages:
                raise EnvelopeError(f"what is at byte {whole} is control")
            whole += len(run)
    except WireError as error:
        raise EnvelopeError(f"what is at byte {whole} is no message: {error}") from None
    if whole != len(data):
        raise EnvelopeError(f"what is at byte {whole} is not a whole message")
