"""Real processes around a bridge: a NATS server with JetStream, and the bridge itself."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.programs import tool
from tests.support import FOREGROUND, PATIENCE, Relay, clean_environment

LOOPBACK = "tcp:0:interface=127.0.0.1"


class NATSServer:
    """A nats-server on a port of its own, which it has again when it is started again."""

    def __init__(self, directory: Path, program: str | None = None) -> None:
        self._program = program or tool("nats-server")
        self._directory = directory
        self.port = -1  # whichever is free

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; it listens then."""
        self._run()

    def _run(self, *config: str, jetstream: bool = True) -> None:
        lines = ["host: 127.0.0.1", f"port: {self.port}", *config]
        if jetstream:
            # What streams may need is reserved for each: as a rule all have 10 GiB.
            store = self._directory / "jetstream"
            lines.append(f'jetstream {{ store_dir: "{store}", max_file_store: 10TB }}')
        (self._directory / "nats.conf").write_text("\n".join(lines))
        options = ("--config", str(self._directory / "nats.conf"))
        log = self._directory / "nats.log"  # a pipe that nobody reads would stop it
        with log.open("w") as file:
            self._process = subprocess.Popen([self._program, *options], stderr=file)
        deadline = time.monotonic() + PATIENCE
        while "Server is ready" not in log.read_text():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        found = re.search(r"Listening for client connections on 127.0.0.1:(\d+)", log.read_text())
        assert found, log.read_text()
        self.port = int(found[1])

    def freeze(self) -> None:
        """Have it do nothing more, with all its connections open."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait(PATIENCE)


class BridgeProcess(Relay):
    """A real ``twistd -n signal-relay-bridge``, with a side port unless the options have one."""

    def __init__(self, directory: Path, *options: str, python: Sequence[str] = FOREGROUND) -> None:
        super().__init__(directory=directory)
        if "--web" not in options:
            options = (*options, "--web", LOOPBACK)
        self._command = [sys.executable, *python, "signal-relay-bridge", *options]

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_for_log("signal relay bridge .* joins")
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        """Start the process."""
        self.process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            env=clean_environment(),
        )

    def end(self) -> tuple[int, str]:
        """Start a process that ends by itself; return its status and all that it says."""
        self.start()
        assert self.process.stdout is not None
        with self._patience():
            said = self.process.stdout.read()
        self.process.stdout.close()
        return self.process.wait(PATIENCE), said


def joining(relay: Path, nats: str, name: str = "desk") -> tuple[str, ...]:
    """Return the options by which a bridge joins a relay to a stream that it makes."""
    return ("--relay", str(relay), "--nats", nats, "--name", name, "--create-stream")
