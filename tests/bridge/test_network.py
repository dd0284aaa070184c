"""Bridges on hosts of their own: what they do while the network between them and NATS does not."""

import http.client
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

import pytest

pytest.importorskip("nats")

from alphapulse_relay.bridge.bridge import AGAIN_SECONDS
from alphapulse_relay.bridge.outward import RETRY_SECONDS, WAITING_MAX
from alphapulse_relay.bridge.server import PING_SECONDS, PINGS_OUT, RECONNECT_SECONDS
from alphapulse_relay.bridge.stream import PUBLISH_SECONDS
from alphapulse_relay.client.blocking import Client as Publisher
from alphapulse_relay.client.core import NOTHING
from tests.bridge import namespaces
from tests.bridge.joined import described, head, journal
from tests.bridge.namespaces import Host, Network
from tests.bridge.running import BridgeProcess, NATSServer, joining
from tests.support import PATIENCE, Relay, message

PARTITION_SECONDS = 30
UNPLUGGED_SECONDS = PUBLISH_SECONDS + 1
"""Long enough for what was to be stored to be tried again."""
NOTICED_SECONDS = (PINGS_OUT + 1) * PING_SECONDS
"""After so long without an answer a connection is over."""
BUSY_SECONDS = 5.0
"""What a busy machine may add."""
CONNECT_SECONDS = 2.0
"""How long nats-py tries one server."""
BACK_SECONDS = CONNECT_SECONDS + RECONNECT_SECONDS + AGAIN_SECONDS + BUSY_SECONDS
"""How long what has noticed takes, once NATS is there again."""
PAUSE_SECONDS = 0.1
"""Between what is published all the time."""
SLOW_RATE, SLOW_SECONDS = 10_000_000 // 8, 0.05
"""A slow link: bytes a second, and how much longer a round trip takes."""
ONE_MORE = 2 << 20
"""Bytes that are being stored, and of the run by which too much waits."""
GROWTH_MAX = 4 * WAITING_MAX
"""Bytes of memory that a bridge may come to need: what waits, and copies of what is under way."""


class NATSOn(NATSServer):
    """A nats-server on a host, at the usual port: that one is nobody else's there."""

    def __init__(self, directory: Path, host: Host) -> None:
        super().__init__(directory)
        self._host = host
        self.port = 4222

    @property
    def url(self) -> str:
        return f"nats://{self._host.address}:{self.port}"

    def start(self) -> None:
        """Start it, and do not wait: who needs it tries again."""
        place = ("--addr", self._host.address, "--port", str(self.port))
        store = ("--jetstream", "--store_dir", str(self._directory / "jetstream"))
        log = ("--log", str(self._directory / "nats.log"))
        command = [*self._host.enter, self._program, *place, *store, *log]
        self._process = subprocess.Popen(command, text=True)


