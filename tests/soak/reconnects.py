"""A client with a name and a bookmark whose connection ends again and again."""

import random
import shutil
import signal
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from alphapulse_relay.client.blocking import Client, follow
from alphapulse_relay.client.core import NOTHING, Message, Missed
from alphapulse_relay.client.errors import RelayError, UnacknowledgedError
from alphapulse_relay.protocol_v2.control import ErrorCode, Start, Subscribe, Wish
from tests.soak.load import signal_message
from tests.support import PATIENCE, Relay

JOURNAL = ("--journal-size", "256M")
SOURCES = (20, 21)
OWN = 30
PAUSE = 0.01
"""Seconds between what the others publish: 64 messages each time."""
BURST = 64
HELD_SECONDS = 0.3
"""How long the relay does not learn that a connection has ended."""
HEADER = slice(4, 16)
"""Of a message: domain, version, source, flags, sequence; what tells it from all others."""
SOURCE = 2
"""Where in these the source is."""


class Wire:
    """Stands between a client and the relay, and can break on the client's side only."""

    def __init__(self, path: Path, relay: Path) -> None:
        self.path = path
        self._relay = relay
        self._client: socket.socket | None = None
        self._linger = 0.0
        self._port = socket.socket(socket.AF_UNIX)
        self._port.bind(str(path))
        self._port.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, linger: float) -> None:
        """End the client's connection; the relay learns of it after so many seconds."""
        self._linger = linger
        if self._client is not None:
            with suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._port.shutdown(socket.SHUT_RDWR)
        self._port.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._client, _ = self._port.accept()
                threading.Thread(target=self._serve, args=(self._client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as relay, suppress(OSError):
            relay.connect(str(self._relay))
            back = threading.Thread(target=_carry_back, args=(relay, client), daemon=True)
            back.start()
            _carry(client, relay)
            linger, self._linger = self._linger, 0.0
            time.sleep(linger)  # nobody tells the relay before
            relay.shutdown(socket.SHUT_RDWR)
            back.join()


def _carry(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes."""
    with suppress(OSError):
        while data := source.recv(1 << 18):
            target.sendall(data)


def _carry_back(relay: socket.socket, client: socket.socket) -> None:
    """Pass on what comes of the relay, and its end."""
    _carry(relay, client)
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


class Other:
    """Publishes ``burst`` messages each ``pause`` seconds, over any breaks, until told to stop."""

    def __init__(self, relay: Path, source: int, burst: int = BURST, pause: float = PAUSE) -> None:
        self.failure: BaseException | None = None
        self.source = source
        self.published = 0
        self._relay = relay
        self._burst = burst
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop when the relay has acknowledged all."""
        self._over.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "not all is acknowledged"
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            with Client(self._relay, types=NOTHING, acknowledge=True) as client:
                while not self._over.wait(self._pause):
                    for _ in range(self._burst):
                        client.publish(signal_message(self.source, self.published))
                        self.published += 1
        except BaseException as error:
            self.failure = error


class Strategy(Client):
    """The client. ``seen`` is what it took, ``saved`` how much of that its bookmark covers."""

    def __init__(self, address: Path, bookmark: Path, seen: list[bytes]) -> None:
        super().__init__(
            address,
            name="strategy",
            start=Start.POSITION,
            bookmark=bookmark,
            acknowledge=True,
            timeout=PATIENCE,
        )
        self.seen = seen
        self.saved = len(seen)

    def take(self, timeout: float = PATIENCE) -> None:
        """Receive one message."""
        self.seen.append(self.receive(timeout).data[HEADER])

    def save(self) -> None:
        super().save()
        self.saved = len(self.seen)  # it is called when what was received has been taken


class Life:
    """All connections of one strategy, and the relay's runs."""

    def __init__(self, chance: random.Random) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="soak-"))
        self.relay = Relay(*JOURNAL, directory=self._directory)
        self.seen: list[bytes] = []
        self.published = 0
        self.names_taken = 0
        """How often a new client met the relay still holding the connection of the last one."""
        self._chance = chance

    def __enter__(self) -> Self:
        self.relay.__enter__()
        self._wire = Wire(self._directory / "wire", self.relay.socket)
        self._others = [Other(self.relay.socket, source) for source in SOURCES]
        self.client = self._new_client()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._wire.close()
        self.relay.__exit__()
        shutil.rmtree(self._directory, ignore_errors=True)

    def round(self, way: str) -> str:
        """Receive and publish a little, and have the connection end in that way of WAYS."""
        for number in range(self._chance.randint(1, 400)):
            self._take()
            if number % 50 == 0:
                self._publish()
        WAYS[way](self)
        self._take()
        return f"{way}: {len(self.seen)} messages"

    def _publish(self) -> None:
        self.client.publish(signal_message(OWN, self.published), timeout=PATIENCE)
        self.published += 1
        while True:
            try:
                return self.client.flush(timeout=PATIENCE)
            except UnacknowledgedError:  # more has come than it keeps: that is to be taken first
                for _ in range(10_000):
                    self._take()

    def _take(self) -> None:
        """Receive one message; a name that a new client does not get at once is asked for again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.client.take()
            except RelayError as error:
                if error.code != ErrorCode.NAME_TAKEN or time.monotonic() > deadline:
                    raise
            self.names_taken += 1

    def _new_client(self, *, wired: bool = False) -> Strategy:
        self._wired = wired or self._chance.random() < 0.5
        address = self._wire.path if self._wired else self.relay.socket
        return Strategy(address, self._directory / "bookmark", self.seen)

    # Ways in which a connection ends

    def close(self) -> None:
        """End it in the middle of what comes; the same client goes on."""
        self.client.close()

    def leave(self, *, wired: bool = False) -> None:
        """End the client in order, and start another one."""
        with self.client:
            pass
        self.client = self._new_client(wired=wired)

    def crash(self) -> None:
        """End the client as a kill would: what it took since it last saved will come again."""
        self.client.close()
        del self.seen[self.client.saved :]
        self.client = self._new_client()

    def cut(self) -> None:
        """End the connection from outside."""
        self._cut(0)

    def hold(self) -> None:
        """End it so that the relay goes on holding it, and the name, for a while."""
        self._cut(HELD_SECONDS)
        self._publish()

    def _cut(self, linger: float) -> None:
        if not self._wired:
            self.leave(wired=True)
            self._take()
        self._wire.cut(linger)

    def restart(self) -> None:
        """Stop the relay in order or kill it, and start it again."""
        self.relay.stop(self._chance.choice((signal.SIGTERM, signal.SIGKILL)))
        self.relay.__exit__()
        self.relay = Relay(*JOURNAL, directory=self._directory)
        self.relay.__enter__()

    # In the end

    def check(self) -> int:
        """See that the client gets each message of the others once; return how many."""
        for other in self._others:
            other.stop()
        everything = Subscribe(Wish.POSITIONS | Wish.STOP_AT_HEAD, Start.POSITION, 0)
        log = []
        for event in follow(self.relay.socket, everything):
            assert not isinstance(event, Missed), event
            if isinstance(event, Message):
                log.append(event.data[HEADER])
        others = [each for each in log if each[SOURCE] != OWN]
        while len(self.seen) < len(others):
            self._take()
        assert self.seen == others, difference(self.seen, others)
        assert len(log) - len(others) >= self.published, "what it published is not in the log"
        with pytest.raises(TimeoutError):
            self.client.take(0.2)
        return len(self.seen)


WAYS = {
    "closed": Life.close,
    "left": Life.leave,
    "crashed": Life.crash,
    "cut": Life.cut,
    "held": Life.hold,
    "relay restarted": Life.restart,
}


def difference(seen: list[bytes], sent: list[bytes]) -> str:
    """Tell what is wrong first."""
    for number, (one, other) in enumerate(zip(seen, sent, strict=False)):
        if one != other:
            what = (
                "echoed" if one[SOURCE] == OWN else "again" if one in seen[:number] else "too early"
            )
            return f"message {number}: {one.hex()} came ({what}), {other.hex()} was due"
    return f"{len(seen)} messages came, {len(sent)} were due"
