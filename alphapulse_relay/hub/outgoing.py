"""What the relay has to say to one peer: control that waits for a boundary between messages.

Newer words take the place of older ones where they say the same and more, so that a peer that does
not read has little waiting for it.
"""

import time

from alphapulse_relay.protocol_v2.control import (
    Ack,
    ControlMessage,
    Gap,
    Heartbeat,
    SequenceSync,
    build_control,
)

OUTGOING_MAX = 1000
"""Control messages that may wait for one peer: far more than are under way where both sides read,
some 100 KB."""


class Outgoing:
    """A queue of control messages."""

    def __init__(self) -> None:
        self._queue: dict[object, ControlMessage] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._queue)

    def answer(self, content: ControlMessage) -> None:
        """Have something said that was asked for: whatever else is added, it stays."""
        self._count += 1
        self._queue[self._count] = content

    def add(self, content: ControlMessage) -> None:
        """Have something said, after all that was added before."""
        key = self._key(content)
        before = self._queue.pop(key, None)
        if isinstance(content, Gap) and isinstance(before, Gap):
            content = before._replace(stop=content.stop)
        self._queue[key] = content

    def take(self) -> bytes:
        """Return all of it as bytes; then nothing waits."""
        now = time.time_ns()
        said = b"".join(build_control(content, timestamp=now) for content in self._queue.values())
        self._queue.clear()
        return said

    def _key(self, content: ControlMessage) -> object:
        """Return what the content replaces another one by."""
        if isinstance(content, SequenceSync | Heartbeat):
            return type(content)
        if isinstance(content, Ack):
            return Ack, content.source
        if isinstance(content, Gap):
            last = next(reversed(self._queue.items()), (None, None))
            if isinstance(last[1], Gap) and _goes_on(last[1], content):
                return last[0]
        self._count += 1
        return self._count


def _goes_on(gap: Gap, other: Gap) -> bool:
    return (gap.epoch, gap.stop, gap.reason) == (other.epoch, other.start, other.reason)
