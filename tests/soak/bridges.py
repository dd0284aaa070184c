"""Relays joined by bridges and a cluster of NATS servers, which are killed again and again."""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from alphapulse_relay.client.blocking import Client, follow
from alphapulse_relay.client.core import NOTHING, Message, Missed
from alphapulse_relay.client.errors import ClientError
from alphapulse_relay.protocol_v2.control import Start, Subscribe, Wish
from alphapulse_relay.protocol_v2.header import Header
from tests.soak.load import signal_message
from tests.support import FOREGROUND, PATIENCE, clean_environment

NAMES = ("east", "north", "west")
SOURCES = {name: 100 + number for number, name in enumerate(NAMES)}
"""Of each relay's own publisher."""
STREAM_SIZE = "4G"
JOURNAL_SIZE = "2G"
"""Both hold all that is published: what is to be compared must still be there."""
DOWN_MAX = 1.0
"""Seconds until what was killed is started again, at most."""
LOOK_SECONDS = 0.5
ARRIVE_SECONDS = 300.0
"""How long the last message may take to be everywhere, once nothing is killed any more."""


class Process:
    """A process that is started again after it was killed. Its output goes to a file."""

    def __init__(self, name: str, directory: Path, command: Sequence[str | Path]) -> None:
        self.name = name
        self.kills = 0
        self._log = directory / f"{name}.log"
        self._directory = directory
        self._command = [str(part) for part in command]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=clean_environment(),
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def check(self) -> None:
        assert self._process is None or self._process.poll() is None, (
            f"{self.name} ended by itself:\n{self.log[-3000:]}"
        )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


class Publisher(threading.Thread):
    """Publishes numbered messages of one source, with acknowledgements, over all breaks."""

    def __init__(self, address: Path, source: int, count: int, rate: float) -> None:
        super().__init__()
        self.published = 0
        self.error: BaseException | None = None
        self._client = Client(address, types=NOTHING, acknowledge=True)
        self._source, self._count, self._rate = source, count, rate

    def run(self) -> None:
        try:
            began = time.monotonic()
            while self.published < self._count:
                due = self.published / self._rate - (time.monotonic() - began)
                if due > 0:
                    time.sleep(due)
                for _ in range(min(500, self._count - self.published)):
                    message = signal_message(self._source, self.published)
                    self._client.publish(message, timeout=ARRIVE_SECONDS)
                    self.published += 1
            self._client.flush(ARRIVE_SECONDS)
        except BaseException as error:
            self.error = error
        finally:
            self._client.close()


class Mesh:
    """Three relays with a bridge each, and a cluster of three NATS servers."""

    def __init__(self, bridge: Sequence[str] = ()) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mesh-"))
        self.processes: dict[str, Process] = {}
        self._bridge = bridge
        self._clients = [free_port() for _ in range(3)]
        self._routes = [free_port() for _ in range(3)]

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def socket(self, name: str) -> Path:
        return self.directory / name / "s.sock"

    def _start(self) -> None:
        for number in range(3):
            self._add(f"nats-{number}", self._nats(number)).start()
        for name in NAMES:
            (self.directory / name).mkdir()
            self._add(f"relay-{name}", self._relay(name)).start()
        wait_for(lambda: all(self.socket(name).exists() for name in NAMES), "relays")
        for name in NAMES:
            self._add(f"bridge-{name}", self._bridge_of(name)).start()
        wait_for(lambda: all(self._joined(name) for name in NAMES), "bridges")

    def _add(self, name: str, command: Sequence[str | Path]) -> Process:
        self.processes[name] = Process(name, self.directory, command)
        return self.processes[name]

    def _joined(self, name: str) -> bool:
        for process in self.processes.values():
            process.check()
        log = self.processes[f"bridge-{name}"].log
        return "goes outward" in log and "goes inward" in log

    def _nats(self, number: int) -> Sequence[str | Path]:
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in self._routes)
        own = self._routes[number]
        return (
            find_nats(),
            *("-a", "127.0.0.1", "-p", str(self._clients[number]), "-n", f"n{number}"),
            *("--cluster_name", "mesh", "--cluster", f"nats://127.0.0.1:{own}"),
            *("--routes", routes, "-js", "-sd", self.directory / f"nats-{number}"),
        )

    def _relay(self, name: str) -> Sequence[str | Path]:
        options = ("--web", "none", "--journal-size", JOURNAL_SIZE)
        return (sys.executable, *FOREGROUND, "signal-relay", "-s", self.socket(name), *options)

    def _bridge_of(self, name: str) -> Sequence[str | Path]:
        servers = [f"nats://127.0.0.1:{port}" for port in self._clients]
        return (
            *(sys.executable, *FOREGROUND, "signal-relay-bridge", "--relay", self.socket(name)),
            *(part for server in servers for part in ("--nats", server)),
            *("--name", name, "--create-stream", "--replicas", "3", "--max-bytes", STREAM_SIZE),
            *("--web", "none", *self._bridge),
        )

    def kill_one(self, chance: random.Random, names: Sequence[str]) -> str:
        """Kill a process, and start it again after a moment."""
        process = self.processes[chance.choice(list(names))]
        process.check()
        process.kill()
        process.kills += 1
        time.sleep(chance.uniform(0, DOWN_MAX))
        process.start()
        return process.name

    def of_source(self, name: str, source: int) -> list[int]:
        """Return the sequences of a source's messages in a relay's journal, in its order."""
        asked = Subscribe(
            Wish.POSITIONS | Wish.STOP_AT_HEAD,
            Start.POSITION,
            sources=frozenset({source}),
        )
        found = []
        for event in follow(self.socket(name), asked):
            assert not isinstance(event, Missed), event
            if isinstance(event, Message):
                found.append(Header.unpack(event.data).sequence)
        return found


