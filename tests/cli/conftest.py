"""A real relay in a child process, and the commands as real processes beside it."""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parent.parent / "samples"
ROOT = Path(__file__).parent.parent.parent
PATIENCE = 20.0
"""Seconds after which something that should have happened counts as missing."""
COMMAND = [sys.executable, "-W", "error", "-m", "alphapulse_relay.cli"]


def read_until(descriptor: int, wanted: bytes) -> bytes:
    """Read until the wanted bytes, one at a time: what follows stays for the next reader."""
    seen, deadline = b"", time.monotonic() + PATIENCE
    while wanted not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))
        byte = os.read(descriptor, 1) if ready else b""
        assert byte, f"{wanted!r} did not come, but {seen[-2000:]!r}"
        seen += byte
    return seen


@contextmanager
def process(arguments: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone afterwards, its pipes closed."""
    with subprocess.Popen(arguments, cwd=ROOT, **options) as child:
        try:
            yield child
        finally:
            child.kill()


class Relay:
    """A running relay."""

    def __init__(self, path: str, child: subprocess.Popen[bytes]) -> None:
        self.path = path
        self.child = child

    def wait_for(self, text: str) -> None:
        """Wait for a line of its log."""
        read_until(self.child.stdout.fileno(), text.encode())
        read_until(self.child.stdout.fileno(), b"\n")

    def stop(self) -> None:
        self.child.terminate()
        self.child.wait(PATIENCE)

    def run(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end."""
        return run(*arguments, "--socket", self.path, **options)

    @contextmanager
    def consumer(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A tail that is connected."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with process([*COMMAND, "tail", "--socket", self.path, *arguments], **pipes) as child:
            self.wait_for(f"pid={child.pid} ")
            yield child

    def tail(self, *arguments: str, send: str) -> subprocess.CompletedProcess[bytes]:
        """Return what a tail made of a sample, once it ended by itself."""
        with self.consumer(*arguments) as child:
            sent = self.run("send", str(SAMPLES / send))
            assert sent.returncode == 0, sent.stderr
            out, err = child.communicate(timeout=PATIENCE)
            return subprocess.CompletedProcess([], child.returncode, out, err)


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run ``signal-relay`` to its end."""
    options = {"cwd": ROOT, "capture_output": True, "timeout": PATIENCE} | options
    return subprocess.run([*COMMAND, *arguments], check=False, **options)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Children that can be interrupted, even where a shell runs the tests in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room in the 108 bytes of a socket's path."""
    with tempfile.TemporaryDirectory(prefix="relay-", dir="/tmp") as directory:
        yield Path(directory)


@contextmanager
def running_relay(directory: str, max_peers: int) -> Iterator[Relay]:
    path = str(Path(directory) / "signals.sock")
    arguments = [sys.executable, "-u", "-m", "tests.cli.hub_process", path, str(max_peers)]
    with process(arguments, stdout=subprocess.PIPE) as child:
        relay = Relay(path, child)
        relay.wait_for("ready")
        yield relay


@pytest.fixture(scope="session")
def relay() -> Iterator[Relay]:
    """A relay that tests share: it must be left as it was found, without peers."""
    with (
        tempfile.TemporaryDirectory(prefix="relay-", dir="/tmp") as directory,
        running_relay(directory, 100) as relay,
    ):
        yield relay


@pytest.fixture
def start_relay(short_path: Path) -> Callable[..., Relay]:
    """Relays of the test's own."""
    with ExitStack() as stack:

        def start(max_peers: int = 100) -> Relay:
            return stack.enter_context(running_relay(str(short_path), max_peers))

        yield start
