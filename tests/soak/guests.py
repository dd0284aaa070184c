"""Those who come to a relay under a steady load: each goes on, in a thread, until it is stopped."""

import random
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Self

from websockets.sync.client import connect

from alphapulse_relay.client.blocking import Client
from alphapulse_relay.protocol_v2.control import Start
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, Header
from tests.soak.load import RECEIVE_SIZE, SIZE, Stream, signal_message
from tests.support import PATIENCE, Relay
from tests.support import Client as Peer

TURN_SECONDS = 0.5
"""How long a turn waits for something to come."""
_PAYLOAD = slice(HEADER_SIZE + 2, None)
_NOTHING = bytes(SIZE - HEADER_SIZE - 2)


class Log:
    """Reads a relay's log, which would block it, until the relay is stopped.

    ``faults`` are the lines that no relay should log.
    """

    WORDS = "Traceback", "Unhandled", "critical"

    def __init__(self, relay: Relay) -> None:
        self.faults: list[str] = []
        self._process = relay.process
        self._thread = Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._thread.join(PATIENCE)
        assert self._process.wait(PATIENCE) == 0

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if any(word in line for word in self.WORDS):
                self.faults.append(line)


class Guest:
    """Does ``turn`` again and again. ``over`` tells a long one to come to its end."""

    def __init__(self) -> None:
        self.over = Event()
        self.failure: BaseException | None = None
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def turn(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """End it, and raise what has failed."""
        self.over.set()
        self._thread.join(PATIENCE)
        self.check()
        assert not self._thread.is_alive(), f"{type(self).__name__} does not end"

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self.over.is_set():
                self.turn()
        except BaseException as error:
            self.failure = error


class Reader(Guest):
    """A plain consumer that takes everything, and checks it."""

    def __init__(self, peer: Peer, sources: tuple[int, ...]) -> None:
        super().__init__()
        self.stream = Stream(dict.fromkeys(sources, 0))
        self._peer = peer
        peer.socket.settimeout(TURN_SECONDS)

    def turn(self) -> None:
        with suppress(TimeoutError):
            data = self._peer.socket.recv(RECEIVE_SIZE)
            assert data, "the relay closed on a consumer that keeps up"
            self.stream.feed(data)


class Browser(Guest):
    """A WebSocket that takes what its ``query`` asks for; a ``stream`` checks it."""

    def __init__(self, port: int, query: str, stream: Stream | None = None) -> None:
        super().__init__()
        address = f"ws://127.0.0.1:{port}/signals?{query}"
        self._stack = ExitStack()
        opened = connect(address, max_size=None, open_timeout=PATIENCE)
        self._socket = self._stack.enter_context(opened)
        self._stream = stream

    def turn(self) -> None:
        with suppress(TimeoutError):
            frame = self._socket.recv(TURN_SECONDS)
            if self._stream is not None:
                assert isinstance(frame, bytes)
                self._stream.feed(frame)

    def stop(self) -> None:
        super().stop()
        self._stack.close()


class Passer(Guest):
    """Plain consumers that come, read for a moment or nothing at all for long, and go."""

    STAY = 0.02, 0.5
    STALL = 1.0, 20.0
    """Seconds: the longest is more than the journal keeps, so that some are overtaken."""

    def __init__(self, relay: Path, chance: random.Random, *, stalls: bool) -> None:
        super().__init__()
        self.visits = 0
        self._relay = relay
        self._chance = chance
        self._stalls = stalls

    def turn(self) -> None:
        peer = Peer(self._relay)
        if self._stalls:
            self.over.wait(self._chance.uniform(*self.STALL))
        until = time.monotonic() + self._chance.uniform(*self.STAY)
        peer.socket.settimeout(TURN_SECONDS)
        with suppress(TimeoutError, ConnectionResetError):
            while time.monotonic() < until and peer.socket.recv(RECEIVE_SIZE):
                pass
        peer.close()
        self.visits += 1


class _Named(Client):
    """One run of a named client. ``saved`` is what was next when its bookmark was saved."""

    def __init__(
        self, relay: Path, bookmark: Path, name: str, wanted: dict[int, int], types: set[int]
    ) -> None:
        super().__init__(
            relay,
            name=name,
            start=Start.POSITION,
            bookmark=bookmark,
            sources=wanted,
            types=types,
            acknowledge=True,
            timeout=PATIENCE,
        )
        self._next = wanted
        self.saved = dict(wanted)

    def save(self) -> None:
        super().save()
        self.saved = dict(self._next)  # it is called when what was received has been taken


class Named(Guest):
    """A client with a name and a bookmark whose runs end: in order, as by a kill, or by a stall.

    It wants ``sources``, of them all messages or the one of odd numbers, of type ``odd_type``, and
    publishes as ``own``.
    """

    TAKES = 1000
    """Messages that a run takes at most before it ends."""
    STALL_SECONDS = 2.0

    def __init__(
        self,
        relay: Path,
        bookmark: Path,
        own: int,
        sources: tuple[int, ...],
        odd_type: int | None,
        chance: random.Random,
    ) -> None:
        super().__init__()
        self.next = dict.fromkeys(sources, 0 if odd_type is None else 1)
        self.published = self.taken = self.runs = 0
        self._relay = relay
        self._bookmark = bookmark
        self._own = own
        self._types = set() if odd_type is None else {odd_type}
        self._chance = chance
        self._client = self._begin()

    def turn(self) -> None:
        for _ in range(self._chance.randint(1, self.TAKES)):
            if self.over.is_set():
                return
            self.take()
        self._client.publish(signal_message(self._own, self.published), timeout=PATIENCE)
        self.published += 1
        self._client.flush(timeout=PATIENCE)
        self._chance.choice((self._leave, self._crash, self._close, self._stall))()

    def take(self, timeout: float = PATIENCE) -> None:
        """Receive one message, which must be the next one, and whole."""
        data = self._client.receive(timeout).data
        header = Header.unpack(data)
        source, sequence = header.source, header.sequence
        assert source in self.next, f"a message of source {source}: echoed, or not asked for"
        due = self.next[source]
        assert sequence == due, f"source {source}: {due} was due, but {sequence} came"
        assert data[_PAYLOAD] == _NOTHING, f"source {source}: {sequence} is torn"
        self.next[source] += 2 if self._types else 1
        self.taken += 1

    def take_all(self, published: dict[int, int]) -> None:
        """Take what is still to come when nothing more is published, and look that it is all."""
        while any(self.next[source] < published[source] for source in self.next):
            self.take()
        with suppress(TimeoutError):
            self.take(TURN_SECONDS)
            raise AssertionError("more came than was published")
        self._client.close()

    def _begin(self) -> _Named:
        self.runs += 1
        return _Named(self._relay, self._bookmark, f"named-{self._own}", self.next, self._types)

    def _leave(self) -> None:
        with self._client:
            pass
        self._client = self._begin()

    def _crash(self) -> None:
        """What it took since it last saved will come again."""
        self._client.close()
        self.next = self._client.saved
        self._client = self._begin()

    def _close(self) -> None:
        """The same client goes on."""
        self._client.close()

    def _stall(self) -> None:
        self.over.wait(self._chance.uniform(0, self.STALL_SECONDS))
