"""Both ends of a bridge, and what it remembers of them: each is looked at once, when first asked.

Knows how to look; what is to be thought of it, it does not.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Generator
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

from alphapulse_relay.bridge.options import BridgeSettings
from alphapulse_relay.bridge.relay_link import WISHES, listening_to
from alphapulse_relay.bridge.service import PACKAGES
from alphapulse_relay.bridge.state import StateError, StateFile
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.client.address import parse_address
from alphapulse_relay.client.bookmark import Bookmark, fingerprint
from alphapulse_relay.client.connection import RECEIVE_SIZE, open_connection
from alphapulse_relay.client.core import Core, Event, Synced
from alphapulse_relay.client.errors import ClientError, RelayError
from alphapulse_relay.protocol_v2.control import ErrorCode, Start, Subscribe, Wish

if TYPE_CHECKING:
    from nats.js.api import StreamInfo

    from alphapulse_relay.bridge.check import View

ANSWER_SECONDS = 10.0
"""How long the relay may send nothing when it is asked for something."""


class Refusal(Failure):
    """What the relay says it does not give; ``is_forbidden`` by its access rules, or for now."""

    def __init__(self, error: RelayError) -> None:
        super().__init__(str(error))
        self.is_forbidden = error.code == ErrorCode.FORBIDDEN


class Ends:
    """What a bridge with these settings joins, and its state file."""

    def __init__(self, settings: BridgeSettings) -> None:
        self.settings = settings

    @property
    def missing(self) -> list[str]:
        """The packages that a bridge needs and that are not installed."""
        return [name for name in PACKAGES if find_spec(name) is None]

    @property
    def asked(self) -> int:
        """What a bridge asks of its relay, as places in the journal have it."""
        ours = self.settings
        return fingerprint(listening_to(ours.types, ours.sources))

    @cached_property
    def file(self) -> StateFile | Failure:
        """The state file, which may be none yet, or why it cannot be used."""
        file = StateFile(self.settings.state)
        try:
            file.load()
        except StateError as error:
            return Failure(str(error))
        return file

    @cached_property
    def head(self) -> Bookmark | Failure:
        """Where the relay's journal ends, or why it does not let a bridge listen.

        It is asked for what a bridge asks, but for its name, which the bridge may have just now.
        """
        try:
            found = [
                event.bookmark
                for event in self._ask(WISHES | Wish.STOP_AT_HEAD)
                if isinstance(event, Synced)
            ]
        except Failure as failure:
            return failure
        return found[-1] if found else Failure("it closed the connection: is it a relay?")

    def behind(self, position: int, epoch: int) -> Generator[Event]:
        """Yield what the relay sends from a position on, up to its head.

        Raises :class:`Failure`, a :class:`Refusal` if the relay says why.
        """
        return self._ask(Wish.POSITIONS | Wish.STOP_AT_HEAD, Start.POSITION, position, epoch)

    def _ask(
        self, wishes: Wish, start: Start = Start.LIVE, position: int = 0, epoch: int = 0
    ) -> Generator[Event]:
        ours = self.settings
        core = Core(Subscribe(wishes, start, position, epoch, ours.types, ours.sources))
        try:
            with open_connection(parse_address(ours.relay), None, ANSWER_SECONDS) as connection:
                connection.settimeout(ANSWER_SECONDS)
                with suppress(BrokenPipeError, ConnectionResetError):  # it may have told why before
                    connection.sendall(core.connect(timestamp=time.time_ns()))
                while data := _receive(connection):
                    yield from core.receive(data)
        except RelayError as error:
            raise Refusal(error) from None
        except ClientError as error:
            raise Failure(str(error)) from None
        except TimeoutError:
            raise Failure(f"no answer for {ANSWER_SECONDS:g} s") from None
        except OSError as error:
            raise Failure(error.strerror or str(error)) from None

    @cached_property
    def nats(self) -> View | Failure | None:
        """What is at NATS, or why a file for it cannot be used; None if it cannot be asked."""
        if self.missing:
            return None
        from alphapulse_relay.bridge.check import look  # noqa: PLC0415

        try:
            return asyncio.run(look(self.settings))
        except OSError as error:
            return Failure(error.strerror or str(error))

    def same_until(self, info: StreamInfo, sequence: int, stored: float) -> int:
        """Return up to which sequence the stream is what it was: see :meth:`Stream.same_until`.

        Raises :class:`Failure`.
        """
        from alphapulse_relay.cli.bridge.past import same_until  # noqa: PLC0415

        return same_until(self.settings, info, sequence, stored)


def _receive(connection: socket.socket) -> bytes:
    """Return the next bytes; none at the end."""
    try:
        return connection.recv(RECEIVE_SIZE)
    except ConnectionResetError:
        return b""
