"""The relay that messages are replayed into.

Knows a publisher's connection; where the messages come from, it does not know.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from alphapulse_relay.cli.publisher import Publisher
from alphapulse_relay.cli.words import Failure

BLOCK_SIZE = 64 * 1024
"""Bytes that are published at once where there is no pause between messages."""


class Destination(Protocol):
    """Where messages go: another relay, or an ``Output``."""

    def send(self, message: bytes) -> None:
        """Take a message; it may be held back until one of the other calls."""

    def wait_for(self, descriptor: int) -> None:
        """Wait for a file to be readable."""

    def wait_until(self, moment: float) -> None:
        """Wait for a moment of the monotonic clock."""

    def finish(self) -> None:
        """See that all has arrived."""


class Target:
    """Another relay. All methods raise :class:`Failure`, with its name, if it closes."""

    def __init__(self, name: str, connection: socket.socket) -> None:
        self._name = name
        self._publisher = Publisher(connection)
        self._held = bytearray()

    def send(self, message: bytes) -> None:
        """Publish a message, at the latest when something is waited for."""
        self._held += message
        if len(self._held) >= BLOCK_SIZE:
            with self._named():
                self._publish()

    def wait_for(self, descriptor: int) -> None:
        """Wait for a file to be readable."""
        with self._named():
            self._publish()
            self._publisher.wait_for(descriptor)

    def wait_until(self, moment: float) -> None:
        """Wait for a moment of the monotonic clock."""
        with self._named():
            self._publish()
            self._publisher.wait_until(moment)

    def finish(self) -> None:
        """Publish what is held, and wait until the relay has read everything."""
        with self._named():
            self._publish()
            self._publisher.finish()

    def _publish(self) -> None:
        if self._held:
            self._publisher.send(bytes(self._held))
            self._held.clear()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except Failure as failure:
            raise Failure(f"{self._name}: {failure.message}") from None
