"""What waits to be published, and how much of it goes next."""

from collections import deque
from itertools import islice
from typing import NamedTuple

from alphapulse_relay.bridge.envelope import Place
from alphapulse_relay.protocol_v2.framing import message_size, split
from alphapulse_relay.protocol_v2.selection import walk


class Gulp(NamedTuple):
    """So many messages, the place behind them, and when the first of them came (ns)."""

    data: bytes
    messages: int
    end: Place
    time: int


class Waiting:
    """Runs in the order in which they came."""

    def __init__(self) -> None:
        self.size = self.messages = 0
        """How many bytes and messages wait."""
        self._runs: deque[Gulp] = deque()

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def since(self) -> int:
        """When the first of them came (ns); 0 if none waits."""
        return self._runs[0].time if self._runs else 0

    def add(self, data: bytes, messages: int, end: Place, time: int) -> None:
        """Take a run that came at that time."""
        self._runs.append(Gulp(data, messages, end, time))
        self.size += len(data)
        self.messages += messages

    def take(self, room: int) -> Gulp | None:
        """Return as much as fits into so many bytes, but at least a message; None if none waits."""
        if not self._runs:
            return None
        if len(self._runs[0].data) > room:
            self._cut(*self._fitting(room))
        taken: list[Gulp] = []
        size = 0
        while not taken or (self._runs and size + len(self._runs[0].data) <= room):
            taken.append(self._runs.popleft())
            size += len(taken[-1].data)
        return self._taken(taken)

    def take_exactly(self, messages: int) -> Gulp | None:
        """Return so many messages; None as long as fewer wait."""
        if self.messages < messages or not messages:
            return None
        taken: list[Gulp] = []
        left = messages
        while left:
            first = self._runs[0]
            if first.messages > left:
                size = sum(map(len, islice(split(first.data), left)))
                self._cut(size, left)
            taken.append(self._runs.popleft())
            left -= taken[-1].messages
        return self._taken(taken)

    def _fitting(self, room: int) -> tuple[int, int]:
        """Return how much of the first run fits, in bytes and messages; at least a message."""
        data = self._runs[0].data
        size, messages = walk(data, room)
        return (size, messages) if messages else (message_size(data), 1)

    def _cut(self, size: int, messages: int) -> None:
        """Cut the first run in two, so many bytes and messages from its beginning."""
        first = self._runs.popleft()
        rest = first.messages - messages
        if rest:
            self._runs.appendleft(Gulp(first.data[size:], rest, first.end, first.time))
        # Where a place has counted all messages of a run, it has counted those before its end.
        end = first.end._replace(taken=first.end.taken - rest)
        self._runs.appendleft(Gulp(first.data[:size], messages, end, first.time))

    def _taken(self, taken: list[Gulp]) -> Gulp:
        data = b"".join([each.data for each in taken])
        messages = sum(each.messages for each in taken)
        self.size -= len(data)
        self.messages -= messages
        return Gulp(data, messages, taken[-1].end, taken[0].time)