class BridgeOn(BridgeProcess):
    """A bridge on a host. Its side port is a Unix socket, as no network leads to that host."""

    def __init__(self, host: Host, relay: Relay, nats: str) -> None:
        self._web = relay.directory / "web.sock"
        options = joining(relay.socket, nats, host.name)
        given = ("--max-bytes", "64M", "--web", f"unix:{self._web}")
        super().__init__(relay.directory, *options, *given)
        self._command = [*host.enter, *self._command]

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("bridge", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(PATIENCE)
            connection.sock.connect(str(self._web))
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    @property
    def is_ready(self) -> bool:
        """Whether it says so: for who watches it, and for Prometheus."""
        status, _ = self.get("/readyz")
        return status == 200

    def crossed(self, way: str) -> int:
        """Return how many messages have crossed."""
        return int(self.status()[way]["messages"])

    def has_taken(self, number: int) -> bool:
        """Whether so many have come from NATS."""
        return self.crossed("inward") >= number

    @property
    def has_nats(self) -> bool:
        """Whether it has a connection to NATS, as far as it knows."""
        return self.status()["nats"]["trouble"] is None

    @property
    def reconnects(self) -> int:
        """How often a lost connection to NATS has come back."""
        return int(self.status()["nats"]["reconnects"])


class Joined:
    """A NATS server and two bridges, each on a host of its own, with all that was sent."""

    def __init__(self, directory: Path) -> None:
        self.network = Network("nats", "a", "b")
        self.nats = NATSOn(directory, self.network.hosts["nats"])
        self.relays = [Relay(), Relay()]
        self.sent: list[list[bytes]] = [[], []]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            hosts = stack.enter_context(self.network).hosts
            stack.enter_context(self.nats)
            for relay in self.relays:
                stack.enter_context(relay)
            self.since = [head(relay.socket) for relay in self.relays]
            self._publishers = [
                stack.enter_context(
                    Publisher(relay.socket, acknowledge=True, types=NOTHING, name="p")
                )
                for relay in self.relays
            ]
            self.a, self.b = [
                stack.enter_context(BridgeOn(hosts[name], relay, self.nats.url))
                for name, relay in zip("ab", self.relays, strict=True)
            ]
            seconds_until(lambda: self.a.is_ready and self.b.is_ready)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def send(self, way: int, number: int, size: int = 216) -> list[bytes]:
        """Send more to a relay, which acknowledges it; return it."""
        begin = len(self.sent[way]) + 1
        more = [message(20 + way, begin + each, size) for each in range(number)]
        for each in more:
            self._publishers[way].publish(each)
        self._publishers[way].flush()
        self.sent[way] += more
        return more

    def send_both_ways(self) -> None:
        """Send some more to each relay."""
        self.send(0, 5)
        self.send(1, 5)

    def check_all_is_there(self) -> None:
        """Wait until all is at both relays: once, and in the order of the relay it was sent to."""
        for bridge, theirs in ((self.a, self.sent[1]), (self.b, self.sent[0])):
            seconds_until(partial(bridge.has_taken, len(theirs)))
        for relay, since in zip(self.relays, self.since, strict=True):
            found = journal(relay.socket, since)
            for sent in self.sent:
                own = frozenset(sent)
                came = [each for each in found if each in own]
                assert came == sent, described(came, sent)
            assert len(found) == sum(map(len, self.sent))


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[Joined]:
    namespaces.check()
    with Joined(tmp_path) as joined:
        joined.send_both_ways()
        joined.check_all_is_there()
        yield joined


def seconds_until(holds: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Return how long it took until something holds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"not within {seconds:.1f} s"
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_partition(joined: Joined) -> None:
    peers = [relay.connect() for relay in joined.relays]
    unready = None
    with joined.network.silence(joined.network.hosts["a"]):
        began = time.monotonic()
        while (now := time.monotonic() - began) < PARTITION_SECONDS or joined.a.has_nats:
            assert now < NOTICED_SECONDS + BUSY_SECONDS
            for way, peer in enumerate(peers):
                more = joined.send(way, 5)
                assert peer.messages(5) == more  # and nothing from afar
            unready = now if unready is None and not joined.a.is_ready else unready
            assert joined.b.is_ready
            time.sleep(PAUSE_SECONDS)
        assert unready is not None
        assert unready < PUBLISH_SECONDS + BUSY_SECONDS
        figures = joined.a.metrics()
        assert figures["signal_relay_bridge_ready", ""] == 0
        assert figures["signal_relay_bridge_connected", "nats"] == 0
    assert seconds_until(lambda: joined.a.is_ready) < BACK_SECONDS
    joined.check_all_is_there()
    joined.send_both_ways()
    joined.check_all_is_there()


def test_a_link_that_is_down_for_a_while(joined: Joined) -> None:
    began = time.monotonic()
    with joined.network.unplugged(joined.network.hosts["a"]):
        while time.monotonic() - began < UNPLUGGED_SECONDS or joined.a.is_ready:
            joined.send_both_ways()
            time.sleep(PAUSE_SECONDS)
    check_it_goes_on(joined, time.monotonic() - began)


def test_what_is_stored_but_nobody_is_told(joined: Joined) -> None:
    known = len(joined.sent[0])
    seconds_until(lambda: joined.a.crossed("outward") == known)
    began = time.monotonic()
    with joined.network.deafen(joined.network.hosts["a"]):
        joined.send(0, 1)
        seconds_until(partial(joined.b.has_taken, known + 1))
        joined.send_both_ways()
        seconds_until(lambda: not joined.a.is_ready)
        assert joined.a.crossed("outward") == known
    check_it_goes_on(joined, time.monotonic() - began)


def check_it_goes_on(joined: Joined, seconds: float) -> None:
    """Check that a's connection outlives what it was cut off for: TCP waits as long once more."""
    took = seconds_until(lambda: joined.a.is_ready)
    assert took < seconds + RETRY_SECONDS + BUSY_SECONDS
    joined.check_all_is_there()
    assert joined.a.reconnects == 0


def test_a_connection_that_is_half_open(joined: Joined) -> None:
    nats = joined.network.hosts["nats"]
    with joined.network.silence(nats):
        joined.nats.stop()
        joined.send(0, 20)
        joined.network.reset(nats)
        joined.nats.start()
    assert joined.b.is_ready  # by what it knows: it had nothing to say
    both = joined.a, joined.b
    took = seconds_until(lambda: all(each.reconnects == 1 and each.is_ready for each in both))
    assert took < PING_SECONDS + BACK_SECONDS
    joined.check_all_is_there()
    joined.send_both_ways()
    joined.check_all_is_there()


def test_a_slow_link(joined: Joined) -> None:
    joined.network.slow_down(joined.network.hosts["a"], SLOW_RATE, SLOW_SECONDS)
    before, began = joined.a.resident_bytes(), time.monotonic()
    joined.send(0, 3000, 4096)
    joined.send(1, 300, 4096)
    waiting, resident = [], []
    while joined.b.crossed("inward") < len(joined.sent[0]):
        waiting.append(joined.a.status()["outward"]["waiting_bytes"])
        resident.append(joined.a.resident_bytes() - before)
        time.sleep(PAUSE_SECONDS)
    took = time.monotonic() - began
    stored = joined.a.status()["outward"]["stored_bytes"]
    assert took > stored / SLOW_RATE  # else the link is not slow
    assert stored < sum(map(len, joined.sent[0])) / 2
    assert WAITING_MAX < max(waiting) < WAITING_MAX + ONE_MORE
    assert max(resident) < GROWTH_MAX
    joined.check_all_is_there()
    joined.send(0, 1)
    joined.check_all_is_there()
    assert joined.a.status()["publish_seconds"] > SLOW_SECONDS
    assert joined.a.reconnects == 0
