"""Where replayed messages come from: a relay that is asked for them, or a journal's files.

Knows what is asked for; neither where it goes nor when.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

from alphapulse_relay.cli.connection import Wait, closed
from alphapulse_relay.cli.filters import Filter
from alphapulse_relay.cli.journal.files import entries_from, open_journal
from alphapulse_relay.cli.subscriber import REASONS, ask_head, new_core, start_of, subscribed
from alphapulse_relay.cli.tail import NO_REASON
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.client.core import Message, Missed, Synced
from alphapulse_relay.journal.reader import Entry, Lost
from alphapulse_relay.protocol_v2.control import NO_WISH, GapReason, Subscribe, SyncState, Wish


@dataclass(frozen=True)
class Asked:
    """Which messages are wanted, and from where: at most one of the three is not None.

    ``since`` is in ns since the epoch, ``last`` counts messages that the filter admits. No place
    stands for everything that is kept.
    """

    wanted: Filter
    since: int | None = None
    position: int | None = None
    last: int | None = None


class Reached(NamedTuple):
    """All before a position has come; ``live`` if what follows had not been published then."""

    position: int
    live: bool = False


Item = bytes | Reached | Lost
"""A message, or what there is to know of those that follow."""


class Source(Protocol):
    """A journal, as far as it goes now."""

    epoch: int
    head: int

    def items(self, wait_for: Wait) -> Iterator[Item]:
        """Yield what is asked for; ``wait_for`` is called before anything is waited for."""


class RelaySource:
    """The journal of a relay, by its socket. With ``follow`` it goes on without an end."""

    def __init__(self, path: str, asked: Asked, *, follow: bool) -> None:
        self.epoch, self.head, _, _ = ask_head(path)
        self._path = path
        self._asked = asked
        self._follow = follow

    def items(self, wait_for: Wait) -> Iterator[Item]:
        """Yield what is asked for; raises :class:`Failure` where the relay ends it too early."""
        live = False
        for event in subscribed(self._path, new_core(self._subscription()), wait_for):
            match event:
                case Message(data):
                    yield data
                case Synced(bookmark, state):
                    live = state is SyncState.LIVE
                    yield Reached(bookmark.position, live)
                case Missed(gap):
                    yield Lost(gap.start, gap.stop, REASONS[gap.reason])
        if self._follow or not live:
            raise closed(None, NO_REASON)

    def _subscription(self) -> Subscribe:
        asked = self._asked
        everything = asked.since is asked.position is asked.last is None
        start, value = start_of(0 if everything else asked.since, asked.position, asked.last)
        wishes = Wish.POSITIONS | (NO_WISH if self._follow else Wish.STOP_AT_HEAD)
        return Subscribe(wishes, start, value, 0, asked.wanted.types, asked.wanted.sources)


class JournalSource:
    """The files of a journal; a relay may run meanwhile, or not. Raises :class:`Failure`."""

    def __init__(self, directory: Path, asked: Asked) -> None:
        self._found = open_journal(directory)
        self._asked = asked
        parts = self._found.parts
        self.epoch = self._found.epoch
        self.head = parts[-1].stop if parts else 0
        self._edges = [(one.stop, next_.start) for one, next_ in pairwise(parts)]
        if parts:
            self._edges.insert(0, (0, parts[0].start))
        if asked.position is not None and asked.position > self.head:
            raise Failure(f"position {asked.position} is beyond the journal's end, {self.head}")

    def items(self, _wait_for: Wait) -> Iterator[Item]:
        """Yield what is asked for."""
        told, reached = 0, self._asked.position
        for entry in self._entries():
            yield from self._found.lost[told:]
            told = len(self._found.lost)
            yield from self._missing(reached, entry.position)
            if reached is None:
                yield Reached(entry.position)
            if self._asked.wanted.admits(entry.message):
                yield entry.message
            reached = entry.position + len(entry.message)
            yield Reached(reached)
        yield from self._found.lost[told:]
        yield Reached(self.head)

    def _entries(self) -> Iterator[Entry]:
        asked = self._asked
        return entries_from(
            self._found, asked.wanted, since=asked.since, position=asked.position, last=asked.last
        )

    def _missing(self, reached: int | None, position: int) -> Iterator[Lost]:
        """Yield what no file holds between two positions; None is where nobody asked to begin."""
        for start, stop in self._edges:
            if reached is not None and start < stop and reached < stop <= position:
                yield Lost(max(start, reached), stop, REASONS[GapReason.RETENTION])
