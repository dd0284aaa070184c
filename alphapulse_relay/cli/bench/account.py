"""The account of a benchmark: what it did to a relay and its peers.

Knows the side port's status, and how to tell that it is the status of the relay on a socket.
"""

import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Collection
from typing import Any

from alphapulse_relay.cli.bench.crew import Crew, MemberFailure
from alphapulse_relay.cli.bench.load import DOMAIN, NATURE, SOURCE, TLV_TYPE
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.snapshot import Departed, Snapshot, look
from alphapulse_relay.cli.words import Failure

GONE_WITHIN = 2.0
"""Seconds in which a relay notices that connections were closed."""
LOOK_INTERVAL = 0.05
"""Seconds between two looks at the side port."""
OURS = frozenset({"closed", "reset"})
"""How a connection ends that the relay did not end."""
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid


class Account:
    """Who was connected before and after, and what was published in between.

    ``connection`` is one to the relay's socket, ``url`` its side port, ``size`` the bytes of a
    message.
    """

    def __init__(self, path: str, url: str, connection: socket.socket, size: int) -> None:
        self.unknown = ""
        """Why the side port tells nothing."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self._relay = _CREDENTIALS.unpack(raw)[0]  # who listens (unix(7))
        self._path, self._url, self._size = path, url, size
        self._pids: frozenset[int] = frozenset({os.getpid()})
        self._messages = 0
        self._before = self._look()
        self._after: Snapshot | None = None
        self._gone = False

    @property
    def others(self) -> int | None:
        """How many other peers were connected before, or after if more; None if unknown."""
        counts = [_others(each, self._pids) for each in (self._before, self._after) if each]
        return max(counts, default=None)

    @property
    def kept(self) -> int:
        """How many bytes of messages were in the relay's journal; 0 without, or if unknown."""
        return self._before.journal.kept if self._before and self._before.journal else 0

    def close(self, crew: Crew) -> None:
        """Look at what a crew that has ended did."""
        self._pids |= crew.pids
        self._messages = crew.messages
        deadline = time.monotonic() + GONE_WITHIN
        while self._before and not self._gone and time.monotonic() < deadline:
            self._after = self._look()
            if self._after is None:
                return
            self._gone = not any(peer.pid in self._pids for peer in self._after.peers)
            if not self._gone:
                time.sleep(LOOK_INTERVAL)

    def explained(self, failure: MemberFailure) -> Failure:
        """Return the failure with the reason for which the relay closed its connection, if so."""
        parties = [party for party in self._departed() if party.pid == failure.pid]
        reason = max(parties, key=lambda party: party.number).reason if parties else "closed"
        if reason in OURS:
            return failure
        return Failure(f"{failure.message} (the relay's reason: {reason})")

    def lines(self) -> list[str]:
        """Return the account for a person."""
        messages = counted(self._messages, "message", ",")
        size = counted(self._messages * self._size, "byte", ",")
        told = [f"published {messages}, {size}, to {self._path} ({NATURE})", self._others_text()]
        if lost := self._lost():
            each = ", ".join(f"{reason} {number:,}" for reason, number in lost.items())
            told.append(f"meanwhile the relay counted messages that were dropped or missed: {each}")
        gone = "are gone from the relay" if self._gone else "are closed"
        return [*told, f"the benchmark's own connections {gone}"]

    def document(self) -> dict[str, Any]:
        """Return the account for a program; null stands for what the side port does not tell."""
        return {
            "messages": self._messages,
            "bytes": self._messages * self._size,
            "domain": int(DOMAIN),
            "source": SOURCE,
            "tlv_type": TLV_TYPE,
            "other_peers": self.others,
            "dropped_or_missed": self._lost(),
            "gone": self._gone if self._after else None,
        }

    def _look(self) -> Snapshot | None:
        """Return the status of the relay that has the socket, if the side port tells it."""
        try:
            found = look(self._url)
        except Failure as failure:
            self.unknown = failure.message
            return None
        if found.pid != self._relay:
            self.unknown = f"{self._url} is the side port of another relay: see --url"
            return None
        return found

    def _others_text(self) -> str:
        others = self.others
        if others is None:
            return f"who else was connected is not known: {self.unknown}"
        if not others:
            return "nobody else was connected"
        return f"{counted(others, 'other peer')} {_was(others)} connected and got them, too"

    def _lost(self) -> dict[str, int] | None:
        """Return how many messages the relay dropped or peers missed meanwhile, by reason."""
        if not (self._before and self._after):
            return None
        before = Counter(self._before.dropped) + Counter(self._before.missed)
        return dict(Counter(self._after.dropped) + Counter(self._after.missed) - before)

    def _departed(self) -> tuple[Departed, ...]:
        return self._after.departed if self._after else ()


def _others(snapshot: Snapshot, pids: Collection[int]) -> int:
    return sum(peer.pid not in pids for peer in snapshot.peers)


def _was(number: int) -> str:
    return "was" if number == 1 else "were"
