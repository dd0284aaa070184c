"""A relay as a supervisor such as systemd has it: a socket that outlives its processes."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from threading import Event, Thread
from typing import Self

from tests.support import PATIENCE, TWISTD, clean_environment

SERVES = re.compile("signal relay .* serves")
FAULTS = re.compile("Traceback|Unhandled|damaged|critical")
BACKLOG = 4096
LOOK_SECONDS = 0.05
PASSING = """
import os, sys
os.dup2({descriptor}, 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="relay")
os.execv(sys.executable, [sys.executable, "-c", {program!r}, *sys.argv[1:]])
"""
"""Has a program begin with a descriptor that it gets as from systemd (sd_listen_fds(3))."""


class Process:
    """One process. Its log is read by a thread, or it would block when a pipe is full."""

    def __init__(self, path: Path, *options: str, passed: socket.socket | None = None) -> None:
        self.faults: list[str] = []
        self._last: deque[str] = deque(maxlen=3)
        self._served = Event()
        self._deadline = time.monotonic() + PATIENCE
        program = TWISTD
        if passed is not None:
            program = PASSING.format(descriptor=passed.fileno(), program=TWISTD)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", program, "-n", "--pidfile=", "signal-relay"),
                *("--socket", str(path), "--web", "none", *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=path.parent,
            env=clean_environment(),
            pass_fds=() if passed is None else (passed.fileno(),),
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_it_serves(self) -> None:
        while not self._served.wait(LOOK_SECONDS):
            ended = not self._reader.is_alive() or time.monotonic() > self._deadline
            assert not ended, f"the relay does not serve: {''.join(self._last)}"

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait_until_it_ends(self) -> None:
        """See that it ended in order, with nothing in its log that should not be there."""
        try:
            status = self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._reader.join(PATIENCE)
        assert status == 0, (status, self.faults)
        assert not self.faults, self.faults

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as log:
            for line in log:
                self._last.append(line)
                if SERVES.search(line):
                    self._served.set()
                elif FAULTS.search(line) or self.faults:
                    self.faults.append(line)


class Supervised:
    """A relay whose processes follow each other.

    ``held`` is whether the supervisor has the listening socket, and passes it to each.
    """

    def __init__(self, *options: str, held: bool) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="soak-"))
        self.socket = self._directory / "s.sock"
        self._options = options
        self._port = self._listen() if held else None
        self._process = self._start()

    def __enter__(self) -> Self:
        try:
            self._process.wait_until_it_serves()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait_until_it_ends()
        finally:
            if self._port is not None:
                self._port.close()
            shutil.rmtree(self._directory, ignore_errors=True)

    def restart(self) -> float:
        """Stop the process, start the next one when it has ended; return when it was told to."""
        begun = time.monotonic()
        self._process.terminate()
        self._process.wait_until_it_ends()
        self._process = self._start()
        self._process.wait_until_it_serves()
        return begun

    def hand_over(self) -> float:
        """Have another process take over; return when that was started."""
        begun, old = time.monotonic(), self._process
        self._process = self._start("--takeover")
        self._process.wait_until_it_serves()
        old.wait_until_it_ends()
        return begun

    def _start(self, *options: str) -> Process:
        return Process(self.socket, *self._options, *options, passed=self._port)

    def _listen(self) -> socket.socket:
        port = socket.socket(socket.AF_UNIX)
        port.bind(str(self.socket))
        port.listen(BACKLOG)
        return port
