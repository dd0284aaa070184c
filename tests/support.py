"""What the tests on real processes share: a relay to talk to, clients, and messages to send."""

import http.client
import json
import os
import random
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from alphapulse_relay.protocol_v2.framing import Level, MessageReader, Rules
from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.native import SWITCH
from alphapulse_relay.protocol_v2.tlv import build_tlv

SAMPLES = Path(__file__).parent / "samples"
MANIFEST: dict[str, dict[str, Any]] = json.loads((SAMPLES / "manifest.json").read_text())["files"]
PATIENCE = 30.0
"""Seconds after which a test that waits for something has failed."""
TWISTD = "from twisted.scripts.twistd import run; import sys; sys.argv[0] = 'twistd'; run()"
FOREGROUND = ("-c", TWISTD, "-n", "--pidfile=")
"""Arguments of Python with which it runs twistd."""
PROMETHEUS_ACCEPT = (
    "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment without the relay's own variables."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SIGNAL_RELAY_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def can_compile() -> bool:
    """Whether the compiled modules can be had and are wanted: then it is a failure if not."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return bool(compiler) and headers and os.environ.get(SWITCH, "") in {"", "0"}


class Relay:
    """A real ``twistd -n signal-relay`` process on a socket of its own.

    >>> with Relay("--backlog", "2M") as relay:
    ...     relay.connect()
    """

    def __init__(
        self, *options: str, directory: Path | None = None, program: Sequence[str] = ()
    ) -> None:
        # Short: a Unix socket's path has room for 107 bytes, and pytest's are long.
        self._own = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="relay-"))
        self.socket = self.directory / "s.sock"
        self._options = options
        self._program = program
        self.log: list[str] = []
        self._clients: list[Client] = []

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_for_log("signal relay .* serves")
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        """Start the process, and do not wait until it serves."""
        web = [] if "--web" in self._options else ["--web", "tcp:0:interface=127.0.0.1"]
        if "--backlog" in self._options:
            web += ["--journal", "none"]  # else it would not be what bounds the log
        program = self._program or (sys.executable, *FOREGROUND)
        command = [*program, "signal-relay", "--socket", str(self.socket)]
        self.process = subprocess.Popen(
            [*command, *web, *self._options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            env=clean_environment(),
        )

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        if self.process.poll() is None:
            self.stop()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self._own:
            shutil.rmtree(self.directory, ignore_errors=True)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the process, take the rest of its log and return its exit status."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        with self._patience():
            self.log += self.process.stdout.readlines()
        return self.process.wait(PATIENCE)

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Kill the process after a while, which ends its log: so nothing waits for ever."""
        watchdog = threading.Timer(PATIENCE, self.process.kill)
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()

    def wait_for_log(self, pattern: str) -> str:
        """Return the first line of the log, from the last one read on, that has the pattern."""
        assert self.process.stdout is not None
        with self._patience():
            for line in self.process.stdout:
                self.log.append(line)
                if re.search(pattern, line):
                    return line
        raise AssertionError(f"the relay never logged {pattern!r}:\n{''.join(self.log)}")

    def connect(self, *, joined: bool = True) -> "Client":
        """Return a connected client; ``joined`` waits until the relay has it as a peer."""
        client = Client(self.socket)
        self._clients.append(client)
        if joined:
            self.wait_for_log(r"peer connected: \d+ ")
        return client

    def connect_tcp(self, receive_buffer: int | None = None) -> "Client":
        """Return a client of the port of ``--listen tcp:``, which the relay has as a peer."""
        client = Client(self.listen_port, receive_buffer)
        self._clients.append(client)
        self.wait_for_log(r"peer connected: \d+ \(tcp ")
        return client

    @property
    def listen_port(self) -> int:
        """The port of ``--listen tcp:``."""
        found = re.search(r"SignalRelayFactory starting on (\d+)", "".join(self.log))
        assert found, "the relay listens on no TCP port"
        return int(found[1])

    @property
    def port(self) -> int:
        """The port of the side port."""
        found = re.search(r"QuietSite starting on (\d+)", "".join(self.log))
        assert found, "the side port is not a TCP port"
        return int(found[1])

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """GET from the side port: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """Return /api/status."""
        return json.loads(self.get("/api/status")[1])

    def metrics(self) -> dict[tuple[str, str], float]:
        """Return what Prometheus would scrape, by name and the value of the one label, if any."""
        _, body = self.get("/metrics", Accept="text/plain")
        return {
            (sample.name, next(iter(sample.labels.values()), "")): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
        }

    def resident_bytes(self) -> int:
        """Return how much memory the process has, but for the files that it has mapped."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]

    def wait_until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask for the status until the condition holds; return it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if holds(status := self.status()):
                return status
        raise AssertionError(f"never came true; last status: {status}")


class Client:
    """A raw peer: a Unix socket, or one to a local TCP port, and nothing else."""

    def __init__(self, where: Path | int, receive_buffer: int | None = None) -> None:
        local = isinstance(where, Path)
        self.socket = socket.socket(socket.AF_UNIX if local else socket.AF_INET)
        self.socket.settimeout(PATIENCE)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(str(where) if local else ("127.0.0.1", where))

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def fill(self, data: bytes) -> bytes:
        """Send what the socket takes without waiting, and return what is left."""
        self.socket.setblocking(False)
        try:
            while data:
                data = data[self.socket.send(data) :]
        except BlockingIOError:
            pass
        self.socket.settimeout(PATIENCE)
        return data

    def receive(self, length: int) -> bytes:
        """Return exactly so many bytes, or fewer if the relay closes before."""
        received = bytearray()
        while len(received) < length:
            piece = self.socket.recv(min(length - len(received), 1 << 18))
            if not piece:
                break
            received += piece
        return bytes(received)

    def receive_all(self) -> bytes:
        """Return all bytes until the relay closes."""
        return self.receive(sys.maxsize)

    def messages(self, number: int) -> list[bytes]:
        """Return the next messages; the connection must be used in no other way before."""
        reader, found = MessageReader(Rules(Level.CHECKSUM)), []
        while len(found) < number:
            piece = self.socket.recv(1 << 18)
            assert piece, f"closed after {len(found)} of {number} messages"
            found += reader.feed(piece)
        assert len(found) == number
        return found


def read_all(clients: list[Client], expected: list[int], take: int = 1 << 18) -> list[bytearray]:
    """Read from all clients in turn until each has so many bytes or is closed by the relay."""
    received = [bytearray() for _ in clients]
    with selectors.DefaultSelector() as selector:
        for number, client in enumerate(clients):
            selector.register(client.socket, selectors.EVENT_READ, number)
        deadline = time.monotonic() + PATIENCE
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(deadline - time.monotonic()):
                number = key.data
                piece = clients[number].socket.recv(take)
                received[number] += piece
                if not piece or len(received[number]) >= expected[number]:
                    selector.unregister(clients[number].socket)
    return received


def message(source: int, sequence: int, size: int = 216, seed: int = 0) -> bytes:
    """Return a valid message of ``size`` bytes (44 to 65,572) with content of its own.

    As that of signals it can be compressed, to a third or so.
    """
    payload = random.Random(f"{source} {sequence} {seed}").randbytes(-(-size // 4)) * 4
    room = size - 32
    header = 2 if room <= 257 else 5
    return build_message(
        build_tlv(21, payload[: room - header]),
        source=source,
        sequence=sequence,
        timestamp=time.time_ns(),
    )


def messages(source: int, number: int, size: int = 216) -> list[bytes]:
    """Return messages of one source, in sequence."""
    return [message(source, sequence, size) for sequence in range(1, number + 1)]


def random_cuts(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield the data in pieces of random sizes, most of them small."""
    start = 0
    while start < len(data):
        stop = start + chance.choice((1, 7, 31, 33, 500, 4096, 70_000))
        yield data[start:stop]
        start = stop
