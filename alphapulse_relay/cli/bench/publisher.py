"""The publisher of a benchmark: one load after the other, at a rate or at full load.

Knows sockets and loads; runs in a process of its own, and what that is told, ``crew`` knows.
"""

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from alphapulse_relay.cli.bench.load import END, HELLO, Load, due, due_by, message
from alphapulse_relay.cli.connection import connect
from alphapulse_relay.cli.publisher import Publisher

BATCH = 100
"""Messages that are made before the first of them is sent, where all of them are due."""
_NS = 1_000_000_000

Report = Callable[[int], None]
"""Is told how many more messages were written to the relay."""


class Published(NamedTuple):
    """What was published: ``messages`` between hello and end.

    ``late`` is by how many nanoseconds the last of them was sent after it was due; 0 at full load.
    """

    messages: int
    late: int


class Outlet:
    """Where messages go: to the relay, or without one to each consumer."""

    def __init__(self, connections: Iterable[socket.socket], report: Report) -> None:
        self._publishers = [Publisher(connection) for connection in connections]
        self._report = report

    def send(self, data: bytes, messages: int) -> None:
        """Send whole messages."""
        for publisher in self._publishers:
            publisher.send(data)
        self._report(messages)

    def wait_until(self, moment: int) -> None:
        """Wait for a moment of the monotonic clock, in nanoseconds."""
        self._publishers[0].wait_until(moment / _NS)

    def finish(self) -> None:
        """Wait until all has been read at the other end."""
        for publisher in self._publishers:
            publisher.finish()


def publish(
    load: Load, listener: socket.socket, wait_for_start: Callable[[], int], report: Report
) -> Published:
    """Publish a load.

    ``listener`` is where consumers connect when there is no relay. ``wait_for_start`` is called
    when the hello was sent, and returns when the load begins, in nanoseconds of the monotonic
    clock. Raises :class:`Failure` if the other end closes early.
    """
    with ExitStack() as stack:
        connections = [stack.enter_context(each) for each in _connections(load, listener)]
        outlet = Outlet(connections, report if load.relayed else lambda _messages: None)
        payload = load.payload()
        outlet.send(message(payload, HELLO, time.time_ns()), 1)
        blocks = [] if load.rate else load.blocks()
        start = wait_for_start()
        outlet.wait_until(start)
        if load.rate:
            published = _steadily(outlet, load, load.rate, start)
        else:
            published = _at_full_load(outlet, load, blocks, start)
        outlet.send(message(payload, END, time.time_ns()), 1)
        outlet.finish()
        return published


def wait_precisely() -> None:
    """Let this process wake up when it wants to: the kernel takes 50 us more by default."""
    with suppress(OSError):  # a kernel before 4.6, or a sandbox
        Path("/proc/self/timerslack_ns").write_text("1")


def _connections(load: Load, listener: socket.socket) -> Iterator[socket.socket]:
    if load.relayed:
        yield connect(load.path)
    else:
        for _ in range(load.consumers):
            yield listener.accept()[0]


def _steadily(outlet: Outlet, load: Load, rate: int, start: int) -> Published:
    """Send each message when it is due; what could not be sent in time, as soon as possible.

    None is left out, however late it is: what waits for a slow relay has waited since it was due.
    """
    payload, total, sent = load.payload(), due_by(load.duration - 1, rate), 0
    while sent < total:
        outlet.wait_until(start + due(sent + 1, rate))
        last = min(due_by(time.monotonic_ns() - start, rate), sent + BATCH, total)
        batch = [message(payload, number, time.time_ns()) for number in range(sent + 1, last + 1)]
        outlet.send(b"".join(batch), len(batch))
        sent = last
    late = time.monotonic_ns() - start - due(total, rate)
    return Published(total, late)


def _at_full_load(outlet: Outlet, load: Load, blocks: list[bytes], start: int) -> Published:
    """Write ready-made blocks as fast as they are taken."""
    each, sent = len(blocks[0]) // load.size, 0
    for block in cycle(blocks):
        outlet.send(block, each)
        sent += each
        if time.monotonic_ns() - start >= load.duration:
            break
    return Published(sent, 0)
