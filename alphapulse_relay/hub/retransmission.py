"""A retransmission: messages of one source, by their sequence, sent again to one peer."""

from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.segment import Origins
from alphapulse_relay.hub.subscription import make_batch
from alphapulse_relay.protocol_v2.control import RecoveryRequest, RecoveryResponse
from alphapulse_relay.protocol_v2.header import Header
from alphapulse_relay.protocol_v2.selection import Selector, last_sequences


class Retransmission:
    """Goes over the log once, from its tail to where its head is now.

    What the ``origins`` have published themselves is not sent to them.
    """

    def __init__(self, log: Log, origins: Origins, request: RecoveryRequest) -> None:
        self._log = log
        self._origins = origins
        self._request = request
        self._position, self._stop = log.tail, log.head
        sequences = range(request.last_sequence + 1, max(request.current_sequence, 0))
        self._selector = Selector(frozenset(), frozenset({request.source}), sequences)
        self._first = self._last = self._count = 0

    @property
    def over(self) -> bool:
        """Whether all is sent."""
        return self._position >= self._stop

    @property
    def response(self) -> RecoveryResponse:
        """What ends it."""
        return RecoveryResponse(self._request.consumer_id, self._first, self._last, self._count)

    def wants(self) -> tuple[int, int] | None:
        """Return what has to be fetched before the next step."""
        self._pass_gaps()
        if self.over:
            return None
        start, stop = self._log.stretch(self._position, self._origins)
        return None if self._log.at_hand(start, stop) else (start, stop)

    def step(self) -> bytes:
        """Return what matches in the next stretch of the log."""
        if self.over:
            return b""
        start, stop = self._log.stretch(self._position, self._origins)
        stop = min(stop, self._stop, start + len(self._log.read(start)))  # or up to a hole
        self._position = max(stop, start)
        if stop <= start:
            return b""
        batch = make_batch(self._log, start, stop, self._selector)
        data = bytes(batch.data)
        if data:
            self._first = self._first if self._count else Header.unpack(data).sequence
            self._last = last_sequences(data)[self._request.source][0]
            self._count += batch.selection.matched
        return data

    def _pass_gaps(self) -> None:
        while (gap := self._log.gap_at(self._position)) is not None:
            self._position = gap[0]