def chaos(
    count: int,
    rate: float,
    seconds_between: float,
    chance: random.Random,
    bridge: Sequence[str] = (),
) -> Iterable[str]:
    """Publish at each relay while all is killed, and see that everything arrives as it was there.

    ``bridge`` are more options for the bridges. Yields lines on how it goes.
    """
    with Mesh(bridge) as mesh:
        publishers = [Publisher(mesh.socket(name), SOURCES[name], count, rate) for name in NAMES]
        for publisher in publishers:
            publisher.start()
        while any(publisher.is_alive() for publisher in publishers):
            time.sleep(chance.uniform(0, 2 * seconds_between))
            killed = mesh.kill_one(chance, list(mesh.processes))
            done = ", ".join(f"{publisher.published:,}" for publisher in publishers)
            yield f"killed {killed}; published {done}"
        for publisher in publishers:
            publisher.join()
            assert publisher.error is None, publisher.error
        yield from compare(mesh, count)
        kills = ", ".join(f"{each.name} {each.kills}" for each in mesh.processes.values())
        yield f"kills: {kills}"


def compare(mesh: Mesh, count: int) -> Iterable[str]:
    """See that each relay's journal has what each other has, once and in its order."""
    began = time.monotonic()
    for home, source in SOURCES.items():
        truth = read_until(mesh, home, source, lambda found: set(found) == set(range(count)))
        again = len(truth) - count
        for name in NAMES:
            found = read_until(mesh, name, source, partial(_has_as_many, truth))
            assert found == truth, f"{home} to {name}: {difference(truth, found)}"
        yield f"{home}: {count:,} messages, {again} sent twice by its publisher, all everywhere"
    yield f"everything was everywhere {time.monotonic() - began:.1f} s after the last was published"


def _has_as_many(truth: Sequence[int], found: Sequence[int]) -> bool:
    return len(found) >= len(truth)


def read_until(
    mesh: Mesh, name: str, source: int, enough: Callable[[list[int]], bool]
) -> list[int]:
    """Return what a relay has of a source, once that is enough."""
    until = time.monotonic() + ARRIVE_SECONDS
    found: list[int] = []
    while time.monotonic() < until:
        with suppress(ClientError, OSError):
            found = mesh.of_source(name, source)
            if enough(found):
                break
        time.sleep(LOOK_SECONDS)
    return found


def difference(truth: Sequence[int], found: Sequence[int]) -> str:
    """Tell where two orders part."""
    place = next(
        (n for n, (a, b) in enumerate(zip(truth, found, strict=False)) if a != b),
        min(len(truth), len(found)),
    )
    lost, more = len(set(truth) - set(found)), len(found) - len(set(found))
    return (
        f"{len(truth)} against {len(found)}, {lost} lost, {more} repeated, from {place} on: "
        f"{list(truth[place : place + 5])} against {list(found[place : place + 5])}"
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def find_nats() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, f"there is no nats-server beside {sys.executable}, nor in {os.defpath}"
    return found


def wait_for(done: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < until, f"{what} did not come up"
        time.sleep(0.05)
