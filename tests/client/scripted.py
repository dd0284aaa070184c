"""A relay that says what a test has written down, on a real Unix socket."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from alphapulse_relay.protocol_v2.control import Ack, Subscribe, parse_control
from alphapulse_relay.protocol_v2.framing import MessageReader
from alphapulse_relay.protocol_v2.header import Header
from tests.client.journal import Journal, said

PATIENCE = 10.0
"""Seconds after which a test that waits for something has failed."""


class Connection:
    """The relay's end of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self.socket = connection
        self._messages = self._incoming()

    def _incoming(self) -> Iterator[bytes]:
        reader = MessageReader()
        with suppress(ConnectionResetError):
            while data := self.socket.recv(65536):
                yield from reader.feed(data)

    def message(self) -> bytes:
        """The next message of the client."""
        return next(self._messages)

    def subscribe(self) -> Subscribe:
        content = parse_control(self.message())
        assert isinstance(content, Subscribe)
        return content

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def until_closed(self) -> list[bytes]:
        """Whatever else the client sends."""
        return list(self._messages)


Script = Callable[[Connection], None]


class ScriptedRelay:
    """Serves one connection after the other, each with its script, and then listens no more."""

    def __init__(self, path: Path, *scripts: Script) -> None:
        self.path = path
        self._scripts = scripts
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._listener.settimeout(PATIENCE)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the relay was not asked for all that it had to say"
        if self._failure is not None and kind is None:
            raise self._failure

    def _run(self) -> None:
        try:
            with self._listener:
                for script in self._scripts:
                    with self._listener.accept()[0] as connection:
                        script(Connection(connection))
        except BaseException as failure:
            self._failure = failure


def serves(journal: Journal, cut: int | None = None) -> Script:
    """Answers a Subscribe, all or up to a byte, and closes."""

    def script(connection: Connection) -> None:
        connection.send(journal.answer(connection.subscribe())[:cut])

    return script


def serves_on(journal: Journal) -> Script:
    """Answers a Subscribe and stays until the client leaves."""

    def script(connection: Connection) -> None:
        connection.send(journal.answer(connection.subscribe()))
        connection.until_closed()

    return script


def acknowledge(message: bytes) -> bytes:
    header = Header.unpack(message)
    return said(Ack(header.publisher, header.sequence, 1))
