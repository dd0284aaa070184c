"""What goes wrong with peers: counted all of it, and logged at a bounded rate.

A peer can provoke as many of these lines as it likes, so each kind has a bound of its own. Knows
what to say of it; what is done about it, others decide.
"""

import time
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from alphapulse_relay.hub.counters import Counters
from alphapulse_relay.hub.peer import Identity, Miss, Peer, Refusal
from alphapulse_relay.hub.permission import Rule
from alphapulse_relay.hub.throttle import Throttle
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.framing import Run


@dataclass(frozen=True)
class LastDropped:
    """The last message that was dropped for a reason; ``at`` is in seconds since the epoch.

    ``detail`` is where in the sender's stream it was and what was wrong, if that is known of it.
    """

    identity: Identity
    at: float
    detail: str


class Report:
    """Counts in ``counters``, and logs."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, counters: Counters) -> None:
        self.last_dropped: dict[Rejection, LastDropped] = {}
        """By reason the last message that was dropped."""
        self._counters = counters
        self._drop_lines = Throttle(clock)
        self._broken_lines = Throttle(clock)
        self._refusal_lines = Throttle(clock)
        self._miss_lines = Throttle(clock)

    def dropped(self, sender: Peer, run: Run, offset: int) -> None:
        """Tell of what was dropped from a sound stream.

        ``offset`` is where the run began in the stream, in bytes.
        """
        for reason, number in run.rejected.items():
            self._counters.dropped[reason] += number
        if run.first is not None:
            error = run.first.moved(offset)
            for reason in run.rejected:
                self._note_dropped(sender, reason, error)
            self._warn_of(self._drop_lines, sender, error, sum(run.rejected.values()))

    def broken(self, sender: Peer, error: WireError) -> None:
        """Tell of the message that a stream cannot be read on from, or ends in."""
        self._dropped_one(self._broken_lines, sender, error)

    def refused_control(self, sender: Peer, error: WireError) -> None:
        """Tell of a control message that could not be carried out."""
        self._dropped_one(self._drop_lines, sender, error)

    def refused(self, identity: Identity, reason: Refusal, detail: str = "") -> None:
        """Tell of a connection that was not accepted."""
        self._counters.refused[reason] += 1
        if (left_out := self._refusal_lines.admit()) is not None:
            self._log.warn(
                "connection refused: {peer}, reason={reason}{detail}{left_out}",
                reason=reason.value,
                detail=f": {detail}" if detail else "",
                left_out=left_out,
                **identity.fields,
            )

    def missed(self, peer: Peer, reason: Miss, messages: int) -> None:
        """Tell of messages that will not come to a peer, which is told so."""
        self._counters.missed[reason] += messages
        if (left_out := self._miss_lines.admit()) is not None:
            self._log.warn(
                "peer moved on: {peer}, reason={reason}, {missed} messages were not sent to "
                "it{left_out}",
                reason=reason.value,
                missed=messages,
                left_out=left_out,
                **peer.identity.fields,
            )

    def limited(self, rule: Rule) -> None:
        """Count that an identity is held since it has sent too much."""
        limited = self._counters.limited
        limited[rule.name] = limited.get(rule.name, 0) + 1

    def _dropped_one(self, throttle: Throttle, sender: Peer, error: WireError) -> None:
        self._counters.dropped[error.reason] += 1
        self._note_dropped(sender, error.reason, error)
        self._warn_of(throttle, sender, error, 1)

    def _note_dropped(self, sender: Peer, reason: Rejection, error: WireError) -> None:
        """Keep who sent the last message that was dropped for that reason."""
        detail = f"byte {error.offset}: {error.detail}" if error.reason is reason else ""
        self.last_dropped[reason] = LastDropped(sender.identity, time.time(), detail)

    def _warn_of(self, throttle: Throttle, sender: Peer, error: WireError, number: int) -> None:
        if (left_out := throttle.admit()) is not None:
            self._log.warn(
                "dropped messages: {number}, peer {peer}, reason={reason}, the first at byte "
                "{offset} of its stream: {detail}{left_out}",
                number=number,
                reason=error.reason.value,
                offset=error.offset,
                detail=error.detail,
                left_out=left_out,
                **sender.identity.fields,
            )
